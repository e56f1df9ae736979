"""Inputs and outputs of the commands: several files, folders, pipes, and nothing overwritten by accident.

In: the paths on the command line and `-o`. Out: pairs of (input, output), their bytes, and how they share the cores.
"""

import functools
import os
import stat
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from eocodec.errors import EocodecError
from eocodec.files import place_of, try_folder, used_folder

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from eocodec.model.bundle import Model

__all__ = [
    "Job",
    "Lanes",
    "check_new",
    "check_place",
    "inputs_argument",
    "is_stream",
    "json_option",
    "kept",
    "make_folders",
    "named",
    "output_option",
    "picture_suffix",
    "plan",
    "plan_one",
    "read_bytes",
    "write_bytes",
]

PIPE = "-"
MOST = 64  # pictures that are worked at side by side
LARGE = 1 << 22  # pixels from which on a picture is worked at alone, with all threads, for the sake of memory

inputs_argument = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
output_option = click.option(
    "-o", "--output", metavar="FILE|DIR", help="Output file, folder, or - for standard output."
)
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite existing files.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per input.")
recursive_option = click.option(
    "-r", "--recursive", is_flag=True, help="Take what is in folders, and below them, but for the output folder."
)
times_option = click.option("--keep-times", is_flag=True, help="Give outputs the time stamps of their inputs.")
threads_option = click.option("--threads", type=click.IntRange(min=0), default=0, help="Threads; 0: one per core.")
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cuda", "cpu"]),
    default="auto",
    show_default=True,
    help="Where the transform runs; auto: CUDA if it works. Entropy coding always runs on the CPU.",
)


def complete_model(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """What a shell offers for a model: the names of the installed ones, and files."""
    from click.shell_completion import CompletionItem

    from eocodec.model.shelf import installed_models

    names = [CompletionItem(n) for n in installed_models() if n.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


model_option = click.option(
    "--model", default=None, metavar="NAME|PATH", help="Model name or .eocm bundle.", shell_complete=complete_model
)


@dataclass(frozen=True)
class Job:
    """One input and where its result goes; `-` is a pipe, and nothing is where a folder goes that cannot be read.

    `refused` says why nothing is done with it, `in_folder` that the folder it goes into may have to be made.
    """

    source: str
    target: str
    refused: str | None = None
    in_folder: bool = False


def plan(
    inputs: Sequence[str],
    output: str | None,
    suffix: str,
    force: bool,
    *,
    recursive: bool = False,
    wanted: Callable[[str], bool] = lambda name: False,
    written: Callable[[str], bool] | None = None,
) -> list[Job]:
    """Pair inputs with outputs.

    A job whose output must not, or cannot, be written has the reason in `refused`; the others go on. So has a folder
    below an input that cannot be read.

    Arguments:
        inputs: paths, or `-`; the second of two is the output if its name says so and there is no other.
        output: a file (one input), a folder, `-`, or None for the input's name with `suffix`.
        suffix: of derived names, such as ".eoc".
        force: allow existing files to be replaced.
        recursive: take the files below folders.
        wanted: whether a file below a folder is an input, by its path; what is in the output folder is none.
        written: whether a name is that of an output; default: it ends in `suffix`.

    Raises:
        EocodecError: the outputs cannot be told apart, or there are no inputs in a folder.
    """
    wanted = _elsewhere(wanted, output, inputs)
    written = written or (lambda name: name.lower().endswith(suffix))
    if output is None and len(inputs) == 2 and written(inputs[1]) and not written(inputs[0]):
        inputs, output = inputs[:1], inputs[1]
    sources, locked = _found(inputs, wanted) if recursive else ([(source, Path()) for source in inputs], {})
    if output is not None and _is_standard_output(output):
        output = PIPE  # what is said must not get between its bytes
    folder = output is not None and output != PIPE and (recursive or os.path.isdir(output) or output.endswith("/"))
    if output not in (None, PIPE) and not folder and len(sources) > 1:
        raise EocodecError(f"{output} is not a folder; several inputs need one")
    if inputs.count(PIPE) > 1 or (output == PIPE and len(sources) > 1):
        raise EocodecError("only one input can go through a pipe")
    pairs = Counter((source, _target(source, below, output, folder, suffix)) for source, below in sources)
    times = Counter(_place(target) for _, target in pairs)
    reason = functools.cache(_unwritable)
    jobs = [Job(folder, "", why) for folder, why in locked.items()]
    for (source, target), given in pairs.items():
        refused = "it is given more than once" if given > 1 else None
        if times[_place(target)] > 1:
            refused = f"several inputs would be written to {target}"
        refused = refused or _refusal(source, target, force)
        if not refused and _is_readable(source):  # else the reader says so
            refused = _unplaced(target, reason, folder)
        jobs.append(Job(source, target, refused, folder))
    return jobs


def plan_one(sources: Sequence[str], output: str, force: bool) -> str:
    """Where the one result of some inputs goes, for commands that do not go on without it.

    Raises:
        EocodecError: it must not be written there.
    """
    jobs = [plan([source], output, Path(output).suffix, force)[0] for source in sources]
    for job in jobs:
        if job.refused:
            raise EocodecError(job.refused)
    return jobs[0].target


def with_name(source: str, message: str) -> str:
    """A sentence that begins with the name of the input that it is about."""
    has_name = message.startswith((f"{source}: ", f"{source} is the input itself"))
    return message if has_name else f"{source}: {message}"


@contextmanager
def named(source: str) -> Iterator[None]:
    """Let errors say which input they are about.

    Raises:
        EocodecError: as what is done with the input, with its name before the sentence.
    """
    try:
        yield
    except EocodecError as e:
        raise EocodecError(with_name(source, str(e))) from None


def _found(inputs: Sequence[str], wanted: Callable[[str], bool]) -> tuple[list[tuple[str, Path]], dict[str, str]]:
    """The inputs, with the wanted files in place of folders, and in which folder below the input each lies.

    Beside them stand the folders that cannot be read, and why.

    Raises:
        EocodecError: there is none in a folder that can be read.
    """
    found: list[tuple[str, Path]] = []
    locked: dict[str, str] = {}
    for source in inputs:
        if source == PIPE or not os.path.isdir(source):
            found.append((source, Path()))
            continue
        errors: list[OSError] = []
        names = [Path(at, name) for at, _, names in os.walk(source, onerror=errors.append) for name in names]
        below = [p for p in sorted(names) if wanted(str(p)) and _can_be_input(p)]
        if not below and not errors:
            raise EocodecError(f"{source}: nothing in this folder can be an input")
        found += [(str(p), p.relative_to(source).parent) for p in below]
        locked |= {str(Path(e.filename)): f"cannot be read ({e.strerror})" for e in errors}
    return found, locked


def _can_be_input(path: Path) -> bool:
    """Whether a path is that of a file, or of something whose reader will say why nobody can tell."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError:
        return True
    except OSError:  # a link to nothing
        return False


def _place(target: str) -> str:
    """What tells an output from others, however it is spelled and whatever links lead to it."""
    return target if target == PIPE else os.path.realpath(target)


def _elsewhere(wanted: Callable[[str], bool], output: str | None, inputs: Sequence[str]) -> Callable[[str], bool]:
    """As `wanted`, but for what is in the output folder, unless that is an input itself or holds one."""
    if output in (None, PIPE):
        return wanted
    folder = Path(os.path.realpath(str(output)))
    if any(Path(os.path.realpath(source)).is_relative_to(folder) for source in inputs if source != PIPE):
        return wanted
    return lambda name: wanted(name) and not Path(os.path.realpath(name)).is_relative_to(folder)


def _is_standard_output(name: str) -> bool:
    """Whether a name such as /dev/stdout means what standard output goes to, if that is a file or a pipe."""
    try:
        there, here = os.stat(name), os.fstat(1)
    except OSError:
        return False
    return os.path.samestat(there, here) and not stat.S_ISCHR(there.st_mode)


def _target(source: str, below: Path, output: str | None, folder: bool, suffix: str) -> str:
    if output == PIPE or (source == PIPE and output is None):
        return PIPE
    if output is not None and not folder:
        return output
    name = Path("stdin" if source == PIPE else source)
    base = Path(str(output)) / below if folder else name.parent
    return str(base / f"{name.stem if name.suffix else name.name}{suffix}")


def _refusal(source: str, target: str, force: bool) -> str | None:
    """Why an output may not be written: it is the input, or a file that nobody said may be replaced."""
    if target == PIPE or not os.path.exists(target):  # where one may not look, the writer says so
        return None
    if source != PIPE and os.path.exists(source) and os.path.samefile(target, source):
        return f"{target} is the input itself; choose another output with -o"
    if os.path.isfile(target) and not force:  # into devices and pipes one writes
        return _taken(target)
    return None


def _taken(target: str) -> str:
    return f"{target} exists; use --force to overwrite it, or -o to choose another name"


@contextmanager
def kept(target: str) -> Iterator[None]:
    """Let a file that is not replaced, since it has appeared after the outputs were checked, be refused as before.

    Raises:
        EocodecError: it exists.
    """
    try:
        yield
    except FileExistsError:
        raise EocodecError(_taken(target)) from None


def _is_readable(source: str) -> bool:
    return source == PIPE or os.access(source, os.R_OK)


def _unplaced(target: str, reason: Callable[[Path], str | None], can_be_made: bool = False) -> str | None:
    """Why no file can be made where an output goes.

    Arguments:
        target: path, or `-`.
        reason: as :func:`_unwritable`.
        can_be_made: whether a missing folder is no reason.
    """
    if target == PIPE:
        return None
    try:
        folder = place_of(target)
        why = None if folder is None or (can_be_made and not folder.is_dir()) else reason(folder)
    except OSError as e:
        why = e.strerror
    return why and f"{target}: cannot be written ({why})"


def _unwritable(folder: Path) -> str | None:
    """Why no file can be made in a folder."""
    try:
        try_folder(folder)
    except OSError as e:
        return e.strerror
    return None


def check_place(target: str) -> None:
    """See that a file can be made where an output goes.

    Raises:
        EocodecError: it cannot.
    """
    refused = _unplaced(target, _unwritable)
    if refused:
        raise EocodecError(refused)


def make_folders(jobs: Sequence[Job]) -> None:
    """Make the folders that results go into; those in which nothing is at the end of the command go again.

    Raises:
        EocodecError: one cannot be made.
    """
    context = click.get_current_context()
    for folder in {Path(j.target).parent for j in jobs if j.in_folder}:
        try:
            context.with_resource(used_folder(folder))
        except OSError as e:
            raise EocodecError(f"{folder}: cannot be made ({e.strerror})") from None


def check_new(target: str, force: bool) -> None:
    """See that an output that is a file may be written.

    Raises:
        EocodecError: it exists, and `force` is not given.
    """
    refused = _refusal(PIPE, target, force)
    if refused:
        raise EocodecError(refused)


def read_bytes(source: str) -> bytes:
    """Content of a file or of standard input.

    Raises:
        EocodecError: missing, a folder, or not readable.
    """
    if source == PIPE:
        if sys.stdin is None:
            raise EocodecError("standard input is closed")
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except FileNotFoundError:
        raise EocodecError(f"{source}: no such file") from None
    except IsADirectoryError:
        raise EocodecError(f"{source}: is a folder") from None
    except OSError as e:
        raise EocodecError(f"{source}: cannot be read ({e.strerror or e})") from None


def is_stream(name: str) -> bool:
    """Whether a path can be read or written once only, from its beginning to its end, as pipes and devices can."""
    return os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name)


def picture_suffix(target: str) -> str:
    """The extension that says what kind of picture to write: PNG into pipes and devices whose name says nothing.

    Raises:
        ImageError: pictures cannot be written so.
    """
    from eocodec.writing import check_suffix  # takes its time

    suffix = Path(target).suffix
    if target == PIPE or (not suffix and is_stream(target)):
        suffix = ".png"
    check_suffix(suffix)
    return suffix


def write_bytes(target: str, content: bytes, force: bool, times_of: str | None = None) -> None:
    """Write to a file, all or nothing, or to standard output.

    Arguments:
        target: path, or `-`.
        content: of the file.
        force: replace a file that has appeared since the outputs were checked.
        times_of: a file whose times of change and access the new one gets.

    Raises:
        EocodecError: it cannot be written, or exists and is not to be replaced.
    """
    from eocodec.image import atomic_write
    from eocodec_cli.work import writing

    if target != PIPE:
        with writing(), kept(target):
            atomic_write(Path(target), content, new=not force)
        if times_of not in (None, PIPE) and os.path.isfile(target):
            then = os.stat(str(times_of))
            os.utime(target, ns=(then.st_atime_ns, then.st_mtime_ns))
        return
    if sys.stdout is None:
        raise EocodecError("standard output is closed")
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


class Lanes:
    """How several pictures share the cores: with at least as many pictures as threads, one thread for each picture.

    That is faster than one picture after another on all threads, since not everything in a picture can be shared out.
    Large pictures still come one at a time, on all threads.

    Arguments:
        pictures: how many there are.
        threads, device: as on the command line; 0 threads are one per core.
    """

    def __init__(self, pictures: int, threads: int, device: str) -> None:
        from eocodec.cores import cores

        self.device = device
        lanes = min(threads or cores(), MOST)
        self.workers = lanes if pictures >= lanes else 1
        self.threads = threads if self.workers == 1 else 1  # for a picture that is not large
        self._all = threads
        self._turn = threading.Condition()
        self._small, self._large = 0, False

    def load(self, name: str) -> "Model":
        """The model for pictures that are not large; what is wrong with it or the device shows here, not file by file.

        CUDA is looked for before there are several threads, since its loader is only kept from printing in one.
        """
        from eocodec.model.library import load_model

        model = load_model(name, self.threads, device=self.device)
        if self.workers > 1:
            model.settle()
        return model

    @contextmanager
    def turn(self, pixels: int) -> Iterator[int]:
        """Wait for the lane of a picture; gives the number of threads to work with."""
        if self.workers == 1:
            yield self.threads
            return
        large = pixels >= LARGE
        with self._turn:
            self._turn.wait_for(lambda: not self._large and not (large and self._small))
            if large:
                self._large = True
            else:
                self._small += 1
        try:
            yield self._all if large else self.threads
        finally:
            with self._turn:
                if large:
                    self._large = False
                else:
                    self._small -= 1
                self._turn.notify_all()

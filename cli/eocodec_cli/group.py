"""The group of commands, and how a command ends: one sentence and an exit code for whatever goes wrong.

In: the arguments. Out: the exit code: 0, 1 for errors, 2 for wrong usage, 130 when interrupted.
"""

import atexit
import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Iterator

import click

import eocodec
from eocodec_cli import COMMANDS
from eocodec_cli.shown import printable

__all__ = ["alone", "cli", "run"]

NO_MEMORY = "not enough memory for this picture"
# What loaders and the threading library say when the address space or the number of processes is exhausted.
MEMORY_SIGNS = ("cannot allocate memory", "failed to map segment", "can't start new thread", "cannot enlarge memory")


# Commands whose answer is what they print. Others print what they have done, which is as well done if nobody reads it.
PRINTED = {"completion", "demo", "doctor", "info", "inspect", "lab", "models"}
PRINTING_OPTIONS = {"--json", "--help", "-h", "--version"}

_alone = False


def alone() -> bool:
    """Whether the process is there for the command that runs, and for nothing else."""
    return _alone


class Lazy(click.Group):
    """A group whose commands are imported when they are called; the list needs no import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"eocodec_cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first argument; an unknown one comes with the name that is meant, probably."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as e:
            import difflib  # takes its time

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            raise click.UsageError(f"{e.message} Did you mean {near[0]!r}?" if near else e.message, ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from :data:`COMMANDS`."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(eocodec.__version__, package_name="eocodec")
def cli() -> None:
    """Compress and denoise images with entropy-ordered flows.

    \b
    Examples:
      eocodec compress photo.jpg                 writes photo.eoc
      eocodec decompress photo.eoc -o back.png
      eocodec denoise noisy.png -o clean.png
    """


def run(arguments: list[str] | None = None) -> None:
    """Run a command and end the process with its code where that is not 0."""
    global _alone
    _alone = arguments is None
    _hold_streams()
    with _whole_streams():
        number = _run(arguments)
        _leave_at_once(number)
    if number:
        sys.exit(number)


def _run(arguments: list[str] | None) -> int:
    """Run a command and say what ends it; gives the exit code."""
    try:
        _check_output(sys.argv[1:] if arguments is None else arguments)
        code = cli.main(args=arguments, prog_name="eocodec", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written has to show here, not when the interpreter ends
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    except (click.Abort, KeyboardInterrupt):
        _tell("interrupted")
        code = 130
    except (Exception, SystemExit) as e:
        code = _ended_by(e)
    return code if isinstance(code, int) else 0  # click returns the code of an Exit


def _ended_by(e: BaseException) -> int:
    """Say what ended a command; gives the exit code.

    Raises:
        BaseException: `e`, if it is a fault of the program.
    """
    from eocodec.errors import EocodecError

    if isinstance(e, EocodecError):
        _tell(str(e))
    elif lacks_memory(e):
        _tell(NO_MEMORY)
    elif isinstance(e, OSError):
        _discard_output()
        if e.errno != errno.EPIPE:  # the reader has closed the pipe, which is no error
            why = e.strerror or str(e)
            _tell(f"{e.filename}: {why}" if e.filename else f"standard output: cannot be written ({why})")
    elif isinstance(e, SystemExit) and isinstance(e.code, int):
        _discard_output()  # click ends so when a pipe is closed
        return e.code
    else:
        raise e
    return 1


def lacks_memory(e: BaseException) -> bool:
    """Whether an error of Python, the loader or the threading library means that memory does not suffice."""
    if isinstance(e, MemoryError) or (isinstance(e, OSError) and e.errno == errno.ENOMEM):
        return True
    return isinstance(e, ImportError | RuntimeError) and any(sign in str(e).lower() for sign in MEMORY_SIGNS)


def _tell(message: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(printable(f"eocodec: {message}"), err=True)


def _hold_streams() -> None:
    """Open the null device in place of standard streams that are closed: another file would take their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


@contextlib.contextmanager
def _whole_streams() -> Iterator[None]:
    """Let standard streams write all they are given, or raise.

    With PYTHONUNBUFFERED or `python -u` they write straight to the file, and nobody looks at how much of it went there:
    on a disk that fills up, the rest would be lost in silence. A buffer does look. Lines still go out at once.
    """
    before = sys.stdout, sys.stderr
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        if isinstance(getattr(stream, "buffer", None), io.FileIO):
            raw = open(stream.fileno(), "wb", closefd=False)  # noqa: SIM115  # the descriptor stays the stream's
            setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=True))
    try:
        yield
    finally:
        after = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = before
        for new, old in zip(after, before, strict=True):
            if new is not old:
                with contextlib.suppress(OSError, ValueError):  # said already, where anything could be said
                    new.flush()


def _check_output(arguments: list[str]) -> None:
    """See that somebody can read what is asked for: `click.echo` drops it in silence where the stream is closed.

    Raises:
        EocodecError: standard output is closed, and the answer would go there.
    """
    if sys.stdout is None and (PRINTED.intersection(arguments[:1]) or PRINTING_OPTIONS.intersection(arguments)):
        from eocodec.errors import EocodecError

        raise EocodecError("standard output is closed")


def _discard_output() -> None:
    """Send what is still to be written to standard output nowhere, so that the interpreter ends in silence."""
    if sys.stdout is None:
        return
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _leave_at_once(code: int) -> None:
    """End the process without taking it apart, where that saves time.

    Where threads still work at pictures, the interpreter would wait for them. Where all is done and the process is
    there for this command :func:`alone`, sessions and buffers would be freed one by one, for a tenth of a second.
    """
    work = sys.modules.get("eocodec_cli.work")
    if work is None:
        return
    if (working := work.busy()) or (alone() and work.done()):
        if not working:
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)

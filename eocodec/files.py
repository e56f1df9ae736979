"""Writing files so that a name stands for what it was or for all of the new content, never for a part of it.

In: a path and bytes, or a function's worth of writing to an open file. Out: the file. Errors are those of the operating
system (:class:`OSError`); callers make sentences of them.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = [
    "TEMPORARY",
    "atomic_file",
    "atomic_write",
    "lock_folder",
    "make_folder",
    "own_folder",
    "place_of",
    "try_folder",
    "used_folder",
]

TEMPORARY = r"\.[0-9a-f]{16}\.partial"
"""Regular expression of the names of unfinished files; a process that is killed leaves one behind."""

LINKS = 40  # symbolic links that are followed, as on Linux


def atomic_write(
    path: str | os.PathLike[str], data: bytes, folder: str | os.PathLike[str] | None = None, *, new: bool = False
) -> None:
    """Write a file whole; see :func:`atomic_file`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     atomic_write(f"{folder}/x", b"content")
        ...     Path(folder, "x").read_bytes()
        b'content'
    """
    with atomic_file(path, folder, new=new) as file:
        file.write(data)


@contextmanager
def atomic_file(
    path: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None, *, new: bool = False
) -> Iterator[IO[bytes]]:
    """Open a file for writing that gets its name, and reaches the disk, when the block ends.

    An exception in the block, KeyboardInterrupt included, leaves what was there before and nothing else. A file that
    exists keeps its mode and, where this process may give them, its owner and group; a new one has the mode that the
    umask leaves. Symbolic links are followed. What is not a regular file (a device, a pipe, an open descriptor such as
    /dev/stdout) is written to directly.

    Arguments:
        path: of the file.
        folder: where the unfinished file is kept, in the same filesystem; default: beside the file.
        new: replace no file, not even one that appears while the block runs.

    Raises:
        FileExistsError: there is a file, and the one to be written is to be `new`.
        OSError: the file cannot be written (folder missing, disk full, no permission); it names `path`.
    """
    target, before = _target(Path(path))
    if target is None:
        with _naming(path), open(path, "wb") as file:
            yield file
        return
    if new and before is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
    partial = Path(target.parent if folder is None or os.path.islink(path) else folder, _name())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with _naming(path, partial, target):
            with os.fdopen(os.open(partial, flags, 0o666), "wb") as file:  # the system applies the umask
                yield file
                file.flush()
                os.fsync(file.fileno())
            if before is not None:
                _give(partial, before)
                os.chmod(partial, stat.S_IMODE(before.st_mode) & 0o777)
            if new:
                _place_new(partial, target)
            else:
                os.replace(partial, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder, if it is not there, and see that files can be written to it.

    Raises:
        OSError: it cannot be made, or not be written to; it names `folder`, or the one above that cannot be made.

    Example:
        >>> make_folder(os.devnull)
        Traceback (most recent call last):
        FileExistsError: [Errno 17] File exists: '/dev/null'
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    try_folder(folder)


@contextmanager
def used_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Make a folder as :func:`make_folder` does; what was made of it goes again if it is empty when the block ends.

    Raises:
        OSError: see :func:`make_folder`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with used_folder(f"{folder}/x/y"):
        ...         os.listdir(folder)
        ...     os.listdir(folder)
        ['x']
        []
    """
    made = [place for place in (Path(folder), *Path(folder).parents) if not os.path.lexists(place)]
    try:
        make_folder(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            for place in made:
                place.rmdir()


@contextmanager
def own_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes out of a folder (:func:`lock_folder`) that is made and removed by :func:`used_folder`.

    Raises:
        BlockingIOError: it is another's.
        OSError: it cannot be made, or not be written to.
    """
    with used_folder(folder):
        held = lock_folder(folder)
        try:
            yield
        finally:
            if held is not None:
                os.close(held)


def lock_folder(folder: str | os.PathLike[str]) -> int | None:
    """Make a folder this process's own, until the descriptor is closed; None where the system has no locks.

    Raises:
        BlockingIOError: it is another's.
        OSError: it cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # a filesystem without locks
        os.close(handle)
        return None
    return handle


def place_of(path: str | os.PathLike[str]) -> Path | None:
    """The folder in which :func:`atomic_file` makes a file; None for what it writes to directly.

    Raises:
        OSError: the path's links go round in circles, or a folder may not be entered.

    Example:
        >>> place_of("/x/y").as_posix(), place_of(os.devnull)
        ('/x', None)
    """
    target, _ = _target(Path(path))
    return None if target is None else target.parent


def try_folder(folder: str | os.PathLike[str]) -> None:
    """See that files can be written to a folder.

    Raises:
        OSError: they cannot, or it is missing; it names `folder`.
    """
    trial = Path(folder, _name())
    with _naming(folder, trial):
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        trial.unlink()


def _place_new(partial: Path, target: Path) -> None:
    """Give a finished file its name, unless something has that name by now.

    Where there are no hard links, as on FAT, an empty file holds the name until the finished one takes its place.

    Raises:
        FileExistsError: something has the name.
        OSError: the file cannot be put there.
    """
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # the latter where Python knows no hard links
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            os.replace(partial, target)
        except BaseException:
            os.unlink(target)
            raise
    else:
        os.unlink(partial)


@contextmanager
def _naming(path: str | os.PathLike[str], *inner: Path) -> Iterator[None]:
    """Let errors name the path that the caller knows, where they name a file of this module or, as writes do, none.

    Raises:
        OSError: as what is done in the block.
    """
    try:
        try:
            yield
        except RuntimeError as e:
            if isinstance(e.__context__, OSError) and not e.__suppress_context__:  # `torch.save` ends so on a full disk
                raise e.__context__ from None
            raise
    except OSError as e:
        if e.filename in (None, *map(str, inner)):
            e.filename, e.filename2 = os.fspath(path), None
        raise


def _give(path: Path, before: os.stat_result) -> None:
    """Give a file the owner and group of the one that it replaces, or the group alone where no more is allowed."""
    now = os.stat(path)
    if not hasattr(os, "chown") or (now.st_uid, now.st_gid) == (before.st_uid, before.st_gid):
        return
    for owner in (before.st_uid, -1):
        with contextlib.suppress(OSError):
            os.chown(path, owner, before.st_gid)
            return


def _name() -> str:
    """A new name in :data:`TEMPORARY`; it does not grow with the file's, which may be as long as names can be."""
    return f".{os.urandom(8).hex()}.partial"


def _target(path: Path) -> tuple[Path | None, os.stat_result | None]:
    """What a path's links lead to, and what is there; None for a target that cannot be replaced by a file.

    Raises:
        OSError: the links go round in circles, or a folder may not be entered.
    """
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    if before is not None and not stat.S_ISREG(before.st_mode):
        return None, before
    for _ in range(LINKS):
        if _is_descriptor(path):
            return None, before
        if not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    return path, before


def _is_descriptor(path: Path) -> bool:
    """Whether a path stands for an open file of a process; a file put in its place would miss that file."""
    folder = os.path.realpath(path.parent)
    return folder == "/dev/fd" or (folder.startswith("/proc/") and os.path.basename(folder) == "fd")

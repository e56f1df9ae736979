"""The pictures of a corpus.

In: a folder, a glob or an fsspec URL. Out: the store that they are in, and a :class:`Source` for each.

Names in sources and rows are text that UTF-8 can have, which names of files need not be: see :func:`as_text`.
"""

import fnmatch
import os
import re
import stat
from dataclasses import dataclass
from typing import Any

from eocodec.errors import EocodecError, reason
from eocodec.kinds import SUFFIXES
from eocodec.storage import Store

__all__ = ["Source", "as_name", "as_text", "pictures"]

WILDCARDS = "*?["  # make a path a glob
VERSIONS = ("mtime", "ETag", "etag", "md5Hash", "crc32c", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to be coded: its name relative to the corpus, and what tells this version of it from another one.

    `made` is the size in bytes of the output that a batch has made of it before, 0 if none has.
    """

    name: str
    stamp: str
    made: int = 0


def as_text(name: str) -> str:
    r"""The name of a file as text that UTF-8 can have: bytes that are not UTF-8 stand as \xNN.

    A name that looks as if it had such bytes gets a backslash of that kind, so that no two names become one.

    Example:
        >>> as_text(b"caf\xe9".decode("utf-8", "surrogateescape")), as_text(r"caf\xe9"), as_text("café")
        ('caf\\xe9', 'caf\\x5cxe9', 'café')
    """
    text = re.sub(r"\\(?=x(?:5c|[89a-f][0-9a-f]))", r"\\x5c", name)
    text = re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return text.encode("utf-8", "backslashreplace").decode()  # others are not found when they are read


def as_name(text: str) -> str:
    r"""The name of a file from what :func:`as_text` has made of it.

    Example:
        >>> as_name(as_text(r"caf\xe9")), as_name(as_text("\udce9")) == "\udce9"
        ('caf\\xe9', True)
    """
    return re.sub(
        r"\\x(5c|[89a-f][0-9a-f])",
        lambda found: bytes([int(found[1], 16)]).decode("utf-8", "surrogateescape"),
        text,
    )


def pictures(url: str) -> tuple[Store, list[Source], dict[str, str]]:
    """The corpus at a URL: the folder that names are relative to, and its pictures, sorted by name.

    Beside them stand the names of the folders in it that cannot be listed, and why.

    Arguments:
        url: a folder, searched recursively for :data:`eocodec.kinds.SUFFIXES`; or a glob (`*`, `?`, `[…]`, `**`),
            whose files are taken whatever their suffix, and whose folders are searched.

    Raises:
        EocodecError: there is none.
    """
    store = Store.at(url)
    filesystem, path = store.filesystem, store.root
    root, found = path, None
    locked: dict[str, OSError] = {}
    try:
        if filesystem.isdir(path):
            found = _below(store, path, locked)
            if path in locked:
                raise locked[path]
        elif any(c in path for c in WILDCARDS):
            while any(c in root for c in WILDCARDS):
                root = root.rpartition("/")[0]
            found = {}
            for name, entry in _matching(store, path, locked).items():
                found |= _below(store, name, locked) if entry["type"] == "directory" else {name: entry}
            if store.is_local:  # which takes links to folders for files
                found = {name: _entry(name) for name in found if not os.path.isdir(name)}
    except Exception as e:  # each filesystem has exceptions of its own
        raise EocodecError(f"{url}: cannot be listed ({reason(e)})") from None
    if not found and not locked:
        raise EocodecError(f"{url}: {'there is no such folder' if found is None else 'there are no pictures'}")

    def relative(path: str) -> str:
        return as_text(path.removeprefix(root).removeprefix("/"))

    names = {relative(path): entry for path, entry in (found or {}).items()}
    sources = [Source(name, _stamp(entry)) for name, entry in sorted(names.items())]
    return store.moved(root), sources, {relative(p): f"cannot be listed ({reason(e)})" for p, e in locked.items()}


def _below(store: Store, folder: str, locked: dict[str, OSError]) -> dict[str, dict[str, Any]]:
    """Paths of the pictures below a folder, with what is known of them. Links to files are followed, not to folders.

    Folders of the operating system that cannot be listed are added to `locked`.
    """
    if store.is_local:
        names = (
            os.path.join(at, name)
            for at, _, files in os.walk(folder, onerror=lambda e: locked.update({str(e.filename): e}))
            for name in files
        )
        return {name: _entry(name) for name in names if _is_picture(name)}
    return {name: entry for name, entry in store.filesystem.find(folder, detail=True).items() if _is_picture(name)}


def _matching(store: Store, pattern: str, locked: dict[str, OSError]) -> dict[str, dict[str, Any]]:
    """Paths that match a glob, with what is known of them.

    Folders of the operating system that cannot be listed and may hold some are added to `locked`: fsspec skips them.
    """
    if not store.is_local:
        matching: dict[str, dict[str, Any]] = store.filesystem.glob(pattern, detail=True)
        return matching
    from fsspec.implementations.local import LocalFileSystem

    class Noting(LocalFileSystem):  # type: ignore[misc]
        """Local files; folders that cannot be listed are noted."""

        cachable = False

        def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
            """What is in a folder."""
            try:
                return super().ls(path, detail, **options)
            except PermissionError as e:
                if _may_hold(pattern, path):
                    locked[path] = e
                raise

    matching = Noting().glob(pattern, detail=True)
    return matching


def _may_hold(pattern: str, folder: str) -> bool:
    """Whether paths that match a glob may lie in a folder."""
    for part, name in zip(pattern.split("/"), folder.split("/"), strict=False):
        if "**" in part:
            return True
        if not fnmatch.fnmatchcase(name, part):
            return False
    return True


def _entry(path: str) -> dict[str, Any]:
    """What fsspec has of a file, with nanoseconds, of the file that a link leads to."""
    try:
        found = os.stat(path)
    except OSError:
        return {"size": None, "mtime": None}  # reading it will tell why
    return {"size": found.st_size, "mtime": found.st_mtime_ns if stat.S_ISREG(found.st_mode) else None}


def _is_picture(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _stamp(entry: dict[str, Any]) -> str:
    version = next((entry[key] for key in VERSIONS if entry.get(key) is not None), "")
    return f"{entry.get('size')} {version}".strip()

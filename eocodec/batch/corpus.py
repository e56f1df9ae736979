"""The pictures of a corpus.

In: a folder, a glob or an fsspec URL. Out: the store that they are in, and a :class:`Source` for each.
"""

import os
import stat
from dataclasses import dataclass
from typing import Any

from eocodec.errors import EocodecError, reason
from eocodec.kinds import SUFFIXES
from eocodec.storage import Store

__all__ = ["Source", "pictures"]

WILDCARDS = "*?["  # make a path a glob
VERSIONS = ("mtime", "ETag", "etag", "md5Hash", "crc32c", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to be coded: its name relative to the corpus, and what tells this version of it from another one."""

    name: str
    stamp: str


def pictures(url: str) -> tuple[Store, list[Source]]:
    """The corpus at a URL: the folder that names are relative to, and its pictures, sorted by name.

    Arguments:
        url: a folder, searched recursively for :data:`eocodec.kinds.SUFFIXES`; or a glob (`*`, `?`, `[…]`, `**`),
            whose files are taken whatever their suffix, and whose folders are searched.

    Raises:
        EocodecError: there is none.
    """
    store = Store.at(url)
    filesystem, path = store.filesystem, store.root
    root, found = path, None
    try:
        if filesystem.isdir(path):
            found = _below(store, path)
        elif any(c in path for c in WILDCARDS):
            while any(c in root for c in WILDCARDS):
                root = root.rpartition("/")[0]
            found = {}
            for name, entry in filesystem.glob(path, detail=True).items():
                found |= _below(store, name) if entry["type"] == "directory" else {name: entry}
            if store.is_local:  # which takes links to folders for files
                found = {name: _entry(name) for name in found if not os.path.isdir(name)}
    except Exception as e:  # each filesystem has exceptions of its own
        raise EocodecError(f"{url}: cannot be listed ({reason(e)})") from None
    if not found:
        raise EocodecError(f"{url}: {'there is no such folder' if found is None else 'there are no pictures'}")
    names = {_writable(path.removeprefix(root).removeprefix("/")): entry for path, entry in found.items()}
    return store.moved(root), [Source(name, _stamp(entry)) for name, entry in sorted(names.items())]


def _below(store: Store, folder: str) -> dict[str, dict[str, Any]]:
    """Paths of the pictures below a folder, with what is known of them. Links to files are followed, not to folders."""
    if store.is_local:
        names = (os.path.join(at, name) for at, _, files in os.walk(folder, onerror=_refuse) for name in files)
        return {name: _entry(name) for name in names if _is_picture(name)}
    return {name: entry for name, entry in store.filesystem.find(folder, detail=True).items() if _is_picture(name)}


def _refuse(e: OSError) -> None:
    raise e


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


def _writable(name: str) -> str:
    """A name as UTF-8 can have it; others are not found when they are read."""
    return name.encode("utf-8", "backslashreplace").decode()

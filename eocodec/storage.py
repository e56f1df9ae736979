"""A folder on this machine or elsewhere, by its path or fsspec URL (extras `batch` and `serve`).

In: a path or URL, names, bytes. Out: bytes, sizes. Files are read and written whole: a name stands for what it was or
for all of the new content. Importing this module does not import fsspec.
"""

import contextlib
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eocodec import files
from eocodec.cached import cached_property
from eocodec.errors import EocodecError, reason

__all__ = ["PARTIAL_NAME", "State", "Store"]

PARTIAL_NAME = rf"[0-9a-f]{{32}}|{files.TEMPORARY}"
"""Regular expression of the names of unfinished files in the folder that is kept for them."""

ATOMIC_PUT = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "oci", "oss", "tos"}  # protocols


@dataclass(frozen=True)
class State:
    """What is at a name: `version` changes with every write, `size` is in bytes, `modified` in seconds since 1970."""

    version: str
    size: int
    modified: float


@dataclass(frozen=True)
class Store:
    """A folder. Errors of its methods are those of the filesystem: OSError for local ones and most others.

    Arguments:
        url: absolute path, or an fsspec URL such as s3://bucket/folder.
        root: the folder in the filesystem's own terms.
        partial: folder in it for files that are being written; empty: beside their final names.
    """

    url: str
    root: str
    partial: str = ""

    @staticmethod
    def at(url: str, partial: str = "") -> "Store":
        """The store of a path, relative or not, or of a URL.

        Raises:
            EocodecError: unknown protocol, or a package for it is missing.
        """
        filesystem, root = _open(url)
        return Store(root if _is_local(filesystem) else _with_protocol(filesystem, url, root), root, partial)

    def moved(self, root: str) -> "Store":
        """The store of another folder of the same filesystem, given in its own terms."""
        return replace(self, url=root if self.is_local else _with_protocol(self.filesystem, self.url, root), root=root)

    @cached_property
    def filesystem(self) -> Any:
        """The fsspec filesystem."""
        return _open(self.url)[0]

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of the operating system."""
        return _is_local(self.filesystem)

    @property
    def is_private(self) -> bool:
        """Whether other processes cannot see it."""
        return "memory" in _protocols(self.filesystem)

    def path(self, name: str) -> str:
        """The filesystem's path of a file; of the folder for the empty name."""
        return f"{self.root.rstrip('/')}/{name}" if self.root else name

    def where(self, name: str) -> str:
        """How a message names a file."""
        return f"{self.url.rstrip('/')}/{name}"

    def make(self) -> None:
        """Make the folder, where stores have folders."""
        self.filesystem.makedirs(self.root, exist_ok=True)

    def read(self, name: str) -> bytes:
        """Content of a file."""
        return bytes(self.filesystem.cat_file(self.path(name)))

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name now, whatever was listed before."""
        self.filesystem.invalidate_cache()
        return bool(self.filesystem.exists(self.path(name)))

    def state(self, name: str) -> State | None:
        """What is at a name now, without its content; None if nothing is."""
        if self.is_local:
            try:
                found = os.stat(self.path(name))
            except FileNotFoundError:
                return None
            return State(f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}", found.st_size, found.st_mtime)
        self.filesystem.invalidate_cache()
        try:
            info = self.filesystem.info(self.path(name))
        except FileNotFoundError:
            return None
        return None if info["type"] == "directory" else _state(info)

    def open(self, name: str) -> Any:
        """A file opened for reading, which gives the content of one moment or an error."""
        return self.filesystem.open(self.path(name), "rb")

    def create(self, name: str, content: bytes) -> None:
        """Write a file whose name must be new.

        In a folder and in S3 that holds against everything else that writes there. In other stores the name is looked
        for first, and what is created there between the look and the write is replaced.

        Raises:
            FileExistsError: the name is taken; what is there stays.
        """
        if self.exists(name):
            raise FileExistsError(self.where(name))
        final = self.path(name)
        if self.is_local:
            partial = Path(final).parent / f".{uuid.uuid4().hex[:16]}.partial"
            files.atomic_write(partial, content)
            try:
                os.link(partial, final)  # unlike a rename, a link never replaces anything
            finally:
                partial.unlink()
        elif "s3" in _protocols(self.filesystem):
            try:
                self.filesystem.pipe_file(final, content, IfNoneMatch="*")
            except OSError as e:
                if "PreconditionFailed" in str(e) or "pre-conditions" in str(e):
                    raise FileExistsError(self.where(name)) from None
                raise
        else:
            self.write(name, content)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, folders included, so that its name stands for all of the new content or still for the old.

        A put of an object store is like that. Elsewhere a file gets its name when it is whole.
        """
        final = self.path(name)
        if self.is_local:
            folder = Path(self.path(self.partial)) if self.partial else None
            for needed in (Path(final).parent, folder):
                if needed is not None:
                    needed.mkdir(parents=True, exist_ok=True)
            files.atomic_write(final, content, folder)
        elif _protocols(self.filesystem) & ATOMIC_PUT:
            self.filesystem.pipe_file(final, content)
        else:
            self._write_and_move(final, content)

    def _write_and_move(self, final: str, content: bytes) -> None:
        folder = self.path(self.partial) if self.partial else final.rpartition("/")[0]
        partial = f"{folder}/{uuid.uuid4().hex}"
        for needed in {folder, final.rpartition("/")[0]}:
            self.filesystem.makedirs(needed, exist_ok=True)
        try:
            self.filesystem.pipe_file(partial, content)
            if self.filesystem.exists(final):  # some cannot rename onto a file
                self.filesystem.rm_file(final)
            self.filesystem.mv(partial, final)
        except BaseException:
            with contextlib.suppress(Exception):  # each filesystem has exceptions of its own
                self.filesystem.rm_file(partial)
            raise

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.filesystem.rm_file(self.path(name))

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and sizes in bytes of the files in a folder, which need not be there."""
        try:
            found = self.filesystem.ls(self.path(folder) if folder else self.root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {f["name"].rstrip("/").rpartition("/")[2]: f["size"] for f in found if f["type"] != "directory"}

    def check(self) -> None:
        """See whether the folder can be read; in an object store, whose folders need not be there, its bucket.

        Raises:
            FileNotFoundError, NotADirectoryError: it is gone, or is a file.
        """
        if self.is_local:
            os.scandir(self.root).close()
            return
        try:
            self.filesystem.invalidate_cache()
            self.filesystem.ls(self.root, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            bucket = self.root.partition("/")[0]
            if not bucket or bucket == self.root:
                raise
            self.filesystem.ls(bucket, detail=False)

    def clear(self, folder: str, own: str) -> None:
        """Remove the files of a folder whose names match, and the folder if nothing else is in it."""
        for name in self.sizes(folder):
            if re.fullmatch(own, name):
                self.filesystem.rm_file(self.path(f"{folder}/{name}"))
        with contextlib.suppress(OSError, NotImplementedError):  # not empty, not there, or no folders in this store
            if not self.filesystem.ls(self.path(folder), detail=False):
                self.filesystem.rmdir(self.path(folder))


def _open(url: str) -> tuple[Any, str]:
    """The filesystem of a URL and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as e:
        raise EocodecError(f"stores need {e.name}; install it with: pip install fsspec") from None
    try:
        filesystem, path = url_to_fs(url)
    except Exception as e:  # each filesystem has exceptions of its own
        raise EocodecError(f"{url}: cannot be opened ({reason(e)})") from None
    return filesystem, path


def _with_protocol(filesystem: Any, url: str, root: str) -> str:
    return url if "::" in url else str(filesystem.unstrip_protocol(root))


def _protocols(filesystem: Any) -> set[str]:
    names = filesystem.protocol
    return {names} if isinstance(names, str) else set(names)


def _state(info: Mapping[str, Any]) -> State:
    """Of what fsspec tells of a file; each filesystem has names of its own for what identifies its content."""
    times = [info[k] for k in ("LastModified", "last_modified", "mtime", "updated", "created") if info.get(k)]
    modified = times[0] if times else 0.0
    if isinstance(modified, str):
        modified = datetime.fromisoformat(modified)
    if isinstance(modified, datetime):
        modified = (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).timestamp()
    sign = next((str(info[k]) for k in ("ETag", "etag", "generation", "md5Hash", "content_md5") if info.get(k)), "")
    size = int(info["size"] or 0)
    return State(f"{sign}-{modified:.6f}-{size:x}", size, float(modified))


def _is_local(filesystem: Any) -> bool:
    return "file" in _protocols(filesystem)

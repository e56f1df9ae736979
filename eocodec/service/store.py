"""Images by name in a folder or at any fsspec URL.

In: names and bytes. Out: bytes and what identifies them. A name has either its old content or all of the new.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from eocodec.errors import EocodecError, ImageError
from eocodec.image import atomic_write

__all__ = ["NAME", "Store", "StoreError", "identify"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


class StoreError(Exception):
    """The store does not work; the cause is for the log, not for clients."""


def identify(data: bytes) -> str:
    """A tag that changes with the content: the first 128 bits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


class Store:
    """Images `NAME.eoc` in one folder.

    Arguments:
        url: a folder's path, made if it is missing, or an fsspec URL such as s3://bucket/images or memory://images.

    Raises:
        EocodecError: the URL is of a kind that is not installed, or cannot be used.
    """

    def __init__(self, url: str) -> None:
        try:
            self.files: Any
            self.files, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)
            self.files.makedirs(self.root, exist_ok=True)
        except (OSError, ValueError, ImportError) as e:
            raise EocodecError(f"{url}: cannot be used as a store ({e})") from None

    def _path(self, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise EocodecError("an image's name has letters, digits, dots, dashes and underscores, at most 128")
        return f"{self.root.rstrip('/')}/{name}.eoc"

    def read(self, name: str) -> bytes | None:
        """Content of an image, None if there is none of this name.

        Raises:
            StoreError: it cannot be read.
        """
        path = self._path(name)
        try:
            return bytes(self.files.cat_file(path))
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StoreError(f"{path}: {e}") from e

    def write(self, name: str, data: bytes) -> bool:
        """Store an image; whether the name is new.

        Raises:
            StoreError: it cannot be written.
        """
        path = self._path(name)
        try:
            self.files.makedirs(self.root, exist_ok=True)
            new = not self.files.exists(path)
            if isinstance(self.files, LocalFileSystem):
                atomic_write(Path(path), data)
            else:
                self.files.pipe_file(path, data)  # object stores show an object when all of it is there
        except (OSError, ImageError) as e:
            raise StoreError(f"{path}: {e}") from e
        return new

    def remove(self, name: str) -> bool:
        """Remove an image; whether there was one.

        Raises:
            StoreError: it cannot be removed.
        """
        try:
            self.files.rm_file(self._path(name))
        except FileNotFoundError:
            return False
        except OSError as e:
            raise StoreError(f"{name}: {e}") from e
        return True

"""Images by name in a folder or at any fsspec URL.

In: names and bytes. Out: bytes and what identifies them. A name has either its old content or all of the new.
"""

import hashlib
import re
from collections import OrderedDict

from eocodec.errors import EocodecError, reason
from eocodec.storage import Store

__all__ = ["NAME", "Cuts", "Images", "StoreError", "identify"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
CUTS = 4096  # lengths of prefixes that are remembered


class StoreError(Exception):
    """The store does not work; the cause is for the log, not for clients."""


def identify(data: bytes) -> str:
    """A tag that changes with the content: the first 128 bits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


class Images:
    """Images `NAME.eoc` in one folder.

    Arguments:
        url: a folder's path, made if it is missing, or an fsspec URL such as s3://bucket/images or memory://images.

    Raises:
        EocodecError: the URL is of a kind that is not installed, or cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.store = Store.at(url)
        try:
            self.store.make()
        except Exception as e:  # each filesystem has exceptions of its own
            raise EocodecError(f"{url}: cannot be used as a store ({reason(e)})") from None

    def _file(self, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise EocodecError("an image's name has letters, digits, dots, dashes and underscores, at most 128")
        return f"{name}.eoc"

    def read(self, name: str) -> bytes | None:
        """Content of an image, None if there is none of this name.

        Raises:
            StoreError: it cannot be read.
        """
        file = self._file(name)
        try:
            return self.store.read(file)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise StoreError(f"{self.store.where(file)}: {e}") from e

    def write(self, name: str, data: bytes) -> bool:
        """Store an image; whether the name is new.

        Raises:
            StoreError: it cannot be written.
        """
        file = self._file(name)
        try:
            new = not self.store.exists(file)
            self.store.write(file, data)
        except OSError as e:
            raise StoreError(f"{self.store.where(file)}: {e}") from e
        return new

    def remove(self, name: str) -> bool:
        """Remove an image; whether there was one.

        Raises:
            StoreError: it cannot be removed.
        """
        file = self._file(name)
        try:
            self.store.remove(file)
        except FileNotFoundError:
            return False
        except OSError as e:
            raise StoreError(f"{self.store.where(file)}: {e}") from e
        return True


class Cuts:
    """Remembers how long the prefixes of stored images for a rate are; finding out takes work in embedded streams."""

    def __init__(self) -> None:
        self._lengths: OrderedDict[tuple[str, float], int] = OrderedDict()

    def get(self, tag: str, rate: float) -> int | None:
        """Bytes of a prefix, if they are known."""
        return self._lengths.get((tag, rate))

    def add(self, tag: str, rate: float, length: int) -> None:
        """Remember one; the oldest is forgotten."""
        self._lengths[tag, rate] = length
        if len(self._lengths) > CUTS:
            self._lengths.popitem(last=False)

"""Images by name in a folder or at any fsspec URL, and what is known of each without reading it.

In: names and bytes. Out: bytes, and :class:`About`. A name has either its old content or all of the new. What is known
lies beside the images and is bound to the state of the file that it describes, so it is never out of date:

    NAME.eoc             an image
    .about/NAME.json     its state, tag, size and form: HEAD, 304 and Range do not read the image for them
    .marks/TAG.json      where an embedded stream may be cut, by content
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from cachetools import LRUCache

from eocodec.coding.embedded_coder import Mark
from eocodec.errors import EocodecError, reason
from eocodec.storage import State, Store

__all__ = ["NAME", "About", "Damaged", "Images", "StoreError", "Taken", "identify"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
KNOWN = 4096  # images of which is remembered what is known
MARKED = 256  # streams of which the marks are remembered
TRIES = 5  # for an image that is replaced while it is looked at
ENDING = ".eoc"

T = TypeVar("T")
Described = dict[str, Any]


class StoreError(Exception):
    """The store does not work; the cause is for the log, not for clients."""


class Taken(Exception):
    """An image of this name is there already."""


def identify(data: bytes) -> str:
    """A tag that changes with the content: the first 128 bits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


@dataclass(frozen=True)
class About:
    """What is known of an image.

    Arguments:
        version: of the state of its file.
        tag: see :func:`identify`.
        bytes: of the file.
        modified: seconds since 1970.
        facts: what the file holds: width, height, form and others, as its describer gave them.
    """

    version: str
    tag: str
    bytes: int
    modified: float
    facts: Described

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.facts["width"]), int(self.facts["height"])


class Damaged(Exception):
    """An image is there, but its file holds nothing that can be described; `about` is what is known all the same."""

    def __init__(self, about: About, why: str) -> None:
        super().__init__(f"{why} (state {about.version})")
        self.about = about


class Images:
    """Images `NAME.eoc` in one folder; for one event loop and its threads.

    Arguments:
        url: a folder's path, made if it is missing, or an fsspec URL such as s3://bucket/images or memory://images.
        describe: tells what a file's bytes hold, with "width" and "height".

    Raises:
        EocodecError: the URL is of a kind that is not installed, or cannot be used.
    """

    def __init__(self, url: str, describe: Callable[[bytes], Described]) -> None:
        self.store = Store.at(url)
        self._describe = describe
        self._known: LRUCache[str, About] = LRUCache(KNOWN)
        self._marks: LRUCache[str, tuple[Mark, ...]] = LRUCache(MARKED)
        self._lock = threading.Lock()
        try:
            self.store.make()
            self.store.state(f"a{ENDING}")
        except Exception as e:  # each filesystem has exceptions of its own
            raise EocodecError(f"{url}: cannot be used as a store ({reason(e)})") from None

    def _file(self, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise EocodecError("an image's name has letters, digits, dots, dashes and underscores, at most 128")
        return f"{name}{ENDING}"

    def _ask(self, file: str, function: Callable[..., T], *arguments: Any) -> T:
        """Ask the store.

        Raises:
            StoreError: it does not answer as it should; FileNotFoundError and FileExistsError are answers.
        """
        try:
            return function(*arguments)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as e:  # each filesystem has exceptions of its own
            raise StoreError(f"{self.store.where(file)}: {type(e).__name__}: {e}") from e

    def check(self) -> None:
        """See whether the store answers.

        Raises:
            StoreError: it does not.
        """
        try:
            self._ask("", self.store.check)
        except FileNotFoundError as e:
            raise StoreError(f"{self.store.url}: is gone") from e

    def read(self, name: str) -> bytes | None:
        """Content of an image, None if there is none of this name.

        Raises:
            StoreError: it cannot be read.
        """
        file = self._file(name)
        try:
            return self._ask(file, self.store.read, file)
        except FileNotFoundError:
            return None

    def open(self, name: str, about: About) -> Any | None:
        """An image opened for reading, if it still is the one that is known.

        Raises:
            StoreError: it cannot be read.
        """
        file = self._file(name)
        try:
            opened = self._ask(file, self.store.open, file)
        except FileNotFoundError:
            return None
        state = self._ask(file, self.store.state, file)
        if state is None or state.version != about.version:
            opened.close()
            return None
        return opened

    def about(self, name: str) -> About | None:
        """What is known of an image; it is read only if nothing is known of its present state. None: there is none.

        Raises:
            Damaged: it is no image, or not any more.
            StoreError: the store does not work.
        """
        file = self._file(name)
        for _ in range(TRIES):
            state = self._ask(file, self.store.state, file)
            if state is None:
                return None
            known = self._remembered(name, state) or self._noted(name, state)
            if known is None:
                data = self.read(name)
                if data is None or self._ask(file, self.store.state, file) != state:
                    continue  # replaced meanwhile
                known = self._found(state, data)
                with contextlib.suppress(StoreError):  # it will be found out again
                    note = json.dumps(asdict(known)).encode()
                    self._ask(file, self.store.write, f".about/{name}.json", note)
            with self._lock:
                self._known[name] = known
            return known
        raise StoreError(f"{self.store.where(file)}: is replaced all the time")

    def _found(self, state: State, data: bytes) -> About:
        about = About(state.version, identify(data), len(data), state.modified, {})
        try:
            return replace(about, facts=self._describe(data))
        except EocodecError as e:  # put there, or changed, by others than this service
            raise Damaged(about, str(e)) from None

    def _remembered(self, name: str, state: State) -> About | None:
        with self._lock:
            known = self._known.get(name)
        return known if known is not None and known.version == state.version else None

    def _noted(self, name: str, state: State) -> About | None:
        try:
            noted = About(**json.loads(self._ask(name, self.store.read, f".about/{name}.json")))
            return noted if noted.version == state.version and noted.size else None
        except (FileNotFoundError, StoreError, ValueError, TypeError, KeyError):
            return None

    def write(self, name: str, data: bytes, new: bool = False) -> None:
        """Store an image.

        Arguments:
            new: the name must be, whoever else writes to the store.

        Raises:
            Taken: it is not new.
            StoreError: it cannot be written.
        """
        file = self._file(name)
        try:
            self._ask(file, self.store.create if new else self.store.write, file, data)
        except FileExistsError:
            raise Taken from None
        except FileNotFoundError as e:
            raise StoreError(f"{self.store.where(file)}: {e}") from e

    def remove(self, name: str) -> bool:
        """Remove an image; whether there was one.

        Raises:
            StoreError: it cannot be removed.
        """
        file = self._file(name)
        try:
            if self._ask(file, self.store.state, file) is None:  # object stores remove what is not there, too
                return False
            self._ask(file, self.store.remove, file)
        except FileNotFoundError:
            return False
        with contextlib.suppress(StoreError, FileNotFoundError):
            self._ask(file, self.store.remove, f".about/{name}.json")
        return True

    def listed(self, prefix: str, after: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Names and sizes of images in order, at most `limit` of those after a name; and whether there are more.

        Raises:
            StoreError: the store does not work.
        """
        try:
            sizes = self._ask("", self.store.sizes, "")
        except FileNotFoundError:
            sizes = {}
        names = sorted(f.removesuffix(ENDING) for f in sizes if f.endswith(ENDING))
        found = [n for n in names if re.fullmatch(NAME, n) and n.startswith(prefix) and n > after]
        return [{"name": n, "bytes": sizes[n + ENDING]} for n in found[:limit]], len(found) > limit

    def marks(self, tag: str) -> tuple[Mark, ...] | None:
        """Where the stream of this content may be cut, if that is known."""
        with self._lock:
            known = self._marks.get(tag)
        if known is None:
            try:
                noted = json.loads(self._ask(tag, self.store.read, f".marks/{tag}.json"))
                known = tuple(Mark(int(end), float(depth)) for end, depth in noted)
            except (FileNotFoundError, StoreError, ValueError, TypeError):
                return None
            with self._lock:
                self._marks[tag] = known
        return known

    def keep_marks(self, tag: str, marks: tuple[Mark, ...]) -> None:
        """Note where the stream of this content may be cut."""
        with self._lock:
            self._marks[tag] = marks
        with contextlib.suppress(StoreError, FileNotFoundError):  # they will be found again
            note = json.dumps([[m.end, m.depth] for m in marks]).encode()
            self._ask(tag, self.store.write, f".marks/{tag}.json", note)

"""Pillow's settings while a picture file is read, which hold for the whole process.

In: whether files that are cut off are to be read. Out: a context in which Pillow has the format's own limits.
"""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from PIL import Image, ImageFile, PngImagePlugin

from eocodec.format import MAX_PIXELS

__all__ = ["pillow_settings"]

MAX_PROFILE = 16 << 20  # bytes of a colour profile in a PNG file; Pillow's own limit is lower than large ones are

_reading = ExitStack()  # what undoes the settings after the last of the threads that are reading
_readers: list[bool] = []  # whether each of them reads leniently
_readers_change = threading.Condition()


def _forget_readers() -> None:
    """Begin anew in a forked process: threads that were reading are not there to undo their settings."""
    global _readers_change
    _readers_change = threading.Condition()
    _readers.clear()
    _reading.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_readers)


@contextmanager
def pillow_settings(lenient: bool) -> Iterator[None]:
    """Pillow's limits set to the format's own, and no warnings of Pillow's; threads may overlap if they are alike."""
    with _readers_change:
        _readers_change.wait_for(lambda: all(r is lenient for r in _readers))
        _readers.append(lenient)
        if len(_readers) == 1:
            for module, setting, value in (
                (Image, "MAX_IMAGE_PIXELS", MAX_PIXELS),
                (PngImagePlugin, "MAX_TEXT_CHUNK", MAX_PROFILE),
                (ImageFile, "LOAD_TRUNCATED_IMAGES", lenient),
            ):
                _reading.callback(setattr, module, setting, getattr(module, setting))
                setattr(module, setting, value)
            _reading.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module="PIL")
    try:
        yield
    finally:
        with _readers_change:
            _readers.remove(lenient)
            if not _readers:
                _reading.close()
                _readers_change.notify_all()

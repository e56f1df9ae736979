"""Memory that the C library keeps for itself: given back to the system, or kept on purpose.

In: nothing. Out: nothing; the process gets smaller, or faster, where the C library is glibc.

Nets take and free buffers of megabytes, and between them small arrays are made that stay. glibc then finds less and
less room between these for the next buffers, and a large picture takes twice the memory that is ever in use at once.
"""

import ctypes
import functools
import os
from collections.abc import Callable

__all__ = ["keep_memory", "trim_memory"]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h
KEPT = 1 << 29  # bytes at the end of the heap that stay
SHARED = 1 << 25  # bytes up to which a buffer comes from the heap; glibc takes no more than this on 64-bit systems


@functools.cache
def _function(name: str) -> Callable[..., int] | None:
    """A function of the C library that only glibc has."""
    try:
        return getattr(ctypes.CDLL(None), name)  # type: ignore[no-any-return]
    except (AttributeError, OSError, TypeError):  # other libraries; Windows, which has no such handle
        return None


def trim_memory() -> None:
    """Give free pages back, also those between pages in use; a few milliseconds, and more when they are used again."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def keep_memory() -> None:
    """Keep freed buffers for the next ones, in a process that codes pictures and ends; :func:`trim_memory` still works.

    glibc gives a buffer of megabytes back as soon as it is free, and the system fills the next one with zeros, page by
    page. It is for a program to decide about its whole process, so the library never calls this.
    """
    option = _function("mallopt") if hasattr(os, "confstr") else None  # elsewhere its parameters mean other things
    if option is not None and "CS_GNU_LIBC_VERSION" in os.confstr_names:
        option(TRIM_THRESHOLD, KEPT)
        option(MMAP_THRESHOLD, SHARED)

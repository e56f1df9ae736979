"""Memory that the C library keeps for itself: given back to the system, or kept on purpose.

In: nothing. Out: nothing; the process gets smaller, or faster, where the C library is glibc.

Nets take and free buffers of megabytes, and between them small arrays are made that stay. glibc then finds less and
less room between these for the next buffers, and a large picture takes twice the memory that is ever in use at once.
"""

import ctypes
import functools
import os
import sys
from typing import Any

__all__ = ["keep_memory", "take_large_pages", "trim_memory"]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h
KEPT = 1 << 29  # bytes at the end of the heap that stay
ROOM = 3 << 26  # bytes of the heap that are had in large pages
MADV_HUGEPAGE = 14  # from sys/mman.h
LEFT = 1 << 12  # bytes that stay in use behind them
SHARED = 1 << 25  # bytes up to which a buffer comes from the heap; glibc takes no more than this on 64-bit systems


@functools.cache
def _function(name: str) -> Any:
    """A function of the C library, None where it has no such."""
    try:
        return getattr(ctypes.CDLL(None), name)
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


def take_large_pages() -> None:
    """Have the next :data:`ROOM` bytes of this thread's heap in pages of 2 MB, where the system gives such.

    A page is filled with zeros when it is first used; in small ones that is up to a tenth of the time that a picture of
    0.3 megapixels takes. To be called after :func:`keep_memory`, in a thread that works at pictures, before it does.
    Threads keep heaps of their own: with a single one, those that open sessions wait for one another all the time.
    """
    take, give, advise = (_function(name) for name in ("malloc", "free", "madvise"))
    if take is None or give is None or advise is None or not sys.platform.startswith("linux"):
        return
    take.restype, take.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    give.restype, give.argtypes = None, [ctypes.c_void_p]
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page, size = os.sysconf("SC_PAGE_SIZE"), SHARED >> 1  # which comes from the heap
    blocks = []
    for _ in range(ROOM // size):
        block = take(size)
        if not block:  # memory is limited
            break
        blocks.append(block)
        start = block // page * page
        advise(start, (block + size) // page * page - start, MADV_HUGEPAGE)
    take(LEFT)  # glibc else gives the parts of a thread's heap back, whatever it is to keep
    for block in reversed(blocks):
        give(block)

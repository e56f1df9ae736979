"""Memory that the C library keeps for itself, given back to the system.

In: nothing. Out: nothing; the process gets smaller, where the C library is glibc.

Nets take and free buffers of megabytes, and between them small arrays are made that stay. glibc then finds less and
less room between these for the next buffers, and a large picture takes twice the memory that is ever in use at once.
"""

import ctypes
import functools
from collections.abc import Callable

__all__ = ["trim_memory"]


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """The C library's `malloc_trim`, which only glibc has."""
    try:
        return ctypes.CDLL(None).malloc_trim  # type: ignore[no-any-return]
    except (AttributeError, OSError, TypeError):  # other libraries; Windows, which has no such handle
        return None


def trim_memory() -> None:
    """Give free pages back, also those between pages in use; a few milliseconds, and more when they are used again."""
    trim = _trim()
    if trim is not None:
        trim(0)

"""Bodies on their way out, and results that are kept, on disk instead of in memory.

In: bytes that a process made, or an open file. Out: responses that are sent in chunks, as fast as the client reads, so
that a client that reads slowly costs a file and a chunk, not its whole answer; and a bounded cache of results.
"""

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import IO, Any

from cachetools import LRUCache
from fastapi.responses import Response, StreamingResponse

__all__ = ["CHUNK", "Cache", "sent"]

CHUNK = 1 << 16  # bytes that are sent at a time
SMALL = 1 << 18  # bytes of an answer that stays in memory


def sent(
    body: bytes | IO[bytes], kind: str, headers: dict[str, str], status: int = 200, span: tuple[int, int] | None = None
) -> Response:
    """A response in chunks of a body, or of an open file's bytes `span` (first, one after the last), and closes it."""
    if isinstance(body, bytes):
        if span is not None:
            body = body[slice(*span)]
        if len(body) <= SMALL:
            return Response(body, status, headers, kind)
        size, start, file = len(body), 0, _spooled(body)
    else:
        assert span is not None, "how much of an open file is sent"
        (start, stop), file = span, body
        size = stop - start
    headers = {**headers, "Content-Length": str(size)}
    return StreamingResponse(_chunks(file, start, size), status, headers, kind)


def _spooled(body: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile(prefix="eocodec-")  # noqa: SIM115  # closed when it is sent
    file.write(body)
    return file


async def _chunks(file: Any, start: int, size: int) -> AsyncGenerator[bytes, None]:
    try:
        await asyncio.to_thread(file.seek, start)
        while size > 0:
            part = await asyncio.to_thread(file.read, min(size, CHUNK))
            if not part:
                raise OSError("a file ended before its end")
            size -= len(part)
            yield part
    finally:
        file.close()


class _Files(LRUCache[str, tuple[Path, int]]):
    """Files by key, bounded by their bytes; those that are used least go first."""

    def popitem(self) -> tuple[str, tuple[Path, int]]:
        """Forget one and remove its file; who has it open can still read it."""
        key, value = super().popitem()
        with contextlib.suppress(OSError):
            value[0].unlink()
        return key, value


class Cache:
    """Bytes by key in a folder of its own, which goes with the process.

    Arguments:
        size: bytes that are kept at most; 0 keeps nothing.
    """

    def __init__(self, size: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="eocodec-cache-", ignore_cleanup_errors=True)
        self._files = _Files(max(size, 1), getsizeof=lambda value: value[1])
        self._lock = threading.Lock()
        self._count = 0

    def __len__(self) -> int:
        return len(self._files)

    @property
    def held(self) -> int:
        """Bytes that are kept now."""
        return int(self._files.currsize)

    def put(self, key: str, data: bytes) -> bool:
        """Keep bytes. False: they are not kept, for they are too large or find no room on disk."""
        if len(data) > self._files.maxsize:
            return False
        with self._lock:
            self._count += 1
            path = Path(self._folder.name, str(self._count))
            try:
                path.write_bytes(data)
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink()
                return False
            before = self._files.pop(key, None)
            if before is not None:
                with contextlib.suppress(OSError):
                    before[0].unlink()
            self._files[key] = path, len(data)
            return True

    def open(self, key: str) -> tuple[IO[bytes], int] | None:
        """What is kept, opened, and its bytes."""
        with self._lock:
            found = self._files.get(key)
            if found is None:
                return None
            try:
                return open(found[0], "rb"), found[1]
            except OSError:  # somebody has cleared the folder
                return None

    def path(self, key: str) -> str | None:
        """Where what is kept lies, for processes that read it at once."""
        with self._lock:
            found = self._files.get(key)
            return None if found is None or not os.path.exists(found[0]) else str(found[0])

    def close(self) -> None:
        """Remove everything."""
        self._folder.cleanup()

"""Route /v1/remote: pictures made of what lies elsewhere, below the URLs that the service allows.

In: a URL and what is wanted of it. Out: a picture. Redirections are not followed, so nothing but what is allowed is
ever asked for; what comes is bounded in bytes and in time, and kept with the other pictures that were made.
"""

import asyncio
import hashlib
import http.client
import io
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response
from pydantic import Field
from werkzeug.http import quote_etag

from eocodec.service import rendering
from eocodec.service.access import Access
from eocodec.service.gallery import preset_options, rendered
from eocodec.service.negotiation import names_tag
from eocodec.service.options import ImageOptions
from eocodec.service.pool import Busy, Pool
from eocodec.service.problems import REMOTE
from eocodec.service.spool import sent
from eocodec.service.state import State, told

__all__ = ["Fetches", "allowed", "fetched", "routes"]

CHUNK = 1 << 16


class RemoteOptions(ImageOptions):
    """Parameters of /v1/remote."""

    url: Annotated[str, Field(max_length=2048, description="of the picture, below one that the service allows")]


def allowed(url: str, sources: tuple[str, ...]) -> bool:
    """Whether a URL lies below one of the sources, as every reader of URLs sees it.

    Example:
        >>> allowed("https://example.org/a/b.png", ("https://example.org/a/",))
        True
        >>> allowed("https://example.org/a/%2e%2e/b.png", ("https://example.org/a/",))
        False
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and not set(url) & set(' \\"<>^`{|}')
    steps = unquote(parts.path).replace("\\", "/").split("/")
    safe = plain and parts.username is None and not parts.fragment and not {".", ".."} & set(steps)
    return safe and any(url.startswith(source) for source in sources)


class _Timed(io.RawIOBase):
    """What a socket brings until a moment of the clock, however slowly it comes."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self._socket, self._raw, self._until = connection, connection.makefile("rb", buffering=0), until

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Some bytes.

        Raises:
            TimeoutError: none have come in time.
        """
        self._socket.settimeout(_left(self._until))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer, headers included, that is there until a moment of the clock."""

    def __init__(self, connection: socket.socket, until: float, method: str | None = None) -> None:
        super().__init__(connection, method=method)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(connection, until))


def _left(until: float) -> float:
    """Seconds until a moment of the clock.

    Raises:
        TimeoutError: it has passed.
    """
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connected(host: str, port: int, until: float) -> socket.socket:
    """A connection to the first of a host's addresses that answers."""
    failed: OSError = ConnectionError("no address")
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            return socket.create_connection(address[:2], _left(until))  # type: ignore[arg-type]
        except OSError as e:
            failed = e
    raise failed


def _connection(url: str, until: float) -> http.client.HTTPConnection:
    """A connection for a request for a URL."""
    parts = urlsplit(url)
    secure, host = parts.scheme == "https", parts.hostname or ""
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(host, parts.port)
    plain = _connected(host, connection.port, until)
    plain.settimeout(_left(until))
    connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
    connection.response_class = lambda sock, method: _Answer(sock, until, method)  # type: ignore[assignment,misc]
    return connection


def fetched(url: str, limit: int, seconds: float) -> bytes:
    """What is at a URL. Redirections are not followed, and no proxies used.

    Arguments:
        url: http or https.
        limit: bytes.
        seconds: for everything, from the connection to the last byte; finding the host's address comes on top.

    Raises:
        HTTPException: 413 it is too long, 502 it cannot be had, 504 it takes too long.
    """
    until = time.monotonic() + seconds
    content = bytearray()
    try:
        connection = _connection(url, until)
        try:
            path = urlsplit(url)._replace(scheme="", netloc="").geturl()
            path = path if path.startswith("/") else f"/{path}"
            connection.request("GET", path, headers={"User-Agent": "eocodec", "Connection": "close"})
            with connection.getresponse() as answer:
                if not 200 <= answer.status < 300:
                    status = 404 if answer.status in (404, 410) else 502
                    raise HTTPException(status, f"the source answers {answer.status}")
                while part := answer.read1(CHUNK):
                    content += part
                    if len(content) > limit:
                        raise HTTPException(413, f"the source has more than the {limit} bytes that are allowed")
        finally:
            connection.close()
    except TimeoutError:
        raise HTTPException(504, f"the source did not arrive within {seconds:g} s") from None
    except (OSError, ValueError, http.client.HTTPException):
        raise HTTPException(502, "the source cannot be reached") from None
    return bytes(content)


class Fetches:
    """What is being fetched, in threads of its own, so that slow sources keep nothing else waiting.

    Arguments:
        most: fetches at a time.
    """

    def __init__(self, most: int) -> None:
        self._room = threading.Semaphore(most)
        self._threads = ThreadPoolExecutor(most, "eocodec-fetch")

    async def content(self, url: str, limit: int, seconds: float, wait: int) -> bytes:
        """What is at a URL; see :func:`fetched`.

        Raises:
            Busy: as much as may be is being fetched; `wait` seconds from now there may be room.
            HTTPException: it cannot be had.
        """
        if not self._room.acquire(blocking=False):
            raise Busy(wait)
        work = self._threads.submit(fetched, url, limit, seconds)
        work.add_done_callback(lambda _: self._room.release())  # also where the client leaves before
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Begin no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def routes(state: State, access: Access) -> APIRouter:
    """Routes of pictures elsewhere."""
    router = APIRouter(prefix="/v1", dependencies=access.readable, tags=["images"])
    settings = state.settings
    fetches = Fetches(max(1, settings.queue // 2))  # others find places, too
    state.closing.append(fetches.close)

    @router.get("/remote", response_class=Response, responses=REMOTE)
    async def remote(request: Request, options: Annotated[RemoteOptions, Query()]) -> Response:
        """A picture, or an `.eoc` file, that lies elsewhere, decoded, cropped and scaled as stored ones are."""
        if not settings.sources:
            raise HTTPException(404, "this service fetches no pictures; start it with --allow-source")
        if not allowed(options.url, settings.sources):
            raise HTTPException(403, "url: the service may not fetch from there")
        url = options.url
        wanted = preset_options(ImageOptions.model_validate(options.model_dump(exclude_unset=True, exclude={"url"})),
                                settings.presets)  # fmt: skip
        if any(wanted.cut) or wanted.format == "eoc":
            raise HTTPException(422, "rate, latents, bytes and format=eoc are for stored images")
        arguments, accept = wanted.arguments(), request.headers.get("accept", "")
        edges = [e for e in (arguments["width"], arguments["height"]) if e is not None]
        size = (max(edges), max(edges)) if edges else (1, 1)
        kind = rendering.KINDS.get(wanted.format) or rendering.kind_for(accept, size, alpha=True)
        tag = hashlib.sha256(repr((url, kind, arguments, int(time.time() // max(1, settings.cache_seconds)))).encode())
        name = tag.hexdigest()[:32]
        headers = {
            "ETag": quote_etag(name),
            "Cache-Control": settings.cache_control,
            "Vary": "Accept, Sec-Fetch-Dest",
            "Cross-Origin-Resource-Policy": settings.embedded,
        }
        if names_tag(request.headers.get("if-none-match"), name, weak=True):
            return Response(status_code=304, headers=headers)
        kept = state.results.open(name)
        if kept is None:

            async def fetch(pool: Pool) -> bytes:
                return await fetches.content(url, settings.max_body, settings.upload_timeout, pool.wait_seconds())

            body = await rendered(state, request, fetch, kind, arguments, name)
            headers.update(told(state.notes.get(name, ())))
            return await asyncio.to_thread(sent, body, kind, headers)
        file, length = kept
        headers.update(told(state.notes.get(name, ())))
        return sent(file, kind, headers, 200, (0, length))

    return router

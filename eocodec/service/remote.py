"""Route /v1/remote: pictures made of what lies elsewhere, below the URLs that the service allows.

In: a URL and what is wanted of it. Out: a picture. Redirections are not followed, so nothing but what is allowed is
ever asked for; what comes is bounded in bytes and in time, and kept with the other pictures that were made.
"""

import asyncio
import hashlib
import http.client
import time
import urllib.error
import urllib.request
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
from eocodec.service.problems import REMOTE
from eocodec.service.spool import sent
from eocodec.service.state import State

__all__ = ["allowed", "fetched", "routes"]

CHUNK = 1 << 16


class RemoteOptions(ImageOptions):
    """Parameters of /v1/remote."""

    url: Annotated[str, Field(max_length=2048, description="of the picture, below one that the service allows")]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        """None is followed."""
        return None


_opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))


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


def fetched(url: str, limit: int, seconds: float) -> bytes:
    """What is at a URL.

    Raises:
        HTTPException: 413 it is too long, 502 it cannot be had, 504 it takes too long.
    """
    until = time.monotonic() + seconds
    content = bytearray()
    try:
        with _opener.open(urllib.request.Request(url, headers={"User-Agent": "eocodec"}), timeout=seconds) as answer:
            while part := answer.read1(CHUNK):
                content += part
                if len(content) > limit:
                    raise HTTPException(413, f"the source has more than the {limit} bytes that are allowed")
                if time.monotonic() > until:
                    raise HTTPException(504, f"the source did not arrive within {seconds:g} s")
    except urllib.error.HTTPError as e:
        e.close()
        raise HTTPException(404 if e.code in (404, 410) else 502, f"the source answers {e.code}") from None
    except TimeoutError:
        raise HTTPException(504, f"the source did not answer within {seconds:g} s") from None
    except (OSError, ValueError, http.client.HTTPException):
        raise HTTPException(502, "the source cannot be reached") from None
    return bytes(content)


def routes(state: State, access: Access) -> APIRouter:
    """Routes of pictures elsewhere."""
    router = APIRouter(prefix="/v1", dependencies=access.readable, tags=["images"])
    settings = state.settings

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
            "Cache-Control": f"{'private' if settings.keys else 'public'}, max-age={settings.cache_seconds}",
            "Vary": "Accept, Sec-Fetch-Dest",
            "Cross-Origin-Resource-Policy": settings.embedded,
        }
        if names_tag(request.headers.get("if-none-match"), name, weak=True):
            return Response(status_code=304, headers=headers)
        kept = state.results.open(name)
        if kept is None:
            data = await asyncio.to_thread(fetched, url, settings.max_body, settings.upload_timeout)
            body = await rendered(state, request, data, kind, arguments, name)
            return await asyncio.to_thread(sent, body, kind, headers)
        file, length = kept
        return sent(file, kind, headers, 200, (0, length))

    return router

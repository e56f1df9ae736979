"""Routes /v1/images: files that are stored by name, and their prefixes.

Nothing is encoded again to serve one at a lower rate; decoded ones are for where a picture is wanted.
"""

import asyncio
from typing import Annotated
from weakref import WeakValueDictionary

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from werkzeug.http import quote_etag

from eocodec.service import work
from eocodec.service.access import Access
from eocodec.service.bodies import described
from eocodec.service.catalogue import described as model_row
from eocodec.service.images import NAME, Cuts, Images, identify
from eocodec.service.negotiation import accepted, names_tag, span, wants_picture
from eocodec.service.options import CompressOptions, CutOptions, merged
from eocodec.service.pool import Pool
from eocodec.service.problems import PART, PUT
from eocodec.service.state import State

__all__ = ["Gallery", "routes"]

Name = Annotated[str, PathParameter(pattern=NAME)]
STORED = described("an .eoc file, or a picture, which is compressed to an embedded stream")


class Gallery:
    """What the routes of stored images do.

    Arguments:
        state: of the application.
    """

    def __init__(self, state: State) -> None:
        self.state, self.settings = state, state.settings
        self._images = Images(self.settings.store) if self.settings.store is not None else None
        self._cuts = Cuts()
        self._embedding = {m.name for m in state.models if model_row(m, state.default)["progressive"]}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def images(self) -> Images:
        """The store.

        Raises:
            HTTPException: 404, there is none.
        """
        if self._images is None:
            raise HTTPException(404, "this service stores no images; start it with --store")
        return self._images

    def _lock(self, name: str) -> asyncio.Lock:
        """One for each name, so that conditions hold until what they allow is done."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def put(self, name: str, request: Request, options: CompressOptions) -> Response:
        """Store what a request brings."""
        images = self.images

        async def run(pool: Pool) -> Response:
            body, fields = await self.state.bodies.read(request)
            chosen = merged(options, fields)
            arguments = chosen.arguments(self.state.default)
            if "progressive" not in chosen.model_fields_set and not chosen.lossless:
                arguments["progressive"] = arguments["model"] in self._embedding
            data = await pool.run(work.store, body, arguments, gone=request.is_disconnected)
            async with self._lock(name):
                _check_conditions(request, await asyncio.to_thread(images.read, name))
                new = await asyncio.to_thread(images.write, name, data)
            headers = {"ETag": quote_etag(identify(data)), "Location": f"/v1/images/{name}"}
            return JSONResponse({"name": name, "bytes": len(data)}, 201 if new else 200, headers)

        return await self.state.placed(request, run)

    async def delete(self, name: str, request: Request) -> None:
        """Remove an image, if it is the one that the request's conditions name."""
        images = self.images
        async with self._lock(name):
            if {"if-match", "if-none-match"} & set(request.headers):
                _check_conditions(request, await asyncio.to_thread(images.read, name))
            if not await asyncio.to_thread(images.remove, name):
                raise HTTPException(404, "there is no such image")

    async def get(self, name: str, request: Request, options: CutOptions) -> Response:
        """An image or a part of it, decoded where a picture is wanted."""
        data, tag = await self._prefix(request, name, options)
        accept = request.headers.get("accept", "")
        decoded = request.headers.get("sec-fetch-dest") == "image" or wants_picture(accept)
        kind = accepted(accept, "image/webp" if "image/webp" in accept else "image/png") if decoded else work.EOC
        if decoded:
            tag = f"{tag}-{work.TYPES[kind][1:]}"
        headers = self._headers(tag)
        if names_tag(request.headers.get("if-none-match"), tag, weak=True):
            return Response(status_code=304, headers=headers)
        if decoded:
            data = await self._decoded(request, data, kind)
        return _part(request, data, kind, headers)

    async def _prefix(self, request: Request, name: str, options: CutOptions) -> tuple[bytes, str]:
        """A stored file cut to what is wanted of it, and its tag."""
        data = await asyncio.to_thread(self.images.read, name)
        if data is None:
            raise HTTPException(404, "there is no such image")
        tag = identify(data)
        if options.rate is None and options.bytes is None:
            return data, tag
        size = self._cuts.get(tag, options.rate) if options.rate is not None else options.bytes
        wanted = (None, size) if size is not None else (options.rate, None)

        async def run(pool: Pool) -> Response:
            return Response(await pool.run(work.cut, data, *wanted, gone=request.is_disconnected))

        part = bytes((await self.state.placed(request, run)).body)
        if options.rate is not None:
            self._cuts.add(tag, options.rate, len(part))
        return part, f"{tag}-{len(part)}" if len(part) < len(data) else tag

    async def _decoded(self, request: Request, data: bytes, kind: str) -> bytes:
        async def run(pool: Pool) -> Response:
            done = await pool.run(work.decompress, data, kind, False, gone=request.is_disconnected)
            return Response(done.body)

        return bytes((await self.state.placed(request, run)).body)

    def _headers(self, tag: str) -> dict[str, str]:
        public = "public" if self.settings.public_read or not self.settings.keys else "private"
        return {
            "ETag": quote_etag(tag),
            "Cache-Control": f"{public}, max-age={self.settings.cache_seconds}",
            "Accept-Ranges": "bytes",
            "Vary": "Accept, Sec-Fetch-Dest",
        }


def _check_conditions(request: Request, previous: bytes | None) -> None:
    """Refuse to replace or remove an image that is not the one that If-Match or If-None-Match allow."""
    tag = None if previous is None else identify(previous)
    keep, expected = request.headers.get("if-none-match"), request.headers.get("if-match")
    changed = expected and (tag is None or not names_tag(expected, tag, weak=False))
    if changed or (tag is not None and names_tag(keep, tag, weak=True)):
        raise HTTPException(412, "the stored image is not the one that the condition names")


def _part(request: Request, data: bytes, kind: str, headers: dict[str, str]) -> Response:
    """All of the bytes, or the range of them that a request names."""
    wanted = request.headers.get("range") if request.method == "GET" else None
    condition = request.headers.get("if-range")
    found = span(wanted, len(data)) if wanted and condition in (None, headers["ETag"]) else None
    if found is None:
        return Response(data, media_type=kind, headers=headers)
    start, stop = found
    headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
    return Response(data[start:stop], 206, headers, kind)


def routes(state: State, access: Access) -> APIRouter:
    """Routes of stored images.

    Raises:
        EocodecError: the store cannot be used.
    """
    router, gallery = APIRouter(prefix="/v1/images"), Gallery(state)

    @router.put("/{name}", dependencies=access.private, responses=PUT, openapi_extra=STORED)
    async def put_image(name: Name, request: Request, options: Annotated[CompressOptions, Query()]) -> Response:
        """Store an `.eoc` file under a name. A picture is compressed first: by default embedded, C = 300."""
        return await gallery.put(name, request, options)

    @router.delete("/{name}", dependencies=access.private, status_code=204)
    async def delete_image(name: Name, request: Request) -> None:
        """Remove a stored image; with If-Match only the one that it names."""
        await gallery.delete(name, request)

    @router.head("/{name}", dependencies=access.readable, include_in_schema=False)
    @router.get("/{name}", dependencies=access.readable, response_class=Response, responses=PART)
    async def get_image(name: Name, request: Request, options: Annotated[CutOptions, Query()]) -> Response:
        """A stored image, or its first C latents or N bytes; nothing is encoded again.

        Where a picture is wanted, as a browser's `<img>` says it is, it comes decoded.
        """
        return await gallery.get(name, request, options)

    return router

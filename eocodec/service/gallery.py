"""Routes /v1/images: files that are stored by name, their prefixes, and pictures made of them.

Nothing is encoded again to serve a file at a lower rate. Pictures for web pages are made once and kept, within bounds.
"""

import asyncio
import functools
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any
from urllib.parse import parse_qsl
from weakref import WeakValueDictionary

from cachetools import LRUCache
from fastapi import APIRouter, Header, HTTPException, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from werkzeug.http import http_date, quote_etag

from eocodec import format
from eocodec.codec import truncate_file, truncated
from eocodec.coding.describe import describe
from eocodec.coding.embedded import Embedded
from eocodec.errors import FormatError
from eocodec.format import Tiny
from eocodec.model.library import Library
from eocodec.model.shelf import plate_of
from eocodec.results import Truncated
from eocodec.service import rendering, work
from eocodec.service.access import Access
from eocodec.service.bodies import described
from eocodec.service.images import NAME, About, Damaged, Images, StoreError, Taken, identify
from eocodec.service.negotiation import modified_since, names_tag, shown, span
from eocodec.service.options import CompressOptions, Cut, ImageOptions, ListOptions, NoOptions, merged
from eocodec.service.pool import Pool
from eocodec.service.problems import DELETED, LISTED, PART, PUT
from eocodec.service.spool import sent
from eocodec.service.state import State, told
from eocodec.service.tasks import Order, wants_async

__all__ = ["Gallery", "preset_options", "routes"]

Name = Annotated[str, PathParameter(pattern=NAME)]
STORED = described("an .eoc or tiny file, or a picture, which is compressed")
CUTS = 4096  # prefixes whose lengths are remembered, with what is to be said of them
CONDITIONS = {"if-match", "if-none-match", "if-unmodified-since"}  # headers of requests that change an image
PATIENCE = 5.0  # how many times as long as usual work may take that no client waits for
TRIES = 5  # for an image that is replaced while it is served


class Gallery:
    """What the routes of stored images do.

    Arguments:
        state: of the application.
    """

    def __init__(self, state: State) -> None:
        self.state, self.settings = state, state.settings
        store = self.settings.store
        self._images = Images(store, self._facts) if store is not None else None
        if self._images is not None:
            state.checks.append(self._images.check)
        self._cuts: LRUCache[tuple[str, Cut], tuple[int, tuple[str, ...]]] = LRUCache(CUTS)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._order = Order()

    @property
    def images(self) -> Images:
        """The store.

        Raises:
            HTTPException: 404, there is none.
        """
        if self._images is None:
            raise HTTPException(404, "this service stores no images; start it with --store")
        return self._images

    def _facts(self, data: bytes) -> dict[str, Any]:
        """What a file holds that can be told without decoding it."""
        found = describe(data, Library((), shipped=False))
        if found.get("damaged"):
            raise FormatError("a part of the file does not have the checksum that it should have")
        names = {m.id.hex(): m.name for m in self.state.models}
        identity = found.get("model_id", "")
        plate = plate_of(bytes.fromhex(identity)) if identity and identity not in names else None
        found["model"] = plate.name if plate else names.get(identity, found["model"])
        return {k: v for k, v in found.items() if k not in ("segments", "bytes", "damaged", "overhead")}

    def _lock(self, name: str) -> asyncio.Lock:
        """One for each name, so that conditions hold until what they allow is done."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def _about(self, name: str) -> About | None:
        return await asyncio.to_thread(self.images.about, name)

    async def _present(self, name: str) -> About | None:
        """What conditions are about: a file that is damaged counts as well, so that it can be replaced."""
        try:
            return await self._about(name)
        except Damaged as e:
            return e.about

    async def put(self, name: str, request: Request, options: CompressOptions) -> Response:
        """Store what a request brings."""
        images = self.images
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(self.state.place(request))
            later = wants_async(request)
            number = self._order.next()
            if later:
                stack.enter_context(self._order.waiting(name))
                stack.enter_context(self.state.tasks.room(pool.wait_seconds()))
            body, fields = await self.state.bodies.read(request)
            chosen = merged(options, fields)
            arguments = chosen.arguments(self.state.default)
            if "progressive" not in chosen.model_fields_set:
                arguments["progressive"] = None
            if CONDITIONS & set(request.headers):  # what cannot be stored need not be made
                _check_conditions(request, await self._present(name))
            gone = None if later else request.is_disconnected
            store = functools.partial(self._store, images, name, number, request, pool, body, arguments, gone)
            return self.state.tasks.start(request, store, stack.pop_all()) if later else await store()

    async def _store(
        self,
        images: Images,
        name: str,
        number: int,
        request: Request,
        pool: Pool,
        body: bytes,
        arguments: dict[str, Any],
        gone: Any,
    ) -> Response:
        """Make the file of a body and store it, if the request's conditions hold and no later one was done before."""
        kept = await pool.run(work.store, body, arguments, gone=gone, patience=1.0 if gone else PATIENCE)
        async with self._lock(name):
            if gone is None and self._order.is_overtaken(name, number):
                raise HTTPException(409, "a request for this image that came later was done before")
            previous = await self._present(name)
            _check_conditions(request, previous)
            new = request.headers.get("if-none-match", "").strip() == "*"
            try:
                await asyncio.to_thread(images.write, name, kept.data, new)
            except Taken:  # by another service on the same store
                raise HTTPException(412, "there is an image of this name already") from None
            self._order.done(name, number)
        tag = identify(kept.data)
        if kept.marks is not None:
            await asyncio.to_thread(images.keep_marks, tag, kept.marks)
        location = f"{request.scope.get('root_path', '')}/v1/images/{name}"
        headers = {"ETag": quote_etag(tag), "Location": location, **told(kept.notes)}
        answer = {"name": name, "bytes": len(kept.data), "warnings": list(kept.notes)}
        return JSONResponse(answer, 201 if previous is None else 200, headers)

    async def delete(self, name: str, request: Request) -> None:
        """Remove an image, if it is the one that the request's conditions name, and what waits to be stored as it."""
        images, number = self.images, self._order.next()
        async with self._lock(name):
            if CONDITIONS & set(request.headers):
                _check_conditions(request, await self._present(name))
            removed = await asyncio.to_thread(images.remove, name)
            if not removed and not self._order.awaits(name):
                raise HTTPException(404, "there is no such image")
            self._order.done(name, number)

    async def listed(self, options: ListOptions) -> dict[str, Any]:
        """Some of the images, in the order of their names."""
        found, more = await asyncio.to_thread(self.images.listed, options.prefix, options.after, options.limit)
        return {"images": found, "next": found[-1]["name"] if more else None}

    async def info(self, name: str) -> Response:
        """What is known of an image."""
        about = await self._about(name)
        if about is None:
            raise HTTPException(404, "there is no such image")
        headers = self._headers(about.tag, about)
        facts = {"name": name, "bytes": about.bytes, "modified": http_date(about.modified), **about.facts}
        return JSONResponse(facts, headers={k: v for k, v in headers.items() if k not in ("Accept-Ranges", "ETag")})

    async def get(self, name: str, request: Request, options: ImageOptions) -> Response:
        """An image or a part of it, or a picture made of it."""
        for _ in range(TRIES):
            about = await self._about(name)
            if about is None:
                raise HTTPException(404, "there is no such image")
            options = preset_options(options, self.settings.presets)
            sent = self._kind(request, options, about)
            done = await (
                self._file(name, request, options, about)
                if sent == work.EOC
                else self._picture(name, request, options, about, sent)
            )
            if done is not None:
                return done
        raise StoreError(f"{name}: is replaced all the time")

    def _kind(self, request: Request, options: ImageOptions, about: About) -> str:
        """The type that is sent."""
        accept = request.headers.get("accept", "")
        if options.format in rendering.KINDS:
            return rendering.KINDS[options.format]
        if options.format == "eoc" or not (options.made or shown(request.headers)):
            return work.EOC
        size = rendering.finished_size(about.size, options.arguments(), self.settings.max_pixels)
        return rendering.kind_for(accept, size, bool(about.facts["alpha"]))

    async def _file(self, name: str, request: Request, options: ImageOptions, about: About) -> Response | None:
        """The file or a prefix of it; None: it has been replaced meanwhile."""
        wanted = options.cut
        whole = not any(wanted) or (options.bytes or 0) >= about.bytes
        known = (about.bytes, ()) if whole else self._cuts.get((about.tag, wanted))
        part: Truncated | None = None
        if known is None:
            part = await self._cut(name, request, about, wanted)
            if part is None:
                return None
            known = self._cuts[about.tag, wanted] = len(part.data), part.notes
        size, notes = known
        headers = self._headers(f"{about.tag}-{size}" if size < about.bytes else about.tag, about)
        headers.update(told(notes))
        if (early := _unneeded(request, headers)) is not None:
            return early
        if request.method == "HEAD":
            return Response(b"", 200, {**headers, "Content-Length": str(size)}, work.EOC)
        found, status, headers = _span(request, headers, size)
        if not whole and part is None:
            part = await self._cut(name, request, about, wanted)
        elif whole:
            opened = await asyncio.to_thread(self.images.open, name, about)
            return None if opened is None else sent(opened, work.EOC, headers, status, found)
        return None if part is None else await asyncio.to_thread(sent, part.data, work.EOC, headers, status, found)

    async def _cut(self, name: str, request: Request, about: About, wanted: Cut) -> Truncated | None:
        """A prefix of an image, cut without decoding where its marks are known; None: it has been replaced."""
        data = await asyncio.to_thread(self.images.read, name)
        if data is None or len(data) != about.bytes or identify(data) != about.tag:
            return None
        rate, latents, size = wanted
        file = format.from_bytes(data)
        if rate is None or isinstance(file, Tiny) or not file.header.embedded:
            return await asyncio.to_thread(lambda: truncate_file(data, rate=rate, latents=latents, max_bytes=size))
        marks = await asyncio.to_thread(self.images.marks, about.tag)
        if marks is None:
            marks = await self._found_marks(request, data, about.tag)
        manifest = Library(self.state.models).of(file).any_manifest
        cut = Embedded().cut_at_mark(manifest, file, marks, rate)
        return truncated(file, cut)

    async def _found_marks(self, request: Request, data: bytes, tag: str) -> Any:
        """The marks of a stream that was made elsewhere; they are kept."""
        found: Any = None

        async def run(pool: Pool) -> Response:
            nonlocal found
            found = await pool.run(work.marks, data, gone=request.is_disconnected)
            return Response()

        await self.state.placed(request, run)
        await asyncio.to_thread(self.images.keep_marks, tag, found)
        return found

    async def _picture(
        self, name: str, request: Request, options: ImageOptions, about: About, kind: str
    ) -> Response | None:
        """A picture made of an image; None: it has been replaced meanwhile."""
        arguments = options.arguments()
        rendering.finished_size(about.size, arguments, self.settings.max_pixels)
        wanted = options.cut
        tag = hashlib.sha256(repr((about.tag, wanted, kind, arguments)).encode()).hexdigest()[:32]
        headers = self._headers(tag, about)
        if (early := _unneeded(request, headers)) is not None:
            return early
        if request.method == "HEAD":
            return Response(b"", 200, headers, kind)
        kept = self.state.results.open(tag)
        if kept is None:
            notes: tuple[str, ...] = ()
            if not any(wanted) or (options.bytes or 0) >= about.bytes:
                data = await asyncio.to_thread(self.images.read, name)
                data = data if data is not None and identify(data) == about.tag else None
            else:
                part = await self._cut(name, request, about, wanted)
                data, notes = (None, ()) if part is None else (part.data, part.notes)
            if data is None:
                return None
            body = await rendered(self.state, request, data, kind, arguments, tag, notes)
            headers.update(told(self.state.notes.get(tag, ())))
            found, status, headers = _span(request, headers, len(body))
            return await asyncio.to_thread(sent, body, kind, headers, status, found)
        file, size = kept
        headers.update(told(self.state.notes.get(tag, ())))
        found, status, headers = _span(request, headers, size)
        return sent(file, kind, headers, status, found)

    def _headers(self, tag: str, about: About) -> dict[str, str]:
        return {
            "ETag": quote_etag(tag),
            "Last-Modified": http_date(about.modified),
            "Cache-Control": self.settings.cache_control,
            "Accept-Ranges": "bytes",
            "Vary": "Accept, Sec-Fetch-Dest",
            "Cross-Origin-Resource-Policy": self.settings.embedded,
        }


async def rendered(
    state: State,
    request: Request,
    source: bytes | Callable[[Pool], Awaitable[bytes]],
    kind: str,
    arguments: dict[str, Any],
    tag: str,
    notes: tuple[str, ...] = (),
) -> bytes:
    """A picture that a process makes of bytes, or of those that are got while a place is held; kept under its tag.

    What is to be said of it, beside `notes`, stands in the state's under the same tag.
    """
    body = b""

    async def run(pool: Pool) -> Response:
        nonlocal body
        data = source if isinstance(source, bytes) else await source(pool)
        content, gone = identify(data), request.is_disconnected
        made = await pool.run(work.render, data, kind, arguments, content, gone=gone, about=content)
        body, state.notes[tag] = made.body, (*notes, *made.notes)
        return Response()

    await state.placed(request, run)
    await asyncio.to_thread(state.results.put, tag, body)
    return body


def preset_options(options: ImageOptions, presets: dict[str, str]) -> ImageOptions:
    """Options with those that a preset stands for where they are not given.

    Raises:
        HTTPException: 422, there is no such preset.
    """
    if options.preset is None:
        return options
    if options.preset not in presets:
        known = ", ".join(presets) or "none"
        raise HTTPException(422, f"preset: there is none of this name; there are: {known}")
    words = dict(parse_qsl(presets[options.preset]))
    return ImageOptions.model_validate({**words, **options.model_dump(exclude_unset=True, exclude={"preset"})})


def _check_conditions(request: Request, about: About | None) -> None:
    """Refuse to replace or remove an image that is not the one that the request's conditions allow."""
    tag = None if about is None else about.tag
    keep, expected = request.headers.get("if-none-match"), request.headers.get("if-match")
    changed = expected and (tag is None or not names_tag(expected, tag, weak=False))
    if changed or (tag is not None and names_tag(keep, tag, weak=True)):
        raise HTTPException(412, "the stored image is not the one that the condition names")
    since = request.headers.get("if-unmodified-since")
    if not expected and since and about is not None and modified_since(since, about.modified):
        raise HTTPException(412, "the stored image has been modified since")


def _unneeded(request: Request, headers: dict[str, str]) -> Response | None:
    """The answer 304, if the client has what it asks for.

    Raises:
        HTTPException: 412, it wants another one.
    """
    tag, modified = headers["ETag"].strip('"'), headers["Last-Modified"]
    expected, known = request.headers.get("if-match"), request.headers.get("if-none-match")
    if expected and not names_tag(expected, tag, weak=False):
        raise HTTPException(412, "the stored image is not the one that the condition names", {"ETag": headers["ETag"]})
    if not expected and modified_since(request.headers.get("if-unmodified-since"), modified):
        raise HTTPException(412, "the stored image has been modified since", {"ETag": headers["ETag"]})
    if known is not None:
        same = names_tag(known, tag, weak=True)
    else:
        since = request.headers.get("if-modified-since")
        same = modified_since(since, modified) is False
    return Response(status_code=304, headers=headers) if same else None


def _span(request: Request, headers: dict[str, str], size: int) -> tuple[tuple[int, int], int, dict[str, str]]:
    """Which bytes are sent, with which status and headers."""
    wanted, condition = request.headers.get("range"), request.headers.get("if-range")
    found = None
    if wanted and request.method == "GET" and condition in (None, headers["ETag"], headers.get("Last-Modified")):
        found = span(wanted, size)
    if found is None:
        return (0, size), 200, headers
    start, stop = found
    return found, 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}


def routes(state: State, access: Access) -> APIRouter:
    """Routes of stored images.

    Raises:
        EocodecError: the store cannot be used.
    """
    router, gallery = APIRouter(prefix="/v1/images", tags=["images"]), Gallery(state)

    @router.get("", dependencies=access.private, responses=LISTED)
    async def list_images(options: Annotated[ListOptions, Query()]) -> dict[str, Any]:
        """Names and bytes of stored images, in order; `next` is the `after` of the next list."""
        return await gallery.listed(options)

    @router.put("/{name}", dependencies=access.private, responses=PUT, openapi_extra=STORED)
    async def put_image(
        name: Name,
        request: Request,
        options: Annotated[CompressOptions, Query()],
        prefer: Annotated[str | None, Header(description="respond-async: an answer as soon as all has arrived")] = None,
    ) -> Response:
        """Store an `.eoc` file under a name. A picture is compressed first, by default at C = 300.

        Small pictures become embedded streams, or lossless files where these are no larger, and larger ones ordinary
        files, unless `progressive` says which; those with `tune` or `focus` are ordinary files. With `Prefer:
        respond-async` the answer is a 202 as soon as the picture has arrived; at its Location stands what became of it.
        """
        return await gallery.put(name, request, options)

    @router.delete("/{name}", dependencies=access.private, status_code=204, responses=DELETED)
    async def delete_image(name: Name, request: Request) -> None:
        """Remove a stored image; with If-Match only the one that it names."""
        await gallery.delete(name, request)

    @router.get("/{name}/info", dependencies=access.readable, responses=LISTED)
    async def image_info(name: Name, options: Annotated[NoOptions, Query()]) -> Response:
        """What a stored image is: its size in pixels and bytes, model, form; nothing is decoded."""
        return await gallery.info(name)

    @router.get("/{name}", dependencies=access.shown, response_class=Response, responses=PART)
    async def get_image(name: Name, request: Request, options: Annotated[ImageOptions, Query()]) -> Response:
        """A stored image, or a part of it: of a stream at C, of other files whole segments; nothing is encoded.

        Where a picture is wanted, as a browser's `<img>` says it is, or by `format`, `width`, `height`, `crop`, it
        comes decoded, cropped and scaled.
        """
        return await gallery.get(name, request, options)

    return router

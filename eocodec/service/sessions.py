"""Routes /v1/open: a picture is sent once, and files and views of it follow without sending it again.

    POST /v1/open                         the picture ─► its id
    GET  /v1/open/ID/file?rate=96         its .eoc file
    GET  /v1/open/ID/picture?rate=96      the picture that the file decodes to, and its PSNR, without decoding
    GET  /v1/open/ID/preview?rate=96      about the same, coarse and at once
    GET  /v1/open/ID/estimate?rate=96     about what bytes and PSNR the file has, from files that were made before
    GET  /v1/open/ID/rival?codec=avif&bytes=9000    what another codec makes of as many bytes

Bodies are kept on disk within a bound; the oldest go first, and with the service all.
"""

import asyncio
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response

from eocodec.service import work
from eocodec.service.access import Access
from eocodec.service.bodies import described
from eocodec.service.options import (
    EstimateOptions,
    FileOptions,
    NoOptions,
    PreviewOptions,
    RivalOptions,
    ViewOptions,
    merged,
)
from eocodec.service.pool import Pool
from eocodec.service.problems import ESTIMATED, OPENED, VIEW
from eocodec.service.spool import Cache
from eocodec.service.state import State, answer

__all__ = ["routes"]

FOLD = 4  # of the largest body: bytes of open pictures that are kept


def routes(state: State, access: Access) -> APIRouter:
    """Routes of open pictures."""
    router = APIRouter(prefix="/v1/open", dependencies=access.private, tags=["open pictures"])
    kept = Cache(FOLD * state.settings.max_body)
    state.closing.append(kept.close)

    async def work_at(identity: str, request: Request, function: Any, *arguments: Any) -> Response:
        path = kept.path(identity)
        if path is None:
            raise HTTPException(404, "this picture is not open, or not any more; send it again")

        async def run(pool: Pool) -> Response:
            try:
                gone = request.is_disconnected
                found = await pool.run(function, path, identity, *arguments, gone=gone, about=identity)
            except FileNotFoundError:  # it made room for others just now
                raise HTTPException(404, "this picture is not open any more; send it again") from None
            made = answer(found) if isinstance(found, work.Answer) else JSONResponse(found)
            made.headers["Cache-Control"] = "no-store"
            return made

        return await state.placed(request, run)

    @router.post("", status_code=201, responses=OPENED, openapi_extra=described("a picture"))
    async def open_picture(request: Request, options: Annotated[NoOptions, Query()]) -> Response:
        """Send a picture, which stays open for a while; the answer has its id, the SHA-256 of its content."""

        async def run(pool: Pool) -> Response:
            body, fields = await state.bodies.read(request)
            merged(options, fields)
            identity = hashlib.sha256(body).hexdigest()
            if kept.path(identity) is None:
                await pool.run(work.check_picture, body, gone=request.is_disconnected, about=identity)
                if not await asyncio.to_thread(kept.put, identity, body):
                    raise HTTPException(507, "there is no room on the disk to keep the picture open")
            headers = {"Location": f"{request.scope.get('root_path', '')}/v1/open/{identity}"}
            return JSONResponse({"id": identity, "bytes": len(body)}, 201, headers)

        return await state.placed(request, run)

    @router.get("/{identity}/file", response_class=Response, responses=VIEW)
    async def open_file(identity: str, request: Request, options: Annotated[FileOptions, Query()]) -> Response:
        """The `.eoc` file of an open picture, as from /v1/compress."""
        return await work_at(identity, request, work.opened_file, options.arguments(state.default))

    @router.get("/{identity}/picture", response_class=Response, responses=VIEW)
    async def open_decoded(identity: str, request: Request, options: Annotated[ViewOptions, Query()]) -> Response:
        """The picture that the file decodes to, PNG, with X-Eocodec-Psnr; taken from the encoder, not decoded."""
        return await work_at(identity, request, work.opened_picture, options.arguments(state.default), options.scores)

    @router.get("/{identity}/preview", response_class=Response, responses=VIEW)
    async def open_preview(identity: str, request: Request, options: Annotated[PreviewOptions, Query()]) -> Response:
        """About what the file at C looks like: a PNG of a smaller copy, in a fifth of a second of one core."""
        return await work_at(identity, request, work.opened_preview, *options.arguments(state.default))

    @router.get("/{identity}/estimate", responses=ESTIMATED)
    async def open_estimate(identity: str, request: Request, options: Annotated[EstimateOptions, Query()]) -> Response:
        """About how many bytes the file at C has, and what PSNR: null where files made before do not tell.

        `exact` says that both were measured.
        """
        return await work_at(identity, request, work.opened_estimate, options.arguments(state.default))

    @router.get("/{identity}/rival", response_class=Response, responses=VIEW)
    async def open_rival(identity: str, request: Request, options: Annotated[RivalOptions, Query()]) -> Response:
        """What another codec makes of at most so many bytes: decoded, PNG, with its PSNR and SSIMULACRA2."""
        return await work_at(identity, request, work.opened_rival, options.codec, options.bytes)

    return router

"""Routes that work at a picture or file in the body and keep nothing."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from eocodec.service import work
from eocodec.service.access import Access
from eocodec.service.bodies import described
from eocodec.service.negotiation import accepted
from eocodec.service.options import CompressOptions, DecompressOptions, DenoiseOptions, EditOptions, NoOptions, merged
from eocodec.service.pool import Pool
from eocodec.service.problems import EDITED, FILE, PICTURE, PROBLEMS
from eocodec.service.state import State, answer

__all__ = ["routes"]


def routes(state: State, access: Access) -> APIRouter:
    """Routes /v1/compress, /v1/decompress, /v1/denoise, /v1/edit and /v1/info."""
    router = APIRouter(prefix="/v1", dependencies=access.private)
    bodies = state.bodies

    @router.post("/compress", responses=FILE, response_class=Response, openapi_extra=described("a picture"))
    async def compress(request: Request, options: Annotated[CompressOptions, Query()]) -> Response:
        """Compress a picture to an `.eoc` file; numbers about it are in the X-Eocodec- headers."""

        async def run(pool: Pool) -> Response:
            body, fields = await bodies.read(request)
            arguments = merged(options, fields).arguments(state.default)
            return answer(await pool.run(work.compress, body, arguments, gone=request.is_disconnected))

        return await state.placed(request, run)

    @router.post(
        "/decompress", responses=PICTURE, response_class=Response, openapi_extra=described("an .eoc or tiny file")
    )
    async def decompress(request: Request, options: Annotated[DecompressOptions, Query()]) -> Response:
        """Decode a file, or a prefix of one, to the type of picture that Accept asks for; PNG if it does not."""
        kind = accepted(request.headers.get("accept", ""))

        async def run(pool: Pool) -> Response:
            body, fields = await bodies.read(request)
            salvage = merged(options, fields).salvage
            return answer(await pool.run(work.decompress, body, kind, salvage, gone=request.is_disconnected))

        return await state.placed(request, run)

    @router.post("/denoise", responses=PICTURE, response_class=Response, openapi_extra=described("a picture"))
    async def denoise(request: Request, options: Annotated[DenoiseOptions, Query()]) -> Response:
        """Remove noise from a picture; the level is in X-Eocodec-Sigma."""
        kind = accepted(request.headers.get("accept", ""))

        async def run(pool: Pool) -> Response:
            body, fields = await bodies.read(request)
            arguments = merged(options, fields).arguments(state.default)
            return answer(await pool.run(work.denoise, body, kind, arguments, gone=request.is_disconnected))

        return await state.placed(request, run)

    @router.post(
        "/edit",
        responses=EDITED,
        response_class=Response,
        openapi_extra=described("a face: an .eoc or tiny file, or a picture"),
    )
    async def edit(request: Request, options: Annotated[EditOptions, Query()]) -> Response:
        """Change a face along named paths in its latents, and on towards that of a form's second file."""
        kind = accepted(request.headers.get("accept", ""))

        async def run(pool: Pool) -> Response:
            faces, fields = await bodies.read_files(request, 2)
            arguments = merged(options, fields).arguments()
            return answer(await pool.run(work.edit, faces, kind, arguments, gone=request.is_disconnected))

        return await state.placed(request, run)

    @router.post("/info", responses=PROBLEMS, openapi_extra=described("an .eoc or tiny file"))
    async def info(request: Request, options: Annotated[NoOptions, Query()]) -> JSONResponse:
        """What a file holds: size, C, model, segments, and whether it is whole."""

        async def run(pool: Pool) -> JSONResponse:
            body, fields = await bodies.read(request)
            merged(options, fields)
            return JSONResponse(await pool.run(work.info, body, gone=request.is_disconnected))

        return await state.placed(request, run)

    return router

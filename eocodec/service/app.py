"""The application: routes, middleware, page.

In: :class:`Settings`. Out: an ASGI application. Work on pictures is done in the processes of `pool`; the routes hold
limits, parameters, headers and errors.
"""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import ValidationError

import eocodec
from eocodec.errors import EocodecError
from eocodec.model.bundle import Model
from eocodec.service import catalogue, coding, gallery, remote, sessions, tasks
from eocodec.service.access import Access
from eocodec.service.lingering import Lingering
from eocodec.service.manners import Manners, Targets, with_head
from eocodec.service.meters import Watch
from eocodec.service.options import ImageOptions, check_once, complaint
from eocodec.service.problems import COMMON, Faults, Problem, add_handlers
from eocodec.service.settings import Settings
from eocodec.service.state import State

__all__ = ["Settings", "check_presets", "create_app"]

PAGE = Path(__file__).parent / "page"
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
CONDITIONS = ("If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since")
ALLOWED = ("Authorization", "X-API-Key", "Content-Type", "Prefer", "Range", "X-Request-Id", *CONDITIONS)
RESULTS = ("Rate", "Bpp", "Bytes", "Width", "Height", "Model", "Seconds", "Psnr", "Sigma", "Method", "State",
           "Ssimulacra2", "Quality")  # fmt: skip
EXPOSED = (
    "Content-Range",
    "ETag",
    "Last-Modified",
    "Location",
    "Preference-Applied",
    "Retry-After",
    "X-Request-Id",
    *(f"X-Eocodec-{name}" for name in (*RESULTS, "Warnings")),
)
LOCAL = ("localhost", "*.localhost", "127.0.0.1", "[::1]")


def check_presets(presets: dict[str, str]) -> None:
    """See whether presets are queries that a stored image can have.

    Raises:
        EocodecError: one is not.
    """
    for name, query in presets.items():
        try:
            pairs = parse_qsl(query, strict_parsing=True)
            check_once(key for key, _ in pairs)
            ImageOptions.model_validate(dict(pairs))
        except (ValidationError, ValueError, EocodecError) as e:
            why = complaint(e.errors()[0]) if isinstance(e, ValidationError) else str(e)
            raise EocodecError(f"the preset {name} is no query of images: {why}") from None


def create_app(settings: Settings, models: list[Model]) -> FastAPI:
    """The application.

    Arguments:
        settings: how it runs.
        models: those of `settings.models`, loaded, for what the routes themselves say about them.

    Raises:
        EocodecError: the store of images cannot be used.
    """
    state, access = State(settings, models), Access(settings)
    app = FastAPI(
        title="eocodec",
        version=eocodec.__version__,
        description="Image compression and denoising on entropy-ordered flows.",
        lifespan=state.running,
        docs_url=None,  # its pages load scripts from elsewhere; the specification is at /openapi.json
        redoc_url=None,
    )
    app.state.eocodec = state
    rooms = [room.routes(state, access) for room in (coding, catalogue, gallery, remote, sessions)]
    for router in (*rooms, tasks.routes(state.tasks, access)):
        app.include_router(with_head(router), responses=COMMON, dependencies=[Depends(_given_once)])
    app.include_router(with_head(_health(state, access)))
    if (PAGE / "index.html").exists():
        app.include_router(with_head(_page()))
        app.mount("/static", _Revalidated(directory=PAGE), "static")
    add_handlers(app)
    app.add_middleware(Faults)  # of routes; with the headers of CORS, so that pages of other sites can read the answer
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=METHODS,
            allow_headers=ALLOWED,
            expose_headers=EXPOSED,
        )
    # Without keys: pages elsewhere, even those whose name comes to mean this machine, must not get at the images.
    hosts, origins = ((*LOCAL, *settings.hosts), settings.origins) if access.open else (None, None)
    app.add_middleware(Manners, routes=app, hosts=hosts, origins=origins)
    app.add_middleware(Faults)  # of middleware
    app.add_middleware(Lingering, limit=settings.max_body)
    app.add_middleware(Watch, meters=state.meters, seconds=settings.write_timeout)
    app.add_middleware(Targets)
    return app


def _given_once(request: Request) -> None:
    check_once(name for name, _ in request.query_params.multi_items())


def _health(state: State, access: Access) -> APIRouter:
    """Routes for those who run the service."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the service runs."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"model": Problem}, 507: {"model": Problem}})
    async def readyz() -> dict[str, str]:
        """Whether the models are loaded, the store answers, and requests can be worked at."""
        if not state.ready:
            raise HTTPException(503, "the models are being loaded", {"Retry-After": "1"})
        await state.check()
        return {"status": "ready"}

    @router.get("/metrics", response_class=Response, dependencies=access.private)
    async def metrics() -> Response:
        """Meters in Prometheus' text form."""
        return Response(generate_latest(state.meters.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


def _page() -> APIRouter:
    """The page to try it all."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        return FileResponse(PAGE / "index.html", headers=headers)

    return router


class _Revalidated(StaticFiles):
    """Files that are revalidated each time, so that the parts of two versions of the page never meet."""

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        """As ever, with a header."""
        response = super().file_response(*arguments, **more)
        response.headers["Cache-Control"] = "no-cache"
        return response

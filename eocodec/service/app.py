"""The routes of the service.

In: :class:`Settings`. Out: an ASGI application. Work on pictures is done in the processes of `pool`; here are only
limits, parameters, headers and errors: `{"detail": "one sentence"}` with a status that says whose fault it is.
"""

import asyncio
import contextlib
import hashlib
import hmac
import re
import signal
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from weakref import WeakValueDictionary

import structlog
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import eocodec
from eocodec.codec import DEFAULT_RATE
from eocodec.coding.embedded_tables import TABLES_FILE as EMBEDDED_TABLES
from eocodec.coding.lossless_tables import TABLES_FILE as LOSSLESS_TABLES
from eocodec.errors import EocodecError, LimitError, UnknownTypeError
from eocodec.model.bundle import Model
from eocodec.service import work
from eocodec.service.pool import Busy, Died, Gone, Pool, TooSlow
from eocodec.service.store import NAME, Store, StoreError, identify

__all__ = ["Settings", "create_app"]

PAGE = Path(__file__).parent / "page"
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LARGEST_FIELD = 1024  # bytes of a form's field that is not the picture
DRAIN_SECONDS, DRAIN_BYTES = 5.0, 16 << 20  # what is still read of a body that is refused
CUTS = 4096  # lengths of prefixes that are remembered


@dataclass(frozen=True)
class Settings:
    """How the service runs.

    Arguments:
        models: paths of the bundles by name; the first is the default.
        workers: processes that work on pictures.
        queue: requests that may wait for one.
        threads: of every process; 0 is one per core.
        device: "auto", "cuda" or "cpu".
        max_body: bytes.
        max_pixels: of a picture.
        timeout: seconds of work for a request.
        upload_timeout: seconds for a body to arrive.
        store: folder or fsspec URL of the stored images; None: there is none.
        keys: API keys; empty: none is needed.
        public_read: stored images can be read without a key.
        cache_seconds: how long stored images may be kept without asking again.
        origins: other origins whose pages may use the service.
        hosts: without keys, names that the service may be called by besides those of this machine.
    """

    models: dict[str, str]
    workers: int = 2
    queue: int = 16
    threads: int = 1
    device: str = "auto"
    max_body: int = 64 << 20
    max_pixels: int = 1 << 25
    timeout: float = 60.0
    upload_timeout: float = 30.0
    store: str | None = None
    keys: tuple[str, ...] = ()
    public_read: bool = False
    cache_seconds: int = 60
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def _level(value: Any) -> Any:
    """A noise level from a query: a number, or "auto"."""
    return value if value is None or value == "auto" else float(value)


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, Field(max_length=64, description="name of a model; default: the first")] = None


Level = Annotated[
    str | None,
    Field(pattern=r"^(auto|\d{1,3}(\.\d{1,6})?)$", description="noise level in 8-bit levels, 0 to 255, or auto"),
]
Finite = Field(gt=0, lt=1e12, allow_inf_nan=False)


class CompressOptions(_Options):
    """Parameters of /v1/compress; at most one of rate, bpp, bytes and psnr."""

    rate: Annotated[float | None, Field(ge=1, le=1e6, allow_inf_nan=False, description="C, latents a block")] = None
    bpp: Annotated[float | None, Finite] = None
    bytes: Annotated[int | None, Field(gt=0, lt=1 << 40)] = None
    psnr: Annotated[float | None, Finite] = None
    denoise: Level = None
    progressive: bool = False
    lossless: bool = False
    tiny: bool = False
    resize: bool = False
    measure: Annotated[bool, Field(description="decode and say the PSNR")] = False

    @model_validator(mode="after")
    def _one_target(self) -> "CompressOptions":
        if sum(t is not None for t in (self.rate, self.bpp, self.bytes, self.psnr)) > 1:
            raise ValueError("give only one of rate, bpp, bytes and psnr")
        return self

    def arguments(self, default: str) -> dict[str, Any]:
        """Arguments of :func:`eocodec.codec.compress_picture`."""
        given = self.model_dump()
        given["max_bytes"] = given.pop("bytes")
        given["denoise"] = _level(given["denoise"])
        given["model"] = given["model"] or ("face64" if self.tiny else default)
        return given


class DecompressOptions(BaseModel):
    """Parameters of /v1/decompress."""

    model_config = ConfigDict(extra="forbid")

    salvage: Annotated[bool, Field(description="decode what comes before the damage")] = False


class NoOptions(BaseModel):
    """There are no parameters."""

    model_config = ConfigDict(extra="forbid")


class DenoiseOptions(_Options):
    """Parameters of /v1/denoise."""

    sigma: Level = "auto"
    method: Literal["auto", "net", "shrink", "drop"] = "auto"
    rate: Annotated[float | None, Field(ge=1, le=1e6, allow_inf_nan=False)] = None
    strength: Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)] = 1.0
    shifts: Annotated[int | None, Field(ge=1, le=8)] = None

    def arguments(self, default: str) -> dict[str, Any]:
        """Arguments of :func:`eocodec.denoising.denoise_picture`."""
        given = self.model_dump()
        return {**given, "sigma": _level(given["sigma"]), "model": given["model"] or default}


class CutOptions(BaseModel):
    """Which part of a stored image is wanted."""

    model_config = ConfigDict(extra="forbid")

    rate: Annotated[float | None, Field(ge=1, le=1e6, allow_inf_nan=False, description="only the first C latents")] = (
        None
    )
    bytes: Annotated[int | None, Field(gt=0, lt=1 << 40, description="at most so many bytes")] = None

    @model_validator(mode="after")
    def _one_target(self) -> "CutOptions":
        if self.rate is not None and self.bytes is not None:
            raise ValueError("give only one of rate and bytes")
        return self


class Meters:
    """What /metrics shows."""

    def __init__(self, pool: Callable[[], Pool | None]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "eocodec_requests_total", "Requests by route and status", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "eocodec_request_seconds", "Time from a request to its answer", ["route"], buckets=BUCKETS,
            registry=self.registry,
        )  # fmt: skip
        self.received = Counter("eocodec_received_bytes_total", "Bytes of bodies received", registry=self.registry)
        self.sent = Counter("eocodec_sent_bytes_total", "Bytes of bodies sent", registry=self.registry)
        self.refused = Counter("eocodec_refused_total", "Requests refused because all places were taken",
                               registry=self.registry)  # fmt: skip
        taken = Gauge("eocodec_requests_in_work", "Requests that are worked at or wait", registry=self.registry)
        taken.set_function(lambda: float(p.taken) if (p := pool()) else 0.0)
        waiting = Gauge("eocodec_requests_waiting", "Requests that wait for a process", registry=self.registry)
        waiting.set_function(lambda: float(p.waiting) if (p := pool()) else 0.0)
        version = Gauge("eocodec_info", "Version of the service", ["version"], registry=self.registry)
        version.labels(eocodec.__version__).set(1)


class Watch:
    """ASGI middleware: a log line and the meters for every request, and headers that every answer has."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self.app, self.meters = app, meters
        self.log = structlog.get_logger("eocodec.service")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status, received, sent = 500, 0, 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff"),
                                      (b"referrer-policy", b"no-referrer")]  # fmt: skip
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, counted_receive, counted_send)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")  # the template: names would be without number
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "?"
            self.meters.requests.labels(method, route, str(status)).inc()
            self.meters.seconds.labels(route).observe(seconds)
            self.meters.received.inc(received)
            self.meters.sent.inc(sent)
            quiet = route in ("/healthz", "/readyz", "/metrics")
            (self.log.debug if quiet else self.log.info)(
                "request", method=method, path=scope["path"][:200], status=status, seconds=round(seconds, 4),
                received=received, sent=sent, client=(scope.get("client") or ("",))[0],
            )  # fmt: skip


class Bodies:
    """Reads bodies, whole or as the field `image` of a form, within a size and a time."""

    def __init__(self, settings: Settings) -> None:
        self.limit, self.seconds = settings.max_body, settings.upload_timeout

    async def read(self, request: Request) -> tuple[bytes, dict[str, str]]:
        """The picture, and the other fields if it came in a form.

        Raises:
            HTTPException: 413 too long, 408 too slow, 400 not a form.
        """
        try:
            return await self._read(request)
        except HTTPException:
            await self.drain(request)
            raise

    async def _read(self, request: Request) -> tuple[bytes, dict[str, str]]:
        try:
            async with asyncio.timeout(self.seconds):
                if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                    return await self._form(request)
                return b"".join([chunk async for chunk in self._chunks(request)]), {}
        except ClientDisconnect:
            raise Gone from None
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {self.seconds:g} s") from None

    async def drain(self, request: Request) -> None:
        """Read what is left of a body and forget it: a client that is still sending might not read the answer."""
        size = 0
        with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: all was read already
            async with asyncio.timeout(min(self.seconds, DRAIN_SECONDS)):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self.limit + DRAIN_BYTES:
                        break

    async def _chunks(self, request: Request) -> AsyncGenerator[bytes, None]:
        too_long = HTTPException(
            413, f"the body has more than the {self.limit} bytes that are allowed", {"Connection": "close"}
        )
        if int(request.headers.get("content-length", 0)) > self.limit:
            raise too_long
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self.limit:
                raise too_long
            yield chunk

    async def _form(self, request: Request) -> tuple[bytes, dict[str, str]]:
        parser = MultiPartParser(
            request.headers, self._chunks(request), max_files=1, max_fields=32, max_part_size=LARGEST_FIELD
        )
        form = FormData()
        try:
            form = await parser.parse()
            image = form.get("image")
            if not isinstance(image, UploadFile):
                raise HTTPException(400, "the form has no file in a field called image")
            fields = {k: v for k, v in form.items() if isinstance(v, str)}
            return await image.read(), fields
        except (MultiPartException, UnicodeError) as e:
            raise HTTPException(400, f"the form cannot be read ({getattr(e, 'message', 'its text')})") from None
        finally:
            await form.close()


class _Revalidated(StaticFiles):
    """Files that browsers ask about each time, so that the parts of two versions of the page never meet."""

    def file_response(self, *arguments: Any, **more: Any) -> Response:
        """As ever, with a header."""
        response = super().file_response(*arguments, **more)
        response.headers["Cache-Control"] = "no-cache"
        return response


class Cuts:
    """Remembers how long the prefixes of stored images for a rate are; finding out takes work in embedded streams."""

    def __init__(self) -> None:
        self._lengths: OrderedDict[tuple[str, float], int] = OrderedDict()

    def get(self, tag: str, rate: float) -> int | None:
        """Bytes of a prefix, if they are known."""
        return self._lengths.get((tag, rate))

    def add(self, tag: str, rate: float, length: int) -> None:
        """Remember one; the oldest is forgotten."""
        self._lengths[tag, rate] = length
        if len(self._lengths) > CUTS:
            self._lengths.popitem(last=False)


def _weights(header: str) -> list[tuple[str, float]]:
    """Types of an Accept header with their weights."""
    found = []
    for part in header.split(",") if header.strip() else []:
        kind, *parameters = (p.strip().lower() for p in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        found.append((kind, float(weight) if re.fullmatch(r"[01](\.[0-9]{0,3})?", weight) else 0.0))
    return found


def _accepted(header: str, default: str = "image/png") -> str:
    """The type of picture to send for an Accept header.

    Raises:
        HTTPException: 406, none of those that can be sent is accepted.
    """
    ranges = _weights(header)
    if not ranges:
        return default

    def quality(kind: str) -> float:
        best = [(len(r.replace("*", "")), q) for r, q in ranges if r in (kind, "image/*", "*/*")]
        return max(best)[1] if best else 0.0  # the most specific range counts

    kinds = [default, *(k for k in work.TYPES if k != default)]
    chosen = max(kinds, key=lambda k: (quality(k), -kinds.index(k)))
    if quality(chosen) <= 0:
        raise HTTPException(406, f"pictures can be sent as {', '.join(work.TYPES)}")
    return chosen


def _wants_picture(header: str) -> bool:
    """Whether an Accept header asks for pictures rather than for the file: for some kind of them before anything else.

    "*/*" alone, or first, leaves the choice to the service.
    """
    weights = dict(_weights(header))
    pictures = [q for kind, q in weights.items() if kind.startswith("image/") and kind != work.EOC]
    files = [weights.get(kind, 0.0) for kind in (work.EOC, "application/octet-stream")]
    return max(pictures, default=0.0) > max(files) and list(weights)[:1] != ["*/*"]


def _range(header: str, size: int) -> tuple[int, int] | None:
    """First and last byte of a Range header with a single range; None if it is to be ignored.

    Raises:
        HTTPException: 416, the range is beyond the end.
    """
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header.replace(" ", ""))
    if not found or found[1] == found[2] == "":
        return None
    if found[1] == "":
        first, last = max(0, size - int(found[2])), size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
        if found[2] and int(found[2]) < first:
            return None
    if first >= size or first > last:
        raise HTTPException(416, f"the range is beyond the {size} bytes", {"Content-Range": f"bytes */{size}"})
    return first, last


def _matches(header: str, tag: str) -> bool:
    """Whether an If-None-Match or If-Match header names a tag."""
    return header.strip() == "*" or tag in [t.strip().removeprefix("W/") for t in header.split(",")]


def _spectrum(model: Model) -> dict[str, Any]:
    """Explained entropy (nats) over rank, falling; long spectra thinned out evenly in the logarithm of the rank."""
    ranks, entropies = model.any_manifest.spectrum.curve()
    return {"block": model.block, "rank": ranks, "entropy": entropies}


def _row(model: Model, default: str) -> dict[str, Any]:
    return {
        "name": model.name,
        "default": model.name == default,
        "id": model.id.hex(),
        "sha256": model.full_id.hex(),
        "size": model.size,
        "block": model.block,
        "default_rate": DEFAULT_RATE,
        "methods": list(model.denoising_methods),
        "lossless": LOSSLESS_TABLES in model.files,
        "progressive": EMBEDDED_TABLES in model.files,
        "tiny": bool(model.any_manifest.tiny_number),
        "licence": model.any_manifest.licence,
        "card": model.any_manifest.card,
    }


def _body(description: str) -> dict[str, Any]:
    """OpenAPI's description of a body that is raw or a form."""
    raw = {"schema": {"type": "string", "format": "binary", "description": description}}
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "format": "binary"}},
        "additionalProperties": {"type": "string", "description": "the same parameters as in the query"},
    }
    content = {"application/octet-stream": raw, "image/*": raw, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


class _Problem(BaseModel):
    """Every error."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": _Problem, "description": "an API key is needed"},
    408: {"model": _Problem, "description": "the body did not arrive in time"},
    413: {"model": _Problem, "description": "more bytes, pixels or work than is allowed"},
    415: {"model": _Problem, "description": "neither a picture nor an .eoc file"},
    422: {"model": _Problem, "description": "a parameter or the picture is wrong"},
    503: {"model": _Problem, "description": "busy; see Retry-After"},
}
PICTURE: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in work.TYPES}},
    406: {"model": _Problem, "description": "none of the accepted types can be sent"},
}
FILE: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {"content": {work.EOC: {"schema": {"type": "string", "format": "binary"}}}},
}

PUT: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    201: {"description": "the name is new"},
    412: {"model": _Problem, "description": "If-Match or If-None-Match does not hold"},
}
PART: dict[int | str, dict[str, Any]] = {
    **FILE,
    206: {"description": "the bytes of the range"},
    304: {"description": "not modified"},
    404: {"model": _Problem},
    416: {"model": _Problem},
}


def create_app(settings: Settings, models: list[Model]) -> FastAPI:
    """The application.

    Arguments:
        settings: how it runs.
        models: those of `settings.models`, loaded, for what the routes themselves say about them.
    """
    state: dict[str, Any] = {"pool": None, "ready": False, "failed": None}
    default = models[0].name
    embedding = {m.name for m in models if _row(m, default)["progressive"]}
    digests = [hashlib.sha256(k.encode()).digest() for k in settings.keys]
    store = Store(settings.store) if settings.store is not None else None
    bodies, cuts = Bodies(settings), Cuts()
    meters = Meters(lambda: state["pool"])

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool = Pool(
            settings.workers,
            settings.queue,
            settings.timeout,
            work.start,
            (settings.models, settings.threads, settings.device, settings.max_pixels),
        )
        state["pool"] = pool
        log = structlog.get_logger("eocodec.service")

        async def warm() -> None:
            try:
                device = (await asyncio.gather(*(pool.run(work.ready) for _ in range(settings.workers))))[0]
            except Exception as e:
                state["failed"] = e
                signal.raise_signal(signal.SIGTERM)  # the server ends, and says why
                return
            state["ready"] = True
            log.info("ready", workers=settings.workers, device=device)

        warming = asyncio.create_task(warm())
        yield
        state["ready"] = False
        warming.cancel()
        await pool.close()
        log.info("stopped")

    app = FastAPI(
        title="eocodec",
        version=eocodec.__version__,
        description="Image compression and denoising on entropy-ordered flows.",
        lifespan=lifespan,
        docs_url=None,  # its pages load scripts from elsewhere; the specification is at /openapi.json
        redoc_url=None,
    )
    app.state.eocodec = state

    bearer, header = HTTPBearer(auto_error=False), APIKeyHeader(name="X-API-Key", auto_error=False)

    def authorised(credentials: HTTPAuthorizationCredentials | None, key: str | None) -> None:
        if not digests:
            return
        given = hashlib.sha256((credentials.credentials if credentials else key or "").encode()).digest()
        if not any([hmac.compare_digest(given, d) for d in digests]):  # a list: all are compared, whichever fits
            raise HTTPException(401, "an API key is needed, as bearer token or in X-API-Key",
                                {"WWW-Authenticate": "Bearer"})  # fmt: skip

    def need_key(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
        key: Annotated[str | None, Depends(header)],
    ) -> None:
        authorised(credentials, key)

    def need_read_key(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
        key: Annotated[str | None, Depends(header)],
    ) -> None:
        if not settings.public_read:
            authorised(credentials, key)

    private, readable = [Depends(need_key)], [Depends(need_read_key)]

    async def placed(request: Request, function: Callable[[Pool], Awaitable[Response]]) -> Response:
        """Run a route's work while it holds a place in the pool."""
        pool: Pool = state["pool"]
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(pool.place())
            except Busy:
                meters.refused.inc()
                await bodies.drain(request)
                raise
            return await function(pool)

    def answer(a: work.Answer) -> Response:
        return Response(a.body, media_type=a.type, headers={f"X-Eocodec-{k}": v for k, v in a.headers.items()})

    def merged(options: Any, fields: dict[str, str]) -> Any:
        """Options of the query with those of a form."""
        given = {k: v for k, v in options.model_dump(exclude_unset=True).items()}
        return type(options).model_validate({**given, **fields}) if fields else options

    @app.post(
        "/v1/compress", responses=FILE, response_class=Response, dependencies=private, openapi_extra=_body("a picture")
    )
    async def compress(request: Request, options: Annotated[CompressOptions, Query()]) -> Response:
        """Compress a picture to an `.eoc` file; numbers about it are in the X-Eocodec- headers."""

        async def run(pool: Pool) -> Response:
            body, fields = await bodies.read(request)
            return answer(
                await pool.run(
                    work.compress, body, merged(options, fields).arguments(default), gone=request.is_disconnected
                )
            )

        return await placed(request, run)

    @app.post("/v1/decompress", responses=PICTURE, response_class=Response, dependencies=private,
              openapi_extra=_body("an .eoc or tiny file"))  # fmt: skip
    async def decompress(request: Request, options: Annotated[DecompressOptions, Query()]) -> Response:
        """Decode a file, or a prefix of one, to the type of picture that Accept asks for; PNG if it does not."""
        kind = _accepted(request.headers.get("accept", ""))

        async def run(pool: Pool) -> Response:
            body, fields = await bodies.read(request)
            salvage = merged(options, fields).salvage
            return answer(await pool.run(work.decompress, body, kind, salvage, gone=request.is_disconnected))

        return await placed(request, run)

    @app.post(
        "/v1/denoise",
        responses=PICTURE,
        response_class=Response,
        dependencies=private,
        openapi_extra=_body("a picture"),
    )
    async def denoise(request: Request, options: Annotated[DenoiseOptions, Query()]) -> Response:
        """Remove noise from a picture; the level is in X-Eocodec-Sigma."""
        kind = _accepted(request.headers.get("accept", ""))

        async def run(pool: Pool) -> Response:
            body, fields = await bodies.read(request)
            return answer(
                await pool.run(
                    work.denoise, body, kind, merged(options, fields).arguments(default), gone=request.is_disconnected
                )
            )

        return await placed(request, run)

    @app.post("/v1/info", responses=PROBLEMS, dependencies=private, openapi_extra=_body("an .eoc or tiny file"))
    async def info(request: Request, options: Annotated[NoOptions, Query()]) -> JSONResponse:
        """What a file holds: size, C, model, segments, and whether it is whole."""

        async def run(pool: Pool) -> Response:
            body, fields = await bodies.read(request)
            merged(options, fields)
            return JSONResponse(await pool.run(work.info, body, gone=request.is_disconnected))

        return await placed(request, run)  # type: ignore[return-value]

    @app.get("/v1/models", dependencies=private)
    async def list_models() -> dict[str, Any]:
        """The models of this service, the first being the default, and the largest body and picture."""
        limits = {"max_body": settings.max_body, "max_pixels": settings.max_pixels}
        return {"models": [_row(m, default) for m in models], "limits": limits}

    @app.get("/v1/models/{name}/spectrum", dependencies=private)
    async def spectrum(name: str) -> dict[str, Any]:
        """Explained entropy of a model's latents over their rank."""
        for m in models:
            if m.name == name:
                return _spectrum(m)
        raise HTTPException(404, "there is no such model")

    Name = Annotated[str, PathParameter(pattern=NAME)]

    locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock_of(name: str) -> asyncio.Lock:
        """One for each name, so that conditions hold until what they allow is done."""
        return locks.setdefault(name, asyncio.Lock())

    def stored() -> Store:
        if store is None:
            raise HTTPException(404, "this service stores no images; start it with --store")
        return store

    @app.put("/v1/images/{name}", dependencies=private, responses=PUT,
             openapi_extra=_body("an .eoc file, or a picture, which is compressed to an embedded stream"))  # fmt: skip
    async def put_image(name: Name, request: Request, options: Annotated[CompressOptions, Query()]) -> Response:
        """Store an `.eoc` file under a name. A picture is compressed first: by default embedded, C = 300."""
        images = stored()

        async def run(pool: Pool) -> Response:
            body, fields = await bodies.read(request)
            chosen = merged(options, fields)
            arguments = chosen.arguments(default)
            if "progressive" not in chosen.model_fields_set and not chosen.lossless:
                arguments["progressive"] = arguments["model"] in embedding
            data = await pool.run(work.store, body, arguments, gone=request.is_disconnected)
            async with lock_of(name):
                previous = await asyncio.to_thread(images.read, name)
                tag = None if previous is None else f'"{identify(previous)}"'
                keep = request.headers.get("if-none-match")
                expected = request.headers.get("if-match")
                if (keep and tag and _matches(keep, tag)) or (expected and not (tag and _matches(expected, tag))):
                    raise HTTPException(412, "the stored image is not the one that the condition names")
                new = await asyncio.to_thread(images.write, name, data)
            headers = {"ETag": f'"{identify(data)}"', "Location": f"/v1/images/{name}"}
            return JSONResponse({"name": name, "bytes": len(data)}, 201 if new else 200, headers)

        return await placed(request, run)

    @app.delete("/v1/images/{name}", dependencies=private, status_code=204)
    async def delete_image(name: Name) -> None:
        """Remove a stored image."""
        images = stored()
        async with lock_of(name):
            if not await asyncio.to_thread(images.remove, name):
                raise HTTPException(404, "there is no such image")

    async def prefix(request: Request, images: Store, name: str, options: CutOptions) -> tuple[bytes, str]:
        data = await asyncio.to_thread(images.read, name)
        if data is None:
            raise HTTPException(404, "there is no such image")
        tag = identify(data)
        if options.rate is None and options.bytes is None:
            return data, f'"{tag}"'
        size = cuts.get(tag, options.rate) if options.rate is not None else options.bytes
        wanted = (None, size) if size is not None else (options.rate, None)

        async def run(pool: Pool) -> Response:
            return Response(await pool.run(work.cut, data, *wanted, gone=request.is_disconnected))

        part = bytes((await placed(request, run)).body)
        if options.rate is not None:
            cuts.add(tag, options.rate, len(part))
        return part, f'"{tag}-{len(part)}"' if len(part) < len(data) else f'"{tag}"'

    @app.head("/v1/images/{name}", dependencies=readable, include_in_schema=False)
    @app.get("/v1/images/{name}", dependencies=readable, response_class=Response, responses=PART)
    async def get_image(name: Name, request: Request, options: Annotated[CutOptions, Query()]) -> Response:
        """A stored image, or its first C latents or N bytes; nothing is encoded again.

        Where a picture is wanted, as a browser's `<img>` says it is, it comes decoded.
        """
        data, tag = await prefix(request, stored(), name, options)
        accept = request.headers.get("accept", "")
        decoded = request.headers.get("sec-fetch-dest") == "image" or _wants_picture(accept)
        kind = _accepted(accept, "image/webp" if "image/webp" in accept else "image/png") if decoded else work.EOC
        if decoded:
            tag = f'{tag[:-1]}-{work.TYPES[kind][1:]}"'
        public = "public" if settings.public_read or not settings.keys else "private"
        headers = {
            "ETag": tag,
            "Cache-Control": f"{public}, max-age={settings.cache_seconds}",
            "Accept-Ranges": "bytes",
            "Vary": "Accept, Sec-Fetch-Dest",
        }
        if _matches(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers=headers)
        if decoded:

            async def run(pool: Pool) -> Response:
                return answer(await pool.run(work.decompress, data, kind, False, gone=request.is_disconnected))

            data = bytes((await placed(request, run)).body)
        wanted = request.headers.get("range") if request.method == "GET" else None
        condition = request.headers.get("if-range")
        found = _range(wanted, len(data)) if wanted and (condition is None or condition == tag) else None
        if found is None:
            return Response(data, media_type=kind, headers=headers)
        first, last = found
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return Response(data[first : last + 1], 206, headers, kind)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the service runs."""
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", responses={503: {"model": _Problem}})
    async def readyz() -> dict[str, str]:
        """Whether the models are loaded and requests can be worked at."""
        if not state["ready"]:
            raise HTTPException(503, "the models are being loaded", {"Retry-After": "1"})
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, dependencies=private)
    async def metrics() -> Response:
        """Meters in Prometheus' text form."""
        return Response(generate_latest(meters.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    if (PAGE / "index.html").exists():

        @app.head("/", include_in_schema=False)
        @app.get("/", include_in_schema=False)
        async def page() -> FileResponse:
            return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": POLICY,
                                                              "Cache-Control": "no-cache"})  # fmt: skip

        app.mount("/static", _Revalidated(directory=PAGE), "static")

    def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"detail": detail}, status, headers)

    @app.exception_handler(EocodecError)
    async def on_error(request: Request, e: EocodecError) -> JSONResponse:
        status = 413 if isinstance(e, LimitError) else 415 if isinstance(e, UnknownTypeError) else 422
        return problem(status, str(e))

    @app.exception_handler(Busy)
    async def on_busy(request: Request, e: Busy) -> JSONResponse:
        return problem(503, str(e), {"Retry-After": str(e.seconds)})

    @app.exception_handler(TooSlow)
    async def on_too_slow(request: Request, e: TooSlow) -> JSONResponse:
        return problem(413, str(e))

    @app.exception_handler(Gone)
    async def on_gone(request: Request, e: Gone) -> JSONResponse:
        return problem(499, "the client left")  # as other servers log it; nobody reads the answer

    @app.exception_handler(MemoryError)
    async def on_memory(request: Request, e: MemoryError) -> JSONResponse:
        return problem(413, "the picture needs more memory than there is; send a smaller one")

    @app.exception_handler(StoreError)
    async def on_store(request: Request, e: StoreError) -> JSONResponse:
        structlog.get_logger("eocodec.service").error("store", error=str(e))
        return problem(507, "the store of images does not work at the moment")

    @app.exception_handler(Exception)
    async def on_fault(request: Request, e: Exception) -> JSONResponse:
        return problem(500, "something went wrong in the service")

    @app.exception_handler(Died)
    async def on_died(request: Request, e: Died) -> JSONResponse:
        return problem(500, str(e))

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    async def on_parameter(request: Request, e: Any) -> JSONResponse:
        first = e.errors()[0]
        place = [str(p) for p in first["loc"] if p not in ("query", "path", "body")]
        words = first["msg"].removeprefix("Value error, ")
        return problem(422, f"{'.'.join(place)}: {words[0].lower()}{words[1:]}" if place else words)

    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            allow_headers=[
                "Authorization",
                "X-API-Key",
                "Content-Type",
                "Range",
                "If-Match",
                "If-None-Match",
                "If-Range",
            ],
            expose_headers=["ETag", "Content-Range", "Location", "Retry-After", *(f"X-Eocodec-{k}" for k in EXPOSED)],
        )
    if not digests:  # a page elsewhere whose name comes to mean this machine must not get at the images
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=["localhost", "*.localhost", "127.0.0.1", "[::1]", *settings.hosts]
        )
    app.add_middleware(Watch, meters=meters)
    return app


EXPOSED = ("Rate", "Bpp", "Bytes", "Width", "Height", "Model", "Seconds", "Psnr", "Sigma", "Method", "State")

"""Errors as answers: `{"detail": "one sentence"}` with a status that says whose fault it is."""

from typing import Any, Literal

import structlog
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eocodec.errors import EocodecError, LimitError, UnknownTypeError
from eocodec.service import work
from eocodec.service.images import Damaged, StoreError
from eocodec.service.manners import allowed_methods
from eocodec.service.options import complaint
from eocodec.service.pool import Busy, Gone
from eocodec.workers import Died, TooSlow

__all__ = [
    "COMMON",
    "DELETED",
    "EDITED",
    "ESTIMATED",
    "FILE",
    "LISTED",
    "OPENED",
    "PART",
    "PICTURE",
    "PROBLEMS",
    "PUT",
    "REMOTE",
    "TASK",
    "VIEW",
    "Faults",
    "Problem",
    "add_handlers",
    "problem",
]


class Problem(BaseModel):
    """Body of every error."""

    detail: str


class Estimated(BaseModel):
    """What a file is expected to be like."""

    bytes: int | None
    psnr: float | None
    exact: bool


class Task(BaseModel):
    """What became of work that was answered before it was done: `status` and other members of the answer it gives."""

    model_config = ConfigDict(extra="allow")

    id: str
    state: Literal["pending", "done", "failed"]
    status: int | None
    image: str | None


def _told(names: tuple[str, ...], words: str) -> dict[str, Any]:
    return {name: {"description": words, "schema": {"type": "string"}} for name in names}


NUMBERS = ("Rate", "Bpp", "Bytes", "Psnr", "Width", "Height", "Model", "Sigma", "Method", "State", "Seconds",
           "Ssimulacra2", "Quality")  # fmt: skip
WARNINGS = _told(
    ("X-Eocodec-Warnings",), "a JSON list of sentences on what the result does not keep or is unusual; ASCII"
)
RESULT = {**_told(tuple(f"X-Eocodec-{n}" for n in NUMBERS), "a number about the result, where it has one"), **WARNINGS}
VALIDATORS = {
    **_told(("ETag", "Last-Modified", "Cache-Control", "Vary", "Accept-Ranges"), "see RFC 9110 and 9111"),
    **WARNINGS,
}

COMMON: dict[int | str, dict[str, Any]] = {  # of all routes below /v1
    400: {"model": Problem, "description": "a name that the service does not answer to; a form that cannot be read"},
    401: {
        "model": Problem,
        "description": "an API key is needed",
        "headers": _told(("WWW-Authenticate",), "Bearer"),
    },
    403: {"model": Problem, "description": "a page of another site, or a signature that does not hold"},
    405: {"model": Problem, "description": "not a method of this path", "headers": _told(("Allow",), "those it has")},
    500: {
        "model": Problem,
        "description": "a fault of the service, or a stored file that is damaged; its log has more",
    },
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    408: {"model": Problem, "description": "the body did not arrive in time"},
    413: {"model": Problem, "description": "more bytes, pixels or work than is allowed"},
    415: {"model": Problem, "description": "neither a picture nor an .eoc file; a body with a Content-Encoding"},
    422: {"model": Problem, "description": "a parameter or the picture is wrong"},
    503: {
        "model": Problem,
        "description": "all places are taken",
        "headers": _told(("Retry-After",), "seconds after which to try again"),
    },
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
PICTURE: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {"content": dict.fromkeys(work.TYPES, BINARY), "headers": RESULT},
    406: {"model": Problem, "description": "none of the accepted types can be sent"},
}
EDITED: dict[int | str, dict[str, Any]] = {
    **PICTURE,
    200: {"content": dict.fromkeys((work.EOC, *work.TYPES), BINARY), "headers": RESULT},
}
FILE: dict[int | str, dict[str, Any]] = {**PROBLEMS, 200: {"content": {work.EOC: BINARY}, "headers": RESULT}}

STORE: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "no such image, or no images at all"},
    422: PROBLEMS[422],
    507: {"model": Problem, "description": "the store does not work"},
}
PUT: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    **STORE,
    201: {
        "description": "the name is new",
        "headers": {**_told(("ETag", "Location"), "of the stored image"), **WARNINGS},
    },
    202: {
        "model": Task,
        "description": "asked for by Prefer: respond-async; the picture has arrived and will be stored",
        "headers": _told(("Location", "Preference-Applied", "Retry-After"), "where to look, and when"),
    },
    412: {"model": Problem, "description": "If-Match or If-None-Match does not hold"},
}
TASK: dict[int | str, dict[str, Any]] = {
    200: {"model": Task, "headers": _told(("Retry-After",), "while it is pending")},
    404: {"model": Problem, "description": "no such task, or not any more"},
    422: PROBLEMS[422],
}
REMOTE: dict[int | str, dict[str, Any]] = {
    **PICTURE,
    304: {"description": "not modified"},
    403: {"model": Problem, "description": "the service may not fetch from there"},
    404: {"model": Problem, "description": "there is nothing, or no source is allowed"},
    502: {"model": Problem, "description": "the source cannot be reached"},
    504: {"model": Problem, "description": "the source did not arrive in time"},
}
OPENED: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    507: {"model": Problem, "description": "there is no room on the disk to keep the picture open"},
}
VIEW: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    200: {"content": dict.fromkeys((work.EOC, "image/png"), BINARY), "headers": RESULT},
    404: {"model": Problem, "description": "the picture is not open, or not any more"},
}
ESTIMATED: dict[int | str, dict[str, Any]] = {**PROBLEMS, 200: {"model": Estimated}, 404: VIEW[404]}
LISTED: dict[int | str, dict[str, Any]] = dict(STORE)
DELETED: dict[int | str, dict[str, Any]] = {**STORE, 412: PUT[412]}
PART: dict[int | str, dict[str, Any]] = {
    **PROBLEMS,
    **STORE,
    200: {"content": dict.fromkeys((work.EOC, *work.TYPES), BINARY), "headers": VALIDATORS},
    206: {"description": "the bytes of the range", "headers": {**VALIDATORS, **_told(("Content-Range",), "which")}},
    304: {"description": "not modified", "headers": VALIDATORS},
    412: PUT[412],
    416: {"model": Problem, "description": "the range is beyond the end"},
}


def _handlers() -> dict[int | type[Exception], Any]:
    return {
        EocodecError: _of_eocodec,
        Busy: _busy,
        TooSlow: _too_slow,
        Died: _died,
        Gone: _gone,
        MemoryError: _memory,
        StoreError: _store,
        Damaged: _damaged,
        RequestValidationError: _parameter,
        ValidationError: _parameter,
        404: _of_path,
        405: _of_path,
    }


def add_handlers(app: FastAPI) -> None:
    """Let the application answer exceptions with problems."""
    for kind, handler in _handlers().items():
        app.add_exception_handler(kind, handler)


class Faults:
    """ASGI middleware: an exception that no handler knows is a fault of the service, which is logged and answered.

    Starlette's own place for that lies outside of all middleware, whose headers the answer would lack.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        begun = False

        async def watched_send(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception as e:
            if begun or scope["type"] != "http":  # what has begun can only be broken off
                raise
            await _fault(e, scope.get("state", {}).get("request"))(scope, receive, send)


async def problem(request: Request, e: Exception) -> JSONResponse:
    """The answer to an exception of work that nobody waits for; faults of the service are logged here."""
    if isinstance(e, HTTPException):
        return _answer(e.status_code, str(e.detail), dict(e.headers or {}))
    handlers = _handlers()
    kind = next((k for k in type(e).__mro__ if k in handlers), None)
    if kind is None:
        return _fault(e, request.scope.get("state", {}).get("request"))
    found: JSONResponse = await handlers[kind](request, e)
    return found


def _answer(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


async def _of_eocodec(request: Request, e: Exception) -> JSONResponse:
    return _answer(413 if isinstance(e, LimitError) else 415 if isinstance(e, UnknownTypeError) else 422, str(e))


async def _busy(request: Request, e: Any) -> JSONResponse:
    return _answer(503, str(e), {"Retry-After": str(e.seconds)})


async def _too_slow(request: Request, e: Any) -> JSONResponse:
    return _answer(413, f"the picture took longer than {e.seconds:g} s; send a smaller one")


async def _died(request: Request, e: Any) -> JSONResponse:
    ended = f"the process that worked at the picture ended with code {e.code}"
    return _answer(500, str(e) if e.code is None else ended)


async def _gone(request: Request, e: Exception) -> JSONResponse:
    return _answer(499, "the client left")  # as other servers log it; the answer is not sent


async def _memory(request: Request, e: Exception) -> JSONResponse:
    return _answer(413, "the picture needs more memory than there is; send a smaller one")


async def _store(request: Request, e: Exception) -> JSONResponse:
    structlog.get_logger("eocodec.service").error("store", error=str(e))
    return _answer(507, "the store of images does not work at the moment")


async def _damaged(request: Request, e: Exception) -> JSONResponse:
    structlog.get_logger("eocodec.service").error("damaged", path=request.scope["path"][:200], error=str(e))
    return _answer(500, "the stored file of this image is damaged; store it again")


async def _of_path(request: Request, e: Any) -> JSONResponse:
    """404 and 405: of a route, in its own words; of a path that no route has, in these."""
    if e.status_code == 404:
        return _answer(404, "there is nothing at this path" if e.detail == "Not Found" else e.detail, e.headers)
    methods = allowed_methods(request.app, request.scope)
    return _answer(405, f"this path knows {', '.join(methods)}", {"Allow": ", ".join([*methods, "OPTIONS"])})


def _fault(e: Exception, identity: str | None) -> JSONResponse:
    structlog.get_logger("eocodec.service").error("fault", id=identity, exc_info=e)
    return _answer(500, "something went wrong in the service")


async def _parameter(request: Request, e: Any) -> JSONResponse:
    return _answer(422, complaint(e.errors()[0]))

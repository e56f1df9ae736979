"""Manners of HTTP that all routes share: targets, HEAD, OPTIONS, Allow, names the service answers to, foreign pages.

In: an ASGI application. Out: one around it. Refusals have the form of every other error.
"""

import copy
import re
from urllib.parse import SplitResult, unquote, urlsplit

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Manners", "Targets", "allowed_methods", "with_head"]

ORDER = ("GET", "HEAD", "POST", "PUT", "DELETE")
ABSOLUTE = re.compile(rb"https?://([^/]*)(.*)", re.IGNORECASE)
UNSAFE = ("POST", "PUT", "DELETE", "PATCH")


def allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """The methods that some route has for a path; none where there is no such path."""
    found: set[str] = set()
    scope = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}  # not of a part of the page
    for route in app.routes:
        if isinstance(route, Mount):
            found |= {"GET", "HEAD"} if route.matches({**scope, "method": "GET"})[0] is not Match.NONE else set()
            continue
        found |= {m for m in ORDER if route.matches({**scope, "method": m})[0] is Match.FULL}
    return [m for m in ORDER if m in found]


def with_head(router: APIRouter) -> APIRouter:
    """A router that answers HEAD wherever it answers GET; the server leaves out the body."""
    for route in [r for r in router.routes if isinstance(r, APIRoute) and "GET" in (r.methods or ())]:
        head = copy.copy(route)
        head.methods, head.include_in_schema = {"HEAD"}, False
        router.routes.append(head)
    return router


class Targets:
    """Middleware: of a target that is a whole URL (RFC 9112, 3.2.2) the path is answered and the host counts.

    Arguments:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        root = scope.get("root_path", "")
        url = ABSOLUTE.fullmatch(scope.get("raw_path", b"").removeprefix(root.encode()))
        if url is not None:
            host, path = url[1], url[2] or b"/"
            headers = [(b"host", host), *(h for h in scope["headers"] if h[0] != b"host")]
            names = {"path": root + unquote(path.decode("latin-1")), "raw_path": root.encode() + path}
            scope = {**scope, **names, "headers": headers}
        await self.app(scope, receive, send)


class Manners:
    """Middleware.

    Arguments:
        app: what answers.
        routes: the application, whose routes are asked.
        hosts: names that the service answers to ("*.name" for those below one); None: all.
        origins: sites whose pages may send what changes or costs something; None: all, as they need keys.
    """

    def __init__(
        self, app: ASGIApp, routes: FastAPI, hosts: tuple[str, ...] | None, origins: tuple[str, ...] | None
    ) -> None:
        self.app, self.routes, self.hosts, self.origins = app, routes, hosts, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self.hosts is not None and not self._answers_to(headers.get("host", "")):
            return JSONResponse({"detail": "the service does not answer to this name"}, 400)
        if self.origins is not None and scope["method"] in UNSAFE and self._foreign(headers):
            return JSONResponse({"detail": "pages of other sites may not use this service; see --cors"}, 403)
        if scope["method"] == "OPTIONS" and "access-control-request-method" not in headers:
            everywhere = scope["path"].removeprefix(scope.get("root_path", "")) == "*"
            methods = list(ORDER) if everywhere else allowed_methods(self.routes, scope)
            if methods:
                return Response(status_code=204, headers={"Allow": ", ".join([*methods, "OPTIONS"])})
        return None

    def _answers_to(self, host: str) -> bool:
        parts = _split(f"//{host}")
        name = (parts.hostname if parts else None) or ""
        assert self.hosts is not None
        names = {h.strip("[]").lower() for h in self.hosts}
        return name in names or any(h.startswith("*.") and name.endswith(h[1:]) for h in names)

    def _foreign(self, headers: Headers) -> bool:
        """Whether a page of another site sends this. Browsers say so; other programs need not, and are no danger."""
        origin = headers.get("origin")
        assert self.origins is not None
        if origin is None:
            return headers.get("sec-fetch-site") == "cross-site"
        if origin in self.origins or "*" in self.origins:
            return False
        parts = _split(origin)
        return parts is None or parts.netloc != headers.get("host", "")


def _split(url: str) -> SplitResult | None:
    """Parts of what a client says is a URL; None: it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return None

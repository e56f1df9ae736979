"""What is counted and logged of every request, and what every answer has: an id, and a time to be read in."""

import asyncio
import re
import secrets
import time
from collections.abc import Callable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import eocodec
from eocodec.service.pool import Pool

__all__ = ["Meters", "Watch"]

ALWAYS = (  # headers of every answer that has none of its own
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


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
        self.died = Counter("eocodec_processes_died_total", "Processes that ended at their work",
                            registry=self.registry)  # fmt: skip
        self.renewed = Counter("eocodec_processes_renewed_total", "Processes replaced as they kept too much memory",
                               registry=self.registry)  # fmt: skip
        memory = Gauge("eocodec_processes_resident_bytes", "Memory of the processes that work on pictures",
                       registry=self.registry)  # fmt: skip
        memory.set_function(lambda: float(p.resident) if (p := pool()) else 0.0)
        version = Gauge("eocodec_info", "Version of the service", ["version"], registry=self.registry)
        version.labels(eocodec.__version__).set(1)


class TooSlowReader(Exception):
    """A client that does not read its answer."""


class Watch:
    """ASGI middleware: a log line and the meters for every request, and headers that every answer has.

    Arguments:
        app: what answers.
        meters: what is counted.
        seconds: that a client may take to read what is sent at a time; then its connection ends.
    """

    def __init__(self, app: ASGIApp, meters: Meters, seconds: float) -> None:
        self.app, self.meters, self.seconds = app, meters, seconds
        self.log = structlog.get_logger("eocodec.service")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status, received, sent = 500, 0, 0
        identity = _identity(scope)
        scope.setdefault("state", {})["request"] = identity

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name for name, _ in message["headers"]}
                more = [(n, v) for n, v in ALWAYS if n not in own]
                message["headers"] = [*message["headers"], *more, (b"x-request-id", identity.encode())]
            sent += len(message.get("body", b""))
            try:
                async with asyncio.timeout(self.seconds):
                    await send(message)
            except TimeoutError:
                raise TooSlowReader from None

        try:
            await self.app(scope, counted_receive, counted_send)
        except TooSlowReader:
            status = 499  # the server closes the connection, as the answer is not complete
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "other")  # the template: names would be without number
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "?"
            self.meters.requests.labels(method, route, str(status)).inc()
            self.meters.seconds.labels(route).observe(seconds)
            self.meters.received.inc(received)
            self.meters.sent.inc(sent)
            quiet = route in ("/healthz", "/readyz", "/metrics") and status < 400
            log = self.log.error if status >= 500 and status != 503 else self.log.debug if quiet else self.log.info
            log(
                "request", id=identity, method=method, path=scope["path"][:200], status=status,
                seconds=round(seconds, 4), received=received, sent=sent,
                client=str((scope.get("client") or ("",))[0])[:64],
            )  # fmt: skip


def _identity(scope: Scope) -> str:
    """The id of a request: the one it brings, if it is a plain word, or a new one."""
    given = next((v.decode("latin-1") for n, v in scope["headers"] if n == b"x-request-id"), "")
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(8)

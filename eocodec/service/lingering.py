"""Answers to bodies that are not read to their end: they go out at once, what is left of the body is read after them.

In: an ASGI application, which marks requests with :func:`refuse_body`. Out: one around it.
"""

import asyncio
import contextlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Lingering", "refuse_body"]

SECONDS, BYTES = 5.0, 16 << 20  # what is still read of a body that is refused
PAUSE = 1.0  # seconds without a byte after which nothing is waited for any more
REFUSED = "eocodec.refused"  # in the scope of a request whose body is refused


def refuse_body(scope: Scope) -> None:
    """Say that the rest of a request's body will not be read; its connection ends after the answer."""
    scope[REFUSED] = True


class Lingering:
    """ASGI middleware: the answer to a body that is refused is sent, then what the client still sends is read.

    A client that sends all before it reads would find its connection broken, not the answer, if that ended at once. One
    that waits to be let (`Expect: 100-continue`) sends nothing then.

    Arguments:
        app: what answers.
        limit: bytes that a body may have.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.most = app, limit + BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        waits = headers.get("expect", "").lower() == "100-continue"
        left = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers

        async def watched_receive() -> Message:
            nonlocal left, waits
            waits = False  # the server lets it send
            message = await receive()
            left = left and message.get("more_body", False)
            return message

        async def watched_send(message: Message) -> None:
            refused = left and scope.get(REFUSED, False)
            if refused and message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"])["connection"] = "close"
            elif refused and not waits and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await self._drain(watched_receive)
                message = {"type": "http.response.body"}
            await send(message)

        await self.app(scope, watched_receive, watched_send)

    async def _drain(self, receive: Receive) -> None:
        """Read what is left of a body and forget it, within bounds."""
        clock, size = asyncio.get_running_loop().time, 0
        end = clock() + SECONDS
        with contextlib.suppress(TimeoutError):
            while size <= self.most:
                async with asyncio.timeout_at(min(end, clock() + PAUSE)):
                    message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    break

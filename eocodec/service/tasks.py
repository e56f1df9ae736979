"""Work that is answered before it is done (`Prefer: respond-async`, RFC 7240), and what became of it.

    PUT /v1/images/NAME            Prefer: respond-async ─► 202, Location: /v1/tasks/ID
    GET /v1/tasks/ID               pending, done with the image's URL, or failed with the status and words of the error

What is under way is bounded, and so is what is remembered; with the service all is forgotten.
"""

import asyncio
import contextlib
import itertools
import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Literal

from cachetools import LRUCache
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from eocodec.service.access import Access
from eocodec.service.pool import Busy
from eocodec.service.problems import TASK, problem

__all__ = ["Order", "Tasks", "routes", "wants_async"]

REMEMBERED = 1024  # tasks
AGAIN = 1  # seconds after which a client should look again


@dataclass
class _Task:
    """One piece of work. `facts` is the body of the answer that a client would have had."""

    state: Literal["pending", "done", "failed"] = "pending"
    image: str | None = None
    facts: dict[str, Any] | None = None
    status: int | None = None

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {"state": self.state, "status": self.status, "image": self.image, **(self.facts or {})}


class Order:
    """Which of the requests for a name came last, so that work that takes long does not undo what was asked for later.

    Only names for which something waits are remembered.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: Counter[str] = Counter()
        self._done: dict[str, int] = {}

    def next(self) -> int:
        """The number of a request that arrives."""
        return next(self._numbers)

    @contextlib.contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """While work for a name is under way that is not waited for."""
        self._waiting[name] += 1
        try:
            yield
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]
                self._done.pop(name, None)

    def awaits(self, name: str) -> bool:
        """Whether such work is under way for a name."""
        return name in self._waiting

    def done(self, name: str, number: int) -> None:
        """A request has changed what is stored."""
        if name in self._waiting:
            self._done[name] = max(number, self._done.get(name, 0))

    def is_overtaken(self, name: str, number: int) -> bool:
        """Whether a later request has changed what is stored."""
        return self._done.get(name, 0) > number


class Tasks:
    """What is under way, and what became of the latest.

    Arguments:
        most: that may be under way.
        at_once: that are worked at; the others wait, so that there are processes for those who wait for an answer.
    """

    def __init__(self, most: int, at_once: int) -> None:
        self.most, self._taken = most, 0
        self._turns = asyncio.Semaphore(at_once)
        self._known: LRUCache[str, _Task] = LRUCache(REMEMBERED)
        self._running: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def room(self, wait: int) -> Iterator[None]:
        """Hold room for one more, from before its body is read until its work is over.

        Raises:
            Busy: there is none; `wait` seconds from now there may be.
        """
        if self._taken >= self.most:
            raise Busy(wait)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    def start(self, request: Request, work: Callable[[], Awaitable[Response]], held: AsyncExitStack) -> JSONResponse:
        """Begin work, which goes on when the client leaves, and answer 202.

        Arguments:
            request: that asks for it.
            work: gives the answer that the client would have had.
            held: what to let go of in the end: :meth:`room`, a place among the requests.
        """
        identity, task = secrets.token_urlsafe(16), _Task()
        self._known[identity] = task
        running = asyncio.create_task(self._run(request, task, work, held))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        location = f"{request.scope.get('root_path', '')}/v1/tasks/{identity}"
        headers = {"Location": location, "Preference-Applied": "respond-async", "Retry-After": str(AGAIN)}
        return JSONResponse({"id": identity, **task.told()}, 202, headers)

    async def _run(
        self, request: Request, task: _Task, work: Callable[[], Awaitable[Response]], held: AsyncExitStack
    ) -> None:
        async with held, self._turns:
            try:
                answer = await work()
            except Exception as e:
                answer = await problem(request, e)
        task.status, task.facts = answer.status_code, _content(answer)
        task.state = "done" if answer.status_code < 400 else "failed"
        task.image = answer.headers.get("location")

    def of(self, identity: str) -> dict[str, Any]:
        """What became of work.

        Raises:
            HTTPException: 404, nothing is known of it.
        """
        task = self._known.get(identity)
        if task is None:
            raise HTTPException(404, "there is no such task, or not any more")
        return {"id": identity, **task.told()}

    async def end(self) -> None:
        """Give up what is under way."""
        for running in list(self._running):
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def _content(answer: Response) -> dict[str, Any]:
    found = json.loads(bytes(answer.body))
    assert isinstance(found, dict)
    return found


def wants_async(request: Request) -> bool:
    """Whether a client prefers an answer before the work is done."""
    preferences = ",".join(request.headers.getlist("prefer")).split(",")
    return any(p.partition(";")[0].strip().lower() == "respond-async" for p in preferences)


def routes(tasks: Tasks, access: Access) -> APIRouter:
    """Routes of tasks."""
    router = APIRouter(prefix="/v1/tasks", dependencies=access.private, tags=["images"])

    @router.get("/{identity}", responses=TASK)
    async def task(identity: str) -> JSONResponse:
        """What became of work that was answered with 202: pending, done, or failed, with status and words as ever."""
        found = tasks.of(identity)
        waits = {"Retry-After": str(AGAIN)} if found["state"] == "pending" else {}
        return JSONResponse(found, headers={"Cache-Control": "no-store", **waits})

    return router

"""What the routes of one application share: models, processes, meters.

In: settings and models. Out: :class:`State`, whose :meth:`State.placed` runs a route's work within the limits.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
from cachetools import LRUCache
from fastapi import FastAPI, Request, Response

from eocodec.model.bundle import Model
from eocodec.model.runtime import interrupt
from eocodec.service import work
from eocodec.service.bodies import Bodies
from eocodec.service.lingering import refuse_body
from eocodec.service.meters import Meters
from eocodec.service.pool import Busy, Pool
from eocodec.service.settings import Settings
from eocodec.service.spool import Cache
from eocodec.service.tasks import Tasks

__all__ = ["State", "answer", "told"]

R = TypeVar("R", bound=Response)

NOTED = 4096  # pictures of which is remembered what is to be said of them


class State:
    """One application's models and processes.

    Arguments:
        settings: how it runs.
        models: those of `settings.models`, loaded, for what the routes themselves say about them.

    `ready` tells whether the models are loaded everywhere, `failed` what ended the service; `notes` are what is to be
    said of the pictures in `results`, by their tags.
    """

    def __init__(self, settings: Settings, models: list[Model]) -> None:
        self.settings, self.models, self.default = settings, models, models[0].name
        self.pool: Pool | None = None
        self.ready = False
        self.failed: BaseException | None = None
        self.bodies = Bodies(settings)
        self.meters = Meters(lambda: self.pool)
        self.results = Cache(settings.cache)
        self.notes: LRUCache[str, tuple[str, ...]] = LRUCache(NOTED)
        self.tasks = Tasks(max(1, settings.queue // 2), max(1, settings.workers - 1))  # others find places, too
        self.closing: list[Callable[[], None]] = [self.results.close]
        self.checks: list[Callable[[], None]] = []  # raise StoreError where what they look at does not work

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """The application's life: processes start with it and end with it."""
        s = self.settings
        arguments = (s.models, s.threads, s.device, s.max_pixels)
        self.pool = Pool(s.workers, s.queue, s.timeout, work.start, arguments, interrupt, s.worker_memory)
        self.pool.died, self.pool.renewed = self._died, self._renewed
        warming = asyncio.create_task(self._warm(self.pool))
        yield
        self.ready = False
        warming.cancel()
        await self.tasks.end()
        await self.pool.close()
        for close in self.closing:
            close()
        structlog.get_logger("eocodec.service").info("stopped")

    def kill(self) -> None:
        """End the processes at once."""
        if self.pool is not None:
            self.pool.kill()

    def _died(self, e: Exception) -> None:
        self.meters.died.inc()
        structlog.get_logger("eocodec.service").warning("process ended", why=str(e), code=getattr(e, "code", None))

    def _renewed(self, size: int) -> None:
        self.meters.renewed.inc()
        structlog.get_logger("eocodec.service").info("process renewed", memory=size)

    async def check(self) -> None:
        """See whether all that the service needs works.

        Raises:
            StoreError: the store does not.
        """
        await asyncio.gather(*(asyncio.to_thread(check) for check in self.checks))

    async def _warm(self, pool: Pool) -> None:
        try:
            device = (await asyncio.gather(*(pool.run(work.ready) for _ in range(pool.workers))))[0]
        except Exception as e:
            self.failed = e
            signal.raise_signal(signal.SIGTERM)  # the server ends, and says why
            return
        self.ready = True
        structlog.get_logger("eocodec.service").info("ready", workers=pool.workers, device=device)

    @asynccontextmanager
    async def place(self, request: Request) -> AsyncIterator[Pool]:
        """Hold a place in the pool.

        Raises:
            Busy: there is none, or no room for what is done in it.
        """
        assert self.pool is not None, "requests come while the application runs"
        try:
            async with self.pool.place():
                yield self.pool
        except Busy:
            self.meters.refused.inc()
            refuse_body(request.scope)
            raise

    async def placed(self, request: Request, function: Callable[[Pool], Awaitable[R]]) -> R:
        """Run a route's work while it holds a place in the pool.

        Raises:
            Busy: there is none.
        """
        async with self.place(request) as pool:
            return await function(pool)


def answer(a: work.Answer) -> Response:
    """An answer of the processes as a response."""
    headers = {f"X-Eocodec-{k}": v for k, v in a.headers.items()}
    return Response(a.body, media_type=a.type, headers={**headers, **told(a.notes)})


def told(notes: Sequence[str]) -> dict[str, str]:
    """The header that has sentences on a result, a JSON list in ASCII; none where there is nothing to say."""
    return {"X-Eocodec-Warnings": json.dumps(list(notes))} if notes else {}

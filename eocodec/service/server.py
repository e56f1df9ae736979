"""Runs the application: sockets, logs, and an end that lets running requests finish.

In: the application and where to listen. Out: nothing; JSON lines on standard error.
"""

import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn

from eocodec.errors import EocodecError, reason
from eocodec.workers import Died

__all__ = ["run"]

GRACE = 5.0  # seconds that an answer may take to be sent after the work is done


def _log_to_stderr(level: str) -> None:
    """JSON lines for this program's logs and for those of others (uvicorn), one object each."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _Server(uvicorn.Server):
    """A server for which a signal to end is no failure: uvicorn's own raises the signal again afterwards."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear SIGINT and SIGTERM."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(s, self.handle_exit) for s in signals]
        try:
            yield
        finally:
            for s, handler in zip(signals, before, strict=True):
                signal.signal(s, handler)


def run(app: Any, host: str, port: int, timeout: float, level: str) -> None:
    """Serve until SIGINT or SIGTERM; then running requests have `timeout` seconds and a little more to finish.

    Raises:
        EocodecError: the address cannot be listened on, or the processes do not start.
    """
    _log_to_stderr(level)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as e:
        listener.close()
        raise EocodecError(f"{host}:{port} cannot be listened on ({getattr(e, 'strerror', None) or e})") from None
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(timeout + GRACE),
        timeout_keep_alive=15,
        h11_max_incomplete_event_size=1 << 16,
    )
    shown = f"[{host}]" if ":" in host else host
    structlog.get_logger("eocodec.service").info("listening", url=f"http://{shown}:{listener.getsockname()[1]}/")
    _Server(config).run(sockets=[listener])
    failed = app.state.eocodec.failed
    if failed is not None:
        why = str(failed) if isinstance(failed, Died) else reason(failed)
        raise EocodecError(f"the service cannot work: {why}")

"""Runs the application: sockets, logs, and an end that lets running requests finish.

In: the application and where to listen. Out: nothing; JSON lines on standard error.
"""

import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn

from eocodec.errors import EocodecError, reason
from eocodec.workers import Died

__all__ = ["run"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))


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
    """A server for which a signal to end is no failure: uvicorn's own raises the signal again afterwards.

    Arguments:
        config: uvicorn's.
        forced: called when a second signal comes.
    """

    def __init__(self, config: uvicorn.Config, forced: Callable[[], None]) -> None:
        super().__init__(config)
        self.forced = forced

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear SIGINT, SIGTERM and SIGHUP; the last not where it is ignored, as under nohup."""
        heard = [s for s in SIGNALS if s in SIGNALS[:2] or signal.getsignal(s) is not signal.SIG_IGN]
        before = [signal.signal(s, self.handle_exit) for s in heard]
        try:
            yield
        finally:
            for s, handler in zip(heard, before, strict=True):
                signal.signal(s, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal lets running requests finish; the second ends them."""
        if self.should_exit:
            self.force_exit = True
            self.forced()
        self.should_exit = True


def run(app: Any, host: str, port: int, grace: float, level: str, proxies: str = "") -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; then running requests have `grace` seconds to finish, or until the next.

    Arguments:
        app: the application.
        host, port: where to listen.
        grace: seconds.
        level: of the log.
        proxies: addresses, with commas, whose X-Forwarded-For and -Proto are believed.

    Raises:
        EocodecError: the address cannot be listened on, or the processes do not start.
    """
    _log_to_stderr(level)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections inherit it: those of clients that read nothing any more end
        listener.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(2000 * app.state.eocodec.settings.write_timeout)
        )
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
        timeout_graceful_shutdown=max(1, round(grace)),
        root_path=app.state.eocodec.settings.root_path,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        timeout_keep_alive=15,
        h11_max_incomplete_event_size=1 << 16,
    )
    shown = f"[{host}]" if ":" in host else host
    for name, why in app.state.eocodec.settings.unusable.items():
        structlog.get_logger("eocodec.service").warning("model left out", model=name, why=why)
    structlog.get_logger("eocodec.service").info("listening", url=f"http://{shown}:{listener.getsockname()[1]}/")
    state = app.state.eocodec
    _Server(config, state.kill).run(sockets=[listener])
    state.kill()  # where a second signal has cut the end short
    failed = state.failed
    if failed is not None:
        why = str(failed) if isinstance(failed, Died) else reason(failed)
        raise EocodecError(f"the service cannot work: {why}")

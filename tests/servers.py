"""A running `eocodec serve`, for tests."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from paths import environment, processor_seconds, wait_until

__all__ = ["Server", "serving"]


class Server:
    """The service in a process of its own, with its log."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None) -> None:
        self.log: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "eocodec_cli", "serve", "--port", "0", *map(str, arguments)],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**environment(), **(env or {})},
            start_new_session=True,
        )
        self._heard = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()
        self.url = str(self.await_event("listening")["url"])

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.lines.append(line)
                try:
                    self.log.append(json.loads(line))
                except ValueError:
                    self.log.append({"event": "not JSON", "line": line})
                self._heard.notify_all()

    def await_event(self, event: str, seconds: float = 60) -> dict[str, Any]:
        """The first log line of this kind."""
        with self._heard:
            found = self._heard.wait_for(lambda: any(r["event"] == event for r in self.log), seconds)
            assert found, f"no {event} in {self.lines}"
            return next(r for r in self.log if r["event"] == event)

    def get(self, path: str) -> httpx.Response:
        """The answer on a connection of its own. Certificates, which take longer than all the rest, are not loaded."""
        return httpx.get(self.url + path, verify=False, timeout=60)

    def await_ready(self) -> None:
        """Wait until /readyz says so."""
        wait_until(lambda: self.get("readyz").status_code == 200, every=0.05)

    def await_deaf(self) -> None:
        """Wait until it has begun to end: it listens no more."""

        def deaf() -> bool:
            try:
                self.get("healthz")
            except httpx.ConnectError:
                return True
            except (httpx.NetworkError, httpx.RemoteProtocolError):  # taken on in the moment before, closed unread
                return False
            return False

        wait_until(deaf)

    def in_work(self) -> int:
        """Requests that have a place."""
        found = re.search(r"^eocodec_requests_in_work ([0-9.]+)$", self.get("metrics").text, re.M)
        assert found
        return int(float(found[1]))

    def await_work(self, before: float, seconds: float = 0.1) -> None:
        """Wait until the processes have worked for `seconds` since they had used `before` seconds of the processor."""
        wait_until(lambda: self.worked() > before + seconds)

    def worked(self) -> float:
        """Processor seconds of the processes that work on pictures."""
        return sum(map(processor_seconds, self.children()))

    def asleep(self) -> bool:
        """Whether all threads of the processes wait for something: one that only lacks a core does not."""
        for child in self.children():
            for stat in Path(f"/proc/{child}/task").glob("*/stat"):
                with suppress(OSError):  # has ended meanwhile
                    if stat.read_text().rpartition(")")[2].split()[0] != "S":
                        return False
        return True

    @contextmanager
    def at_a_standstill(self) -> Iterator[list[int]]:
        """The processes that work on pictures, stopped meanwhile: what they are given takes as long as is wanted."""
        children = self.children()
        for child in children:
            os.kill(child, signal.SIGSTOP)
        try:
            yield children
        finally:
            for child in children:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGCONT)

    def stop(self, sign: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal and wait for the end."""
        if self.process.poll() is None:
            os.kill(self.process.pid, sign)
        return self.process.wait(seconds)

    def children(self) -> list[int]:
        """The processes that work on pictures."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as f:
                    parent = int(f.read().rpartition(")")[2].split()[1])
                with open(f"/proc/{pid}/cmdline") as f:
                    command = f.read()
            except OSError:
                continue
            if parent == self.process.pid and "spawn_main" in command:
                found.append(int(pid))
        return found


@contextmanager
def serving(*arguments: object, env: dict[str, str] | None = None) -> Iterator[Server]:
    """A service that is ready, stopped at the end."""
    server = Server(*arguments, env=env)
    try:
        server.await_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()

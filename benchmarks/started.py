"""A running `eocodec serve` for the programs that measure it.

In: arguments of the command. Out: its port on this machine and its process, once it is ready; it is ended afterwards.
"""

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

END_SECONDS = 90.0  # that it may take to end


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Port and process of a service that is ready. Its log is read to the end, or it would wait for a reader.

    Raises:
        RuntimeError: it ended before it was ready; the last line of its log says why.
    """
    command = [sys.executable, "-m", "eocodec_cli", "serve", "--port", "0", *arguments]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        port, line = 0, ""
        for line in server.stderr:
            row = json.loads(line) if line.startswith("{") else {}
            if row.get("event") == "listening":
                port = int(row["url"].rsplit(":", 1)[1].strip("/"))
            if row.get("event") == "ready":
                break
        else:
            raise RuntimeError(line.strip())
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield port, server
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(END_SECONDS)

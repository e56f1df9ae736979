"""Load on `eocodec serve` over loopback, beside what the library does with the same work in as many processes.

    python benchmarks/load.py --seconds 60 --clients 16 --json benchmarks/load.json

Clients send one request after another, each in turn: compress 64×64, compress 768×512, decompress both (PNG in, PNG
out, C = 96). A 503 counts as refused, and the client waits as Retry-After says. What counts is what is answered within
the seconds after warming up. Memory is the resident set of the service and all its processes, once a second.
`share_of_processor` says how much of what the processes of the service have used went into these answers: what the
library uses for as many, over that. Other work on the machine changes it little, unlike `share_of_library`.
`--abandoning 2 --dawdling 8` puts clients beside them that leave before their answer comes and that read slowly:

    python benchmarks/load.py --seconds 60 --clients 16 --abandoning 2 --dawdling 8 --json benchmarks/load-rude.json
"""

import asyncio
import contextlib
import io
import itertools
import json
import multiprocessing
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from started import started

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "samples" / "coffee.png"
SIZES = ((64, 64), (768, 512))
LEAVING = 1.0  # seconds after which those that leave do so
WARM = 5.0  # seconds before counting starts


def bodies() -> list[tuple[str, str, bytes]]:
    """Name, path and body of every request of the mix."""
    import eocodec

    mix = []
    for size in SIZES:
        image = Image.open(SAMPLE).convert("RGB").resize(size, Image.Resampling.LANCZOS)
        out = io.BytesIO()
        image.save(out, "PNG")
        name = "{}x{}".format(*size)
        mix.append((f"compress {name}", "/v1/compress?rate=96", out.getvalue()))
        mix.append((f"decompress {name}", "/v1/decompress", eocodec.compress(image, rate=96)))
    return mix


def library(
    mix: list[tuple[str, str, bytes]], seconds: float, found: "multiprocessing.Queue[tuple[int, float]]"
) -> None:
    """Do the mix again and again in this process, one thread; put how many were done, in how many processor seconds."""
    from eocodec.codec import compress_picture, decode_file
    from eocodec.image import read_picture, to_pillow
    from eocodec.model.library import load_model
    from eocodec.writing import encode_picture

    model = load_model("photo", 1)

    def one(path: str, body: bytes) -> None:
        if path == "/v1/decompress":
            decoded = decode_file(body, model)
            encode_picture(to_pillow(decoded.rgb, decoded.alpha, decoded.grey), ".png")
        else:
            compress_picture(read_picture(io.BytesIO(body)), 96, model=model)

    for _, path, body in mix:
        one(path, body)
    count, end, used = 0, time.monotonic() + seconds, time.process_time()
    for _, path, body in itertools.cycle(mix):
        one(path, body)
        count += 1
        if time.monotonic() > end and count % len(mix) == 0:
            break
    found.put((count, time.process_time() - used))


def library_rate(mix: list[tuple[str, str, bytes]], processes: int, seconds: float) -> tuple[float, float]:
    """Requests a second that as many processes do by the library alone, and processor seconds of one request."""
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue[tuple[int, float]] = context.Queue()
    running = [context.Process(target=library, args=(mix, seconds, found)) for _ in range(processes)]
    for p in running:
        p.start()
    done = [found.get() for _ in running]
    for p in running:
        p.join()
    return sum(n for n, _ in done) / seconds, sum(used for _, used in done) / sum(n for n, _ in done)


def family(pid: int) -> set[int]:
    """A process and all below it."""
    parents: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
    chosen = {pid}
    while more := {p for p, parent in parents.items() if parent in chosen} - chosen:
        chosen |= more
    return chosen


def processor(pid: int) -> float:
    """Processor seconds that the processes below one have used, those that are gone included."""
    total = 0
    for p in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[13:15] if p == pid else fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Resident memory of a process and all below it, MB, shared pages counted once (PSS)."""
    total = 0
    for p in family(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{p}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])  # type: ignore[index]
    return total / 1024


class Client:
    """One connection that sends the mix in turn; a new connection when the server closes it."""

    def __init__(self, port: int, mix: list[tuple[str, str, bytes]], start: int) -> None:
        self.port, self.mix, self.start = port, mix, start
        self.rows: list[tuple[float, str, int, float]] = []  # when, what, status (0: failed), seconds
        self.bad = 0  # 503 without Retry-After

    async def run(self, end: float) -> None:
        """Send until `end`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        for name, path, body in itertools.islice(itertools.cycle(self.mix), self.start, None):
            if time.monotonic() > end:
                break
            started = time.monotonic()
            try:
                head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
                answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                status = int(answer.split()[1])
                length = int(re.search(r"content-length: (\d+)", answer)[1])  # type: ignore[index]
                await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError) as e:
                print(f"failed: {name}: {e!r}", file=sys.stderr)
                self.rows.append((started, name, 0, time.monotonic() - started))
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
                continue
            self.rows.append((started, name, status, time.monotonic() - started))
            if status == 503:
                wait = re.search(r"retry-after: (\d+)", answer)
                self.bad += wait is None
                await asyncio.sleep(float(wait[1]) if wait else 0)
        writer.close()


async def abandon(port: int, body: bytes, end: float) -> None:
    """Ask again and again for lossless files, which take seconds, and leave before they come."""
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST /v1/compress?lossless=true HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            await asyncio.sleep(LEAVING)
            writer.close()


async def dawdle(port: int, body: bytes, end: float) -> None:
    """Ask again and again for pictures, and read a little of each now and then."""
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 12)
            head = (
                f"POST /v1/decompress HTTP/1.1\r\nHost: localhost\r\nAccept: image/bmp\r\nContent-Length: {len(body)}"
            )
            writer.write(f"{head}\r\n\r\n".encode() + body)
            while time.monotonic() < end and await reader.read(1 << 10):
                await asyncio.sleep(0.5)
            writer.close()


async def load(
    port: int,
    pid: int,
    mix: list[tuple[str, str, bytes]],
    clients: int,
    seconds: float,
    rude: tuple[int, int] = (0, 0),
) -> tuple[list[Client], list[float], float]:
    """Run the clients, and beside them those that leave and those that read slowly, whose requests do not count.

    Returns what the clients saw, the memory once a second after warming up, and processor seconds of the processes.
    """
    end = time.monotonic() + WARM + seconds
    picture, file = mix[-2][2], mix[-1][2]
    others = [
        *(abandon(port, picture, end) for _ in range(rude[0])),
        *(dawdle(port, file, end) for _ in range(rude[1])),
    ]
    running = [Client(port, mix, k % len(mix)) for k in range(clients)]

    async def watch() -> tuple[list[float], float]:
        await asyncio.sleep(WARM)
        seen, used = [], processor(pid)
        while time.monotonic() < end:
            seen.append(await asyncio.to_thread(resident, pid))
            await asyncio.sleep(1)
        return seen, processor(pid) - used

    (memory, used), *_ = await asyncio.gather(watch(), *(c.run(end) for c in running), *others)
    return running, memory, used


def percentiles(values: list[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile, and the largest, seconds."""
    a = np.array(values)
    return {k: round(float(v), 4) for k, v in zip(("p50", "p95", "p99", "max"), np.percentile(a, [50, 95, 99, 100]),
                                                 strict=True)}  # fmt: skip


@click.command()
@click.option("--seconds", default=60.0)
@click.option("--clients", default=16)
@click.option("--workers", default=2)
@click.option("--queue", default=16)
@click.option("--abandoning", default=0, help="Clients that leave before their answer comes.")
@click.option("--dawdling", default=0, help="Clients that read slowly.")
@click.option("--json", "target", type=click.Path(path_type=Path))
def main(
    seconds: float, clients: int, workers: int, queue: int, abandoning: int, dawdling: int, target: Path | None
) -> None:
    mix = bodies()
    own = [library_rate(mix, workers, max(5.0, seconds / 4))]  # before and after: other work on the machine would show
    with started("--workers", str(workers), "--queue", str(queue)) as (port, server):
        before = time.monotonic()
        running, memory, used = asyncio.run(load(port, server.pid, mix, clients, seconds, (abandoning, dawdling)))
    code = server.returncode
    own.append(library_rate(mix, workers, max(5.0, seconds / 4)))
    rows = [r for c in running for r in c.rows if 0 <= r[0] + r[3] - before - WARM <= seconds]
    done = [r for r in rows if r[2] == 200]
    failed = [r for r in rows if r[2] not in (200, 503)]
    third = len(memory) // 3
    from eocodec.model.library import load_model  # after the processes were forked

    result: dict[str, Any] = {
        "model": load_model("photo").full_id.hex(),
        "seconds": seconds,
        "clients": clients,
        "workers": workers,
        "queue": queue,
        "abandoning": abandoning,
        "dawdling": dawdling,
        "requests": len(done),
        "per_second": round(len(done) / seconds, 2),
        "library_per_second": [round(o, 2) for o, _ in own],
        "share_of_library": round(len(done) / seconds / float(np.mean([o for o, _ in own])), 3),
        "library_processor_s": [round(cost, 3) for _, cost in own],
        "processor_s": round(used, 1),
        "share_of_processor": round(len(done) * float(np.mean([cost for _, cost in own])) / used, 3),
        "refused": sum(r[2] == 503 for r in rows),
        "refused_without_retry_after": sum(c.bad for c in running),
        "failed": len(failed),
        "latency": {name: percentiles([r[3] for r in done if r[1] == name]) for name, _, _ in mix},
        "latency_all": percentiles([r[3] for r in done]),
        "memory_mb": [round(m) for m in memory],
        "memory_first_third_mb": round(float(np.mean(memory[:third])), 1),
        "memory_last_third_mb": round(float(np.mean(memory[-third:])), 1),
        "exit_code": code,
    }
    print(json.dumps({k: v for k, v in result.items() if k != "memory_mb"}, indent=1))
    if target is not None:
        target.write_text(json.dumps(result, indent=1) + "\n")
    if failed or result["refused_without_retry_after"]:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""How long the page's slider waits, how long storing takes, and what memory a process of the service takes.

    OMP_NUM_THREADS=1 python benchmarks/slider.py --json benchmarks/slider.json

One client over loopback, one process of the service. For each size a picture is opened, the first move of the slider is
timed by itself (it runs the transform), then `--moves` others: the preview, about what bytes and PSNR the file has, the
file, and the picture with its PSNR, in the order in which the page asks for them; `shown` is when the first, `about`
when the second and `done` when the last of them has arrived. The numbers told in advance are compared with those that
were measured. Then the picture is stored, shown as an `<img>` wants it (AVIF), and cut (a stream by `?rate=`, an
ordinary file by `?latents=`), at its first time and again. Every time stands beside the processor seconds of the
process in it, which other work on the machine changes little. Memory is that of the process, in MB: resident at the end
of each part, and the peak until then. In the end both are printed as tables.
"""

import contextlib
import http.client
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from started import started

SAMPLE = Path(__file__).parent.parent / "samples" / "coffee.png"
SIZES = ((768, 512), (2048, 1536), (4000, 3000))
SLIDING = 1 << 22  # pixels up to which the slider is moved; larger pictures are only stored
GRAIN = 2.0  # 8-bit levels of noise, so that enlarged pictures cost what photographs do
TICKS = os.sysconf("SC_CLK_TCK")


def photograph(width: int, height: int) -> bytes:
    """A JPEG file of a photograph of this size."""
    image = Image.open(SAMPLE).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(1).normal(0, GRAIN, (height, width, 1))
    out = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


class Service:
    """A running service with one process."""

    def __init__(self, port: int, pid: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self.pid = pid

    def ask(self, method: str, path: str, body: bytes | None = None, accept: str = "*/*") -> tuple[bytes, Any]:
        """Body and headers of an answer.

        Raises:
            RuntimeError: it is an error.
        """
        self.connection.request(method, path, body, {"Accept": accept})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {content.decode()}")
        return content, answer.headers

    def processor(self) -> float:
        """Processor seconds of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> dict[str, int]:
        """Resident memory of the process, and its peak, MB."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = {k: int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1]) for k, name in  # type: ignore[index]
                 (("resident_mb", "VmRSS"), ("peak_mb", "VmHWM"))}  # fmt: skip
        return {k: round(v * 1024 / 1e6) for k, v in found.items()}


@contextlib.contextmanager
def serving() -> Iterator[Service]:
    """The service, ready, with one process that is never replaced and a store of its own."""
    with (
        tempfile.TemporaryDirectory() as store,
        started("--workers", "1", "--model", "photo", "--store", store, "--worker-memory", "0", "--timeout", "900") as (
            port,
            server,
        ),
    ):
        yield Service(port, _child(server.pid))


def _child(parent: int) -> int:
    """The process that works on pictures."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            above = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
            if int(above) == parent and "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
    raise RuntimeError("the service has no process")


class Clock:
    """Seconds, and processor seconds of the process, since it was made."""

    def __init__(self, service: Service) -> None:
        self.service, self.started, self.used = service, time.perf_counter(), service.processor()

    def read(self) -> tuple[float, float]:
        """Both so far."""
        return time.perf_counter() - self.started, self.service.processor() - self.used


@dataclass
class Move:
    """One move of the slider: seconds and processor seconds until each part has arrived.

    `bytes_off` and `psnr_off` tell how far the numbers told in advance were from those of the file: a share, and dB.
    """

    at: dict[str, tuple[float, float]]
    bytes_off: float | None = None
    psnr_off: float | None = None


def move(service: Service, identity: str, rate: float) -> Move:
    """Move the slider."""
    clock, at, answers = Clock(service), {}, {}
    for view in ("preview", "estimate", "file", "picture"):
        answers[view] = service.ask("GET", f"/v1/open/{identity}/{view}?rate={rate:g}")
        at[view] = clock.read()
    told, size = json.loads(answers["estimate"][0]), len(answers["file"][0])
    if told["psnr"] is None:
        return Move(at)
    reached = float(answers["picture"][1]["X-Eocodec-Psnr"])
    return Move(at, told["bytes"] / size - 1, told["psnr"] - reached)


def summary(moves: list[Move]) -> dict[str, Any]:
    """Medians and largest of what moves took."""

    def of(k: int, view: str) -> list[float]:
        return [m.at[view][k] for m in moves]

    off = {"bytes_off": [m.bytes_off for m in moves], "psnr_off": [m.psnr_off for m in moves]}
    worst = {k: round(max(abs(x) for x in v if x is not None), 3) for k, v in off.items() if v[0] is not None}
    return {
        "shown_s": round(float(np.median(of(0, "preview"))), 3),
        "shown_max_s": round(max(of(0, "preview")), 3),
        "about_s": round(float(np.median(of(0, "estimate"))), 3),
        "about_max_s": round(max(of(0, "estimate")), 3),
        "file_s": round(float(np.median(of(0, "file"))), 3),
        "done_s": round(float(np.median(of(0, "picture"))), 3),
        "done_max_s": round(max(of(0, "picture")), 3),
        "shown_cpu_s": round(float(np.median(of(1, "preview"))), 3),
        "about_cpu_s": round(float(np.median(of(1, "estimate"))), 3),
        "file_cpu_s": round(float(np.median(of(1, "file"))), 3),
        "done_cpu_s": round(float(np.median(of(1, "picture"))), 3),
        **worst,
    }


def slide(service: Service, body: bytes, moves: int) -> dict[str, Any]:
    """Open a picture and move the slider."""
    identity = json.loads(service.ask("POST", "/v1/open", body)[0])["id"]
    first = move(service, identity, 96)
    rates = np.geomspace(8, 400, moves + 1)[1:]
    found = [move(service, identity, rate) for rate in rates]
    return {"first_move": summary([first]), "moves": summary(found), **service.memory()}


def store(service: Service, body: bytes, name: str) -> dict[str, Any]:
    """Store a picture, show it, and cut it."""
    result: dict[str, Any] = {"body_bytes": len(body)}

    def timed(key: str, *request: Any) -> bytes:
        clock = Clock(service)
        content, _ = service.ask(*request)
        seconds, used = clock.read()
        result[f"{key}_s"], result[f"{key}_cpu_s"] = round(seconds, 3), round(used, 3)
        return content

    path = f"/v1/images/{name}"
    result["stored_bytes"] = json.loads(timed("put", "PUT", path, body))["bytes"]
    result["put_memory"] = service.memory()
    stream = json.loads(service.ask("GET", f"{path}/info")[0]).get("progressive", False)
    part = f"{path}?{'rate=50' if stream else 'latents=200'}"
    timed("cut", "GET", part, None, "image/x-eoc")
    timed("cut_again", "GET", part, None, "image/x-eoc")
    result["img_bytes"] = len(timed("img", "GET", path, None, "image/avif,image/*"))
    timed("img_again", "GET", path, None, "image/avif,image/*")
    return {**result, **service.memory()}


def slider_table(result: dict[str, Any]) -> str:
    """Seconds until a moved slider shows its parts; processor seconds in brackets; how far estimates are. Markdown."""
    rows = [["move", "preview", "≈ bytes, PSNR", "file", "picture, PSNR", "at most off by"], ["---"] * 6]
    for size, found in _of_sizes(result, "slider"):
        for what, row in (("first", found["first_move"]), ("later", found["moves"])):
            times = [_time(row, key) for key in ("shown", "about", "file", "done")]
            rows.append([f"{size}, {what}", *times, _off(row)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def processor_table(result: dict[str, Any]) -> str:
    """Processor seconds until a moved slider shows its parts, and how far estimates were off at most. Markdown."""
    rows = [["move", "preview", "≈ bytes, PSNR", "file", "picture, PSNR", "≈ is off by at most"], ["---"] * 6]
    for size, found in _of_sizes(result, "slider"):
        for what, row in (("first", found["first_move"]), ("later", found["moves"])):
            times = [f"{row[f'{key}_cpu_s']:.2f}" for key in ("shown", "about", "file", "done")]
            if "bytes_off" not in row:
                times[1] = "–"
            rows.append([f"{size}, {what}", *times, _off(row)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _off(row: dict[str, Any]) -> str:
    return f"{100 * row['bytes_off']:.0f} %, {row['psnr_off']:.1f} dB" if "bytes_off" in row else "–"


def stored_table(result: dict[str, Any]) -> str:
    """Seconds of storing and showing pictures, processor seconds in brackets, and memory of the process. Markdown."""
    head = ["picture", "PUT", "cut", "again", "AVIF", "again", "memory, kept / peak so far"]
    rows = [head, ["---"] * len(head)]
    for size, row in _of_sizes(result, "stored"):
        times = [_time(row, key) for key in ("put", "cut", "cut_again", "img", "img_again")]
        rows.append([size, *times, f"{row['resident_mb']} / {row['peak_mb']} MB"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _of_sizes(result: dict[str, Any], part: str) -> list[tuple[str, dict[str, Any]]]:
    sizes = {
        name.replace("x", "×"): result[name] for name in ("{}x{}".format(*size) for size in SIZES) if name in result
    }
    return [(size, found[part]) for size, found in sizes.items() if part in found]


def _time(row: dict[str, Any], key: str) -> str:
    return f"{row[f'{key}_s']:.2f} ({row[f'{key}_cpu_s']:.2f})"


@click.command()
@click.option("--moves", default=7, help="Moves of the slider after the first.")
@click.option("--largest", default=SIZES[-1][0] * SIZES[-1][1], help="Pixels of the largest picture.")
@click.option("--json", "target", type=click.Path(path_type=Path))
def main(moves: int, largest: int, target: Path | None) -> None:
    from eocodec.model.library import load_model

    model = load_model("photo").full_id.hex()
    result: dict[str, Any] = {"model": model, "moves": moves, "load_before": os.getloadavg()[0]}
    with serving() as service:
        result["at_start"] = service.memory()
        for width, height in SIZES:
            if width * height > largest:
                continue
            body, name = photograph(width, height), f"{width}x{height}"
            result[name] = {}
            if width * height <= SLIDING:
                result[name]["slider"] = slide(service, body, moves)
            result[name]["stored"] = store(service, body, name)
            print(json.dumps({name: result[name]}, indent=1), flush=True)
    print(slider_table(result), stored_table(result), sep="\n\n")
    if target is not None:
        target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Where the time goes: stages of encoding and decoding a picture, as a Markdown table.

    python benchmarks/stages.py PICTURE [--rate C] [--threads N] [--runs R] [--json FILE]

Every run is timed whole, the stages inside it are exclusive: what a stage calls that is a stage itself counts there
only. Medians over the runs, after one that opens the sessions. The picture is cut to 768x512 if it is larger. With
several threads the clock is that of the calling one: what others do counts where it waits for them.
"""

import argparse
import functools
import json
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import constriction
from PIL import Image

from eocodec import codec, image
from eocodec.coding import ordinary, range_coder
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

READING, ENCODER, DECODER, NETS, ROUNDING, CODER, AROUND, REST = (
    "image reading",
    "encoder graph",
    "decoder graph",
    "entropy nets",
    "rounding",
    "range coder",
    "around the coder",
    "rest",
)
STAGES = {
    "encode": (READING, ENCODER, NETS, ROUNDING, CODER, AROUND, REST),
    "decode": (NETS, CODER, AROUND, DECODER, REST),
}
CODING = (ROUNDING, CODER, AROUND)  # entropy coding without the nets


class Clock:
    """Seconds by stage; the stage entered last is the one that time is put down to."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.stack = [REST]
        self.last = time.perf_counter()
        self.thread = threading.get_ident()

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self.stack[-1]] += now - self.last
        self.last = now

    def timed(self, stage: str | Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, put down to a stage, or to what `stage` says of its arguments."""

        def call(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self.thread:
                return function(*arguments, **named)
            self._charge()
            self.stack.append(stage if isinstance(stage, str) else stage(*arguments))
            try:
                return function(*arguments, **named)
            finally:
                self._charge()
                self.stack.pop()

        return call

    def run(self, function: Callable[[], Any]) -> tuple[dict[str, float], Any]:
        """Milliseconds by stage of one call, and its result."""
        self.seconds.clear()
        self.last = time.perf_counter()
        result = function()
        self._charge()
        return {stage: 1000 * s for stage, s in self.seconds.items()}, result


def _timed_coder(clock: Clock, kind: Any) -> Callable[..., Any]:
    """A range coder whose calls are timed; its class cannot be changed, so it is wrapped."""

    class Coder:
        def __init__(self, *arguments: Any) -> None:
            self.coder = kind(*arguments)

        def __getattr__(self, name: str) -> Any:
            return clock.timed(CODER, getattr(self.coder, name))

    return Coder


def install(clock: Clock) -> None:
    """Put the clock into the library."""

    def graph(model: Model, name: str, *_: Any) -> str:
        return {"encoder": ENCODER, "decoder": DECODER}.get(name, NETS)

    Model.run = clock.timed(graph, Model.run)  # type: ignore[method-assign]
    range_coder.Tables.round = clock.timed(ROUNDING, range_coder.Tables.round)  # type: ignore[method-assign]
    queue = constriction.stream.queue
    queue.RangeEncoder = _timed_coder(clock, queue.RangeEncoder)
    queue.RangeDecoder = _timed_coder(clock, queue.RangeDecoder)
    ordinary.encode = clock.timed(AROUND, ordinary.encode)
    ordinary.decode = clock.timed(AROUND, ordinary.decode)
    image.read_picture = clock.timed(READING, image.read_picture)


def measure(picture: Path, rate: float, threads: int, runs: int) -> dict[str, Any]:
    clock = Clock()
    install(clock)
    model = load_model("photo", threads)
    with Image.open(picture) as opened:
        cut = opened.convert("RGB").crop((0, 0, min(opened.width, 768), min(opened.height, 512)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        cut.save(path)
        rows: dict[str, list[dict[str, float]]] = {"encode": [], "decode": []}
        for _ in range(runs + 1):
            encode, data = clock.run(lambda: codec.compress(image.read_picture(path), rate, model=model))
            decode, _ = clock.run(functools.partial(codec.decompress, data, model))
            rows["encode"].append(encode)
            rows["decode"].append(decode)
    result: dict[str, Any] = {
        "model": model.full_id.hex(),
        "size": f"{cut.width}x{cut.height}",
        "rate": rate,
        "bpp": round(8 * len(data) / (cut.width * cut.height), 4),
        "threads": threads,
        "runs": runs,
    }
    for name, stages in STAGES.items():
        kept = rows[name][1:]  # the first run opened the sessions
        unknown = {s for row in kept for s in row} - set(stages)
        assert not unknown, unknown
        ms = {s: statistics.median(row.get(s, 0.0) for row in kept) for s in stages}
        total = statistics.median(sum(row.values()) for row in kept)
        coding = sum(ms[s] for s in CODING if s in ms)
        result[name] = {
            "total_ms": round(total, 2),
            "stages_ms": {s: round(v, 2) for s, v in ms.items()},
            "entropy_coding_share": round(coding / total, 4),
            "entropy_coding_with_nets_share": round((coding + ms[NETS]) / total, 4),
        }
    return result


def table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    encode, decode = result["encode"], result["decode"]
    lines = [
        f"{result['size']}, C = {result['rate']:g} ({result['bpp']:g} bpp), threads: {result['threads'] or 'all'}",
        "",
        "| stage | encode ms | % | decode ms | % |",
        "|---|---|---|---|---|",
    ]

    def cells(side: dict[str, Any], stage: str) -> str:
        if stage not in side["stages_ms"]:
            return "|  |  "
        ms = side["stages_ms"][stage]
        return f"| {ms:.1f} | {100 * ms / side['total_ms']:.1f} "

    stages = (READING, ENCODER, NETS, ROUNDING, CODER, AROUND, DECODER, REST)
    lines += [f"| {s} {cells(encode, s)}{cells(decode, s)}|" for s in stages]
    lines.append(f"| **all** | {encode['total_ms']:.1f} | 100 | {decode['total_ms']:.1f} | 100 |")
    for title, key in (
        ("entropy coding, without nets", "entropy_coding_share"),
        ("with nets", "entropy_coding_with_nets_share"),
    ):
        lines.append(f"| {title} |  | {100 * encode[key]:.1f} |  | {100 * decode[key]:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--rate", type=float, default=codec.DEFAULT_RATE)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.picture, options.rate, options.threads, options.runs)
    print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Fuzzing of the parser and of the whole decoder with mutated test vectors (`tests/mutations.py`), and of bundles.

    python benchmarks/fuzz.py --parser 200000 --decoder 5000 --bundles 1000 --seed 0 --json benchmarks/fuzz.json

Anything but a picture or an :class:`EocodecError` is a failure; so are more than two seconds of processor time and more
memory than `bound` allows, for a small file. What failed is written to `fuzz-failures/`.
"""

import contextlib
import json
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from mutations import SIZES, mutate  # noqa: E402

from eocodec import codec, format  # noqa: E402
from eocodec.coding.registry import ORDINARY  # noqa: E402
from eocodec.errors import EocodecError  # noqa: E402
from eocodec.model.bundle import Model, read_bundle  # noqa: E402
from eocodec.model.library import load_model, shipped_models  # noqa: E402
from eocodec.model.parts import listed  # noqa: E402

VECTORS = ROOT / "tests" / "vectors"
SLOW = 2.0  # seconds of processor time
SMALL = 1 << 17  # pixels that the decoder is fuzzed with


def bound(width: int, height: int) -> float:
    """Megabytes that decoding a picture of this size may take besides what the models take."""
    return 300 + 300e-6 * width * height


def parse(data: bytes) -> None:
    """All that is done without a model."""
    if format.is_tiny(format.tiny_from_text(data)):
        format.parse_tiny(format.tiny_from_text(data))
        return
    format.parse(data, salvage=True)
    file = format.parse(data)
    format.segment_ends(file)
    if file.segments and not file.header.embedded:
        with contextlib.suppress(EocodecError):  # its first segment may end further on
            codec.truncate(data, latents=30)
    codec.truncate(data, max_bytes=len(data) // 2 + 20)


def decode(data: bytes) -> None:
    """The picture, of what is intact."""
    codec.decode_file(data, salvage=True, max_pixels=SMALL)


def run(work: Any, files: list[bytes], count: int, seed: int, sides: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """Run `work` on mutated files; what came of them."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    slowest, failures = 0.0, 0
    started = time.monotonic()
    for _ in range(count):
        data = mutate(files, rng, sides)
        begun = time.process_time()  # of all threads: other work on the machine does not count
        problem = None
        try:
            work(data)
            outcomes["accepted"] += 1
        except EocodecError as e:
            outcomes[type(e).__name__] += 1
            if "\n" in str(e) or not str(e):
                problem = f"the message is no sentence: {e!r}"
        except BaseException as e:
            if isinstance(e, KeyboardInterrupt):
                raise
            problem = repr(e)
        seconds = time.process_time() - begun
        slowest = max(slowest, seconds)
        if seconds > SLOW:
            problem = f"{seconds:.1f} s"
        if problem is not None:
            failures += 1
            folder.mkdir(exist_ok=True)
            (folder / f"{work.__name__}-{seed}-{failures}.eoc").write_bytes(data)
            print(f"{work.__name__} {failures}: {problem}", file=sys.stderr)
    return {
        "inputs": count,
        "seed": seed,
        "failures": failures,
        "outcomes": dict(outcomes.most_common()),
        "slowest_seconds": round(slowest, 3),
        "seconds": round(time.monotonic() - started, 1),
    }


def bundles(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Decode a small file with bundles of which a manifest, a table or a graph is mutated."""
    rng = random.Random(seed)
    content = read_bundle(shipped_models()["photo"])
    graphs = [
        n for n, c in content.items() if len(c) < 200_000 and not n.startswith(("lossless", "embedded", "denoise"))
    ]
    names = graphs + ["manifest.json", "tables.bin", "compand.bin"] * 6
    file = format.parse((VECTORS / "grey.eoc").read_bytes())
    outcomes: Counter[str] = Counter()
    failures, started = 0, time.monotonic()
    for _ in range(count):
        name = rng.choice(names)
        mutated = bytearray(content[name])
        for _ in range(rng.choice((1, 2, 8, 32))):
            mutated = mutated or bytearray(1)
            at = rng.randrange(len(mutated) if rng.random() < 0.5 else min(len(mutated), 600))
            kind = rng.randrange(3)
            if kind == 0:
                mutated[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                mutated[at : at + rng.choice((1, 4, 8))] = rng.randbytes(rng.choice((1, 4, 8)))
            else:
                del mutated[at : at + rng.choice((1, 2, 9))]
        folder.mkdir(exist_ok=True)
        last = folder / f"bundle-{seed}-last"  # a crash of the runtime would leave it
        last.write_bytes(mutated)
        try:
            ORDINARY.decode(Model(listed({**content, name: bytes(mutated)}), 1, device="cpu"), file)
            outcomes["accepted"] += 1
        except EocodecError as e:
            outcomes[type(e).__name__] += 1
        except Exception as e:
            failures += 1
            last.rename(folder / f"bundle-{seed}-{failures}-{name.replace('/', '-')}")
            print(f"bundle {name}: {e!r}", file=sys.stderr)
    return {
        "inputs": count,
        "seed": seed,
        "failures": failures,
        "outcomes": dict(outcomes.most_common()),
        "seconds": round(time.monotonic() - started, 1),
    }


def megabytes() -> float:
    """The largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@click.command()
@click.option("--parser", default=200_000)
@click.option("--decoder", default=5_000)
@click.option("--bundles", "bundle_count", default=0)
@click.option("--seed", default=0)
@click.option("--json", "target", type=click.Path(path_type=Path))
@click.option("--failures", "folder", default=Path("fuzz-failures"), type=click.Path(path_type=Path))
def main(parser: int, decoder: int, bundle_count: int, seed: int, target: Path | None, folder: Path) -> None:
    index = json.loads((VECTORS / "vectors.json").read_text())
    files = [(VECTORS / f"{v['name']}.eoc").read_bytes() for v in index if not v["model"].endswith(".eocm")]
    result: dict[str, Any] = {"model": load_model("photo").full_id.hex()}
    result["parser"] = run(parse, files, parser, seed, (*SIZES, 65536, 1 << 20, 1 << 21), folder)
    small = [f for f in files if len(f) < 5000]
    for f in small:
        codec.decode_file(f, salvage=True)  # models and nets are loaded
    before = megabytes()
    result["decoder"] = run(decode, small, decoder, seed, SIZES, folder)
    result["decoder"]["megabytes_grown"] = round(megabytes() - before, 1)
    result["decoder"]["megabytes_allowed"] = round(bound(300, 300), 1)
    if bundle_count:
        result["bundles"] = bundles(bundle_count, seed, folder)
    print(json.dumps(result, indent=1))
    if target is not None:
        target.write_text(json.dumps(result, indent=1) + "\n")
    grown = result["decoder"]["megabytes_grown"] > result["decoder"]["megabytes_allowed"]
    if grown or any(part["failures"] for name, part in result.items() if name != "model"):
        sys.exit(1)


if __name__ == "__main__":
    main()

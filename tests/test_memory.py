"""Large pictures do not take more memory than is in use at once."""

import contextlib
import functools
import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import wait_until

import eocodec
from eocodec import memory
from eocodec.coding import ordinary, residuals, walk
from eocodec.coding.base import Job
from eocodec.errors import EocodecError
from eocodec.model.bundle import Model

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
BETWEEN = """
import sys
from pathlib import Path
from eocodec.memory import trim_memory
def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
large, small = [], []
for _ in range(200):
    large.append(bytearray(1 << 20))
    small.append(bytearray(4000))
full = megabytes()
del large
kept = megabytes()
trim_memory()
print(full, kept, megabytes())
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="needs glibc")
def test_pages_between_arrays_that_stay_are_given_back() -> None:
    heap = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}  # what glibc comes to by itself
    done = subprocess.run([sys.executable, "-c", BETWEEN], env=heap, capture_output=True, check=True, timeout=60)
    full, kept, after = map(float, done.stdout.split())
    assert kept > full - 20 and after < full - 150


AGAIN = """
import resource, sys
from eocodec.memory import keep_memory, trim_memory
if sys.argv[1] == "keep":
    keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    bytearray(16 << 20)
before = faults()
for _ in range(10):
    a, b, c = (bytearray(16 << 20) for _ in range(3))
    del a, b, c
print(faults() - before)
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="needs glibc")
def test_freed_buffers_are_used_again_where_memory_is_kept() -> None:
    faults = [
        int(subprocess.run([sys.executable, "-c", AGAIN, how], capture_output=True, check=True, timeout=60).stdout)
        for how in ("keep", "usual")
    ]
    assert 2 * faults[0] < faults[1]


LARGE_PAGES = """
import resource, sys, threading
from eocodec.memory import keep_memory, take_large_pages
keep_memory()
def fill():
    if sys.argv[1] == "large":
        take_large_pages()
    for _ in range(2):
        buffers = [bytes([k]) * (12 << 20) for k in range(6)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=fill)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not HUGE.exists() or "[madvise]" not in HUGE.read_text(), reason="needs a system that gives large pages to who asks"
)
def test_buffers_of_a_thread_are_had_in_large_pages() -> None:
    faults = [
        int(
            subprocess.run([sys.executable, "-c", LARGE_PAGES, how], capture_output=True, check=True, timeout=60).stdout
        )
        for how in ("large", "small")
    ]
    assert 4 * faults[0] < faults[1]


def test_where_memory_is_limited_there_are_large_pages_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, advised, freed = [5 << 20, 23 << 20], [], []
    functions = {
        "malloc": lambda size: blocks[len(advised)] if len(advised) < len(blocks) else None,
        "madvise": lambda start, size, advice: advised.append((start, size)),
        "free": freed.append,
    }
    calls = {name: functools.partial(function) for name, function in functions.items()}
    monkeypatch.setattr(memory, "_function", calls.get)
    monkeypatch.setattr(sys, "platform", "linux")
    memory.take_large_pages()
    assert freed == blocks[::-1] and advised == [(start, 16 << 20) for start in blocks]


def test_a_level_is_coded_without_what_only_its_features_are_made_of(
    coffee: np.ndarray, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature, level = walk.Walk._feature, walk.Walk._level
    seen: list[weakref.ref[np.ndarray]] = []

    def watched(self: walk.Walk, number: int, coarser: np.ndarray, previous: np.ndarray | None) -> np.ndarray:
        seen.append(weakref.ref(coarser))
        return feature(self, number, coarser, previous)

    def coded(self: walk.Walk, *arguments: Any) -> np.ndarray:
        wait_until(lambda: seen[-1]() is None, seconds=10)  # a thread that ran a net may hold it for a moment longer
        return level(self, *arguments)

    monkeypatch.setattr(walk.Walk, "_feature", watched)
    monkeypatch.setattr(walk.Walk, "_level", coded)
    eocodec.compress(coffee[:128, :128], model=model)
    assert len(seen) == model.manifest.levels


def test_large_pictures_give_memory_back_every_few_strips(
    coffee: np.ndarray, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(walk, "trim_memory", lambda: calls.append(None))
    part = coffee[:128, :128]
    eocodec.compress(part, model=model)
    assert not calls
    monkeypatch.setattr(walk, "STRIP", 64)
    eocodec.compress(part, model=model)
    strips = sum(7 * 4**k for k in (2, 1))  # of the two levels that have several: of 64 places, by seven nets
    assert strips // walk.TRIM_AFTER <= len(calls) <= strips // walk.TRIM_AFTER + 1


def test_pictures_of_the_right_mode_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a copy")

    monkeypatch.setattr(Image.Image, "copy", refuse)
    assert eocodec.image.read_picture(tmp_path / "a.png").rgb.shape == (8, 8, 3)


def test_symbols_of_large_pictures_wait_deflated(
    coffee: np.ndarray, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    begun = residuals._Symbols.__init__

    def begin(self: residuals._Symbols, m: np.ndarray, index: np.ndarray, deflated: bool) -> None:
        kept.append(deflated)
        begun(self, m, index, deflated)

    monkeypatch.setattr(residuals._Symbols, "__init__", begin)
    usual = eocodec.compress(coffee[:96, :160], 200, model=model)
    assert kept and not any(kept)
    kept.clear()
    monkeypatch.setattr(residuals, "LARGE", 1 << 10)
    assert eocodec.compress(coffee[:96, :160], 200, model=model) == usual
    assert kept and all(kept)


def test_what_coding_took_is_given_back_before_the_picture_is_decoded(
    coffee: np.ndarray, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr(ordinary, "trim_memory", lambda: calls.append(None))
    usual = eocodec.compress_picture(coffee[:96, :160], model=model, measure=True)
    assert not calls
    monkeypatch.setattr(ordinary, "LARGE", 1 << 10)
    assert eocodec.compress_picture(coffee[:96, :160], model=model, measure=True) == usual
    assert len(calls) == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"psnr": 34}, {"psnr": 99}, {"max_bytes": 9000}, {"max_bytes": 100}, {"denoise": 9.0}],
    ids=str,
)
def test_what_a_picture_was_coded_with_is_freed_at_once_not_when_cycles_are_looked_for(
    samples: dict[str, np.ndarray], model: Model, options: dict[str, Any]
) -> None:
    rgb = np.ascontiguousarray(samples["astronaut"][:160, :224])
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(EocodecError):  # out of reach; what is raised must not keep it either
            eocodec.compress(rgb, **options, model=model)
        assert not [o for o in gc.get_objects() if isinstance(o, Job)]
    finally:
        gc.enable()

"""The step whose file has a wanted size or quality, in few tries.

In: a function that tries a step Δ, and a target; or a :class:`SteppedJob`, which does so with its picture. Out: what
the best try gave, and how many there were. The searches know neither pictures nor files: sizes and qualities are
numbers that fall as Δ rises, roughly so: neither is exactly monotone, because rounding and the division into segments
jump.
"""

import math
import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from eocodec import format
from eocodec.coding.base import Coded, Job
from eocodec.errors import EocodecError, counted
from eocodec.format import AnyFile
from eocodec.image import Bytes
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.steps import STEP_UNIT

__all__ = [
    "QUALITY_WIDTH",
    "SIZE_WIDTH",
    "TRIES",
    "Found",
    "SteppedJob",
    "Target",
    "expected_step",
    "match_quality",
    "match_size",
    "rate_of_step_quality",
    "whole_bytes",
]

T = TypeVar("T")

MOST_BYTES = 1 << 53  # of a file; more than any has, and floating-point numbers are still exact
SIZE_WIDTH = 0.018  # a file this share below its limit will do
QUALITY_WIDTH = 0.09  # dB above its target that will do
AIM = 0.45  # where in the tolerated range a try is aimed at
SECANTS = 6  # tries before nothing but halving is trusted; 2 to 5 do on photos (benchmarks/rate_control.py)
NEARBY, APART = 6, 1 / 48  # steps to try on either side where a quality jumps past its range, and octaves between them
TRIES = 20  # at most: as many halvings more tell all steps apart
SIZE_SLOPE = 0.85  # octaves of size per octave of Δ, for the first step; later ones use what was measured
QUALITY_SLOPE = 4.3  # dB per octave of Δ, likewise
# Where searches start, log2 of Δ in 8-bit levels, from Kodak's means: Δ at 1 bit per pixel and at 37 dB.
START_SIZE, START_QUALITY = 4.9, 4.5


@dataclass(frozen=True)
class Found(Generic[T]):
    """What a search ended with: the result of the best try, where it was made, the number of tries, what was left."""

    result: T
    place: float
    tries: int
    slack: float = 0.0


def match_size(
    attempt: Callable[[float], tuple[int, T]],
    limit: int,
    fixed: int,
    bounds: tuple[float, float],
    start: float,
    resolution: float,
    beyond: int = 0,
) -> Found[T]:
    """The result of a step whose size is at most `limit` bytes and at most :data:`SIZE_WIDTH` below it.

    Smaller only where no step does better: even the finest step has a smaller file, which is the result then; or
    single bytes and jumps of the size are larger than the tolerance (files of a few dozen bytes, and next to the
    smallest), where the result is the largest file that fits of those tried, down to neighbouring steps. The tolerance
    is that of what the step can change, the size without `fixed`.

    Arguments:
        attempt: size in bytes and result at a step, given as log2 of Δ in 8-bit levels.
        limit: bytes not to exceed.
        fixed: bytes that do not depend on the step.
        bounds: the finest and the coarsest step to consider, log2.
        start: the step to try first, log2.
        resolution: steps that are closer than this, log2, give the same file.
        beyond: finer steps to try one by one after the search; each that fits as well begins the count again. In files
            of a few dozen bytes the next step often does.

    Raises:
        EocodecError: even the coarsest step is too large.
    """
    smallest = 0

    def slack(x: float) -> tuple[float, T]:
        nonlocal smallest
        size, result = attempt(x)
        smallest = size
        # One more on both sides: there may be nothing but what is fixed.
        return math.log2(max(limit - fixed + 1, 0.5) / (size - fixed + 1)), result

    found = _approach(slack, bounds, start, SIZE_SLOPE, -math.log2(1 - SIZE_WIDTH), resolution)
    if found is None:
        most = counted(limit, "byte")
        raise EocodecError(f"the picture cannot be compressed to {most}; its smallest file has {smallest}")
    result, place, tries = found.result, found.place, found.tries
    left, x = beyond, place - resolution
    while left and x >= bounds[0]:
        size, finer = attempt(x)
        tries += 1
        left -= 1
        if size <= limit:
            result, place, left = finer, x, beyond
        x -= resolution
    return Found(result, place, tries)


def match_quality(
    attempt: Callable[[float], tuple[float, T]],
    target: float,
    bounds: tuple[float, float],
    start: float,
    resolution: float,
) -> Found[T]:
    """The result of a step whose quality is at least `target` dB and at most :data:`QUALITY_WIDTH` above it.

    Above that only where no step is closer: even the coarsest one is better, which is the result then; or the quality
    jumps, as it may where next to nothing is coded, and the result is the closest of the steps tried, some nearby ones
    among them.

    Arguments:
        attempt: quality in dB and result at a step, given as log2 of Δ in 8-bit levels.
        target: dB to reach.
        bounds: the finest and the coarsest step to consider, log2.
        start: the step to try first, log2.
        resolution: steps that are closer than this, log2, give the same file.

    Raises:
        EocodecError: even the finest step does not reach the target.
    """
    reached = 0.0

    def slack(u: float) -> tuple[float, T]:
        nonlocal reached
        reached, result = attempt(-u)
        return reached - target, result

    fine, coarse = bounds
    found = _approach(slack, (-coarse, -fine), -start, QUALITY_SLOPE, QUALITY_WIDTH, resolution)
    if found is None:
        raise EocodecError(f"{target:g} dB is out of reach for this picture; the finest step gives {reached:.2f} dB")
    result, place, tries = found.result, -found.place, found.tries
    above, nearest = found.slack, place
    if above > QUALITY_WIDTH and place < coarse:  # the quality jumps, and another step nearby may be closer
        for k in range(1, NEARBY + 1):
            for x in (place + k * APART, place - k * APART):
                if fine <= x <= coarse and above > QUALITY_WIDTH:
                    quality, other = attempt(x)
                    tries += 1
                    if 0 <= quality - target < above:
                        above, result, nearest = quality - target, other, x
    return Found(result, nearest, tries)


def _approach(
    slack: Callable[[float], tuple[float, T]],
    bounds: tuple[float, float],
    u: float,
    slope: float,
    width: float,
    resolution: float,
) -> Found[T] | None:
    """The result with the least slack ≥ 0; ends at one of at most `width`, or where u cannot be told apart any more.

    Secant steps inside the bracket of the last negative and the last other slack; the bracket is halved after a step
    that has not come closer to the target by half, and from the sixth step on. None if the slack is negative even at
    the upper bound, which was tried last.

    Arguments:
        slack: rises with u, roughly; and a result.
        bounds: of u; the slack may have the same sign at both.
        u: the first to try.
        slope: of the slack, until two tries have shown it.
        width: largest slack to be content with.
        resolution: of u.
    """
    low, high = bounds  # of the bracket; an end that is a bound is one that was not tried
    best: tuple[float, float, T] | None = None
    tried: list[tuple[float, float]] = []  # distance from what is aimed at, u
    u = min(max(u, low), high)
    while True:
        value, result = slack(u)
        if value >= 0:
            if best is None or value < best[0]:
                best = value, u, result
            high = u
        else:
            low = u
        tried.append((value - AIM * width, u))
        done = 0 <= value <= width or u == (bounds[0] if value >= 0 else bounds[1])
        if done or len(tried) == TRIES:
            break
        if high - low >= 1.5 * resolution and len(tried) < TRIES - 1:
            u = _next(tried, (low, high), bounds, slope, resolution)
        elif best is None:
            u = bounds[1]  # a result far from the target is better than none
        else:
            break
    return None if best is None else Found(best[2], best[1], len(tried), best[0])


def _next(
    tried: list[tuple[float, float]],
    bracket: tuple[float, float],
    bounds: tuple[float, float],
    slope: float,
    resolution: float,
) -> float:
    """The next u, inside the bracket, from all `(distance, u)` so far."""
    low, high = bracket
    nearest = sorted(tried, key=lambda t: abs(t[0]))
    closed = low > bounds[0] and high < bounds[1]
    before = min((abs(t[0]) for t in tried[:-1]), default=math.inf)
    if len(tried) >= SECANTS or (closed and abs(tried[-1][0]) > before / 2):
        return (low + high) / 2
    distance, u = nearest[0]
    if len(nearest) > 1:
        measured = (distance - nearest[1][0]) / (u - nearest[1][1])
        if slope / 8 < measured < 8 * slope:  # else it is the jumps that were measured
            slope = measured
    u = max(u - distance / slope, low + resolution if low > bounds[0] else low)
    return min(u, high - resolution if high < bounds[1] else high)


def rate_of_step_quality(model: Model, quality: float) -> float:
    """C of a quality from 0 to 100, which stands for a step and so means the same on every picture.

    The logarithm of the step Δ falls evenly as the quality rises; C is 1 at quality 0, the model's largest at 100.

    Raises:
        EocodecError: the quality is not from 0 to 100.
    """
    if not 0 <= quality <= 100:
        raise EocodecError(f"the quality must be from 0 to 100, not {quality:g}")
    manifest = model.any_manifest
    coarse, fine = (manifest.step_of(c) for c in (1, model.block))
    delta = coarse * (fine / coarse) ** (quality / 100)
    return min(max(manifest.rate_of(delta), 1.0), float(model.block))


def expected_step(target: float) -> float:
    """log2 of the step in 8-bit levels at which a picture has about `target` dB."""
    return START_QUALITY - (target - 37.0) / QUALITY_SLOPE


class SteppedJob(Job):
    """A job whose files have a step, which is searched for to meet a target."""

    resolution = 1 / STEP_UNIT  # octaves between the steps that a file can have
    beyond = 0  # see :func:`match_size`
    finest: float | None = None  # log2 of the finest step that is tried, 8-bit levels; None: that of the largest C

    @abstractmethod
    def file(self, delta: float) -> AnyFile:
        """The file at step Δ (range 0 to 1)."""

    @abstractmethod
    def draft(self, delta: float) -> tuple[Bytes, Callable[[], AnyFile]]:
        """The picture that the file at step Δ decodes to, without coding it where that saves time; and the file."""

    @abstractmethod
    def rate(self, file: AnyFile) -> float:
        """C of a file."""

    def reached(self, rgb: Bytes) -> float:
        """What a PSNR target is compared with: the PSNR of a decoded picture, over what can be seen of it."""
        return psnr(self.picture.rgb, rgb, self.picture.alpha)

    @abstractmethod
    def overhead(self) -> int:
        """Bytes of a file without any latents."""

    def at(self, delta: float) -> Coded:
        """See :meth:`Job.at`."""
        file = self.file(delta)
        return Coded(file, self.rate(file))

    def expected(self, file: AnyFile) -> Bytes:
        """The encoder's own picture of the step."""
        return self.draft(file.delta)[0]

    def _bounds(self) -> tuple[float, float]:
        """log2 of the finest and the coarsest step (8-bit levels) that a search considers."""
        manifest = self.model.any_manifest
        fine, coarse = (math.log2(manifest.step_of(c) * 255.0) for c in (manifest.block, 1))
        return fine if self.finest is None else self.finest, coarse

    def first_for_size(self, limit: int) -> float:
        """log2 of the step (8-bit levels) that a search for a size begins with."""
        return START_SIZE - math.log2(8 * max(limit, 1) / self.picture.pixels) / SIZE_SLOPE

    def first_for_quality(self, target: float) -> float:
        """log2 of the step (8-bit levels) that a search for a quality begins with."""
        return expected_step(target)

    def fitting(self, limit: int) -> Coded:
        """See :meth:`Job.fitting`; the transform is not run again."""

        def attempt(x: float) -> tuple[int, AnyFile]:
            file = self.file(2.0**x / 255.0)
            return len(format.to_bytes(file)), file

        start, bounds = self.first_for_size(limit), self._bounds()
        found = match_size(attempt, limit, self.overhead(), bounds, start, self.resolution, self.beyond)
        return Coded(found.result, self.rate(found.result), found.tries)

    def reaching(self, target: float) -> Coded:
        """See :meth:`Job.reaching`; the picture is foreseen, not coded and decoded, where that saves time."""

        def attempt(x: float) -> tuple[float, Callable[[], tuple[AnyFile, float]]]:
            rgb, file = self.draft(2.0**x / 255.0)
            return self.reached(rgb), lambda: (file(), psnr(self.picture.rgb, rgb, self.picture.alpha))

        found = match_quality(attempt, target, self._bounds(), self.first_for_quality(target), self.resolution)
        self._measured = found.result()
        file = self._measured[0]
        return Coded(file, self.rate(file), found.tries)


def whole_bytes(limit: float) -> int:
    """A limit on a file's size in whole bytes; one that every file keeps, in place of a larger one.

    Example:
        >>> whole_bytes(1000.5), whole_bytes(10**400) == MOST_BYTES
        (1000, True)
    """
    return int(min(limit, MOST_BYTES))


@dataclass(frozen=True)
class Target:
    """What a file is to meet: C, bits per pixel, bytes, dB of PSNR; at most one of them is given."""

    rate: float | None
    bpp: float | None
    max_bytes: int | None
    psnr: float | None

    def given(self) -> int:
        """How many are given."""
        return sum(t is not None for t in (self.rate, self.bpp, self.max_bytes, self.psnr))

    def check(self) -> None:
        """Refuse sizes and qualities that are none.

        Raises:
            EocodecError: they are not positive or not finite.
        """
        for name, target in (("bpp", self.bpp), ("bytes", self.max_bytes), ("psnr", self.psnr)):
            if target is not None and not 0 < target < math.inf:
                raise EocodecError(f"{name} must be a positive number, not {max(target, -sys.float_info.max):g}")

    def aim(self, job: Job, delta: float) -> Coded:
        """The job's file that meets it; at step Δ if there is nothing but C to meet."""
        if self.psnr is not None:
            return job.reaching(self.psnr)
        if self.max_bytes is not None:
            return job.fitting(whole_bytes(self.max_bytes))
        if self.bpp is not None:
            return job.fitting(whole_bytes(float(self.bpp) * job.picture.pixels / 8))
        return job.at(delta)

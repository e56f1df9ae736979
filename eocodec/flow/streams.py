"""Endless, seeded streams of training pictures, and a thread that prepares them ahead.

In: pictures in memory. Out: uint8 batches `(n, S, S, 3)`. What the next batch shows follows from a small state alone,
so a resumed run continues with the pictures it would have seen; and every process of a run draws the whole batch's
random numbers and cuts out its own part, so that the number of processes does not matter.
"""

import queue
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from eocodec.errors import EocodecError
from eocodec.flow.pictures import Picture

__all__ = ["STREAMS", "TURNS", "AlignedStream", "CropStream", "Prefetch", "Stream", "open_stream", "throughput"]

STREAMS = ("crops", "aligned")
TURNS = {"all": 7, "mirror": 2}  # bits of a crop's turn that are drawn: upside down, left to right, transposed
AHEAD = 4  # batches prepared ahead


class Stream(Protocol):
    """An endless sequence of batches of `pictures`."""

    @property
    def pictures(self) -> Sequence[Picture] | Picture:
        """What it shows."""
        ...

    def state(self) -> dict[str, Any]:
        """State of the stream, to be kept in a checkpoint."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        ...

    def batch(self, n: int, first: int = 0, count: int | None = None) -> Picture:
        """Of the next n pictures the `count` from `first` on (all by default), `(count, S, S, 3)`."""
        ...


def open_stream(
    name: str,
    pictures: Sequence[tuple[str, Picture]],
    size: int,
    seed: int,
    rescale: float = 0.5,
    jitter: float = 0.0,
    turns: str = "all",
) -> Stream:
    """The stream that the configuration names: "crops" or "aligned"; `turns` is for crops only.

    Raises:
        EocodecError: unknown name, or pictures of the wrong size.
    """
    if name == "aligned":
        return AlignedStream(pictures, size, seed, jitter)
    return CropStream([p for _, p in pictures], size, seed, rescale, turns)


def throughput(stream: Stream, n: int, seconds: float = 3.0) -> tuple[float, float]:
    """Pictures and megapixels a second of a stream alone, in batches of n, measured for about `seconds`."""
    stream.batch(n)
    start, pictures, pixels = time.perf_counter(), 0, 0
    while (passed := time.perf_counter() - start) < seconds:
        batch = stream.batch(n)
        pictures, pixels = pictures + n, pixels + batch.size // 3
    return pictures / passed, pixels / passed / 1e6


@dataclass(frozen=True)
class _Crop:
    """Where a crop stands: picture, region, and which of the 8 flips and turns it gets."""

    picture: int
    edge: int
    top: int
    left: int
    turn: int


class CropStream:
    """Random crops with random flips, transposition and (for some) rescaling.

    Arguments:
        pictures: arrays `(H, W, 3)`.
        size: crop edge S in pixels; pictures smaller than 1.5 S are skipped.
        seed: of the stream.
        rescale: probability that a crop is taken from a region 0.65 to 1.5 times S wide and resampled (Lanczos).
        turns: "all": any of the eight flips and turns; "mirror": left to right only, for pictures that have an up.

    Raises:
        EocodecError: no picture is large enough.
    """

    def __init__(
        self, pictures: Sequence[Picture], size: int, seed: int, rescale: float = 0.5, turns: str = "all"
    ) -> None:
        self.pictures = [p for p in pictures if min(p.shape[:2]) >= size * 3 // 2]
        if not self.pictures:
            raise EocodecError(
                f"no picture that is not held out is at least {size * 3 // 2} pixels wide and high, 1.5 times the crop"
            )
        areas = np.array([p.shape[0] * p.shape[1] for p in self.pictures], dtype=np.float64)
        self.weights = np.cumsum(areas / areas.sum())
        self.size, self.rescale, self.turns = size, rescale, TURNS[turns]
        self.random = np.random.Generator(np.random.PCG64(seed))

    def state(self) -> dict[str, Any]:
        """State of the bit generator."""
        return dict(self.random.bit_generator.state)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.random.bit_generator.state = state

    def batch(self, n: int, first: int = 0, count: int | None = None) -> Picture:
        """Of the next n crops the `count` from `first` on, `(count, S, S, 3)`."""
        crops = [self._draw() for _ in range(n)]
        return np.stack([self._cut(c) for c in crops[first : n if count is None else first + count]])

    def _draw(self) -> _Crop:
        r = self.random
        k = int(np.searchsorted(self.weights, r.random()).clip(0, len(self.pictures) - 1))
        scaled = r.random() < self.rescale
        edge = round(self.size * float(np.exp(r.uniform(np.log(0.65), np.log(1.5))))) if scaled else self.size
        height, width = self.pictures[k].shape[:2]
        top, left = int(r.integers(height - edge + 1)), int(r.integers(width - edge + 1))
        return _Crop(k, edge, top, left, int(r.integers(8)) & self.turns)

    def _cut(self, c: _Crop) -> Picture:
        crop = self.pictures[c.picture][c.top : c.top + c.edge, c.left : c.left + c.edge]
        if c.edge != self.size:
            image = Image.fromarray(crop).resize((self.size, self.size), Image.Resampling.LANCZOS)
            crop = np.asarray(image)
        if c.turn & 1:
            crop = crop[::-1]
        if c.turn & 2:
            crop = crop[:, ::-1]
        return crop.swapaxes(0, 1) if c.turn & 4 else crop


class AlignedStream:
    """Whole pictures of one size, flipped left to right at random; each is shown once before any is shown again.

    Arguments:
        pictures: names and arrays `(S, S, 3)`.
        size: the edge S in pixels.
        seed: of the stream.
        jitter: probability that a picture is turned, zoomed, shifted and coloured a little, see :func:`jittered`.

    Raises:
        EocodecError: a picture has another size; it is named.
    """

    def __init__(self, pictures: Sequence[tuple[str, Picture]], size: int, seed: int, jitter: float = 0.0) -> None:
        for name, picture in pictures:
            if picture.shape[:2] != (size, size):
                height, width = picture.shape[:2]
                raise EocodecError(f"{name} is {width}x{height} pixels; aligned pictures must all be {size}x{size}")
        self.pictures = np.stack([p for _, p in pictures])
        self.seed, self.drawn, self.jitter = seed, 0, jitter
        self._epoch, self._order, self._flips = -1, np.zeros(0, np.int64), np.zeros(0, bool)

    def state(self) -> dict[str, Any]:
        """How many pictures were drawn: order and flips of an epoch follow from the seed and its number."""
        return {"drawn": self.drawn}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state`."""
        self.drawn = state["drawn"]

    def batch(self, n: int, first: int = 0, count: int | None = None) -> Picture:
        """Of the next n pictures the `count` from `first` on, `(count, S, S, 3)`."""
        start, self.drawn = self.drawn, self.drawn + n
        stop = self.drawn if count is None else start + first + count
        return np.stack([self._show(k) for k in range(start + first, stop)])

    def _show(self, k: int) -> Picture:
        epoch, place = divmod(k, len(self.pictures))
        if epoch != self._epoch:
            random = np.random.default_rng((self.seed, epoch))
            self._epoch, self._order = epoch, random.permutation(len(self.pictures))
            self._flips = random.random(len(self.pictures)) < 0.5
        picture = self.pictures[self._order[place]]
        if self.jitter:
            random = np.random.default_rng((self.seed, epoch, place))
            picture = jittered(picture, random) if random.random() < self.jitter else picture
        return picture[:, ::-1] if self._flips[place] else picture


def jittered(picture: Picture, random: np.random.Generator) -> Picture:
    """A picture turned by about 3°, zoomed by 3.5 %, shifted by 1.2 pixels, its brightness by 5 %, colours by 3 %.

    These are standard deviations. What comes in from outside is mirrored at the border.
    """
    height, width = picture.shape[:2]
    angle, zoom = np.deg2rad(random.normal(0, 3)), np.exp(random.normal(0, 0.035))
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    right, down = random.normal(0, 1.2, 2)
    pad = max(height, width) // 8
    x, y = (width - 1) / 2, (height - 1) / 2
    affine = (
        cosine, sine, x + pad - cosine * x - sine * y + right,
        -sine, cosine, y + pad + sine * x - cosine * y + down,
    )  # fmt: skip
    wide = Image.fromarray(np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), "reflect"))
    turned = wide.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
    gain = np.exp(random.normal(0, 0.05) + random.normal(0, 0.03, 3))
    values = np.asarray(turned) * gain + random.normal(0, 4)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


class Prefetch:
    """Prepares the batches of a stream in a thread, without changing their order.

    Arguments:
        stream: to be left alone from now on.
        n, first, count: of every batch, see :meth:`Stream.batch`.

    Attributes:
        state: of the stream after the batch handed out last: what belongs in a checkpoint.
        waited: seconds spent waiting for batches.
        busy: seconds the thread spent on the batches handed out.
    """

    def __init__(self, stream: Stream, n: int, first: int, count: int) -> None:
        self.state = stream.state()
        self.waited = self.busy = 0.0
        self._ready: queue.Queue[Any] = queue.Queue(AHEAD)
        stop = threading.Event()
        thread = threading.Thread(target=_prepare, args=(stream, (n, first, count), self._ready, stop), daemon=True)
        # Ends the thread when no more batches are taken, and before the interpreter goes: a thread that is inside
        # a library then may abort the process.
        self.close = weakref.finalize(self, _end, stop, thread)
        thread.start()

    def take(self) -> Picture:
        """The next batch. An error in the stream is raised here."""
        start = time.perf_counter()
        item = self._ready.get()
        self.waited += time.perf_counter() - start
        if isinstance(item, BaseException):
            raise item
        batch, self.state, seconds = item
        self.busy += seconds
        return batch  # type: ignore[no-any-return]


def _end(stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(5)


def _prepare(stream: Stream, part: tuple[int, int, int], ready: "queue.Queue[Any]", stop: threading.Event) -> None:
    while not stop.is_set():
        start = time.perf_counter()
        item: Any
        try:
            batch = stream.batch(*part)
            item = batch, stream.state(), time.perf_counter() - start
        except BaseException as e:  # handed over to the thread that waits for the batch
            item = e
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
                break
            except queue.Full:
                continue
        if isinstance(item, BaseException):
            return

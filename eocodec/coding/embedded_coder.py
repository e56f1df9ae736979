"""Yes/no decisions to bytes and back, with a count of their information that tells where a stream may be cut.

In: decisions and their probabilities. Out: a stream and its marks, or decisions, as far as the bytes reach.
Probabilities are multiples of 2**-16, so they are exact; the coder is `constriction`'s range coder.
"""

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import constriction
import numpy as np
import numpy.typing as npt

__all__ = ["DecisionCoder", "DecisionReader", "DecisionWriter", "Exhausted", "Mark", "Meter", "Stream"]

PRECISION = 16  # bits of a probability
COST_UNIT = 1 << 12  # information is counted in 1/4096 bit
LOSS = 1  # 1/4096 bit a decision: above what the range coder loses (measured: 1.3e-4 bit)
SPARE = 16  # bytes that an encoder goes on after the wanted end, so that what is cut off there is as in longer streams
MARGIN = 32 * COST_UNIT  # a wrong decision at a cut has a chance of 2**-32

Bool = npt.NDArray[np.bool_]
UInt16 = npt.NDArray[np.uint16]

_BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)


@dataclass(frozen=True)
class Mark:
    """A place where a stream may be cut.

    Arguments:
        end: bytes that must be there for everything before to be decoded.
        depth: how far coding has come: k + 0.3, k + 0.7 after the stages of S_k, k + 1 after R_k, linear between them.
    """

    end: int
    depth: float


@dataclass(frozen=True)
class Stream:
    """An embedded stream and the places where it may be cut, in rising order."""

    payload: bytes
    marks: tuple[Mark, ...]


class Meter:
    """Counts the information of decisions in integers, alike in encoder and decoder."""

    def __init__(self) -> None:
        self.spent = 0

    def add(self, probability: npt.NDArray[np.int64], happened: Bool) -> None:
        """Decisions with these probabilities of happening, in 2**-16."""
        cost = _costs()
        self.spent += int(cost[np.where(happened, probability, 65536 - probability)].sum()) + LOSS * len(probability)

    def add_bits(self, bits: float) -> None:
        """Information of anything else, rounded up."""
        self.spent += math.ceil(bits * COST_UNIT)

    @property
    def end(self) -> int:
        """Bytes that a decoder needs for all that was counted."""
        return -(-(self.spent + MARGIN) // (8 * COST_UNIT))


@functools.cache
def _costs() -> npt.NDArray[np.int64]:
    """Information of probabilities 0 … 65536 / 65536 in 1/4096 bit."""
    p = np.maximum(np.arange(65537), 1)
    bits = (PRECISION - np.log2(p)) * COST_UNIT
    return np.ceil(bits - 1e-6).astype(np.int64)  # powers of two must not depend on the last bit of log2


class Exhausted(Exception):
    """The stream has no further whole group."""


class DecisionCoder(Protocol):
    """What differs between encoder and decoder: `truth` is None in the decoder."""

    meter: Meter

    def decide(self, probability: UInt16, truth: Bool | None) -> Bool:
        """Yes/no decisions `(n,)` with these probabilities of yes, in 2**-16."""

    def number(self, count: int, truth: int | None) -> int:
        """A number from 0 to `count` − 1, all equally likely."""

    def mark(self, depth: float) -> None:
        """A group of decisions is complete; :class:`Exhausted` if the stream ends before it does."""


class DecisionWriter:
    """Writes decisions up to a depth and a number of bytes, and goes on a little."""

    def __init__(self, depth: float, size: float) -> None:
        self.meter, self.depth, self.size = Meter(), depth, size
        self.coder = constriction.stream.queue.RangeEncoder()
        self.marks: list[Mark] = []

    def decide(self, probability: UInt16, truth: Bool | None) -> Bool:
        """See :meth:`DecisionCoder.decide`."""
        assert truth is not None
        p = probability.astype(np.int64)
        if len(p):
            self.coder.encode(truth.astype(np.int32), _BERNOULLI, p / 65536.0)
            self.meter.add(p, truth)
        return truth

    def number(self, count: int, truth: int | None) -> int:
        """See :meth:`DecisionCoder.number`."""
        assert truth is not None
        self.coder.encode(np.array([truth], np.int32), constriction.stream.model.Uniform(count))
        self.meter.add_bits(math.log2(count))
        return truth

    def mark(self, depth: float) -> None:
        """See :meth:`DecisionCoder.mark`."""
        self.marks.append(Mark(self.meter.end, depth))
        if depth > self.depth:
            self.size = min(self.size, self.marks[-1].end)
        if 4 * int(self.coder.num_words()) > self.size + SPARE:  # the meter is some bytes ahead of the coder
            raise Exhausted

    def payload(self) -> bytes:
        """The stream, at least as long as its last mark says."""
        body = self.coder.get_compressed().astype("<u4").tobytes()
        return body + b"\0" * max(0, self.marks[-1].end - len(body))


class DecisionReader:
    """Decides as the writer did; raises :class:`Exhausted` when a decision needs more bytes than there are.

    The information of a decision is known once it is made, so a group may be decoded in vain.
    """

    def __init__(self, payload: bytes) -> None:
        self.meter = Meter()
        words = np.frombuffer(payload + b"\0" * (-len(payload) % 4), "<u4").astype(np.uint32)
        self.coder = constriction.stream.queue.RangeDecoder(words)
        self.available = len(payload)
        self.marks: list[Mark] = []

    def decide(self, probability: UInt16, truth: Bool | None) -> Bool:
        """See :meth:`DecisionCoder.decide`."""
        if not len(probability):
            return np.zeros(0, bool)
        p = probability.astype(np.int64)
        try:
            result = self.coder.decode(_BERNOULLI, p / 65536.0).astype(bool)
        except (ValueError, AssertionError):  # beyond the end, what is decoded may be impossible
            raise Exhausted from None
        self.meter.add(p, result)
        return np.asarray(result)

    def number(self, count: int, truth: int | None) -> int:
        """See :meth:`DecisionCoder.number`."""
        try:
            value = int(self.coder.decode(constriction.stream.model.Uniform(count)))
        except (ValueError, AssertionError):
            raise Exhausted from None
        self.meter.add_bits(math.log2(count))
        if self.meter.end > self.available:
            raise Exhausted
        return value

    def mark(self, depth: float) -> None:
        """See :meth:`DecisionCoder.mark`."""
        if self.meter.end > self.available:
            raise Exhausted
        self.marks.append(Mark(self.meter.end, depth))

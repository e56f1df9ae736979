"""The coder does what docs/FORMAT.md says: an independent decoder in plain Python integers reads its streams."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eocodec.coding import walk
from eocodec.coding.range_coder import MANY, MAX_ESCAPE_CLASS, Reader, Writer, tables_of
from eocodec.coding.walk import activity_class, lattices
from eocodec.errors import FormatError
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

PRECISION = 24


class PlainDecoder:
    """The range decoder of docs/FORMAT.md: 32-bit words, 64-bit state, 24-bit probabilities, integers only."""

    def __init__(self, payload: bytes) -> None:
        payload += b"\0" * (-len(payload) % 4)
        self.words = [int.from_bytes(payload[k : k + 4], "little") for k in range(0, len(payload), 4)]
        self.lower, self.range, self.point = 0, (1 << 64) - 1, 0
        for _ in range(2):
            self.point = self.point << 32 | self.word()

    def word(self) -> int:
        return self.words.pop(0) if self.words else 0

    def decode(self, frequencies: list[int]) -> int:
        scale = self.range >> PRECISION
        quantile = ((self.point - self.lower) % (1 << 64)) // scale
        symbol, left = 0, 0
        while left + frequencies[symbol] <= quantile:
            left += frequencies[symbol]
            symbol += 1
        self.lower = (self.lower + scale * left) % (1 << 64)
        self.range = scale * frequencies[symbol]
        if self.range < 1 << 32:
            self.lower = (self.lower << 32) % (1 << 64)
            self.range <<= 32
            self.point = (self.point << 32) % (1 << 64) | self.word()
        return symbol

    def uniform(self, size: int) -> int:
        return self.decode([(1 << PRECISION) // size] * size)


def plain_residuals(decoder: PlainDecoder, tables: list[np.ndarray], index: list[int]) -> list[int]:
    m = [0] * len(index)
    for k in sorted(set(index)):
        table = tables[k].tolist()
        radius = len(table) - 1
        places = [n for n, i in enumerate(index) if i == k]
        for n in places:
            m[n] = decoder.decode(table[:0:-1] + table) - radius
        escaped = [n for n in places if abs(m[n]) == radius]
        lengths = [decoder.uniform(32) for _ in escaped]
        extra = [1 << n for n in lengths]
        for length in range(1, 32):
            chosen = [e for e, n in enumerate(lengths) if n == length]
            for shift, bits in ((0, min(length, 12)), (12, length - 12)):
                if bits > 0:
                    for e in chosen:
                        extra[e] += decoder.uniform(1 << bits) << shift
        for n, e in zip(escaped, extra, strict=True):
            m[n] = (1 if m[n] > 0 else -1) * (radius + e - 1)
    return m


def _draw(random: np.random.Generator, model: Model, n: int) -> tuple[np.ndarray, np.ndarray]:
    index = random.integers(0, 64, n).astype(np.uint8)
    scale = 0.05 * 2 ** (index / 5)
    m = np.round(random.laplace(0, scale)).astype(np.int32)
    wild = random.random(n) < 0.02
    m[wild] = random.integers(-(1 << 21), 1 << 21, wild.sum())
    return m, index


@pytest.mark.parametrize("seed", range(4))
def test_plain_integers_read_what_the_coder_wrote(seed: int, model: Model) -> None:
    random = np.random.default_rng(seed)
    writer = Writer(tables_of(model))
    strips = [_draw(random, model, n) for n in (1, 300, 57)]
    for m, index in strips:
        writer.put(m, index)
    decoder = PlainDecoder(writer.payload())
    for m, index in strips:
        assert plain_residuals(decoder, model.tables, index.tolist()) == m.tolist()


@given(st.integers(0, 2**32), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_the_reader_inverts_the_writer(seed: int, n: int) -> None:
    model = load_model("photo")
    m, index = _draw(np.random.default_rng(seed), model, n)
    writer = Writer(tables_of(model))
    writer.put(m, index)
    assert (Reader(tables_of(model), writer.payload()).take(index) == m).all()


@pytest.mark.parametrize("most", [0, 9, 40])
def test_a_table_that_most_symbols_have_is_read_by_plain_integers(most: int, model: Model) -> None:
    """Such symbols are not sorted with the others; a few of them escape, in the middle and at the end."""
    random = np.random.default_rng(most)
    n = MANY + 500
    m, index = _draw(random, model, n)
    index[random.random(n) < 0.7] = most
    m[index == most] = random.integers(-1, 2, (index == most).sum())
    m[[n // 2, n - 1]], index[[n // 2, n - 1]] = (-(1 << 20), 3000), most
    for kind in (np.int32, np.int8):
        narrow = m.clip(np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)
        writer = Writer(tables_of(model))
        writer.put(narrow, index)
        assert plain_residuals(PlainDecoder(writer.payload()), model.tables, index.tolist()) == narrow.tolist()
        assert (Reader(tables_of(model), writer.payload()).take(index) == narrow).all()


def test_rounding_takes_the_integer_that_costs_least(model: Model) -> None:
    """Squared error and bits, weighed by the bundle's dead zone, over every candidate; ties aside."""
    tables, weight = tables_of(model), model.manifest.dead_zone
    residual = np.linspace(-3.4, 3.4, 2001).astype(np.float32)
    differs = 0
    for k, table in enumerate(model.tables):
        bits = 24 - np.log2(table.astype(np.float64))
        rise = np.clip(np.diff(bits[:3]), 0, 12) if len(bits) > 2 else np.repeat(np.clip(np.diff(bits), 0, 12), 2)
        price = np.cumsum([0, rise[0], *[rise[1]] * 4])  # of m = 0, 1, 2, …
        cost = (np.abs(residual)[:, None] - np.arange(6)) ** 2 + weight * price
        got = tables.round(residual, np.full(len(residual), k, np.uint8))
        least = np.sort(cost, 1)
        clear = least[:, 1] - least[:, 0] > 1e-4
        assert np.array_equal(np.abs(got)[clear], cost.argmin(1)[clear]), k
        assert (np.sign(got) * np.sign(residual) >= 0).all()
        differs += int((got != np.rint(residual)).sum())
    assert differs > 1000  # it is not rounding to the nearest


def test_tables_are_complete_distributions(model: Model) -> None:
    for table in model.tables:
        assert table.min() >= 1 and table[0] + 2 * table[1:].sum() == 1 << PRECISION


def test_lattices_visit_every_position_once() -> None:
    for height, width in ((1, 1), (1, 9), (7, 1), (2, 3), (5, 5), (16, 24), (13, 31)):
        visits = np.zeros((height, width), int)
        visits[0, 0] = 1
        q = np.zeros((height, width), np.int32)
        stride = 1 << (max(height, width) - 1).bit_length()
        while stride > 1:
            for _, rows, columns, predicted, activity in lattices(q, stride // 2):
                assert predicted.shape == activity.shape == visits[rows, columns].shape
                visits[rows, columns] += 1
            stride //= 2
        assert (visits == 1).all(), (height, width)


def test_activity_classes_rise_with_activity() -> None:
    a = np.arange(5000, dtype=np.int32)
    c = activity_class(a)
    assert c[:9].tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6] and (np.diff(c) >= 0).all()


def test_the_nets_are_exact_below_the_float32_limit(model: Model) -> None:
    """From the weights in the shipped graphs: no partial sum can reach 2**24, and every constant is an integer."""
    onnx = pytest.importorskip("onnx")
    checked = 0
    for name, content in model.files.items():
        if not name.startswith(("entropy/", "embedded/")):
            continue
        graph = onnx.load_from_string(content).graph
        # Stored in fewer bits, see `eocodec_export.graphs.halved`
        constants = {c.name.removesuffix("/short"): onnx.numpy_helper.to_array(c) for c in graph.initializer}
        for node in graph.node:
            if node.op_type == "Conv":
                weight, bias = (constants[i].astype(np.float64) for i in node.input[1:3])
                assert (weight == np.round(weight)).all() and (bias == np.round(bias)).all()
                assert np.abs(weight).max() <= 128
                assert (np.abs(weight).sum((1, 2, 3)) * 255 + np.abs(bias)).max() < 1 << 24
                checked += 1
            if node.op_type == "QLinearConv":
                one, weight, scale, output, bias = (constants[node.input[i]] for i in (1, 3, 4, 6, 8))
                assert weight.dtype == np.int8 and np.abs(weight).max() <= 63  # two products fit 16 bits
                assert one == output == 1 and (np.frexp(scale)[0] == 0.5).all()
                assert (np.abs(weight.astype(int)).sum((1, 2, 3)) * 255 + np.abs(bias)).max() < 1 << 24
                checked += 1
            if node.op_type == "Mul":
                assert (np.frexp(constants[node.input[1]])[0] == 0.5).all()  # powers of two
    assert checked > 130


def test_magnitudes_of_noise_are_bounded_or_refused(model: Model) -> None:
    """Streams of noise ask for all kinds of escapes: those beyond the range are damage, the others stay below it."""
    random = np.random.default_rng(0)
    largest, refused = [], []
    for _ in range(40):
        index = random.integers(0, 64, 2000).astype(np.uint8)
        try:
            largest.append(int(np.abs(Reader(tables_of(model), random.bytes(4000)).take(index)).max()))
        except FormatError as e:
            refused.append(str(e))
    assert len(refused) >= 5 and len(largest) >= 5
    assert any("out of range" in sentence for sentence in refused)
    assert max(largest) > 1 << 15  # some escapes are long
    assert max(largest) < (1 << MAX_ESCAPE_CLASS + 1) + max(tables_of(model).radius)


def test_a_stream_that_is_no_code_is_refused(model: Model) -> None:
    index = np.full(2000, 30, np.uint8)
    with pytest.raises(FormatError, match="cannot be decoded"):
        Reader(tables_of(model), b"\xff" * 4000).take(index)
    zeros = Reader(tables_of(model), b"\0" * 4000).take(index)
    assert (zeros == zeros[0]).all() and zeros[0] < 0  # the first symbol, an escape, again and again


def test_strip_size_is_what_the_format_says() -> None:
    assert walk.STRIP == 65536

"""Shifts of tables: what a file says about how far the nets' scales are off."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from paths import SAMPLES, VECTORS
from PIL import Image

import eocodec
from eocodec import format
from eocodec.coding.shifts import Shifts, chosen
from eocodec.errors import FormatError
from eocodec.model.bundle import Model

UNITS = 25


@pytest.fixture
def model() -> Iterator[Model]:
    """The small bundle, whose files have shifts."""
    model = eocodec.load_model(str(VECTORS / "small.eocm"))
    model.__dict__["encoding"] = replace(model.encoding, shifts=True)
    yield model
    del model.__dict__["encoding"]


def drawn(model: Model, table: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Residuals that a table fits."""
    frequencies = model.tables[table].astype(np.float64)
    frequencies[1:] *= 2
    magnitude = rng.choice(len(frequencies) - 1, 20_000, p=frequencies[:-1] / frequencies[:-1].sum())
    return (magnitude * rng.choice((-1, 1), 20_000)).astype(np.int32)


def test_the_shift_found_is_how_far_the_scale_is_off(model: Model) -> None:
    rng = np.random.default_rng(1)
    index = np.full(20_000, 30, np.uint8)
    units = [[(drawn(model, 30 + off, rng), index)] for off in (0, 5, -5)]
    assert all(abs(found - off) <= 1 for found, off in zip(chosen(model, units).entries, (0, 5, -5), strict=True))


def test_shifts_that_save_less_than_they_take_are_left_out(model: Model) -> None:
    few = np.zeros(20, np.int32), np.full(20, 20, np.uint8)
    assert chosen(model, [[few]]).pack() is None
    many = np.zeros(5000, np.int32), np.full(5000, 20, np.uint8)
    assert chosen(model, [[many]]).entries[0] < 0


def test_packing_comes_back_and_ends_with_the_last_shift() -> None:
    for entries in ([3], [0, -7, 7], [0] * 24 + [1], [1] * 25):
        content = Shifts(entries).pack()
        assert content is not None and len(content) == (len(entries) + 1) // 2
        found = Shifts.unpack(content, UNITS).entries
        assert list(found[: len(entries)]) == entries and not any(found[len(entries) :])
    assert Shifts([0, 0]).pack() is None and Shifts.unpack(None, UNITS).entries == ()


@pytest.mark.parametrize("content", [b"\x08", b"\x80", b"\x88" * 14, b"\x88" * 12 + b"\x98"])
def test_entries_out_of_range_are_damage(content: bytes) -> None:
    with pytest.raises(FormatError, match="shifts of tables"):
        Shifts.unpack(content, UNITS)


def test_indices_stay_on_the_ladder() -> None:
    shifts = Shifts([7, -7])
    index = np.array([0, 3, 60, 63], np.uint8)
    assert shifts.table(0, index).tolist() == [7, 10, 63, 63]
    assert shifts.table(1, index).tolist() == [0, 0, 53, 56]
    assert shifts.table(2, index) is index


@pytest.mark.parametrize("options", [{"tune": "eye"}, {"tune": "psnr"}, {"tune": "eye", "focus": (0, 0, 40, 40)}])
def test_files_with_shifts_are_smaller_and_give_the_same_picture(model: Model, options: dict[str, object]) -> None:
    with Image.open(SAMPLES / "coffee.png") as opened:
        picture = np.asarray(opened.convert("RGB").crop((100, 100, 260, 228)))
    data = eocodec.compress(picture, 40, model=model, **options)  # type: ignore[arg-type]
    assert format.parse(data).shifts is not None
    model.__dict__["encoding"] = replace(model.encoding, shifts=False)
    plain = eocodec.compress(picture, 40, model=model, **options)  # type: ignore[arg-type]
    assert format.parse(plain).shifts is None and len(data) < len(plain)
    assert (eocodec.decompress(data, model=model) == eocodec.decompress(plain, model=model)).all()


def test_shifts_are_refused_where_a_file_has_none() -> None:
    data = (VECTORS / "small-shifts.eoc").read_bytes()
    file = format.parse(data)
    for wrong in (replace(file.header, embedded=True), replace(file.header, deep=True, tuning=0)):
        with pytest.raises(FormatError):
            format.serialise(replace(file, header=wrong, offsets=None))
    damaged = replace(file, shifts=b"\x00")
    with pytest.raises(FormatError, match="shifts of tables"):
        eocodec.decompress(format.serialise(damaged), eocodec.load_model(str(VECTORS / "small.eocm")))

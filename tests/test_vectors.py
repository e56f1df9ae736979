"""The library decodes the test vectors to the symbols and pictures that they were made with."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest
from paths import VECTORS, bundle_of, picture_of
from streams import frames

import eocodec
from eocodec.coding.lattice import AXES
from eocodec.coding.lossless_walk import features_name
from eocodec.coding.symbols import symbols
from eocodec.model.bundle import open_bundle

INDEX: list[dict[str, Any]] = json.loads((VECTORS / "vectors.json").read_text())
VECTOR = {v["name"]: v for v in INDEX}
REFUSED, KEPT = frames(refused=True), frames(refused=False)


@pytest.mark.parametrize(
    "vector", [pytest.param(v, id=v["name"], marks=[pytest.mark.slow] * (v["symbols"] > 1_000_000)) for v in INDEX]
)
def test_vectors_decode_to_what_they_were_made_with(vector: dict[str, Any]) -> None:
    data = (VECTORS / f"{vector['name']}.eoc").read_bytes()
    model = bundle_of(vector["model"])
    values = symbols(data, eocodec.load_model(model)).astype("<i4")
    assert len(values) == vector["symbols"]
    assert hashlib.sha256(values.tobytes()).hexdigest() == vector["sha256"]
    picture = eocodec.decompress(data, model)
    assert picture.shape == (vector["height"], vector["width"], 4 if vector["alpha"] else 3)
    if vector["picture"]:
        expected = picture_of(vector)
        assert expected.dtype == picture.dtype
        difference = np.abs(expected.astype(int) - picture)
        assert difference.max() <= (0 if vector["exact"] else 1)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_single_zstd_frame_is_refused(case: str) -> None:
    name, data = REFUSED[case]
    with pytest.raises(eocodec.FormatError, match="the file is damaged: its "):
        eocodec.decompress(data, bundle_of(VECTOR[name]["model"]))


@pytest.mark.parametrize("case", KEPT)
def test_zstd_frames_may_have_a_checksum_and_a_size(case: str) -> None:
    name, data = KEPT[case]
    model = bundle_of(VECTOR[name]["model"])
    expected = eocodec.decompress((VECTORS / f"{name}.eoc").read_bytes(), model)
    assert np.array_equal(eocodec.decompress(data, model), expected)


def looks_around(model: str) -> bool:
    """Whether a bundle has all nets that look around before the samples of lossless files."""
    files = open_bundle(bundle_of(model))
    return all(f"{features_name(half, axis)}.onnx" in files for half in (1, 2, 4) for axis in range(AXES))


def test_every_kind_of_file_has_a_vector() -> None:
    from eocodec.format import is_tiny, parse

    kinds = set()
    for vector in INDEX:
        data = (VECTORS / f"{vector['name']}.eoc").read_bytes()
        if is_tiny(data):
            kinds.add("tiny")
            continue
        file = parse(data)
        kinds.add("lossless" if file.lossless else "embedded" if file.header.embedded else vector["model"])
        kinds |= {"grey"} if file.header.grey else set()
        kinds |= {"nets that look around"} if looks_around(vector["model"]) else set()
        kinds |= {"alpha"} if file.alpha else set()
        kinds |= {"tuned"} if file.header.tuning else set()
        kinds |= {"map"} if file.offsets else set()
        kinds |= {"shifts"} if file.shifts else set()
        kinds |= {"deep"} if file.header.deep else set()
        kinds |= {"range of values"} if file.header.span else set()
        kinds |= {"one axis, deep"} if file.header.axes == 1 and file.header.deep else set()
        kinds |= {"luma"} if file.header.luma else set()
        kinds |= {"page"} if file.header.page else set()
        kinds |= {"one axis"} if file.header.axes == 1 else set()
        kinds |= set() if file.complete else {"prefix"}
    assert kinds == {
        *("photo", "face64", "small.eocm", "small-grey.eocm", "embedded", "lossless", "tiny"),
        *("grey", "alpha", "tuned", "map", "shifts", "deep", "luma", "page", "one axis", "prefix"),
        "nets that look around",
        "range of values",
        "one axis, deep",
    }

"""Bundles without some of their parts: the same id, the same decoding, clear words for what is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from paths import VECTORS
from PIL import Image

import eocodec
from eocodec.errors import EocodecError, ModelError
from eocodec.model import library, parts
from eocodec.model.bundle import Model, bundle_id, read_bundle, write_bundle
from eocodec.model.library import Library, load_model
from eocodec.model.shelf import peek_id, shipped_models

SHIPPED = ("photo", "face64")


@pytest.fixture(scope="module")
def files() -> dict[str, dict[str, bytes]]:
    return {name: read_bundle(shipped_models()[name]) for name in SHIPPED}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_stripped_bundle_has_the_same_id_and_decodes(
    name: str, files: dict[str, dict[str, bytes]], tmp_path: Path, chelsea: np.ndarray
) -> None:
    whole = load_model(name)
    data = eocodec.compress(chelsea[:64, :64], model=whole)
    small = parts.strip(files[name], ("encoder", "denoising", "embedded", "lossless"))
    assert write_bundle(tmp_path / "small.eocm", small) == whole.full_id
    assert not any(n.startswith(("denoise/", "encoder", "embedded/", "lossless/")) for n in small)
    model = load_model(tmp_path / "small.eocm")
    assert (eocodec.decompress(data, model) == eocodec.decompress(data, whole)).all()
    assert Library([model], shipped=False).of_id(whole.id) is model
    with pytest.raises(ModelError, match="lacks the graph encoder"):
        eocodec.compress(chelsea[:64, :64], model=model)


def test_a_list_of_parts_stands_for_what_decoding_needs(files: dict[str, dict[str, bytes]]) -> None:
    listed = parts.listed({**files["photo"], "manifest.json": files["photo"]["manifest.json"] + b"\n"})
    identity = bundle_id(listed)
    assert identity != bundle_id(files["photo"])  # it is another model …
    assert bundle_id(parts.listed({**listed, "denoise/gains.onnx": b"better"})) == identity  # … whatever denoises
    assert bundle_id(parts.listed({**listed, "tables.bin": b"other"})) != identity
    Model(listed)
    for name, content in (("tables.bin", b"x"), ("more.onnx", b""), ("encoder.onnx", b"")):
        with pytest.raises(ModelError, match=rf"{name} is not (what|on) its list of parts"):
            Model({**listed, name: content})


@pytest.mark.slow
def test_contents_are_checked_when_they_are_unpacked(files: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    listed = parts.listed(files["photo"])
    wrong = {**listed, "lossless/tables.bin": listed["lossless/tables.bin"][:-1] + b"x"}
    write_bundle(tmp_path / "wrong.eocm", wrong)
    model = load_model(tmp_path / "wrong.eocm")
    with pytest.raises(ModelError, match=r"lossless/tables\.bin is not what its list of parts says"):
        eocodec.compress(np.zeros((9, 9, 3), np.uint8), model=model, lossless=True)
    write_bundle(tmp_path / "more.eocm", {**listed, "more.onnx": b""})
    with pytest.raises(ModelError, match=r"more\.onnx is not on its list of parts"):
        load_model(tmp_path / "more.eocm")


def test_only_bundles_with_a_list_can_be_stripped(files: dict[str, dict[str, bytes]]) -> None:
    own = {**files["face64"], "compand.bin": files["face64"]["compand.bin"] + b"\x7f"}
    with pytest.raises(ModelError, match="export it again"):
        parts.strip(own, ("encoder",))
    assert bundle_id(parts.strip(parts.listed(own), ("encoder",))) == bundle_id(parts.listed(own))


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"decoding": 3, "beside": {}}', b'{"decoding": {"a": [1]}, "beside": {}}',
     b'{"decoding": {"a": [1, "zz"]}, "beside": {}}', b'{"decoding": {"a b": [1, ""]}, "beside": {}}', b"\xff"],
)  # fmt: skip
def test_lists_that_are_none_are_refused(content: bytes, files: dict[str, dict[str, bytes]]) -> None:
    with pytest.raises(EocodecError, match="list of parts"):
        Model({**files["face64"], parts.LIST: content})


def test_a_file_is_on_one_side_only(files: dict[str, dict[str, bytes]]) -> None:
    groups = json.loads(parts.listed(files["photo"])[parts.LIST])
    groups["beside"]["tables.bin"] = groups["decoding"]["tables.bin"]
    with pytest.raises(ModelError, match="inconsistent"):
        Model({**files["photo"], parts.LIST: json.dumps(groups).encode()})


def test_files_of_earlier_models_stay_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `photo` is now: the decoder of the one that vectors were made with is found by its id."""
    others = {name: path for name, path in shipped_models().items() if peek_id(path)[:4].hex() != "26cc94c0"}
    monkeypatch.setattr(library, "shipped_models", lambda: others)
    for name in ("colour", "embedded", "lossless"):
        data = (VECTORS / f"{name}.eoc").read_bytes()
        model = Library().of_id(bytes.fromhex("26cc94c0"))
        assert "encoder.onnx" not in model.files
        wanted = np.asarray(Image.open(VECTORS / f"{name}.png").convert("RGB")).astype(int)
        assert np.abs(eocodec.decompress(data) - wanted).max() <= 1

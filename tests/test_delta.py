"""Delta bundles and the user's folder: a delta stands for a whole bundle, is found by id, and says what it lacks."""

import json
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import zstandard
from click.testing import CliRunner, Result
from eocodec_cli import cli
from paths import SAMPLES
from PIL import Image

import eocodec
from eocodec.coding.describe import describe
from eocodec.errors import FormatError, ModelError
from eocodec.model.bundle import bundle_id, peek_id, read_bundle, write_bundle
from eocodec.model.delta import DELTA, base_of, composed, difference, write_delta
from eocodec.model.library import FOLDER_VARIABLE, bundle_files, load_model, shipped_models, user_models
from eocodec.model.parts import listed, strip, verify

PHOTO = shipped_models()["photo"]


@cache
def _photo() -> dict[str, bytes]:
    return dict(read_bundle(PHOTO))


@cache
def _changed(name: str = "mine") -> dict[str, bytes]:
    """The shipped photo model with another name and rounding, and without embedded and lossless files or denoising."""
    left_out = ("embedded/", "progressive.bin", "lossless/", "denoise/")
    files = {k: v for k, v in _photo().items() if not k.startswith(left_out)}
    manifest = {**json.loads(files["manifest.json"]), "name": name, "dead_zone": 0.2}
    return listed({**files, "manifest.json": json.dumps(manifest).encode()})


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The delta of the changed model."""
    path: Path = tmp_path_factory.mktemp("delta") / "mine.eocm"
    write_delta(path, _photo(), _changed())
    return path.read_bytes()


@pytest.fixture
def delta(tmp_path: Path, written: bytes) -> Path:
    path = tmp_path / "delta" / "mine.eocm"
    path.parent.mkdir()
    path.write_bytes(written)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[100:148, 150:214]


@pytest.mark.slow
def test_a_delta_stands_for_the_whole_bundle(delta: Path, tmp_path: Path, picture: np.ndarray) -> None:
    whole = tmp_path / "whole.eocm"
    write_bundle(whole, _changed())
    assert delta.stat().st_size < 20_000
    assert bundle_files(delta) == read_bundle(whole)
    assert peek_id(delta) == peek_id(whole) == load_model(delta).full_id
    data = eocodec.compress(picture, 200, model=whole)
    assert data == eocodec.compress(picture, 200, model=delta)
    assert np.array_equal(eocodec.decompress(data, delta), eocodec.decompress(data, whole))


@pytest.mark.slow
def test_a_delta_of_a_delta_is_completed(delta: Path, tmp_path: Path) -> None:
    second = delta.parent / "second.eocm"
    files = listed({**_changed("second"), "extra.bin": b"more"})
    write_delta(second, bundle_files(delta), files)
    assert bundle_files(second) == files


def test_weights_that_moved_a_little_are_held_as_differences(tmp_path: Path) -> None:
    base = dict(read_bundle(PHOTO))
    name = "entropy/luma2_1.onnx"
    weights = np.frombuffer(base[name], np.uint8).copy()
    weights[2000::3] += 1
    files = listed({**base, name: weights.tobytes()})
    path = tmp_path / "mine.eocm"
    write_delta(path, base, files)
    assert path.stat().st_size < len(base[name]) / 4
    assert bundle_files(path) == files
    delta = read_bundle(path)
    note = json.loads(delta[DELTA])
    assert note["format"] == 2 and note["changes"] == [[name, len(base[name]), True]]

    def composed_with(**changed: object) -> dict[str, bytes]:
        return composed({**delta, DELTA: json.dumps({**note, **changed}).encode()}, base)

    moved = zstandard.ZstdCompressor().compress(bytes(len(base[name])))
    with pytest.raises(ModelError, match="damaged"):
        composed({**delta, "changes.zst": moved}, base)
    with pytest.raises(ModelError, match="changes are damaged"):
        composed({**delta, "changes.zst": b"none"}, base)
    with pytest.raises(ModelError, match="not as long"):
        composed_with(changes=[[name, len(base[name]) - 1, True]])
    with pytest.raises(ModelError, match="does not fit"):
        composed_with(changes=[["other", len(base[name]), True]])
    with pytest.raises(ModelError, match="more than allowed"):
        composed_with(changes=[[name, 1 << 40, True]])
    for changes in ([[name, -1, True]], [[name, 1.5, True]], [[name]], [[3, 4, True]], 5):
        with pytest.raises(ModelError, match="note of its base is damaged"):
            composed_with(changes=changes)


def test_weights_that_are_elsewhere_in_the_base_are_not_held_again() -> None:
    weights = np.random.default_rng(0).integers(0, 256, 60_000, np.uint8).tobytes()
    base = {"decoder.onnx": b"head" + weights, "encoder.onnx": b"1"}
    files = {"decoder.onnx": b"other head" + weights[:50_000], "encoder.onnx": weights[:40_000]}
    delta = difference(base, files)
    assert len(delta["changes.zst"]) < 1000 and composed(delta, base) == files
    note = json.loads(delta[DELTA])
    with pytest.raises(ModelError, match="stripped"):
        composed({**delta, DELTA: json.dumps({**note, "dictionary": ["other"]}).encode()}, base)
    with pytest.raises(ModelError, match="note of its base is damaged"):
        composed({**delta, DELTA: json.dumps({**note, "dictionary": [3]}).encode()}, base)
    with pytest.raises(ModelError, match="damaged"):
        composed({**delta, DELTA: json.dumps({**note, "dictionary": ["encoder.onnx"]}).encode()}, base)


def test_what_differs_is_held_and_nothing_else() -> None:
    base = {"a": b"1", "b": b"2", "denoise/x": b"3"}
    files = {"a": b"1", "b": b"9", "c": b"4"}
    delta = difference(base, files)
    assert set(delta) == {"changes.zst", DELTA}
    assert [name for name, _, _ in json.loads(delta[DELTA])["changes"]] == ["b", "c"]
    assert base_of(delta) == bundle_id(base) and base_of(files) is None
    assert composed(delta, base) == files
    with pytest.raises(ModelError, match="not of the one given as its base"):
        composed(delta, {**base, "a": b"other"})
    assert composed(delta, {"a": b"1", "b": b"2"}) == files  # the id leaves denoising out, so the base may be another
    dropped = json.dumps({**json.loads(delta[DELTA]), "dropped": ["other"]}).encode()
    with pytest.raises(ModelError, match="drops what its base does not have"):
        composed({**delta, DELTA: dropped}, base)


@pytest.mark.parametrize("denoise", [{"denoise/x": b"3"}, {"denoise/x": b"4"}, {"denoise/y": b"3"}, {}], ids=str)
def test_a_delta_outlives_the_nets_for_denoising_of_its_base(denoise: dict[str, bytes]) -> None:
    """They are no part of an id: a base may have others by now, under other names, or have been stripped of them."""
    base = listed({"a": b"1", "decoder.onnx": b"2", "denoise/x": b"3"})
    later = [listed({**{k: base[k] for k in ("a", "decoder.onnx")}, **new}) for new in ({}, {"denoise/z": b"5"})]
    later += [listed({**base, "denoise/x": b"7"}), {k: v for k, v in base.items() if k != "denoise/x"}]
    files = listed({"a": b"9", "decoder.onnx": b"2", **denoise})
    delta = difference(base, files)
    assert composed(delta, base) == files
    for other in later:
        assert bundle_id(other) == bundle_id(base)
        got = composed(delta, other)
        verify(got)
        assert bundle_id(got) == bundle_id(files)
        assert {k: v for k, v in got.items() if k != "denoise/x"}.items() <= files.items()
        assert got.keys() >= {"a", "decoder.onnx"}


@pytest.mark.parametrize(
    "note",
    [b"", b"[]", b'{"format": 1}', b'{"format": 1, "base": "00", "dropped": []}', b'{"format": 1, "base": 3}']
    + [json.dumps({"format": 1, "base": b * 64, "dropped": d}).encode() for b, d in (("zz"[:1], []), ("0", [1]))],
)
def test_a_damaged_note_is_refused(note: bytes) -> None:
    with pytest.raises(ModelError, match="damaged"):
        base_of({DELTA: note})
    with pytest.raises(ModelError, match="another format version"):
        base_of({DELTA: b'{"format": 3, "base": "", "dropped": []}'})


def test_a_delta_without_its_base_says_which_is_missing(tmp_path: Path) -> None:
    base = listed({**_changed("base"), "extra.bin": b"more"})
    path = tmp_path / "mine.eocm"
    write_delta(path, base, _changed())
    with pytest.raises(ModelError, match=rf"is a delta of model {bundle_id(base).hex()[:8]}, which is not installed"):
        load_model(path)
    write_bundle(tmp_path / "base.eocm", base)
    assert load_model(path).name == "mine", "beside the delta it is found"


def test_a_delta_with_other_content_than_its_id_is_refused(delta: Path) -> None:
    with zipfile.ZipFile(delta, "a") as archive:
        archive.writestr("extra.bin", b"smuggled in")
    with pytest.raises(ModelError, match=r"extra\.bin is not on its list of parts"):
        load_model(delta)


@pytest.mark.slow
def test_added_models_are_found_by_id_and_name(delta: Path, folder: Path, tmp_path: Path, picture: np.ndarray) -> None:
    data = eocodec.compress(picture, 200, model=delta)
    with pytest.raises(FormatError, match="install it with: eocodec models add"):
        eocodec.decompress(data)
    added = _run("models", "add", delta)
    assert added.exit_code == 0, added.output
    assert user_models() == {"mine": folder / "mine.eocm"}
    assert np.array_equal(eocodec.decompress(data), eocodec.decompress(data, delta))
    assert load_model("mine").full_id == load_model(delta).full_id
    assert describe(data)["model"] == "mine"
    rows = [json.loads(line) for line in _run("models", "list", "--json").output.splitlines()]
    assert [(r["name"], r["shipped"]) for r in rows] == [("face64", True), ("photo", True), ("mine", False)]
    assert rows[2]["base"] == load_model("photo").full_id.hex() and rows[1]["base"] is None
    assert f"delta of {load_model('photo').id.hex()}" in _run("models").output
    assert _run("models", "add", delta).exit_code == 0, "the same one again changes nothing"
    assert _run("models", "remove", "mine").exit_code == 0
    assert user_models() == {}


@pytest.mark.slow
def test_a_shipped_model_with_other_nets_for_denoising_has_the_name_of_its_file(folder: Path, tmp_path: Path) -> None:
    files = read_bundle(PHOTO)
    quiet = tmp_path / "quiet.eocm"
    write_delta(quiet, files, listed({**files, "denoise/clean.onnx": files["denoise/sigma.onnx"]}))
    added = _run("models", "add", quiet)
    assert added.exit_code == 0 and added.output.startswith("quiet  id "), added.output
    assert user_models() == {"quiet": folder / "quiet.eocm"}
    assert load_model("quiet").full_id == load_model("photo").full_id and load_model("quiet").name == "quiet"
    write_delta(folder / "mine.eocm", files, _changed("mine"))
    assert _run("models", "remove", "quiet").exit_code == 0, "what needs photo has it still"


@pytest.mark.slow
def test_what_must_not_be_added_or_removed(delta: Path, folder: Path, tmp_path: Path) -> None:
    base, needing = tmp_path / "base.eocm", tmp_path / "needing.eocm"
    write_bundle(base, _changed("base"))
    write_delta(needing, _changed("base"), _changed("needing"))

    def refusal(*arguments: str | Path) -> str:
        with pytest.raises(eocodec.EocodecError) as e:
            CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False, standalone_mode=False)
        return str(e.value)

    assert "add that one first" in refusal("models", "add", needing)
    assert "cannot be replaced; export it under another --name" in refusal("models", "add", PHOTO)
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"no bundle")
    assert refusal("models", "add", picture) == f"{picture}: not a model bundle, whose name ends in .eocm"
    assert "comes with eocodec" in refusal("models", "remove", "photo")
    assert "there are: none" in refusal("models", "remove", "nobody")
    for path in (base, needing):
        assert _run("models", "add", path).exit_code == 0
    assert "needing cannot be used without base" in refusal("models", "remove", "base")
    small = tmp_path / "small.eocm"
    write_bundle(small, strip(_changed("base"), ("encoder",)))
    assert "this copy of base lacks parts that the installed one has" in refusal("models", "add", small)
    write_bundle(base, listed({**_changed("base"), "extra.bin": b"more"}))
    assert "is installed already; use --force to replace it" in refusal("models", "add", base)
    installed = user_models()["base"]
    installed.write_bytes(b"damaged")
    assert _run("models", "add", base).exit_code != 0
    assert _run("models", "add", base, "--force").exit_code == 0 and installed.read_bytes() == base.read_bytes()
    hostile = tmp_path / "hostile.eocm"
    write_bundle(hostile, _changed("../mine"))
    assert "cannot be installed" in refusal("models", "add", hostile)
    assert _run("models", "remove", "base", "--force").exit_code == 0
    assert "needing  unusable:" in _run("models").output
    assert set(user_models()) == {"needing"}

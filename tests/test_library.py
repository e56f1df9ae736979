"""One resolver of models: by name, path, id and number; every operation works with a user's own bundles."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from eocodec_cli import cli
from paths import SAMPLES, VECTORS
from PIL import Image

import eocodec
from eocodec import codec, format
from eocodec.coding.describe import describe
from eocodec.coding.symbols import symbols
from eocodec.errors import EocodecError, FormatError, ModelError
from eocodec.model import parts
from eocodec.model.bundle import Model, read_bundle, write_bundle
from eocodec.model.library import Library, bundle_files, earlier_models, library_of, load_model, shipped_models
from eocodec.model.parts import listed


def _renamed(path: Path, **changes: object) -> dict[str, bytes]:
    """The files of a bundle as those of another one."""
    files = read_bundle(path)
    manifest = {**json.loads(files["manifest.json"]), "name": "mine", **changes}
    return listed({**files, "manifest.json": json.dumps(manifest).encode()})


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "mine.eocm"
    write_bundle(path, _renamed(VECTORS / "small.eocm"))
    return path


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[100:148, 150:214]


@pytest.fixture(scope="module")
def data(mine: Path, picture: np.ndarray) -> bytes:
    return eocodec.compress(picture, 150, model=mine, progressive=True)


def test_models_are_found_by_name_path_id_and_number(mine: Path) -> None:
    own = load_model(mine)
    library = Library([mine], threads=1, device="cpu")
    assert library.of_id(own.id) is library.load(mine) and library.load(mine).name == "mine"
    photo = library.of_id(load_model("photo").id)
    assert photo is library.load("photo")
    assert photo.runtime.threads == 1 and photo.device == "cpu"
    assert library.of_number(1).name == "face64"
    assert library.find(b"none") is None
    with pytest.raises(FormatError, match=r"needs model 6e6f6e65, which is not installed; give its bundle"):
        library.of_id(b"none")
    with pytest.raises(ModelError, match="no model is called nobody"):
        library.load("nobody")


def test_a_single_model_is_the_only_one(mine: Path, data: bytes) -> None:
    library = library_of(mine)
    assert library_of(library) is library
    assert library.find(load_model("photo").id) is None
    with pytest.raises(FormatError, match=r"was made with model \w{8}, not with photo"):
        eocodec.decompress(data, "photo")
    with pytest.raises(FormatError, match="needs model number 1, which is not it"):
        library.of_number(1)


@pytest.mark.slow
def test_own_models_come_before_shipped_ones() -> None:
    face = Model(_renamed(shipped_models()["face64"]))
    assert Library([face]).of_number(1) is face
    assert Library([face], shipped=False).of_number(1) is face
    second = Model(_renamed(shipped_models()["face64"], tiny=2))
    rgb = np.asarray(Image.open(SAMPLES / "faces" / "astronaut.png").convert("RGB"))
    tiny = eocodec.compress(rgb, max_bytes=40, tiny=True, model=second)
    assert Library([face, second]).of(format.from_bytes(tiny)) is second
    for models in (second, Library([face, second]), {second.id: second}):
        assert describe(tiny, models)["model_id"] == second.id.hex()
    with pytest.raises(FormatError, match="needs model number 2, which is not installed"):
        describe(tiny)


@pytest.mark.slow
def test_every_operation_takes_a_users_own_model(mine: Path, picture: np.ndarray, data: bytes) -> None:
    own = load_model(mine)
    shown, values = eocodec.decompress(data, own), symbols(data, own)
    smaller = eocodec.compress(picture, 30, model=own, progressive=True)
    for models in (mine, str(mine), own, Library([mine])):
        assert np.array_equal(eocodec.decompress(data, models), shown)
        assert np.array_equal(symbols(data, models), values)
        assert describe(data, models)["model"] == "mine"
        assert eocodec.truncate(data, rate=30, model=models) == smaller
    assert describe(data)["model"] is None
    for operation in (eocodec.decompress, symbols, lambda d: eocodec.truncate(d, rate=30)):
        with pytest.raises(FormatError, match="not installed"):
            operation(data)
    assert len(eocodec.truncate(data, max_bytes=300)) <= 300  # takes no model


def test_the_commands_take_a_users_own_model(mine: Path, data: bytes, tmp_path: Path) -> None:
    source, target = tmp_path / "p.eoc", tmp_path / "cut.eoc"
    source.write_bytes(data)
    runner = CliRunner()
    refused = runner.invoke(cli, ["truncate", "--rate", "30", str(source), "-o", str(target)])
    assert refused.exit_code != 0
    done = runner.invoke(cli, ["truncate", "--rate", "30", "--model", str(mine), str(source), "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert target.read_bytes() == eocodec.truncate(data, rate=30, model=mine)
    shown = runner.invoke(cli, ["info", "--json", "--model", str(mine), str(source)])
    assert json.loads(shown.output)["model"] == "mine"
    assert json.loads(runner.invoke(cli, ["info", "--json", str(source)]).output)["model"] is None


def test_a_limit_of_pixels_is_public(picture: np.ndarray) -> None:
    data = eocodec.compress(picture, 20)
    height, width = picture.shape[:2]
    assert eocodec.decompress(data, max_pixels=height * width).shape == picture.shape
    with pytest.raises(eocodec.LimitError, match=f"{width}x{height} pixels"):
        eocodec.decompress(data, max_pixels=height * width - 1)
    assert isinstance(codec.decode_file(data), eocodec.Decoded)
    assert isinstance(codec.compress_picture(picture, 20), eocodec.Compressed)


@pytest.mark.slow
def test_earlier_models_are_what_they_were() -> None:
    """To the last file, even those that no decoder needs: deltas that users made of them take theirs from them."""
    lists = {
        "26cc94c0": "ace32aa668662e6b",
        "5381d754": "89a81da4d3a2f191",
        "8d273a48": "f295fcddf0679b73",
        "96b82518": "d082d2ffac80a730",
        "9b085ad7": "b4a34091dccce6b1",
        "a84efb79": "d11ad7b1e227b5c9",
        "b332750c": "fcaaec9679ef56f1",
        "d1e3718f": "6ce4ea7fa6116524",
        "d216a75e": "eb349a03b6759721",
        "dfac410c": "5d0084edddad867f",
        "e39f1b2b": "7ce79ff2709ca6ac",
    }
    found = {p.stem.removeprefix("photo-"): p for p in earlier_models()}
    assert found.keys() == lists.keys()
    for identity, path in found.items():
        files = dict(bundle_files(path))
        assert hashlib.sha256(files[parts.LIST]).hexdigest()[:16] == lists[identity]
        parts.verify(files)


def test_threads_may_be_a_number_of_numpy() -> None:
    assert load_model("photo", threads=np.int64(1)) is load_model("photo", threads=1)  # type: ignore[arg-type]
    for wrong in (True, np.bool_(True), 1.0, np.float64(1), np.int64(-1), "1"):
        with pytest.raises(EocodecError, match=r"^threads must be a whole number"):
            load_model("photo", threads=wrong)  # type: ignore[arg-type]

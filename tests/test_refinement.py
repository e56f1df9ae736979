"""The refinement, trained on what files decode to."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from paths import SAMPLES, VECTORS
from PIL import Image

torch = pytest.importorskip("torch")

from eocodec_export import grey, lossless, mean, progressive, refinement, refining, repack  # noqa: E402

import eocodec  # noqa: E402
from eocodec.adapt.stages import Refined, Stretch  # noqa: E402
from eocodec.errors import ModelError  # noqa: E402
from eocodec.flow.eye import structure_error  # noqa: E402
from eocodec.flow.photo import DeepRefinement  # noqa: E402
from eocodec.flow.training import load_start  # noqa: E402
from eocodec.model.library import bundle_files  # noqa: E402

SMALL = VECTORS / "small.eocm"


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Three crops of a size with which every scale that is drawn leaves enough."""
    with Image.open(SAMPLES / "coffee.png") as opened:
        whole = np.asarray(opened.convert("RGB"))
    return [whole[top : top + 288, left : left + 288] for top, left in ((0, 0), (80, 200), (100, 300))]


@pytest.mark.slow
def test_decoded_pictures_are_those_of_files(pictures: list[np.ndarray]) -> None:
    model = eocodec.load_model(str(SMALL))
    for decoded in refinement.decoded_pictures(model, pictures, seed=3):
        _, height, width = decoded.original.shape
        block = model.multiple
        assert height % block == width % block == 0 and decoded.steps.shape == (height // block, width // block)
        plain = decoded.plain / (255 * refinement.UNIT)
        error = float(np.square(plain - decoded.original / 255).mean())
        assert 0 < error < 0.02  # near the original, and not it
        net = DeepRefinement(8, 8, 1, latents=True)
        batch = refinement.batch_of([decoded], block)
        assert batch.plain.shape == batch.original.shape == (1, 3, height, width)
        assert torch.equal(net(batch.plain, batch.latents, batch.step, batch.tune), batch.plain)  # starts as nothing
        assert refinement.loss_of(net, batch).item() == pytest.approx(1, abs=0.05)


def test_a_crop_is_the_crop_of_everything(pictures: list[np.ndarray]) -> None:
    model = eocodec.load_model(str(SMALL))
    decoded = next(refinement.decoded_pictures(model, pictures, seed=3))
    crop = decoded.crop(32, 64, 128, 32)
    assert (crop.original == decoded.original[:, 32:160, 64:192]).all()
    assert (crop.latents[1] == decoded.latents[1][:, 16:80, 32:96]).all()
    assert (crop.latents[0] == decoded.latents[0][:, 8:40, 16:48]).all()
    assert crop.steps.shape == (4, 4)


def test_structure_counts_from_nothing_to_everything(pictures: list[np.ndarray]) -> None:
    x = torch.from_numpy(pictures[0][None].transpose(0, 3, 1, 2).copy()).float() / 255
    flat = x.mean((2, 3), keepdim=True).expand_as(x)
    near, far = (float(structure_error(x, y)) for y in (0.9 * x + 0.1 * flat, flat))
    assert float(structure_error(x, x)) == pytest.approx(0, abs=1e-5)
    assert 0 < near < far <= 1


@pytest.mark.slow
def test_training_lowers_the_error_of_files(
    pictures: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refinement, "CROP", 64)
    monkeypatch.setattr(refinement, "BATCH", 2)
    monkeypatch.setattr(refinement, "AVERAGE", 0.9)
    monkeypatch.setattr("eocodec_export.adapted.STEPS", (6.0, 28.0, 80.0))  # at which tables are fitted
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{k}.png")
    out = tmp_path / "out"
    options = ("--steps", "100", "--latents", "--hold-out", "0", "--rate", "3e-3")
    refinement.main([str(SMALL), str(folder), str(out), *options])
    before, after = eocodec.load_model(str(SMALL)), eocodec.load_model(str(out / SMALL.name))
    assert after.id != before.id
    assert json.loads(after.files["manifest.json"])["sizes"]["refine_latents"] is True
    assert load_start(out / SMALL.name).config.refine_latents
    weights = torch.load(out / "refinement.pt", weights_only=True)
    assert weights["finest.0.weight"].abs().max() > 0 and weights["finest.1.weight"].abs().max() > 0
    decoded = [refinement.Decoded.load(p) for p in sorted(out.glob("*.npz"))]
    errors = []
    for latents, bundle in ((False, SMALL), (True, out / SMALL.name)):
        net = DeepRefinement(*weights["down.weight"].shape[1::-1], 1, latents)
        start = load_start(bundle).average
        net.load_state_dict({k.removeprefix("refine."): v for k, v in start.items() if k.startswith("refine.")})
        with torch.no_grad():
            errors.append(
                sum(refinement.loss_of(net, refinement.batch_of([d], before.multiple)).item() for d in decoded)
            )
    assert errors[1] < errors[0]
    data = eocodec.compress(pictures[0], 20, model=after)
    assert eocodec.decompress(data, model=after).shape == pictures[0].shape


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        (refinement, ("missing.eocm", ".", "out"), "missing.eocm: no such model bundle"),
        (refinement, (SMALL, "missing", "out"), "missing does not exist"),
        (progressive, (SMALL, "missing.pt", SAMPLES, "out.eocm"), "missing.pt: no such checkpoint"),
        (grey, ("start", "missing.eocm", SAMPLES, "out.pt"), "missing.eocm: no such model bundle"),
        (grey, ("export", SMALL, "missing.pt", SAMPLES, "out"), "missing.pt: no such checkpoint"),
        (grey, ("add", SMALL, "missing", "out.eocm"), "missing: no part for grey pictures"),
        (lossless, (SMALL, "missing", "out.eocm"), "missing does not exist"),
        (mean, ("missing.pt", "missing.pt", "out.pt"), "missing.pt: no such checkpoint"),
        (repack, ("missing.eocm",), "missing.eocm: No such file or directory"),
        (repack, (Path(__file__),), "is no bundle, or is damaged"),
    ],
)
def test_commands_of_the_export_end_with_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: ModuleType,
    arguments: tuple[str | Path, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        module.main([str(argument) for argument in arguments])
    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1 and len(said) == 1 and words in said[0]
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_tuned_is_refused_before_pictures_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(refinement, "refinement_of", lambda files, latents: None)
    with pytest.raises(SystemExit):
        refinement.main([str(SMALL), "missing", "out"])
    assert "it needs a tuned one" in capsys.readouterr().err


class Counting:
    """A clock on which every look takes a second."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BATCH", 2), ("AVERAGE", 0.9)):
        monkeypatch.setattr(refinement, name, value)
    for name, value in (("CROP", 64), ("HELD", 2), ("RATE", 3e-3)):
        monkeypatch.setattr(refining, name, value)


def _stage(pictures: list[np.ndarray], folder: Path, clock: Counting, end: float, stop: float = 1e9) -> Refined:
    """The stage up to `end`, interrupted at `stop` after the files are there."""

    def tick(text: str) -> None:
        if text and clock.seconds > stop:
            raise KeyboardInterrupt

    stretch = Stretch(folder, clock, 0.0, end, lambda: None, tick)
    small = [p[:192, :160] for p in pictures]
    files = dict(bundle_files(SMALL))
    refined = refining.refined_files(files, small, small[:1], stretch, eye_share=0.3, seed=1, threads=1)
    assert refined is not None
    return refined


@pytest.mark.slow
def test_the_stage_goes_on_after_an_interruption_and_changes_the_decoder_alone(
    pictures: list[np.ndarray], tmp_path: Path, light: None
) -> None:
    clock = Counting()
    with pytest.raises(KeyboardInterrupt):
        _stage(pictures, tmp_path, clock, 120, 60)
    done = torch.load(tmp_path / "trained.pt", weights_only=True)["trainer"]["steps"]
    made = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")}
    assert done > 10 and len(made) == 4  # one of them held out
    refined = _stage(pictures, tmp_path, clock, 120)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.npz")} == made
    assert done < refined.steps < 60 and refined.kept and refined.after < refined.before
    assert f"{refined.steps} steps on files of 3 pictures" in refined.told()
    before = bundle_files(SMALL)
    assert {n for n in before if refined.files[n] != before[n]} == {"decoder.onnx", "manifest.json"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["0.npz", "trained.pt"])
@pytest.mark.parametrize("content", ["cut", "other"])
def test_what_cannot_be_read_of_an_interrupted_stage_is_named(
    pictures: list[np.ndarray], tmp_path: Path, light: None, name: str, content: str
) -> None:
    clock = Counting()
    with pytest.raises(KeyboardInterrupt):
        _stage(pictures, tmp_path, clock, 40, 20)
    path = tmp_path / name
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif name == "0.npz":
        np.savez(path, original=np.zeros(3))
    else:
        torch.save({"trainer": {}}, path)
    with pytest.raises(ModelError, match=f"{name} is no state of training that can be read; remove it to begin anew"):
        _stage(pictures, tmp_path, clock, 120)


@pytest.mark.slow
def test_a_refinement_that_gets_worse_is_not_kept(
    pictures: list[np.ndarray], tmp_path: Path, light: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refining, "RATE", 1e3)
    refined = _stage(pictures, tmp_path, Counting(), 12)
    assert not refined.kept and refined.steps > 0 and "no better" in refined.told()
    assert refined.files == dict(bundle_files(SMALL))

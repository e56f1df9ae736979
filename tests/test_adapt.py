"""Adapting a model: what is seen in pictures, a gain on a narrow domain, going on after an interruption, no loss."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from click.testing import CliRunner
from paths import VECTORS
from PIL import Image

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("scipy")
pytest.importorskip("matplotlib")

from eocodec_cli import cli  # noqa: E402
from eocodec_cli.adapt import NOTHING_GAINED  # noqa: E402
from eocodec_export.adapted import adapted_files  # noqa: E402
from eocodec_export.exact import exact_files  # noqa: E402
from eocodec_export.refining import refined_files  # noqa: E402

import eocodec  # noqa: E402
from eocodec.adapt import flow as flowing  # noqa: E402
from eocodec.adapt import run as running  # noqa: E402
from eocodec.adapt.flow import FlowTraining, _crop, compact  # noqa: E402
from eocodec.adapt.goals import GOALS, FlowGoal  # noqa: E402
from eocodec.adapt.measure import mean_curve, saving  # noqa: E402
from eocodec.adapt.report import Outcome  # noqa: E402
from eocodec.adapt.run import NothingGainedError, _seconds_left, adapt  # noqa: E402
from eocodec.adapt.stages import Stages  # noqa: E402
from eocodec.adapt.state import Order, Progress  # noqa: E402
from eocodec.adapt.survey import held_out_places, jpeg_quality, survey  # noqa: E402
from eocodec.errors import EocodecError  # noqa: E402
from eocodec.files import lock_folder  # noqa: E402
from eocodec.flow.model import PhotoModel  # noqa: E402
from eocodec.flow.restored import photo_weights  # noqa: E402
from eocodec.image import is_grey  # noqa: E402
from eocodec.model.bundle import Model, read_bundle  # noqa: E402
from eocodec.model.delta import base_of  # noqa: E402
from eocodec.model.library import FOLDER_VARIABLE, bundle_files, load_model, shipped_models  # noqa: E402
from eocodec.model.parts import LIST  # noqa: E402

EDGE = 96
STAGES = Stages(adapted_files, refined_files, exact_files)


def _scan(number: int) -> np.ndarray:
    """A grey page of a pattern that no photograph has: stripes a few pixels wide, with noise."""
    random = np.random.default_rng(number)
    x = np.arange(EDGE) + random.integers(16)
    stripes = 128 + 90 * np.sign(np.sin(2 * np.pi * x / 8))
    page = stripes[None, :] + random.normal(0, 4, (EDGE, EDGE))
    return np.repeat(np.clip(page, 0, 255).astype(np.uint8)[..., None], 3, 2)


def _film(number: int) -> np.ndarray:
    """A soft grey picture with noise in every other column alone, which no other pictures have."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(60, 200, (6, 6)).astype(np.uint8))
    page = np.asarray(coarse.resize((EDGE, EDGE), Image.Resampling.BICUBIC), float)
    page[:, 1::2] += random.normal(0, 6, (EDGE, EDGE // 2))
    return np.repeat(np.clip(page, 0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for k in range(12):
        Image.fromarray(_scan(k)).save(folder / f"{k:02d}.png")
    return folder


class Ticking:
    """A clock on which every look takes half a second, so that a run is as long on any machine."""

    def __init__(self) -> None:
        self.passed, self.looks = 0.0, 0

    def now(self) -> float:
        self.looks += 1
        return self.passed + 0.5 * self.looks


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "Clock", Ticking)
    monkeypatch.setattr(running, "COMPARED", 1)
    for name, size in (("FOLLOWED", 1), ("CALIBRATED", 2), ("BATCH", 4)):
        monkeypatch.setattr(flowing, name, size)
    monkeypatch.setattr("eocodec.adapt.measure.FILE_STEPS", (6.0, 12.0, 28.0, 80.0))
    monkeypatch.setattr("eocodec_export.adapted.FILE_STEPS", (6.0, 12.0, 28.0, 80.0))
    monkeypatch.setattr("eocodec_export.adapted.STEPS", (6.0, 28.0, 80.0))
    monkeypatch.setattr("eocodec_export.adapted.COMPARED", 1)


def test_a_survey_says_what_the_pictures_are(scans: Path) -> None:
    (scans / "copy.png").write_bytes((scans / "03.png").read_bytes())
    (scans / "notes.png").write_bytes(b"no picture")
    Image.new("RGB", (20, 200)).save(scans / "small.png")
    Image.fromarray(_scan(40)).save(scans / "camera.jpg", quality=60)
    found = survey(str(scans))
    assert found.facts == {
        "found": 16, "used": 13, "grey": 13, "compressed": 1, "duplicates": 1, "unreadable": 1, "small": 1,
        "deep": 0, "large": 0,
    }  # fmt: skip
    assert len(found.held_out) == 2 and len(found.train) == 11
    assert not {n for n, _ in found.train} & {n for n, _ in found.held_out}
    said = "\n".join(found.notes)
    for words in (
        "13 of 16 pictures, 96x96",
        "1 cannot be read",
        "1 is there twice",
        "cannot be read: notes.png",
        "all are grey",
        "1 was compressed as JPEG before (quality 60",
        "traces of that compression",
        "few pictures",
    ):
        assert words in said, words
    assert survey(str(scans)).digest == found.digest


def test_pictures_are_seen_as_they_are_compressed(tmp_path: Path) -> None:
    """16 bits a sample were clipped to 255, turned photographs lay on their side, hidden colours were trained on."""
    random = np.random.default_rng(0)
    for k in range(8):
        words = np.kron(random.integers(0, 65536, (13, 12)), np.ones((8, 8), int)).astype(np.uint16)
        Image.fromarray(words).save(tmp_path / f"{k}.png")
    turned, flags = Image.new("RGB", (200, 100), "red"), Image.Exif()
    flags[0x0112] = 6
    turned.save(tmp_path / "8.jpg", exif=flags)
    colours = np.dstack([np.full((96, 96, 3), 40, np.uint8), np.full((96, 96), 255, np.uint8)])
    colours[50:, :] = 250, 0, 250, 0
    Image.fromarray(colours).save(tmp_path / "9.png")
    found = survey(str(tmp_path))
    seen = dict([*found.train, *found.held_out])
    assert found.facts["used"] == 10
    assert np.array_equal(seen["7.png"][..., 0], (words / 257 + 0.5).astype(np.uint8))
    assert seen["8.jpg"].shape == (200, 100, 3)
    assert (seen["9.png"] == 40).all()


def test_all_kinds_of_pictures_are_found(tmp_path: Path) -> None:
    for k, suffix in enumerate(("tga", "GIF", "pgm", "bmp", "jp2", "webp", "png", "jpe", "tif")):
        Image.fromarray(_scan(k)).convert("L").save(tmp_path / f"{k}.{suffix}")
    (tmp_path / "notes.pdf").write_bytes(b"no picture")
    assert survey(str(tmp_path)).facts["used"] == 9


def test_too_few_pictures_are_refused_with_the_reason(scans: Path) -> None:
    for k in range(5, 12):
        Image.new("RGB", (10, 10)).save(scans / f"{k:02d}.png")
    with pytest.raises(EocodecError, match=r"5 of 12 pictures can be used, and 8 are needed \(7 are smaller than 96"):
        survey(str(scans))
    with pytest.raises(EocodecError, match="does not exist"):
        survey(str(scans / "nowhere"))


def test_a_loss_is_called_one() -> None:
    said = {name: (goal.said(1.5), goal.said(-5.811)) for name, goal in GOALS.items()}
    assert said["rate"] == said["eye"] == said["lossless"] == ("+1.50 % fewer bytes", "5.81 % more bytes")
    assert said["denoise"] == ("+1.50 dB", "-5.81 dB")


@pytest.mark.slow
def test_where_all_are_grey_the_model_for_grey_pictures_is_adapted(
    scans: Path, ticking: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are what such pictures take; the nets for colour were adapted, and gained nothing against it."""
    monkeypatch.setattr(GOALS["rate"], "least", -1000.0)
    out = tmp_path / "scans.eocm"
    path = VECTORS / "small-grey.eocm"
    order = Order(str(scans), out, minutes=1.0, model=str(path), full=True, device="cpu", threads=1)
    said: list[str] = []
    outcome = adapt(order, STAGES, said.append)
    assert any("model for grey pictures is adapted" in s for s in said) and not outcome.dropped and outcome.refinement
    mine, before = bundle_files(out), bundle_files(path)
    assert mine.keys() == before.keys()
    changed = {n for n in before if mine[n] != before[n]} - {"manifest.json", LIST}
    assert {"grey/entropy/luma1_0.onnx", "grey/tables.bin"} <= changed and all(n.startswith("grey/") for n in changed)
    picture = _scan(99)
    data = eocodec.compress(picture, psnr=34.0, model=out)
    assert len(data) < len(eocodec.compress(picture, psnr=34.0, model=path))
    assert eocodec.decompress(data, out).shape == picture.shape


@pytest.mark.slow
def test_nets_for_denoising_change_no_file_and_no_id(unchanged: tuple[PhotoModel, dict[str, bytes]]) -> None:
    model, base = unchanged
    with torch.no_grad():
        next(p for k, p in model.named_parameters() if k.startswith("gains.") and p.dim() > 1).mul_(1.25)
    pictures = [_scan(k) for k in range(2)]
    files = adapted_files(model, base, pictures, pictures, name="mine", card="adapted")
    assert {k for k in base if files[k] != base[k]} == {"denoise/clean.onnx", LIST}
    assert Model(files).full_id == Model(base).full_id


@pytest.mark.slow
def test_looks_at_held_out_pictures_take_a_share_of_the_time(scans: Path, tmp_path: Path) -> None:
    path = VECTORS / "small.eocm"

    def followed(minutes: float) -> int:
        order = Order(str(scans), tmp_path / "mine.eocm", minutes=minutes)
        run = FlowTraining(order, GOALS["rate"], survey(str(scans)), path, load_model(path), lambda said: None)
        assert run.progress.followed == len(run.held)
        return len(run.held)

    assert followed(1e-6) == 1 and followed(1e6) == 2  # as many as are held out


@pytest.mark.parametrize("count", [8, 9, 15, 40, 220, 1000])
def test_some_of_all_parts_are_held_out(count: int) -> None:
    places = sorted(held_out_places(count))
    assert places[0] >= 0 and places[-1] < count
    assert 2 <= len(places) <= max(2, count // 8)
    assert places[0] < count / 2 < places[-1] + 1


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 100])
def test_the_quality_of_jpeg_files_is_seen(tmp_path: Path, quality: int) -> None:
    Image.fromarray(_scan(0)).save(tmp_path / "p.jpg", quality=quality)
    with Image.open(tmp_path / "p.jpg") as image:
        tables = image.quantization  # type: ignore[attr-defined]
    assert abs(jpeg_quality(list(tables.values())) - quality) <= 1


def test_large_pictures_are_surveyed_and_equal_bytes_of_other_shapes_are_other_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # a library's own limit, far below the format's
    for number in range(6):
        Image.fromarray(_scan(number)).save(tmp_path / f"{number}.jpg", quality=75)
    for name, size in (("a", (100, 200)), ("b", (200, 100))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    found = survey(str(tmp_path))
    assert found.facts["used"] == 8 and found.facts.get("duplicates", 0) == 0
    assert any("6 were compressed as JPEG before (quality 75 in the middle)" in note for note in found.notes)


def test_savings_are_those_of_the_curves() -> None:
    curve = [(0.01, 30.0), (0.02, 33.0), (0.04, 36.0)]  # below the usual window
    assert saving([curve], [[(0.8 * r, q) for r, q in curve]]) == pytest.approx(20)
    assert saving([curve], [[(1.25 * r, q) for r, q in curve]]) == pytest.approx(-25)
    assert np.isnan(saving([curve], [[(r, q + 50) for r, q in curve]]))


def test_a_picture_counts_as_its_bytes_do_and_those_kept_exactly_do_not() -> None:
    """A picture that is nearly empty would else decide: means of dB are mostly its own."""
    busy = [(0.5, 28.0), (1.0, 31.0), (2.0, 34.0)]
    empty = [(0.005, 50.0), (0.01, 60.0), (0.02, 70.0)]
    exact = [(0.1, math.inf)] * 3
    before = [busy, empty, exact]
    after = [[(0.9 * r, q) for r, q in busy], [(1.5 * r, q) for r, q in empty], [(0.05, math.inf)] * 3]
    assert saving(before, after) == pytest.approx((3.5 * 10 - 0.035 * 50) / 3.535)
    assert mean_curve(before)[0] == pytest.approx((0.505 / 2, 39.0))
    assert np.isnan(saving([exact], [exact])) and mean_curve([exact]) == exact


def test_a_picture_that_comes_back_exactly_at_the_finest_step_counts_at_the_others() -> None:
    curve = [(3.0, math.inf), (2.0, 40.0), (1.0, 36.0), (0.5, 33.0), (0.25, 30.0)]
    assert saving([curve], [[(0.9 * r, q) for r, q in curve]]) == pytest.approx(10)
    assert np.isnan(saving([curve[:3]], [curve[:3]]))  # two points are no curve


def test_few_small_pictures_do_not_make_the_crop_small() -> None:
    assert _crop([300] * 95 + [128] * 5, 160, 32) == 160
    assert _crop([300] * 80 + [128] * 20, 160, 32) == 64 and _crop([96] * 9, 160, 32) == 64


def test_what_is_no_file_is_no_picture(scans: Path) -> None:
    """From a pipe nobody writes to one would wait for ever."""
    found = survey(str(scans)).facts["found"]
    os.mkfifo(scans / "pipe.png")
    (scans / "folder.png").mkdir()
    (scans / "old.TAR").write_bytes(b"no picture either")
    assert survey(str(scans)).facts["found"] == found


def test_pictures_of_16_bits_and_large_ones_are_spoken_of(tmp_path: Path) -> None:
    for k in range(8):
        words = np.random.default_rng(k).integers(0, 65536, (96, 2100 if k == 0 else 100)).astype(np.uint16)
        Image.fromarray(words).save(tmp_path / f"{k}.png")
    found = survey(str(tmp_path))
    said = "\n".join(found.notes)
    assert found.facts["deep"] == 8 and "8 have 16 bits a sample; they are looked at with 8" in said
    assert found.facts["large"] == 1 and "of 1 the middle is used" in said


def test_of_mixed_pictures_those_in_colour_are_adapted_to(scans: Path, tmp_path: Path) -> None:
    """Files of the others are made by the model for grey pictures, which nothing of it reaches."""
    for k in range(24):
        parts = [Image.effect_noise((EDGE, EDGE), 40 + n) for n in range(3)]
        Image.merge("RGB", parts).save(scans / f"colour{k}.png")
    path = VECTORS / "small-grey.eocm"
    order = Order(str(scans), tmp_path / "mine.eocm", minutes=1e-6)
    whole = survey(str(scans))
    run = FlowTraining(order, GOALS["rate"], whole, path, load_model(path), lambda said: None)
    found = [p for _, p in (*run.pictures.train, *run.pictures.held_out)]
    assert len(found) == 24 < len(whole.train) + len(whole.held_out) and not any(map(is_grey, found))
    assert not any(map(is_grey, run.held))


def test_so_many_pictures_are_used_as_memory_holds(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eocodec.adapt.survey.MOST_PIXELS", 8 * EDGE * EDGE + 1)
    found = survey(str(scans))
    assert (found.facts["found"], found.facts["used"]) == (12, 9)
    assert len(found.train) + len(found.held_out) == 9


def test_pictures_of_a_folder_stay_together(scans: Path) -> None:
    """The slash is not a letter between others: "a-b" comes after all that is in "a"."""
    for k, file in enumerate(sorted(scans.iterdir())):
        folder = scans / ("a", "a-b")[k % 2]
        folder.mkdir(exist_ok=True)
        file.rename(folder / file.name)
    names = [name for name, _ in survey(str(scans)).train]
    folders = [name.split("/")[0] for name in names]
    assert folders == sorted(folders, key=len) and set(folders) == {"a", "a-b"}


@pytest.mark.parametrize(("exported", "left"), [(0.0, 50.0), (55.0, 35.0), (70.0, 20.0), (1e6, 20.0)])
def test_the_refinement_has_a_share_of_its_time_however_long_the_export_took(exported: float, left: float) -> None:
    task, training = SimpleNamespace(end=100.0, measured=10.0), SimpleNamespace(progress=Progress("", []))
    training.progress.exported = exported
    assert _seconds_left(cast("Any", task), cast("Any", training), 50.0) == left


def test_training_goes_on_as_long_as_it_gets_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends after a few looks in a row that have shown nothing better, not after a few in all."""
    looks: list[bool] = []
    better = [True, True, False, True, True, False, False, True, True, True, False, False, False, False, True]

    def look(*_: Any) -> bool:
        looks.append(better[len(looks)])
        return looks[-1]

    training = cast("Any", object.__new__(FlowTraining))
    training.progress, training.run = Progress("", []), SimpleNamespace(advance=lambda: None)
    for name, function in (("_look", look), ("_plan", lambda left: None), ("_save", lambda clock: None)):
        monkeypatch.setattr(training, name, function, raising=False)
    monkeypatch.setattr(training, "_said", str, raising=False)
    training._part(0, Ticking(), 1000.0, 1.0, 1000.0, lambda *_: None)
    assert looks == better[:-1]


def test_compact_weights_stay_as_they_are_and_take_8_bits() -> None:
    weight = torch.randn(4, 3, 3, 3) * torch.tensor([1e-3, 0.1, 1.0, 30.0])[:, None, None, None]
    small = compact(weight)
    assert torch.equal(compact(small), small)
    for row, before in zip(small, weight, strict=True):
        unit = 2.0 ** np.ceil(np.log2(float(before.abs().max()) / 127))
        numbers = row / unit
        assert torch.equal(numbers, numbers.round()) and numbers.abs().max() <= 127
        assert (row - before).abs().max() <= unit / 2


@pytest.mark.parametrize("goal", [g for g in GOALS.values() if isinstance(g, FlowGoal)], ids=lambda g: g.name)
def test_shares_of_the_time_add_up(goal: FlowGoal) -> None:
    for tuned in (False, True):
        assert sum(p.share for p in goal.parts(tuned)) == pytest.approx(1)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own model with all that the shipped one has but nets for denoising, and a tenth of its weights."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return Path(shutil.copy(VECTORS / "small.eocm", folder))


@pytest.mark.slow
def test_a_narrow_domain_gains_and_the_delta_decodes(scans: Path, small: Path, ticking: None, tmp_path: Path) -> None:
    """Interruptions, one where the refinement is trained on files; then the bundle, its report, and a smaller file."""
    out = tmp_path / "scans.eocm"
    order = Order(str(scans), out, minutes=1.0, model="small", device="cpu", threads=1)

    class Interrupted(Exception):
        pass

    passed = []
    for stop in (10.0, 22.0, None):  # at last while the refinement is trained

        def tick(seconds: float, total: float, text: str, stop: float | None = stop) -> None:
            passed.append(seconds)
            if "refinement" in text if stop is None else seconds > stop:
                raise Interrupted

        monkey = pytest.MonkeyPatch()
        monkey.setattr(flowing, "SAVE_SECONDS", 4.0)
        try:
            with pytest.raises(Interrupted):
                adapt(order, STAGES, tick=tick)
        finally:
            monkey.undo()
        assert not out.exists() and (order.state / "state.json").exists()
    said: list[str] = []
    outcome = adapt(order, STAGES, said.append)
    assert any("going on after" in s for s in said) and "exporting" not in said  # which was done already
    assert any("steps on files of" in s or "no better" in s for s in said)
    assert outcome.refinement and outcome.refinement in out.with_suffix(".md").read_text()
    assert isinstance(outcome, Outcome) and outcome.gain > 1
    assert not order.state.exists()
    assert base_of(read_bundle(out)) == load_model(small).full_id and out.stat().st_size < small.stat().st_size
    mine, before = bundle_files(out), bundle_files(small)
    changed = {n for n in before if n.startswith(("entropy/luma", "entropy/chroma")) and mine[n] != before[n]}
    fine = ("entropy/luma1", "entropy/luma2", "entropy/chroma1", "entropy/chroma2")
    assert changed == {n for n in before if n.startswith(fine)}
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "Model card" in out.with_suffix(".md").read_text()
    assert json.loads(out.with_suffix(".json").read_text())["identity"] == load_model(out).full_id.hex()
    picture = _scan(99)
    best = eocodec.compress(picture, psnr=34.0, model=out)
    assert len(best) < len(eocodec.compress(picture, psnr=34.0, model=small))
    assert eocodec.decompress(best, out).shape == picture.shape


@pytest.mark.slow
def test_lossless_files_of_a_narrow_domain_get_smaller(
    ticking: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an interruption; nothing but the nets of brightness changes, for the pictures are grey."""
    films = tmp_path / "films"
    films.mkdir()
    for k in range(12):
        Image.fromarray(_film(k)).save(films / f"{k:02d}.png")
    monkeypatch.setattr("eocodec_export.exact.COUNTED_PIXELS", 20_000)
    monkeypatch.setattr("eocodec_export.exact.SAVE_SECONDS", 3.0)
    out = tmp_path / "films.eocm"
    order = Order(str(films), out, minutes=2.5, goal="lossless", threads=1)

    class Interrupted(Exception):
        pass

    def tick(seconds: float, total: float, text: str) -> None:
        if seconds > 50:
            raise Interrupted

    with pytest.raises(Interrupted):
        adapt(order, STAGES, tick=tick)
    assert not out.exists() and (order.state / "state.json").exists()
    said: list[str] = []
    outcome = adapt(order, STAGES, said.append)
    assert any("going on after" in s for s in said) and any("brightness alone" in s for s in said)
    assert outcome.gain > 1 and outcome.goal == "lossless" and len(outcome.before) == outcome.held_out
    assert list(outcome.iterations) == ["h = 4", "h = 2", "h = 1"] and outcome.history
    assert not order.state.exists() and "% fewer bytes than `photo`" in out.with_suffix(".md").read_text()
    mine, before = bundle_files(out), bundle_files(shipped_models()["photo"])
    assert mine.keys() == before.keys() and base_of(read_bundle(out)) == load_model("photo").full_id
    changed = {n for n in before if mine[n] != before[n]} - {"manifest.json", LIST, "lossless/tables.bin"}
    assert changed and all(n.startswith("lossless/") and n.split("_")[1] == "0" for n in changed)
    picture = _film(99)
    best = eocodec.compress(picture, lossless=True, model=out)
    assert len(best) < 0.99 * len(eocodec.compress(picture, lossless=True))
    assert np.array_equal(eocodec.decompress(best, out), picture)


@pytest.mark.slow
def test_a_model_without_such_nets_is_refused_for_lossless_files(scans: Path, small: Path, tmp_path: Path) -> None:
    for more, words in (({}, "no graphs for lossless files"), ({"device": "cuda"}, "trained on the CPU")):
        order = Order(str(scans), tmp_path / "x.eocm", 0.2, "small", "lossless", **more)
        with pytest.raises(EocodecError, match=words):
            adapt(order, STAGES)


@pytest.mark.slow
def test_nothing_gained_writes_nothing(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gain(*arguments: object) -> None:
        raise NothingGainedError("nothing was gained")

    monkeypatch.setattr(running, "adapt", no_gain)
    out = tmp_path / "x.eocm"
    done = CliRunner().invoke(cli, ["adapt", str(scans), "-o", str(out)])
    assert done.exit_code == NOTHING_GAINED and "nothing was gained" in done.output
    assert not list(tmp_path.glob("x.*"))


def test_two_adaptations_do_not_work_on_one_output(scans: Path, tmp_path: Path) -> None:
    state = tmp_path / "x.eocm.adapt"
    state.mkdir()
    (state / "kept").write_bytes(b"")
    held = lock_folder(state)
    if held is None:
        pytest.skip("the system has no locks")
    try:
        done = CliRunner().invoke(cli, ["adapt", str(scans), "-o", str(tmp_path / "x.eocm")])
        with pytest.raises(EocodecError, match="another adaptation is at work on it"):
            adapt(Order(str(scans), tmp_path / "x.eocm"), STAGES)
    finally:
        os.close(held)
    assert done.exit_code and (state / "kept").exists()


def test_an_adaptation_that_writes_nothing_leaves_no_folder(scans: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for given in (few, tmp_path / "missing"):
        done = CliRunner().invoke(cli, ["adapt", str(given), "-o", str(tmp_path / "new" / "x.eocm")])
        assert done.exit_code and not (tmp_path / "new").exists()
    with pytest.raises(EocodecError, match="no pictures found"):
        adapt(Order(str(few), tmp_path / "x.eocm"), STAGES)
    assert not (tmp_path / "x.eocm.adapt").exists()


def test_an_interruption_says_that_one_can_go_on(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(order: Order, *arguments: object) -> None:
        order.state.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "adapt", interrupted)
    done = CliRunner().invoke(cli, ["adapt", str(scans), "-o", str(tmp_path / "x.eocm")])
    assert done.exit_code and "the same command goes on" in done.output


@pytest.mark.parametrize("suffix", [".eocm", ".md", ".json", ".png"])
def test_files_of_the_user_are_replaced_only_with_force(
    suffix: str, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Order] = []

    def begin(order: Order, *arguments: object) -> None:
        begun.append(order)
        raise NothingGainedError("nothing was gained")

    monkeypatch.setattr(running, "adapt", begin)
    mine, command = tmp_path / f"mine{suffix}", ["adapt", str(scans), "-o", str(tmp_path / "mine.eocm")]
    mine.write_bytes(b"mine")
    done = CliRunner().invoke(cli, command)
    assert f"{mine} exists; use --force" in str(done.exception or done.output) and not begun
    assert CliRunner().invoke(cli, [*command, "--force"]).exit_code == NOTHING_GAINED and begun
    mine.unlink()
    mine.mkdir()
    assert CliRunner().invoke(cli, [*command, "--force"]).exit_code not in (0, NOTHING_GAINED) and len(begun) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("last", "more"), [(0.3, True), (-0.3, False)])
def test_too_little_gain_is_said_with_what_is_the_least(
    last: float, more: bool, scans: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [(1.0, -1.0), (2.0, 0.1), (3.0, last)]
    files = dict(bundle_files(small))
    monkeypatch.setattr(running, "_by_flow", lambda *arguments: running._Result(files, {}, history, "1 core"))
    order = Order(str(scans), tmp_path / "x.eocm", 0.2, str(small), "rate")
    with pytest.raises(NothingGainedError, match=r"\(\+0\.00 % fewer bytes, and 0\.5 is the least\)") as caught:
        adapt(order, STAGES)
    assert ("more --minutes may help" in str(caught.value)) is more and not order.out.exists()
    monkeypatch.setattr(type(running.GOALS["rate"]), "gain", lambda *curves: -1.12)
    with pytest.raises(NothingGainedError, match=r"there was a loss on the held-out pictures \(1\.12 % more bytes\);"):
        adapt(order, STAGES)


@pytest.fixture
def unchanged() -> Iterator[tuple[PhotoModel, dict[str, bytes]]]:
    base = bundle_files(shipped_models()["photo"])
    config, weights = photo_weights(base)
    model = PhotoModel(config).eval().requires_grad_(False)
    model.start_from(config, weights)
    yield model, base


@pytest.mark.slow
def test_what_is_not_trained_keeps_its_bytes(unchanged: tuple[PhotoModel, dict[str, bytes]], ticking: None) -> None:
    model, base = unchanged
    pictures = [_scan(k) for k in range(2)]
    assert adapted_files(model, base, pictures, pictures[:1], name="same", card="") == base
    with torch.no_grad():
        model.latents.context.luma["1"][0].convs[0].bias[0] += 1
    files = adapted_files(model, base, pictures, pictures[:1], name="other", card="")
    assert files.keys() == base.keys()
    assert {k for k in base if files[k] != base[k]} == {"manifest.json", "tables.bin", "entropy/luma1_0.onnx", LIST}


@pytest.mark.slow
def test_a_changed_flow_goes_through_all_graphs(unchanged: tuple[PhotoModel, dict[str, bytes]], ticking: None) -> None:
    """But for the nets for denoising, which work on the base wavelet."""
    model, base = unchanged
    with torch.no_grad():
        for p in model.flow.parameters():
            p.copy_(compact(p * 1.01))
    pictures = [_scan(k) for k in range(2)]
    files = adapted_files(model, base, pictures, pictures[:1], name="other", card="")
    changed = {k for k in files if files[k] != base[k]}
    assert {"encoder.onnx", "decoder.onnx"} <= changed and not any(k.startswith("denoise/") for k in changed)
    assert len(files["encoder.onnx"]) < 1.02 * len(base["encoder.onnx"])  # those of the base are compact, too

"""Denoising benchmarks: the same noise for every method, noise as it is described, peers that are missing are said."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from eocodec_cli import cli, main
from paths import SAMPLES
from PIL import Image

from eocodec.denoising import estimate_sigma
from eocodec.errors import EocodecError
from eocodec.metrics import psnr
from eocodec.model.bundle import Model

bench = pytest.importorskip("eocodec.bench.denoising")

from benchmarks import denoise_compress, denoise_pictures  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small pictures."""
    path = tmp_path_factory.mktemp("pictures")
    for name, corner in (("coffee", (120, 100)), ("chelsea", (100, 60))):
        box = (*corner, corner[0] + 64, corner[1] + 48)
        Image.open(SAMPLES / f"{name}.png").convert("RGB").crop(box).save(path / f"{name}.png")
    return path


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[np.ndarray]]:
    """Stands for all methods: keeps what each is given."""
    seen: dict[str, list[np.ndarray]] = {"a": [], "b": []}

    def rows(name: str) -> Callable[[Model], dict[str, dict[str, Callable[[np.ndarray, float], np.ndarray]]]]:
        def run(noisy: np.ndarray, sigma: float) -> np.ndarray:
            seen[name].append(noisy.copy())
            return noisy - 9  # far outside: must be clipped

        return lambda model: {name: {"": run}}

    monkeypatch.setattr(bench, "METHODS", {name: rows(name) for name in seen})
    return seen


def _bench(folder: Path, *arguments: object) -> Result:
    return CliRunner().invoke(cli, ["bench", str(folder), *map(str, arguments)])


def test_every_method_gets_the_same_noise(
    folder: Path, watched: dict[str, list[np.ndarray]], model: Model, chelsea: np.ndarray
) -> None:
    result = bench.compare(folder, [25], model, ["a", "b"])
    assert len(watched["a"]) == len(watched["b"]) == 2
    assert all((x == y).all() for x, y in zip(watched["a"], watched["b"], strict=True))
    crop = chelsea[60:108, 100:164]
    expected = crop + np.random.default_rng(0).normal(0, 25, crop.shape)  # chelsea comes first
    assert np.allclose(255 * watched["a"][0], expected)
    figures = result["sigmas"][0]["methods"]
    assert figures["noisy"]["each"]["psnr"][0] == pytest.approx(psnr(crop, expected), abs=1e-3)
    assert figures["a"]["each"]["psnr"][0] == pytest.approx(psnr(crop, np.zeros_like(crop)), abs=1e-3)


def test_results_hold_every_picture_and_the_table_every_method(folder: Path, tmp_path: Path) -> None:
    done = _bench(
        folder, "--denoise", "--sigma", "15,25", "--sigma", 25, "--methods", "shrink,nlm,bayes,opencv",
        "--json", tmp_path / "out.json", "--plot", tmp_path / "out.png",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["pictures"] == ["chelsea.png", "coffee.png"]
    assert [figures["sigma"] for figures in result["sigmas"]] == [15, 25]
    for figures in result["sigmas"]:
        rows = figures["methods"]
        assert set(rows) == {
            "noisy", "eocodec shrink", "non-local means", "BayesShrink", "BayesShrink, 16 shifts",
            "OpenCV non-local means",
        }  # fmt: skip
        for name, row in rows.items():
            assert name in done.stdout
            assert all(len(row["each"][key]) == 2 for key in ("psnr", "ssim", "seconds"))
            assert row["psnr"] == pytest.approx(np.mean(row["each"]["psnr"]), abs=1e-3)
            assert name == "noisy" or row["psnr"] > rows["noisy"]["psnr"] + 1
            assert name == "noisy" or row["ssim"] > rows["noisy"]["ssim"]
        tried = rows["non-local means"]["psnr_by_setting"]
        assert len(tried) > 1 and tried[rows["non-local means"]["setting"]] == max(tried.values())
        level = figures["level"]
        errors = np.abs(np.array(level["each"]) - figures["sigma"]) / figures["sigma"]
        assert level["error"] == pytest.approx(errors.mean(), abs=1e-4)
        assert level["worst"] == pytest.approx(errors.max(), abs=1e-4)
    assert Image.open(tmp_path / "out.png").width > 500


def test_peers_that_are_not_installed_are_one_line_and_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", None)
    done = _bench(folder, "--denoise", "--sigma", 25, "--methods", "bayes,bm3d", "--limit", 1)
    assert done.exit_code == 0, done.output
    said = [line for line in done.stderr.splitlines() if "bm3d" in line]
    assert len(said) == 1 and "eocodec[bench-bm3d]" in said[0] and "non-commercial" in said[0]
    assert "BayesShrink" in done.stdout and "BM3D" not in done.stdout


def test_methods_the_model_does_not_have_are_left_out(
    folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **options: object) -> np.ndarray:
        raise EocodecError(f"there is no {options['method']}")

    monkeypatch.setattr("eocodec.denoising.denoise", refuse)
    said: list[str] = []
    result = bench.compare(folder, [25], model, ["net", "bayes"], say=said.append)
    assert said[0] == "net is left out: there is no net" and result["left_out"] == {"net": "there is no net"}
    assert set(result["sigmas"][0]["methods"]) == {"noisy", "BayesShrink", "BayesShrink, 16 shifts"}
    assert "level" not in result["sigmas"][0]
    with pytest.raises(EocodecError, match="none of the methods"):
        bench.compare(folder, [25], model, ["net"])


def test_levels_are_those_that_the_library_estimates(
    folder: Path, tmp_path: Path, model: Model, chelsea: np.ndarray
) -> None:
    done = _bench(folder, "--levels", "0,10,40", "--json", tmp_path / "l.json")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "l.json").read_text())["levels"]
    assert [row["sigma"] for row in rows] == [0, 10, 40]
    assert rows[0]["error"] == pytest.approx(np.mean(rows[0]["each"]), abs=1e-3)  # of no noise: in 8-bit levels
    noisy = bench.add_noise(chelsea[60:108, 100:164], 40.0, 0)
    assert rows[2]["each"][0] == pytest.approx(estimate_sigma(noisy / 255, model), rel=1e-3)
    assert rows[2]["mean"] == pytest.approx(np.mean(rows[2]["each"]), abs=1e-3)
    assert rows[2]["error"] == pytest.approx(np.mean(np.abs(np.array(rows[2]["each"]) / 40 - 1)), abs=1e-4)
    assert done.stdout.count("sigma ") == 3


def test_gaussian_noise_is_neither_clipped_nor_rounded(coffee: np.ndarray) -> None:
    noise = bench.add_noise(coffee, 20.0, 3) - coffee
    assert (noise == np.random.default_rng(3).normal(0, 20, coffee.shape)).mean() > 0.1
    assert noise.std() == pytest.approx(20, rel=0.01)
    assert (coffee + noise).min() < 0


@pytest.mark.parametrize("grey", [False, True])
def test_photon_noise_has_the_variance_it_is_said_to_have(coffee: np.ndarray, grey: bool) -> None:
    picture, sigma = (bench.luma(coffee) if grey else coffee), 25.0
    noise = bench.add_noise(picture, sigma, 1, "poisson") - picture
    assert noise.mean() == pytest.approx(0, abs=0.2)
    assert (noise**2).mean() == pytest.approx(sigma**2, rel=0.02)
    gain = (1 - 0.3**2) * sigma**2 / picture.mean()
    for low, high in ((0, 32), (96, 128), (192, 256)):
        there = (picture >= low) & (picture < high)
        expected = (0.3 * sigma) ** 2 + gain * picture[there].mean()
        assert (noise[there] ** 2).mean() == pytest.approx(expected, rel=0.1)
    black = np.zeros((64, 64), np.uint8)
    assert bench.add_noise(black, sigma, 1, "poisson").std() == pytest.approx(0.3 * sigma, rel=0.05)
    assert (bench.add_noise(picture, 0.0, 1, "poisson") == picture).all()


def test_jpeg_noise_is_an_eight_bit_picture(coffee: np.ndarray) -> None:
    for picture in (coffee, bench.luma(coffee)):
        noisy = bench.add_noise(picture, 10.0, 1, "jpeg")
        assert noisy.shape == picture.shape and (noisy == np.clip(np.round(noisy), 0, 255)).all()
        before = np.clip(np.round(bench.add_noise(picture, 10.0, 1)), 0, 255)
        assert 24 < psnr(before, noisy) < 40  # the loss at quality 75


def test_grey_pictures_get_noise_in_one_channel(folder: Path, watched: dict[str, list[np.ndarray]]) -> None:
    done = _bench(folder, "--denoise", "--sigma", 25, "--methods", "a", "--grey")
    assert done.exit_code == 0, done.output
    assert [x.shape for x in watched["a"]] == [(48, 64)] * 2 and "grey" in done.stdout


def test_peers_take_grey_pictures(folder: Path, model: Model) -> None:
    rows = bench.compare(folder, [25], model, ["shrink", "nlm", "bayes", "opencv"], grey=True)["sigmas"][0]["methods"]
    assert len(rows) == 6
    assert all(row["psnr"] > rows["noisy"]["psnr"] + 1 for name, row in rows.items() if name != "noisy")


def test_bm3d_removes_noise_where_it_is_installed(folder: Path, model: Model) -> None:
    pytest.importorskip("bm3d")
    for grey in (False, True):
        rows = bench.compare(folder, [25], model, ["bm3d"], grey=grey, limit=1)["sigmas"][0]["methods"]
        assert rows["BM3D"]["psnr"] > rows["noisy"]["psnr"] + 6


def test_similarity_is_one_for_equal_pictures_and_none_for_tiny_ones(chelsea: np.ndarray) -> None:
    crop = chelsea[:48, :64]
    assert bench.ssim(crop, crop) == pytest.approx(1)
    assert 0 < bench.ssim(crop, bench.add_noise(crop, 25.0, 0)) < 0.9
    assert bench.ssim(crop[:10], crop[:10]) is None


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--denoise", "--sigma", "much"), 2, "numbers of 8-bit levels"),
        (("--denoise", "--sigma", "25,"), 2, "numbers of 8-bit levels"),
        (("--denoise", "--sigma", "-3"), 1, "sigma must be from 0.3 to 255"),
        (("--denoise", "--sigma", "nan"), 1, "sigma must be from 0.3 to 255"),
        (("--denoise", "--methods", "net,magic"), 1, "no method is called magic"),
        (("--denoise", "--noise", "pink"), 2, "pink"),
        (("--denoise", "--levels", "5"), 2, "exclude one another"),
        (("--denoise", "--published", "chelsea.png"), 2, "--published does not go"),
        (("--sigma", "25"), 2, "go with --denoise"),
        (("--grey",), 2, "go with --denoise or --levels"),
        (("--levels", "300"), 1, "sigma must be from 0 to 255"),
        (("--levels", "5", "--plot", "x.png"), 2, "--plot does not go"),
        (("--denoise", "25"), 2, "unexpected extra argument"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_an_exit_code(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as left:
        main(["bench", str(folder), *arguments])
    assert left.value.code == code
    lines = [x for x in capsys.readouterr().err.splitlines() if x and not x.startswith(("Usage:", "Try "))]
    assert len(lines) == 1 and said in lines[0]
    assert sorted(p.name for p in folder.iterdir()) == ["chelsea.png", "coffee.png"]


def test_compression_of_noisy_pictures_goes_on_where_it_stopped(
    folder: Path, tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = denoise_compress.read_folder(folder)
    settings = {"eocodec": (20, 60), "avif": (30, 60, 80)}
    for name, values in settings.items():
        monkeypatch.setitem(denoise_compress.ALL, name, replace(denoise_compress.ALL[name], settings=values))
    file = tmp_path / "r.json"
    head = {"folder": folder.name, "model": model.full_id.hex()}
    result = denoise_compress.begun(file, head)
    calls: list[str] = []
    curve = denoise_compress.curve

    def counted(name: str, *others: object) -> list[list[float]]:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(name)
        return curve(name, *others)

    def measure() -> None:
        denoise_compress.measure(
            result,
            pictures,
            [25],
            ["eocodec-told", "avif"],
            model,
            1,
            lambda: file.write_text(json.dumps(result)) and None,
        )

    monkeypatch.setattr(denoise_compress, "curve", counted)
    with pytest.raises(KeyboardInterrupt):
        measure()
    calls.clear()
    result = denoise_compress.begun(file, head)
    measure()
    assert calls == ["eocodec-told", "avif"]  # of the second picture only
    row = result["sigmas"]["25"]
    assert all(set(curves) == {"chelsea.png", "coffee.png"} for curves in row["curves"].values())
    best = {name: max(denoise_compress.mean_curve(c)[:, 2]) for name, c in row["curves"].items()}
    assert best["eocodec-told"] > np.mean(list(row["noisy"].values())) + 4
    assert "eocodec, sigma given" in denoise_compress.table(result)
    denoise_compress.plot(result, tmp_path / "r.png")
    assert Image.open(tmp_path / "r.png").width > 300
    with pytest.raises(EocodecError, match="another folder or model"):
        denoise_compress.begun(file, {**head, "folder": "other"})
    with pytest.raises(EocodecError, match="no result of this benchmark"):
        denoise_compress.begun(folder / "coffee.png", head)


def test_curves_are_read_at_a_rate_and_at_most_at_it() -> None:
    points = [[1, 0.2, 27.0, 0], [2, 0.4, 30.0, 0], [3, 0.8, 28.0, 0]]
    at = denoise_compress.at_rate
    assert at(points, 0.1, False) is None and at(points, 0.1, True) is None
    for at_most in (False, True):
        assert at(points, 0.4, at_most) == pytest.approx(30)
        assert 27 < at(points, 0.3, at_most) < 30
    assert at(points, 0.8, False) == at(points, 2, False) == pytest.approx(28)
    assert at(points, 0.8, True) == at(points, 2, True) == 30


def test_figures_show_every_version(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", None)
    out = tmp_path / "figure.png"
    monkeypatch.setattr(sys, "argv", ["x", str(out), "--crop", str(folder / "coffee.png"), "4,6,40,30", "25"])
    denoise_pictures.main()
    figure = Image.open(out)
    assert figure.size == (3 * 120 + 2 * denoise_pictures.GAP, 90 + denoise_pictures.CAPTION)
    clean = Image.open(folder / "coffee.png").crop((4, 6, 44, 36)).resize((120, 90), Image.Resampling.NEAREST)
    shown = figure.crop((figure.width - 120, denoise_pictures.CAPTION, figure.width, figure.height))
    assert (np.asarray(shown) == np.asarray(clean)).all()
    assert "BM3D is left out" in capsys.readouterr().err
    for words, said in ((("1,2,3", "25"), "a crop is FILE"), (("60,0,40,30", "25"), "outside")):
        monkeypatch.setattr(sys, "argv", ["x", str(out), "--crop", str(folder / "coffee.png"), *words])
        with pytest.raises(SystemExit, match=said):
            denoise_pictures.main()

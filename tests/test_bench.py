"""Compression benchmarks: measures and codecs that keep the laws of their registries, tables, sheets."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from eocodec_cli import cli, files
from PIL import Image

pytest.importorskip("scipy", reason="the extra bench is not installed")
pytest.importorskip("matplotlib", reason="the extra bench is not installed")

from eocodec.bench import codecs, compression, measures, sheets
from eocodec.bench.codecs import CODECS, Codec
from eocodec.bench.measures import MEASURES, Measure
from eocodec.bench.scores import Cache, Scorer
from eocodec.errors import EocodecError
from eocodec.metrics import bd_rate_between
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

Bytes = np.ndarray


def noisy(picture: Bytes, sigma: float) -> Bytes:
    noise = np.random.default_rng(0).normal(0, sigma, picture.shape)
    return np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)


@pytest.fixture(params=list(MEASURES))
def measure(request: pytest.FixtureRequest) -> Measure:
    found, left_out = measures.choose([request.param])
    if not found:
        pytest.skip(left_out[request.param])
    return found[0]


@pytest.fixture(scope="module")
def model() -> Model:
    """On one thread: tests run side by side, and PyTorch's threads, of entries with effort, would wait."""
    return load_model("photo", 1)


@pytest.fixture(params=list(CODECS))
def chosen(request: pytest.FixtureRequest) -> Codec:
    try:
        found, _ = codecs.choose([request.param])
    except EocodecError as e:
        pytest.skip(str(e))
    return found[0]


@pytest.fixture
def folder(tmp_path: Path, chelsea: Bytes) -> Path:
    """Two small pictures."""
    (tmp_path / "in").mkdir()
    for k in range(2):
        Image.fromarray(chelsea[60 + 40 * k : 124 + 40 * k, 120:216]).save(tmp_path / "in" / f"{k}.png")
    return tmp_path / "in"


def test_entries_with_effort_have_fewer_settings() -> None:
    every = codecs.CODECS["eocodec"].settings
    assert list(codecs.CODECS["eocodec-effort"].settings) == list(every)[1::2]
    assert codecs.CODECS["eocodec-psnr-effort"].label == "eocodec --tune psnr --effort 5; the setting is C"


def test_what_is_transparent_is_neither_coded_nor_measured(tmp_path: Path, model: Model, chelsea: Bytes) -> None:
    alpha = np.full((96, 112), 255, np.uint8)
    alpha[:, 60:] = 0
    found = []
    for name, hidden in (("dark", 0), ("noise", np.random.default_rng(0).integers(0, 256, (96, 112, 3)))):
        (tmp_path / name).mkdir()
        rgb = np.where(alpha[..., None] > 0, chelsea[60:156, 120:232], hidden).astype(np.uint8)
        Image.fromarray(np.dstack([rgb, alpha])).save(tmp_path / name / "a.png")
        result = compression.compression(tmp_path / name, ["webp"], model, None, (0.1, 2), lambda line: None)
        found.append([(p["bpp"], p["psnr"]) for p in result["codecs"]["webp"]])
        ((_, picture),) = compression.read_pictures(tmp_path / name)
    assert found[0] == found[1]
    webp = CODECS["webp"]
    decoded = webp.decode(webp.encode(picture.rgb, webp.settings[5], model), model)
    assert found[0][5][1] == pytest.approx(MEASURES["psnr"](picture.rgb[:, :60], decoded[:, :60]))


def test_a_measure_falls_with_noise_in_its_direction(measure: Measure, coffee: Bytes) -> None:
    original = coffee[:192, :256]
    values = [measure(original, noisy(original, sigma)) for sigma in (0, 5, 20)]
    scaled = [measure.scale(v) for v in values if v is not None]
    assert len(scaled) == 3 and scaled[0] > scaled[1] > scaled[2]
    assert (values[0] > values[2]) == measure.higher  # type: ignore[operator]


def test_a_measure_says_nothing_of_pictures_that_are_too_small(measure: Measure) -> None:
    side = measure.smallest
    small, enough = (np.full((s, s + 40, 3), 90, np.uint8) for s in (side - 1, side))
    assert side == 1 or measure(small, small) is None
    assert measure(enough, enough) is not None


@pytest.mark.slow
def test_known_scores_of_equal_pictures(coffee: Bytes) -> None:
    expected = {"psnr": 99.0, "ms_ssim": 1.0, "ssimulacra2": 100.0, "butteraugli": 0.0}
    for found in measures.choose(list(MEASURES))[0]:
        assert found(coffee, coffee) == pytest.approx(expected[found.name], abs=1e-6)


def test_codecs_give_back_pictures_that_grow_better_with_the_setting(
    chosen: Codec, model: Model, chelsea: Bytes
) -> None:
    picture = chelsea[60:124, 100:196]
    sizes, qualities = [], []
    for setting in (chosen.settings[1], chosen.settings[-2]):
        data = chosen.encode(picture, setting, model)
        decoded = chosen.decode(data, model)
        assert decoded.shape == picture.shape and decoded.dtype == np.uint8
        sizes.append(len(data))
        qualities.append(MEASURES["psnr"](picture, decoded))
    assert sizes[0] < sizes[1] and qualities[0] + 3 < qualities[1]  # type: ignore[operator]
    assert list(chosen.settings) == sorted(chosen.settings)
    assert chosen.span[0] <= chosen.settings[0] and chosen.settings[-1] <= chosen.span[1]


def test_files_are_fitted_into_bytes(chosen: Codec, model: Model, chelsea: Bytes) -> None:
    picture = chelsea[60:124, 100:196]
    smallest = codecs.fitted(chosen, picture, 200 if chosen.name in codecs.OURS else 1, model)
    size = 2 * len(smallest) + 100
    found = codecs.fitted(chosen, picture, size, model)
    assert 0.6 * size < len(found) <= size
    assert chosen.decode(found, model).shape == picture.shape


def test_halving_finds_the_best_setting_that_fits(model: Model, chelsea: Bytes) -> None:
    def encode(picture: Bytes, setting: float, _: Model) -> bytes:
        return bytes(100 + 7 * int(setting))

    toy = replace(CODECS["jpeg"], name="toy", encode=encode)
    for size in (99, 100, 106, 107, 450, 799, 800, 5000):
        best = max([s for s in range(101) if 100 + 7 * s <= size], default=0)
        assert len(codecs.fitted(toy, chelsea, size, model)) == 100 + 7 * best, size


def test_unknown_names_are_refused_and_missing_packages_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for choose in (codecs.choose, measures.choose):
        with pytest.raises(EocodecError, match=r"called nope; known are .*, "):
            choose(["nope"])
    monkeypatch.setenv("PATH", "")
    measures._butteraugli_identity.cache_clear()
    found, left_out = measures.choose(["psnr", "butteraugli"])
    assert [m.name for m in found] == ["psnr"] and "butteraugli_main" in left_out["butteraugli"]
    missing = replace(CODECS["jxl"], needs="eocodec.no_such_module")
    monkeypatch.setitem(CODECS, "jxl", missing)
    some, without = codecs.choose(["jpeg", "jxl"])
    assert [c.name for c in some] == ["jpeg"] and "no_such_module" in without["jxl"]
    with pytest.raises(EocodecError, match="none of the codecs works"):
        codecs.choose(["jxl"])


def test_scores_are_kept_by_content_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def count(original: Bytes, picture: Bytes) -> float:
        calls.append(1)
        return float(picture.mean())

    version = ["1"]
    toy = Measure("toy", "Toy", count, True, 2, identity=lambda: f"toy {version[0]}")
    monkeypatch.setitem(MEASURES, "toy", toy)
    a, b = (np.full((4, 6, 3), v, np.uint8) for v in (10, 20))
    for expected in (2, 2):  # the second time from the file
        cache = Cache(tmp_path / "sub" / "scores.sqlite")
        with Scorer([toy], cache=cache) as scorer:
            assert scorer([(a, b), (b, a)]) == [{"toy": 20.0}, {"toy": 10.0}]
        cache.close()
        assert len(calls) == expected
    cache = Cache(tmp_path / "sub" / "scores.sqlite")
    reshaped = b.reshape(6, 4, 3)
    Scorer([toy], cache=cache)([(a.reshape(6, 4, 3), reshaped)])  # the same bytes, another picture
    version[0] = "2"
    Scorer([toy], cache=cache)([(a, b)])
    assert len(calls) == 4
    cache.close()
    (tmp_path / "other").write_bytes(b"something else entirely" * 100)
    with pytest.raises(EocodecError, match="cannot be used"):
        Cache(tmp_path / "other")


@pytest.mark.slow
def test_scores_are_the_same_several_pictures_at_a_time(coffee: Bytes) -> None:
    pairs = [(coffee[:180, k : k + 200], noisy(coffee[:180, k : k + 200], 10)) for k in range(0, 90, 30)]
    chosen = [MEASURES["psnr"], MEASURES["ms_ssim"]]
    with Scorer(chosen) as alone, Scorer(chosen, jobs=2) as together:
        assert alone(pairs) == together(pairs)


def test_rate_differences_are_those_of_curves_whose_answer_is_known() -> None:
    def points(factor: float) -> list[dict[str, Any]]:
        rates = (0.1, 0.2, 0.5, 1.0, 2.0)
        quality = [float(np.log2(rate / factor)) for rate in rates]
        return [
            {
                "bpp": r,
                "psnr": 30 + 5 * q,
                "ssimulacra2": 60 + 15 * q,
                "butteraugli": 3 - q,
                "ms_ssim": 1 - 0.1 * 0.5**q,
            }
            for r, q in zip(rates, quality, strict=True)
        ]

    curves = {"eocodec": points(1), "jpeg": points(2), "webp": points(0.8)}
    for name in ("psnr", "ms_ssim", "ssimulacra2", "butteraugli"):
        found = compression.differences(MEASURES[name], curves, (0.15, 1.5))
        assert found["bd_rate"]["jpeg"] == pytest.approx(-50, abs=0.5), name
        assert found["bd_rate"]["webp"] == pytest.approx(25, abs=0.5), name
    assert found["better"] == "lower"
    scores = compression.differences(MEASURES["ssimulacra2"], curves, (0.15, 1.5))
    assert scores["range"] == {"score": [30, 80]}
    apart = {**curves, "jpeg": [{**p, "psnr": p["psnr"] - 100} for p in points(1)], "webp": []}
    none = compression.differences(MEASURES["psnr"], apart, (0.15, 1.5))
    assert none["bd_rate"] == {"jpeg": None, "webp": None}
    assert compression.differences(MEASURES["psnr"], {"jpeg": points(1)}, (0.15, 1.5))["bd_rate"] == {}


def test_rate_differences_between_scores_leave_out_what_is_beyond_them() -> None:
    anchor = [(0.1 * 2**k, 10.0 * k) for k in range(8)]
    test = [(r if q < 40 else 2 * r, q) for r, q in anchor]
    assert bd_rate_between(anchor, test, 0, 30) == pytest.approx(0, abs=1)
    assert bd_rate_between(anchor, test, 50, 70) == pytest.approx(100, abs=1)
    with pytest.raises(ValueError, match="overlap"):
        bd_rate_between(anchor, test, 80, 90)


@pytest.mark.slow
def test_the_benchmark_writes_points_tables_and_plots(folder: Path, tmp_path: Path, model: Model) -> None:
    settings = {"eocodec": (24, 80, 240), "jpeg": (10, 50, 90)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for name, values in settings.items():
            patch.setitem(CODECS, name, replace(CODECS[name], settings=values))
        target, plot = tmp_path / "r.json", tmp_path / "r.png"
        arguments = ["--codecs", "eocodec,jpeg", "--measures", "psnr,ms_ssim", "--jobs", 1, "--json", target]
        done = CliRunner().invoke(cli, list(map(str, ["bench", folder, *arguments, "--plot", plot])))
    assert done.exit_code == 0, done.output
    result = json.loads(target.read_text())
    assert result["pictures"] == ["0.png", "1.png"] and result["model"] == model.full_id.hex()
    assert {"folder", "machine", "versions", "codecs", "bd_rate", "bd_range", "measures"} <= set(result)
    for name, values in settings.items():
        points = result["codecs"][name]
        assert [p["setting"] for p in points] == list(values)
        for p in points:
            assert p["psnr"] == pytest.approx(np.mean([q for _, q in p["each"]]), abs=1e-3)
            assert p["bpp"] == pytest.approx(np.mean([r for r, _ in p["each"]]), abs=1e-4)
            assert p["ms_ssim"] is None and p["encode_s"] > 0 and p["decode_s"] > 0
        assert [p["psnr"] for p in points] == sorted(p["psnr"] for p in points)
    assert result["bd_rate"] == result["measures"]["psnr"]["bd_rate"] and result["bd_rate"]["jpeg"] < 0
    assert "PSNR, 0.15 to 1.5 bpp" in done.stdout and "no overlap" in done.stdout
    assert Image.open(plot).size[0] > 500
    assert (tmp_path / "cache" / "eocodec" / "scores.sqlite").is_file()


@pytest.mark.slow
def test_anchors_are_taken_over_from_an_earlier_result(folder: Path, tmp_path: Path) -> None:
    def bench(*arguments: object) -> Any:
        common = ["bench", folder, "--measures", "psnr", "--jobs", 1, "--no-cache", *arguments]
        return CliRunner().invoke(cli, list(map(str, common)))

    with pytest.MonkeyPatch.context() as patch:
        for name, values in {"eocodec": (24, 240), "eocodec-psnr": (24, 240), "jpeg": (10, 50, 90)}.items():
            patch.setitem(CODECS, name, replace(CODECS[name], settings=values))
        both, anchors, ours = (tmp_path / f"{name}.json" for name in ("both", "anchors", "ours"))
        assert bench("--codecs", "eocodec,jpeg", "--json", both).exit_code == 0
        assert bench("--codecs", "jpeg", "--json", anchors).exit_code == 0
        done = bench("--codecs", "eocodec,eocodec-psnr", "--anchors", anchors, "--json", ours)
        assert done.exit_code == 0, done.output
        assert done.output.count("BD-rate of eocodec") == 2
        result = json.loads(ours.read_text())
        assert result["bd_rate"]["jpeg"] == json.loads(both.read_text())["bd_rate"]["jpeg"]
        assert set(result["measures_psnr"]["psnr"]["bd_rate"]) == {"eocodec", "jpeg"}
        (folder / "1.png").unlink()
        done = bench("--codecs", "eocodec", "--anchors", anchors)
        assert "was measured on other pictures" in str(done.exception)
        (tmp_path / "none.json").write_text("{}")
        assert "is no result of this benchmark" in str(
            bench("--codecs", "eocodec", "--anchors", tmp_path / "none.json").exception
        )


def test_a_sheet_shows_the_place_where_codecs_lose_most(chelsea: Bytes) -> None:
    picture = chelsea[:300, :450]
    worse = picture.copy()
    worse[200:230, 330:360] ^= 128
    rows, columns = sheets.telling_crop(picture, [picture, worse])
    assert rows.stop - rows.start == columns.stop - columns.start == sheets.CROP
    assert rows.start <= 200 and rows.stop >= 230 and columns.start <= 330 and columns.stop >= 360
    small = picture[:40, :50]
    assert sheets.telling_crop(small, [small]) == (slice(0, 40), slice(0, 50))


@pytest.mark.slow
def test_a_sheet_has_a_row_for_each_picture_and_rate(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    arguments = ["--sheet", target, "--sheet-bpp", "1,2", "--codecs", "eocodec,webp", "--measures", "psnr"]
    done = CliRunner().invoke(cli, list(map(str, ["bench", folder, *arguments, "--no-cache", "--jobs", 1])))
    assert done.exit_code == 0, done.output
    image = np.asarray(Image.open(target).convert("RGB"))
    edge = sheets.CROP * sheets.ENLARGED // 96 * 64  # the pictures are smaller than a crop
    shown = (image.reshape(-1, 3) != 255).any(1).reshape(image.shape[:2]).mean(1) > 0.5
    assert np.diff(np.concatenate([[False], shown]).astype(int)).tolist().count(1) == 4
    assert shown.sum() == pytest.approx(4 * edge, abs=8)
    refused = CliRunner().invoke(cli, ["bench", str(folder), "--sheet", str(target), "--sheet-bpp", "0"])
    assert refused.exit_code != 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sheet", "a.png", "--denoise"),
        ("--sheet", "a.png", "--levels", "3"),
        ("--sheet", "a.png", "--plot", "b.png"),
        ("--sheet-bpp", "1"),
        ("--denoise", "--measures", "psnr"),
        ("--levels", "3", "--jobs", "2"),
        ("--sheet", "a.png", "--sheet-bpp", "much"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder: Path, arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, ["bench", str(folder), *arguments])
    assert done.exit_code == 2 and "Traceback" not in done.output


def _bench(folder: Path, *arguments: object) -> Result:
    """Of JPEG alone, at one setting."""
    common = ["bench", folder, "--codecs", "jpeg", "--measures", "psnr", "--jobs", 1, "--no-cache", *arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CODECS, "jpeg", replace(CODECS["jpeg"], settings=(50,)))
        return CliRunner().invoke(cli, list(map(str, common)))


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be measured."""
    for module, name in ((compression, "compression"), (sheets, "look")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("it is measured before the outputs are looked at"))


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(("option", "name"), [("--json", "a.json"), ("--plot", "a.svg"), ("--sheet", "a.png")])
def test_results_replace_no_file_unasked_and_no_picture_at_all(
    folder: Path, tmp_path: Path, option: str, name: str
) -> None:
    (tmp_path / name).write_text("before")
    done = _bench(folder, option, tmp_path / name)
    assert f"{name} exists; use --force to overwrite it, or {option} to choose another name" in str(done.exception)
    before = (folder / "0.png").read_bytes()
    (tmp_path / "link.png").symlink_to(folder / "0.png")
    for target in (folder / "0.png", tmp_path / "link.png"):
        done = _bench(folder, option, target, "--force")
        assert f"is the input itself; choose another output with {option}" in str(done.exception)
    assert (tmp_path / name).read_text() == "before" and (folder / "0.png").read_bytes() == before


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--plot", "x.xyz"), "plots cannot be written as .xyz; use .png, .svg or .pdf"),
        (("--plot", "x.eoc"), "plots cannot be written as .eoc"),
        (("--sheet", "x.xyz"), "pictures cannot be written as .xyz"),
        (("--json", "none/x.json"), "none/x.json: cannot be written (No such file or directory)"),
        (("--json", "0.png/x.json"), "0.png/x.json: cannot be written (Not a directory)"),
        (("--json", "x", "--plot", "x"), "several results would be written to x"),
        (("--json", "-", "--plot", "-"), "several results would be written to -"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_measured(
    folder: Path, arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert said in str(_bench(Path("."), *arguments).exception)
    assert sorted(p.name for p in folder.iterdir()) == ["0.png", "1.png"]


@pytest.mark.usefixtures("unmeasured")
def test_a_folder_that_is_read_only_is_noticed_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "try_folder", refuse)  # a superuser may write anywhere
    assert "x.json: cannot be written (Permission denied)" in str(
        _bench(folder, "--json", tmp_path / "x.json").exception
    )


def test_a_result_in_standard_output_is_alone_there(folder: Path, tmp_path: Path) -> None:
    done = _bench(folder, "--json", "-", "--plot", tmp_path / "p.png")
    assert json.loads(done.stdout)["pictures"] == ["0.png", "1.png"] and "codec" in done.stderr
    assert Image.open(tmp_path / "p.png").width > 300
    done = _bench(folder, "--plot", "-", "--json", folder / "figures.json")
    assert Image.open(io.BytesIO(done.stdout_bytes)).format == "PNG" and "codec" in done.stderr
    done = _bench(folder, "--json", folder / "figures.json", "--force")  # beside the pictures, not one of them
    assert done.exit_code == 0 and "codec" in done.stdout
    done = _bench(folder, "--sheet", "-", "--sheet-bpp", 1)
    assert Image.open(io.BytesIO(done.stdout_bytes)).format == "PNG"


def test_pictures_that_cannot_be_read_are_said(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("no picture, nor meant as one")
    (folder / "b.png").write_text("junk")
    (folder / "c").write_bytes((folder / "0.png").read_bytes()[:2000])
    done = _bench(folder, "--json", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["pictures"] == ["0.png", "1.png"] and list(found["unreadable"]) == ["b.png", "c"]
    assert "b.png is left out: not a picture in a format that can be read" in done.stderr
    assert "c is left out: the picture is damaged" in done.stderr and "notes.txt" not in done.stderr

"""What `eocodec inspect` says is true of maps whose columns are known, and its sheets show what their labels say."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from eocodec_cli import main
from paths import SAMPLES, environment
from PIL import Image

from eocodec import inspection
from eocodec.errors import EocodecError, ModelError
from eocodec.inspection import measures
from eocodec.metrics import psnr
from eocodec.model import transform
from eocodec.model.bundle import Model, write_bundle
from eocodec.model.library import load_model
from eocodec.model.rotation import pack_basis

pytestmark = pytest.mark.slow

SIZE, CORE, BLOCKS = 8, 32, (8, 32)
DIMS = 3 * SIZE**2
STEP = 24 / 255


def linear_map() -> np.ndarray:
    """B of the toy's decoder x = h B: unit determinant, rows of different lengths that are not orthogonal."""
    generator = np.random.default_rng(5)
    scale = generator.normal(0, 0.3, DIMS)
    shear = np.triu(generator.normal(0, 0.15, (DIMS, DIMS)), 1)
    return np.exp(scale - scale.mean())[:, None] * (np.eye(DIMS) + shear)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a linear flow with one latent vector, on pictures of 8x8 pixels."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(1)
    b = linear_map()
    constants = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("reflections", [1, 128, DIMS]), ("middles", [1, 128, 128]), ("signs", [DIMS]))
    ]

    def graph(nodes: list, inputs: list, outputs: list, values: dict[str, np.ndarray]) -> bytes:
        initial = [numpy_helper.from_array(v, k) for k, v in values.items()]
        made = helper.make_model(
            helper.make_graph(nodes, "g", inputs, outputs, initial), opset_imports=[helper.make_opsetid("", 17)]
        )
        made.ir_version = 8
        onnx.checker.check_model(made)
        return made.SerializeToString()

    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])
    latents = helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["n", DIMS])
    step = helper.make_tensor_value_info("step", TensorProto.FLOAT, ["n"])
    grey = np.array(0.5, np.float32)
    files = {
        "encoder.onnx": graph(
            [
                helper.make_node("Sub", ["picture", "grey"], ["x"]),
                helper.make_node("Reshape", ["x", "shape"], ["v"]),
                helper.make_node("MatMul", ["v", "a"], ["latents"]),
            ],
            [picture, *constants],
            [latents],
            {"grey": grey, "shape": np.array([-1, DIMS]), "a": np.linalg.inv(b).astype(np.float32)},
        ),
        "decoder.onnx": graph(
            [
                helper.make_node("MatMul", ["latents", "b"], ["v"]),
                helper.make_node("Reshape", ["v", "shape"], ["x"]),
                helper.make_node("Add", ["x", "grey"], ["picture"]),
            ],
            [latents, step, *constants],
            [picture],
            {"grey": grey, "shape": np.array([-1, 3, SIZE, SIZE]), "b": b.astype(np.float32)},
        ),
    }
    start = 0
    for k, end in enumerate(BLOCKS):
        n = end - start
        mean = generator.integers(-1, 2, (n, start + 1, 1, 1)).astype(np.float32)
        mean[:, 0] = 0
        files[f"entropy/block{k}.onnx"] = graph(
            [
                helper.make_node("Cast", ["seen"], ["s"], to=TensorProto.FLOAT),
                helper.make_node("Conv", ["s", "mean_weight"], ["m"]),
                helper.make_node("Conv", ["s", "index_weight"], ["i"]),
                helper.make_node("Cast", ["m"], ["mean"], to=TensorProto.INT16),
                helper.make_node("Cast", ["i"], ["index"], to=TensorProto.INT8),
            ],
            [helper.make_tensor_value_info("seen", TensorProto.INT8, ["n", start + 1, 1, 1])],
            [
                helper.make_tensor_value_info("mean", TensorProto.INT16, ["n", n, 1, 1]),
                helper.make_tensor_value_info("index", TensorProto.INT8, ["n", n, 1, 1]),
            ],
            {"mean_weight": mean, "index_weight": np.zeros((n, start + 1, 1, 1), np.float32)},
        )
        start = end
    photo = load_model("photo")
    at_one_level = 5 * math.log2(24) * 2048
    manifest = {
        "format": 1,
        "kind": "flat",
        "name": "toy",
        "licence": "Apache-2.0",
        "card": "a linear flow",
        "size": SIZE,
        "blocks": list(BLOCKS),
        "gain": (-np.log(np.linalg.norm(b, axis=1))).tolist(),
        "entropy": [  # the core, then the rest
            *generator.permutation(np.linspace(0, -7, DIMS)[:CORE]).tolist(),
            *generator.permutation(np.linspace(0, -7, DIMS)[CORE:]).tolist(),
        ],
        "scale": [round(at_one_level + 2048 * (25 if i < CORE else 2)) for i in range(DIMS)],
        "rest_step": 32768 + 2048,
        "water": 1.0,
        "dead_zone": 0.17,
        "shift": photo.manifest.shift,
        "tiny": 0,
        "noise": [1.0] * DIMS,
        "drop": [[5.0, 9.0], [50.0, 4.0]],
    }
    files |= {
        "manifest.json": json.dumps(manifest).encode(),
        "basis.bin": pack_basis(generator.normal(size=(DIMS, 2)).astype(np.float32), np.ones(DIMS, np.float32)),
        "tables.bin": photo.files["tables.bin"],
        "compand.bin": photo.files["compand.bin"],
    }
    path = tmp_path_factory.mktemp("toy") / "toy.eocm"
    write_bundle(path, files)
    return path


@pytest.fixture(scope="session")
def flow(toy: Path) -> Model:
    return load_model(toy)


@pytest.fixture(scope="session")
def tile(coffee: np.ndarray) -> np.ndarray:
    return coffee[150:214, 200:264]


def call(*arguments: object) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as e:
        return int(e.code or 0)
    return 0


def test_the_spectrum_holds_every_latent_in_falling_order(model: Model, flow: Model) -> None:
    for loaded in (model, flow):
        spectrum = inspection.spectrum(loaded)
        assert spectrum.count.sum() == loaded.block and len(set(spectrum.names)) == len(spectrum.names)
        assert (np.diff(spectrum.entropy) <= 0).all()
        assert spectrum.first[0] == 1 and spectrum.first[-1] + spectrum.count[-1] - 1 == loaded.block
    entropy = flow.flat.entropy
    assert [entropy[int(n[2:-1])] for n in inspection.spectrum(flow).names] == sorted(entropy, reverse=True)


@pytest.mark.parametrize("spoilt", [("entropy", 145.0), ("gain", float("nan"))])
def test_an_impossible_spectrum_is_refused(flow: Model, spoilt: tuple[str, float]) -> None:
    name, value = spoilt
    manifest = json.loads(flow.files["manifest.json"])
    manifest[name] = [value, *manifest[name][1:]]
    with pytest.raises(ModelError, match="cannot be that of pictures"):
        inspection.spectrum(Model({**flow.files, "manifest.json": json.dumps(manifest).encode()}))


def test_rate_and_floor_are_those_of_gaussians(flow: Model) -> None:
    spectrum = inspection.spectrum(flow)
    sigma = spectrum.deviation / 255
    for k in (0, 60, 150):
        assert inspection.noise_floor(sigma[k]) == pytest.approx(spectrum.entropy[k])
        assert spectrum.above(float(sigma[k]) * 1.001) == k
    # a Gaussian of deviation σ at a fine step Δ costs log2(σ sqrt(2πe) / Δ) bits
    assert spectrum.bits(1e-6)[0] == pytest.approx(math.log2(sigma[0] * math.sqrt(2 * math.pi * math.e) / 1e-6))
    assert spectrum.bits(2.0)[0] == 0
    half = spectrum.latents_for(0.5, 1e-3)
    bits = spectrum.cumulative_bits(1e-3)
    assert bits[half - 2] < bits[-1] / 2 <= bits[half - 1]


def test_columns_are_those_of_the_known_map(flow: Model) -> None:
    index = np.array([0, 7, 31, 32, 100, 191] * 8)
    latents = np.random.default_rng(0).normal(0, 0.1, (len(index), DIMS)).astype(np.float32)
    norms = inspection.log_column_norms(flow, latents, index)
    assert norms == pytest.approx(np.log(np.linalg.norm(linear_map(), axis=1))[index], abs=1e-3)


def test_total_correlation_is_that_of_the_known_map(flow: Model) -> None:
    truth = np.log(np.linalg.norm(linear_map(), axis=1)).sum()
    pictures = [np.random.default_rng(k).integers(60, 190, (SIZE, SIZE, 3), np.uint8) for k in range(3)]
    found = inspection.total_correlation(flow, pictures, probes=1000, seed=3)
    assert found.latents == DIMS and 0 < found.error < 0.05 and truth / DIMS > 8 * found.error
    assert abs(found.per_latent * DIMS - truth) < 4 * found.error * DIMS
    assert found == inspection.total_correlation(flow, pictures, probes=1000, seed=3)
    assert found != inspection.total_correlation(flow, pictures, probes=1000, seed=4)
    with pytest.raises(EocodecError, match="at least one picture"):
        inspection.total_correlation(flow, [])


def test_columns_of_photos_are_the_same_in_windows_and_in_the_whole_picture(model: Model, chelsea: np.ndarray) -> None:
    latents = transform.analyse(model, chelsea[:256, :256])
    for band, channel, place, window in ((4, 0, (60, 71), 64), (4, 1, (127, 0), 64), (3, 0, (20, 33), 128)):
        places = np.array([place])
        near, start = measures.picture_columns(model, latents, band, channel, places, window)
        whole, _ = measures.picture_columns(model, latents, band, channel, places, 256)
        top, left = start[0]
        assert near[0] == pytest.approx(whole[0][:, top : top + window, left : left + window], abs=5e-3)
        assert np.linalg.norm(near) == pytest.approx(np.linalg.norm(whole), rel=2e-3)


def test_total_correlation_of_photos_agrees_with_the_steps_of_the_bundle(model: Model, tile: np.ndarray) -> None:
    found = inspection.total_correlation(model, [tile], probes=128)
    gain = model.manifest.gain
    known = -sum(gain[b][c] * model.manifest.count(b) for b, c in model.manifest.order) / model.block
    assert found.latents == model.block and found.per_latent == pytest.approx(known, abs=0.06)
    assert sum(n for _, n, _, _, _ in found.parts) == model.block


def test_core_grows_to_the_picture_itself(model: Model, flow: Model, tile: np.ndarray) -> None:
    quality = [psnr(tile, 255.0 * inspection.core(model, tile, c)) for c in (1, 9.5, 64, 300)]
    assert quality == sorted(quality) and quality[-1] > quality[0] + 10
    small = np.asarray(Image.fromarray(tile).resize((SIZE, SIZE)))
    for loaded, picture in ((model, tile), (flow, small)):
        assert np.abs(inspection.core(loaded, picture, loaded.block) * 255 - picture).max() < 0.01
        with pytest.raises(EocodecError, match="from 1 to"):
            inspection.core(loaded, picture, loaded.block + 1)
    with pytest.raises(EocodecError, match="8x8"):
        inspection.core(flow, tile, 4)


def test_a_core_keeps_the_latents_of_the_highest_entropy(flow: Model) -> None:
    order = np.argsort(-np.array(flow.flat.entropy))
    kept = np.zeros(DIMS)
    kept[order[:5]] = np.random.default_rng(2).normal(0, 0.05, 5)
    picture = np.clip(0.5 + (kept @ linear_map()).reshape(3, SIZE, SIZE).transpose(1, 2, 0), 0, 1)
    levels = np.round(picture * 255).astype(np.uint8)
    assert psnr(levels, 255.0 * inspection.core(flow, levels, 5)) > psnr(
        levels, 255.0 * inspection.core(flow, levels, 3)
    )
    assert inspection.core(flow, levels, 5) == pytest.approx(picture, abs=4 / 255)


def test_traversals_move_the_picture_by_its_deviation(flow: Model) -> None:
    start = np.random.default_rng(0).normal(0, 0.01, DIMS).astype(np.float32)
    moved = inspection.traversal(flow, start, 150, (-0.5, 0, 0.5))
    assert moved.shape == (150, 3, SIZE, SIZE, 3)
    spectrum = inspection.spectrum(flow)
    for k in (90, 120, 149):  # small enough not to leave 0 to 1
        change = np.linalg.norm(moved[k, 2] - moved[k, 0])
        assert change == pytest.approx(spectrum.deviation[k] / 255, rel=1e-3)
        assert moved[k, 1] == pytest.approx(moved[0, 1], abs=1e-6)


def test_the_basis_shows_local_columns_at_their_own_scale(model: Model, chelsea: np.ndarray) -> None:
    rows = inspection.basis(model, chelsea[:256, :256])
    assert [len(r) for r in rows] == [3, 9, 9, 9, 9]
    assert [r[0].shape[0] for r in rows] == [128, 128, 64, 32, 16]
    for row, gains in zip(rows[1:], model.manifest.gain[1:], strict=True):
        for column, gain in zip(row, gains, strict=True):
            middle = len(column) // 4
            inner = np.linalg.norm(column[middle:-middle, middle:-middle])
            assert inner > 0.8 * np.linalg.norm(column)
            assert math.log(np.linalg.norm(column)) == pytest.approx(-gain, abs=1.0)


def test_temperature_one_draws_from_the_tables(flow: Model) -> None:
    for table in flow.tables[::9]:
        at_one = np.diff(measures.distribution(table, 1.0), prepend=0.0)
        assert at_one * (1 << 24) == pytest.approx(np.concatenate([table[:0:-1], table]), abs=1e-3)
        colder = np.diff(measures.distribution(table, 0.5), prepend=0.0)
        assert colder.max() > at_one.max() and colder.sum() == pytest.approx(1)


def test_samples_repeat_with_their_seed_and_spread_with_temperature(flow: Model) -> None:
    latents, pictures = inspection.sample(flow, 6, 1.0, STEP, seed=2)
    assert pictures.shape == (6, SIZE, SIZE, 3) and len({p.tobytes() for p in pictures}) == 6
    assert (latents[:, CORE:] == 0).all()  # their scale is too small to be coded at this step
    again, _ = inspection.sample(flow, 3, 1.0, STEP, seed=2)
    assert (again == latents[:3]).all()
    other, _ = inspection.sample(flow, 3, 1.0, STEP, seed=3)
    assert (other != again).any()
    spread = [np.abs(inspection.sample(flow, 6, t, STEP, seed=2)[0]).sum() for t in (1e-3, 0.5, 1.0)]
    assert spread[0] == 0 and spread[0] < spread[1] < spread[2]
    with pytest.raises(EocodecError, match="temperature"):
        inspection.sample(flow, 1, 0.0, STEP)


def test_what_needs_one_size_is_refused_by_photo_and_the_reverse(model: Model, flow: Model, tile: np.ndarray) -> None:
    with pytest.raises(ModelError, match="any size"):
        inspection.sample(model, 1, 1.0, STEP)
    with pytest.raises(ModelError, match="8x8"):
        inspection.basis(flow, tile)


def test_a_sheet_holds_its_cells_enlarged_by_whole_factors() -> None:
    cell = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    sheet = np.asarray(
        inspection.sheet([[cell, None], [cell, cell]], ["a", "b"], ["x", "y"], captions=[["1"], ["2", "3"]])
    )
    wanted = np.floor(cell * 255 + 0.5).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    windows = np.lib.stride_tricks.sliding_window_view(sheet[:, :, 0], (1, 128))[:, :, 0]
    assert int((windows == wanted[0, :, 0]).all(2).sum()) == 6  # three cells, whose first row is there twice


def test_details_are_magnified_until_they_show() -> None:
    detail = np.random.default_rng(0).normal(0, 0.02, (50, 50, 3)).astype(np.float32)
    assert inspection.detail_gain([detail]) == 8
    assert inspection.detail_gain([detail, 20 * detail]) == 1
    assert inspection.detail_gain([detail * 1e-4]) == 1


def test_inspect_photo_with_a_picture(tmp_path: Path, tile: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    Image.fromarray(tile).save(tmp_path / "tile.png")
    out = tmp_path / "out"
    options = ("--probes", 1, "--sigma", 2, "--sigma", 8, "-o", out)
    assert call("inspect", "photo", tmp_path / "tile.png", *options, "--json") == 0
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert summary == json.loads((out / "inspect.json").read_text())
    assert sorted(p.name for p in out.iterdir()) == summary["files"]
    assert summary["files"] == ["basis.png", "core-detail.png", "inspect.json", "spectrum.png"]
    assert summary["latents"] == 768 and [f["sigma"] for f in summary["floors"]] == [2, 8]
    assert summary["floors"][0]["latents_above"] > summary["floors"][1]["latents_above"] > 0
    assert summary["total_correlation"]["standard_error"] > 0
    again = ("--svg", "--top", 3, "--step", 60, "--rate", 768)
    assert call("inspect", "photo", tmp_path / "tile.png", *options, *again) == 0
    table = capsys.readouterr().out
    assert "low luma" in table and "total correlation" in table and table.count("luma LH") == 1
    assert (out / "spectrum.svg").read_text().startswith("<?xml")


def test_inspect_a_model_of_one_size(
    tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("inspect", toy, "--probes", 20, "--samples", 3, "--temperature", 0.7) == 0
    assert "192 latents in a picture of 64 pixels" in capsys.readouterr().out
    expected = {"inspect.json", "samples.png", "traversals.png"}
    assert expected <= {p.name for p in (tmp_path / "inspect-toy").iterdir()}
    (tmp_path / "other").mkdir()
    Image.open(SAMPLES / "chelsea.png").save(tmp_path / "other" / "chelsea.png")
    pictures = (SAMPLES / "chelsea.png", tmp_path / "other" / "chelsea.png")
    limits = ("--probes", 0, "--rate", 4, "--samples", 0)
    assert call("inspect", toy, *pictures, *limits, "-o", "x") == 1
    assert capsys.readouterr().err.count("--resize") == 1 and not Path("x").exists()
    assert call("inspect", toy, *pictures, *limits, "-o", "x", "--resize") == 0
    expected = {"inspect.json", "core-detail.png", "traversals-chelsea.png", "traversals-chelsea-2.png"}
    assert expected == {p.name for p in Path("x").iterdir()} - {"spectrum.png"}


def test_without_matplotlib_only_the_plot_is_missing(
    tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert call("inspect", toy, "--probes", 0, "--samples", 1, "-o", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install 'eocodec[bench]'" in said
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["inspect.json", "samples.png", "traversals.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("photo", "missing.png"),
        ("photo", "--samples", "2"),
        ("photo", "--sigma", "-1"),
        ("photo", "--sigma", "nan"),
        ("photo", "--step", "0"),
        ("photo", "--temperature", "0"),
        ("photo", "--rate", "1000"),
        ("photo", "-o", "full"),
        ("photo", "-o", "full/file.txt"),
    ],
)
def test_errors_are_one_sentence_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file.txt").write_text("mine")
    assert call("inspect", *arguments) == 1
    said = capsys.readouterr()
    assert said.err.startswith("eocodec: ") and said.err.count("\n") == 1 and not said.out
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "file.txt"]


def test_inspect_never_imports_torch(tmp_path: Path, toy: Path) -> None:
    script = (
        "import sys\nfrom eocodec_cli import main\n"
        "main(['inspect', sys.argv[1], '--probes', '4', '--samples', '1'])\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(toy)], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "inspect-toy" / "samples.png").exists()

"""From a training run to a bundle that compresses; parity is asserted, not assumed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import zipped
from click.testing import CliRunner
from eocodec_cli import cli
from paths import SAMPLES, Runner
from PIL import Image

torch = pytest.importorskip("torch")

from eocodec_export.bundle import check_parity  # noqa: E402
from eocodec_export.graphs import entropy_graphs  # noqa: E402
from eocodec_export.progressive import bundle_with_streams  # noqa: E402

from eocodec import codec, format  # noqa: E402
from eocodec.coding.describe import describe  # noqa: E402
from eocodec.coding.fineness import LARGEST_OFFSET, StepTuning, focused, pack_offsets  # noqa: E402
from eocodec.coding.registry import ORDINARY  # noqa: E402
from eocodec.errors import EocodecError, FormatError, ModelError  # noqa: E402
from eocodec.flow.model import PhotoModel  # noqa: E402
from eocodec.flow.training import load_checkpoint  # noqa: E402
from eocodec.image import as_picture  # noqa: E402
from eocodec.metrics import psnr  # noqa: E402
from eocodec.model.bundle import Model, bundle_id, read_bundle, write_bundle  # noqa: E402
from eocodec.model.parts import listed  # noqa: E402

pytestmark = pytest.mark.slow

CONFIG = """
out = "run"
folder = "pictures"
crop = 64
batch = 2
hold_out = 4
validate_every = 100
[model]
levels = 3
width = 8
steps = 1
features = 8
context_width = 16
refine_width = 8
refine_depth = 3
embedded = true
gain_widths = [8, 8, 8]
gain_blocks = 1
noise_width = 8
[[stage]]
objective = "likelihood"
iterations = 3
noise = 2.0
correlation = 0.1
[[stage]]
objective = "rate-distortion"
iterations = 6
noise = 20.0
anchor = 0.1
quantised = true
[[stage]]
objective = "embedded"
iterations = 3
quantised = true
[[stage]]
objective = "denoising"
iterations = 3
noise = 60
[[stage]]
objective = "noise-level"
iterations = 3
noise = 60
"""
EXPORT = "export run/checkpoint.pt --data pictures -o small.eocm --name small --pictures 2 --lossless-from photo"
FITTED = (2.0, 14.0, 50.0, 180.0)  # 8-bit levels at which tables are fitted


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a few iterations and its bundle, made by the commands."""
    base = tmp_path_factory.mktemp("run")
    (base / "pictures").mkdir()
    for name in ("chelsea", "coffee", "rocket", "astronaut"):
        Image.open(SAMPLES / f"{name}.png").crop((60, 60, 236, 204)).save(base / "pictures" / f"{name}.png")
    (base / "small.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eocodec_export.bundle.STEPS", FITTED)
        patch.chdir(base)
        for arguments in ("train small.toml --device cpu", EXPORT):
            done = CliRunner().invoke(cli, arguments)
            assert done.exit_code == 0, done.output
    return base


def test_training_leaves_a_checkpoint_a_log_and_pictures(trained: Path) -> None:
    run = trained / "run"
    assert len((run / "log.jsonl").read_text().splitlines()) == 18
    assert load_checkpoint(run / "checkpoint.pt").iteration == 18
    assert list(run.glob("validation*.png"))


@pytest.mark.parametrize(
    ("output", "more", "name"),
    [("mine.eocm", (), "mine"), ("photo.eocm", (), "photo"), ("mine.eocm", ("--name", "other"), "other")],
)
def test_a_bundle_is_called_as_its_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, more: tuple[str, ...], name: str
) -> None:
    names: list[str] = []

    def exported(*paths: Path, **options: object) -> None:
        names.append(str(options["name"]))
        raise EocodecError("far enough")

    monkeypatch.setattr("eocodec_export.export", exported)
    monkeypatch.chdir(tmp_path)
    Path("checkpoint.pt").write_bytes(b"")
    command = ["export", "checkpoint.pt", "--data", "pictures"]
    CliRunner().invoke(cli, [*command, "-o", output, *more])
    assert names == [name]
    refused = CliRunner().invoke(cli, [*command, "-o", "my model.eocm"])
    assert "--name gives it one" in str(refused.exception) and len(names) == 1


def test_an_exported_bundle_compresses(trained: Path, chelsea: np.ndarray, call: Runner) -> None:
    bundle = trained / "small.eocm"
    done = codec.compress_picture(chelsea, 100, model=bundle, measure=True)
    assert done.psnr is not None and done.psnr > 24
    assert psnr(chelsea, codec.decompress(done.data, bundle)) == pytest.approx(done.psnr)
    assert call("compress", SAMPLES / "chelsea.png", "--model", bundle, "-o", "c.eoc").returncode == 0
    refused = call("decompress", "c.eoc")
    assert refused.returncode == 1 and b"give its bundle as the model" in refused.stderr
    assert call("decompress", "c.eoc", "--model", bundle, "-o", "c.png").returncode == 0


def test_an_exported_bundle_writes_embedded_and_lossless_files(trained: Path, chelsea: np.ndarray) -> None:
    model = Model(read_bundle(trained / "small.eocm"))
    picture = chelsea[50:130, 100:203]
    qualities = []
    for size in (1500, 6000):
        cut = codec.compress(picture, max_bytes=size, model=model, progressive=True)
        qualities.append(psnr(picture, codec.decompress(cut, model)))
    assert qualities[1] > qualities[0] + 3 > 15
    exact = codec.compress(picture, model=model, lossless=True)
    assert (codec.decompress(exact, model) == picture).all()


@pytest.mark.parametrize(
    ("objective", "figure", "nets"),
    [
        ("embedded", "bits_per_pixel", ("embedded.",)),
        ("denoising", "psnr", ("gains.",)),
        ("noise-level", "level", ("noise.",)),
    ],
)
def test_a_stage_of_its_own_changes_nothing_else(
    trained: Path, tmp_path: Path, objective: str, figure: str, nets: tuple[str, ...]
) -> None:
    import torch

    from eocodec.flow.training import Run, load_config

    config = tmp_path / "more.toml"
    stage = next(s for s in CONFIG.split("[[stage]]") if f'"{objective}"' in s)
    config.write_text(CONFIG.split("[[stage]]")[0] + "[[stage]]" + stage)
    before = load_checkpoint(trained / "run" / "checkpoint.pt").average
    run = Run(
        load_config(config, trained / "pictures", tmp_path / "out"),
        torch.device("cpu"),
        start=trained / "run" / "checkpoint.pt",
    )
    figures = [run.advance() for _ in range(3)]
    assert all(np.isfinite(f["loss"]) and f[figure] > 0 for f in figures)
    after = run.model.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and all(name.startswith(nets) for name in changed)


def test_nets_of_the_embedded_stream_begin_as_the_usual_ones(trained: Path, tmp_path: Path) -> None:
    import torch

    loaded = load_checkpoint(trained / "run" / "checkpoint.pt")
    weights = {k: v for k, v in loaded.average.items() if not k.startswith("embedded.")}
    model = PhotoModel(loaded.config)
    assert model.start_from(replace(loaded.config, embedded=False), weights) == []
    own, usual = model.embedded.state_dict(), model.latents.context.state_dict()
    for name, value in usual.items():
        inputs = value.shape[1] if value.dim() > 1 else None
        assert torch.equal(own[name] if inputs is None else own[name][:, :inputs], value)
        assert inputs is None or not own[name][:, inputs:].any()
    assert model.start_from(replace(loaded.config, width=9), weights) is None


def test_a_bundle_takes_trained_nets_of_the_embedded_stream(trained: Path, tmp_path: Path, chelsea: np.ndarray) -> None:
    files, checkpoint = read_bundle(trained / "small.eocm"), tmp_path / "checkpoint.pt"
    loaded = load_checkpoint(trained / "run" / "checkpoint.pt")
    raw = {**loaded.raw, "average": {k: v.clone() for k, v in loaded.average.items()}}
    for name, value in raw["average"].items():
        if re.match(r"embedded\..*convs\.2\.bias", name):
            value += 0.3
    torch.save(raw, checkpoint)
    changed = bundle_with_streams(files, checkpoint, [chelsea[:96, :128]])
    nets = {name for name in files if name.startswith("embedded/") and "feature" not in name}
    assert nets and {n for n in files if files[n] != changed.get(n)} - {"progressive.bin", "parts.json"} == nets
    cut = codec.compress(chelsea[:96, :128], max_bytes=2000, model=Model(changed), progressive=True)
    assert psnr(chelsea[:96, :128], codec.decompress(cut, Model(changed))) > 18
    raw["average"]["latents.gain0"] += 0.1
    torch.save(raw, checkpoint)
    with pytest.raises(EocodecError, match="another flow"):
        bundle_with_streams(files, checkpoint, [])


def test_a_model_may_get_denoising_nets_later(trained: Path) -> None:
    loaded = load_checkpoint(trained / "run" / "checkpoint.pt")
    weights = {k: v for k, v in loaded.average.items() if not k.startswith(("gains.", "noise."))}
    model = PhotoModel(loaded.config)
    assert model.start_from(replace(loaded.config, gain_widths=()), weights) == []
    own = model.state_dict()
    assert all((own[name] == value).all() for name, value in weights.items())


def test_better_denoising_nets_leave_the_id_alone(trained: Path) -> None:
    files = read_bundle(trained / "small.eocm")
    fewer = {k: v for k, v in files.items() if not k.startswith("denoise/")}
    assert len(fewer) == len(files) - 2
    assert bundle_id(files) == bundle_id(fewer) != bundle_id(listed({**files, "compand.bin": b""}))
    assert "net" in Model(files).denoising_methods and "net" not in Model(fewer).denoising_methods


def test_traced_graphs_hold_every_constant_once_and_in_no_node(trained: Path) -> None:
    """Nodes take time whenever a session is opened."""
    files = read_bundle(trained / "small.eocm")
    for name in ("encoder.onnx", "decoder.onnx", "denoise/clean.onnx", "denoise/sigma.onnx"):
        graph = onnx.load_from_string(files[name]).graph
        assert graph.node and not [node.name for node in graph.node if node.op_type == "Constant"]
        # Bounds of slices and the like; weights may be equal by chance.
        values = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT64]
        assert len({(v.shape, v.tobytes()) for v in values}) == len(values) > 0


def test_parity_holds_and_its_breach_is_refused(trained: Path, chelsea: np.ndarray) -> None:
    checkpoint = load_checkpoint(trained / "run" / "checkpoint.pt")
    model = PhotoModel(checkpoint.config).eval()
    model.load_state_dict(checkpoint.average)
    files = read_bundle(trained / "small.eocm")
    worst = check_parity(model, Model(files), [chelsea])
    assert worst["encoder"] <= 1e-3 and worst["decoder"] <= 1e-3 and worst["entropy"] == 0
    model.latents.context.luma["1"][0].convs[-1].bias.data += 0.5
    with pytest.raises(ModelError, match="integers"):
        check_parity(model, Model(files), [chelsea])
    model.load_state_dict(checkpoint.average)
    model.flow.levels[0].predict[0].net[0].weight.data += 0.5
    model.flow.levels[0].predict[0].net[-1].weight.data += 0.5
    with pytest.raises(ModelError, match="encoder"):
        check_parity(model, Model(files), [chelsea])


def test_weights_that_could_leave_the_exact_range_are_refused(trained: Path) -> None:
    checkpoint = load_checkpoint(trained / "run" / "checkpoint.pt")
    model = PhotoModel(checkpoint.config)
    net = model.latents.context.luma["1"][0].convs[0]
    net.bias.data[:] = 1e6
    with pytest.raises(ModelError, match=r"2\*\*24"):
        entropy_graphs(model.latents.context)


def test_damaged_bundles_are_refused(trained: Path, tmp_path: Path) -> None:
    files = read_bundle(trained / "small.eocm")
    for name, change in (
        ("manifest.json", b"{}"),
        ("manifest.json", json.dumps({**json.loads(files["manifest.json"]), "levels": 7}).encode()),
        ("tables.bin", files["tables.bin"][:-4]),
        ("tables.bin", b""),
    ):
        write_bundle(tmp_path / "bad.eocm", listed({**files, name: change}))
        with pytest.raises(ModelError):
            Model(read_bundle(tmp_path / "bad.eocm"))
    (tmp_path / "many.eocm").write_bytes(zipped({f"extra{k}": b"" for k in range(257)}))
    with pytest.raises(ModelError, match=r"many\.eocm: the model bundle is larger than allowed$"):
        read_bundle(tmp_path / "many.eocm")
    raw = (trained / "small.eocm").read_bytes()
    (tmp_path / "cut.eocm").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ModelError, match=r"cut\.eocm"):
        read_bundle(tmp_path / "cut.eocm")
    broken = Model(listed({**files, "encoder.onnx": b"not a graph"}))
    with pytest.raises(ModelError, match="encoder"):
        codec.compress(np.zeros((8, 8, 3), np.uint8), model=broken)


def test_a_bundle_is_named_by_its_content(trained: Path, tmp_path: Path) -> None:
    files = read_bundle(trained / "small.eocm")
    assert write_bundle(tmp_path / "a.eocm", files) == write_bundle(tmp_path / "b.eocm", dict(reversed(files.items())))
    assert (tmp_path / "a.eocm").read_bytes() == (tmp_path / "b.eocm").read_bytes()
    assert Model(listed({**files, "extra": b"x"})).id != Model(files).id


ROTATED = """
out = "run"
folder = "pictures"
crop = 64
batch = 2
hold_out = 4
validate_every = 100
optimiser = "soap"
[model]
levels = 3
width = 8
steps = 1
features = 8
context_width = 8
context_coarse = 1.5
context_depth = 2
rotated = true
tuned = true
refine_width = 8
refine_blocks = 1
refine_coarse = 8
refine_latents = true
[[stage]]
objective = "entropy"
iterations = 4
tuned = 0.5
varied = 0.5
[[stage]]
objective = "refinement"
iterations = 3
[[stage]]
objective = "rate-distortion"
iterations = 4
tuned = 0.5
varied = 0.5
eye = 0.5
quantised = true
"""


def _check_tuning(model: Model, picture: np.ndarray) -> None:
    """What is foreseen is what is decoded, with steps that follow the eye, a map, and neither; parts can be damaged."""
    delta = model.manifest.step_of(60)
    focus = focused((40, 0, 60, 64), picture.shape[:2], model.multiple)
    for tuning in (StepTuning(), StepTuning(format.MAX_TUNING), StepTuning(16, focus)):
        job = ORDINARY.open(model, as_picture(picture), None, tuning)
        foreseen, file = job.draft(delta)
        data = format.to_bytes(file())
        assert (codec.decompress(data, model=model) == foreseen).all()
        assert file().header.tuning == tuning.degree
        assert describe(data, {model.id: model})["tuning"] == tuning.degree / format.MAX_TUNING
    plain = codec.decompress(codec.compress(picture, 120, tune="psnr", model=model), model)
    data = codec.compress(picture, 120, tune="psnr", focus=(40, 0, 60, 64, 1.5), model=model)
    there = np.s_[8:56, 48:92]
    assert psnr(picture[there], codec.decompress(data, model)[there]) > psnr(picture[there], plain[there]) + 2
    file = format.parse(data)
    for wrong in (b"", pack_offsets(focus[:, :1]), pack_offsets(np.full_like(focus, LARGEST_OFFSET + 1))):
        with pytest.raises(FormatError, match="map of steps"):
            codec.decompress(format.to_bytes(replace(file, offsets=wrong)), model)
    mask = np.zeros(picture.shape[:2], bool)
    mask[:64, 40:100] = True
    assert (focused(mask, mask.shape, model.multiple) == focus).all()


def test_a_model_with_rotated_passes_and_tuning_makes_files(
    trained: Path, tmp_path: Path, coffee: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From training over export, which asserts parity, to files; and training goes on from the bundle."""
    from eocodec_export.bundle import export

    from eocodec.flow.restored import photo_weights
    from eocodec.flow.training import Run, load_config

    monkeypatch.setattr("eocodec_export.bundle.STEPS", FITTED)
    (tmp_path / "rotated.toml").write_text(ROTATED)
    run = Run(load_config(tmp_path / "rotated.toml", trained / "pictures", tmp_path / "run"), torch.device("cpu"))
    for _ in run:
        pass
    model = export(run.checkpoint, tmp_path / "rotated.eocm", trained / "pictures", name="rotated", pictures=2)
    picture = coffee[:100, :131]
    data = codec.compress(picture, rate=60, model=model)
    decoded = codec.decompress(data, model=model)
    assert format.parse(data).header.tuning == model.encoding.tuning
    assert psnr(picture, decoded) > 20
    _check_tuning(model, picture)
    config, weights = photo_weights(read_bundle(tmp_path / "rotated.eocm"))
    assert config == run.config.model
    again = PhotoModel(config).eval().requires_grad_(False)
    assert again.start_from(config, weights) == []
    assert check_parity(again, model, [picture[:96, :128]])["entropy"] == 0

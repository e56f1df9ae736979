"""Edits and morphs of faces: paths are data, what does not move stays, and mistakes are one sentence."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from eocodec_cli import cli
from onnx import TensorProto, helper, numpy_helper
from paths import SAMPLES, environment
from PIL import Image

import eocodec
from eocodec.errors import EocodecError, ModelError
from eocodec.lab.paths.editing import PathManifest, Paths, edit, load_paths, morph, write_paths

FACE = SAMPLES / "faces" / "astronaut.png"
STEPS = 3


def graph(matrix: np.ndarray, operator: str = "MatMul") -> bytes:
    """displacement = step · matrix `(T, d)`: another direction at every time."""
    node = helper.make_node(operator, ["step", "m"] if operator == "MatMul" else ["step"], ["displacement"])
    tensors = [
        helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["b", matrix.shape[1]]),
        helper.make_tensor_value_info("step", TensorProto.FLOAT, ["b", STEPS]),
    ]
    out = helper.make_tensor_value_info("displacement", TensorProto.FLOAT, ["b", None])
    constants = [numpy_helper.from_array(matrix.astype(np.float32), "m")] if operator == "MatMul" else []
    made = helper.make_graph([node], "path", tensors, [out], constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def manifest(**changes) -> PathManifest:
    model = eocodec.load_model("face64")
    values = {
        "model": model.id.hex(),
        "names": ["first"],
        "order": [0, 5],
        "mean": [0.1, 0.0],
        "scale": [2.0, 1.0],
        "steps": STEPS,
    }
    return PathManifest(**(values | changes))


def files(changes: dict | None = None, content: bytes | None = None) -> dict[str, bytes]:
    held = {"format": 1, **manifest().__dict__, **(changes or {})}
    return {"manifest.json": json.dumps(held).encode(), "first.onnx": content or graph(np.ones((STEPS, 2)))}


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return np.asarray(Image.open(FACE).convert("RGB").resize((64, 64)))


def test_each_step_takes_its_own_time_and_amounts_are_shared_out():
    paths = Paths(files(content=graph(np.array([[1.0, 0], [10, 0], [100, 1]]))))
    z = np.zeros((1, 2), np.float32)
    assert paths.move("first", z, 1.0).tolist() == [[1.0, 0.0]]
    assert paths.move("first", z, 3.0).tolist() == [[111.0, 1.0]]
    assert paths.move("first", z, 4.0).tolist() == [[211.0, 2.0]]  # beyond the last time, the last time goes on
    assert paths.move("first", z, -2.0).tolist() == [[-11.0, 0.0]]
    np.testing.assert_allclose(paths.move("first", z, 1.5), [[0.75 * 11, 0.0]])
    assert paths.move("first", z, 0.0).tolist() == [[0.0, 0.0]]


def test_only_the_latents_of_the_path_move(face):
    model = eocodec.load_model("face64")
    x = face.transpose(2, 0, 1)[None].astype(np.float32) / 255
    (before,) = model.run("encoder", {"picture": x})
    paths = Paths(files(content=graph(np.tile([1.0, -1.0], (STEPS, 1)))))
    changed = edit(face, {"first": 1.0}, paths)
    (after,) = model.run("encoder", {"picture": changed.transpose(2, 0, 1)[None].astype(np.float32) / 255})
    moved = after[0] - before[0]
    # rounding to 8 bits and cutting to 0 to 1 spread a little over all latents
    assert moved[0] == pytest.approx(2.0, abs=0.2) and moved[5] == pytest.approx(-1.0, abs=0.2)
    assert np.sqrt(np.square(np.delete(moved, [0, 5])).mean()) < 0.004
    for still in ({}, {"first": 0.0}):
        assert np.array_equal(edit(face, still, paths), face)


def test_shipped_paths_do_what_they_are_called(face):
    paths = load_paths("face64")
    assert paths.manifest.names == ["light", "tint", "side light"]

    def change(name: str, amount: float) -> np.ndarray:
        return edit(face, {name: amount}, paths).astype(float) - face

    assert change("light", 1).mean() > 8 and change("light", -1).mean() < -8
    tint = change("tint", 1)
    assert tint[..., 0].mean() - tint[..., 2].mean() > 10 and abs(tint.mean()) < 5
    side = change("side light", 2)
    assert side[:, 40:].mean() > 4 and side[:, :24].mean() < -4


def test_grey_faces_stay_grey_unless_they_are_tinted(face):
    paths = load_paths("face64")
    grey = np.repeat(face[..., 1:2], 3, 2)
    light = edit(grey, {"light": 1.0, "side light": -0.5}, paths)
    assert (light == light[..., :1]).all() and light.mean() > grey.mean() + 5
    assert np.ptp(edit(grey, {"tint": 1.0}, paths), axis=-1).mean() > 4
    between = morph(grey, grey[:, ::-1].copy(), 3)
    assert (between == between[..., :1]).all()
    assert np.ptp(morph(grey, face, 3)[1], axis=-1).mean() > 4


def test_a_morph_goes_from_one_picture_to_the_other(face):
    other = face[:, ::-1].copy()
    found = morph(face, other, 5)
    assert found.shape == (5, 64, 64, 3)
    assert np.abs(found[0].astype(int) - face).max() <= 1 and np.abs(found[-1].astype(int) - other).max() <= 1
    distances = [np.abs(p.astype(float) - face).mean() for p in found]
    assert distances == sorted(distances) and distances[2] > 1
    with pytest.raises(EocodecError, match="two pictures or more"):
        morph(face, other, 1)
    with pytest.raises(EocodecError, match="64x64 pixels"):
        morph(face[:32], other, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"names": []}, {"names": ["second"]}, {"order": [0]}, {"order": [0, 0]}, {"order": [0, -1]},
        {"scale": [1.0, 0.0]}, {"mean": [float("nan"), 0.0]}, {"mean": ["a", 0.0]}, {"steps": 0}, {"steps": "three"},
        {"extra": 1}, {"names": 3},
    ],
)  # fmt: skip
def test_spoilt_manifests_are_refused(change):
    with pytest.raises(ModelError, match="paths file"):
        Paths(files(change))


def test_graphs_may_hold_arithmetic_only():
    with pytest.raises(ModelError, match="Sin"):
        Paths(files(content=graph(np.ones((STEPS, 2)), "Sin")))
    with pytest.raises(ModelError):
        Paths(files(content=b"no graph"))


def test_graphs_of_another_shape_are_refused_when_used(face):
    paths = Paths(files(content=graph(np.ones((STEPS, 3)))))
    with pytest.raises(ModelError, match="the path first"):
        edit(face, {"first": 1.0}, paths)


def test_paths_of_another_model_and_unknown_paths_are_refused(face, tmp_path):
    write_paths(tmp_path / "a.eocp", manifest(model="00" * 4), {"first": graph(np.ones((STEPS, 2)))})
    with pytest.raises(ModelError, match="not those of this face64"):
        edit(face, {"first": 1.0}, load_paths(tmp_path / "a.eocp"))
    with pytest.raises(EocodecError, match="no path is called smile; known are: first"):
        edit(face, {"smile": 1.0}, Paths(files()))
    with pytest.raises(EocodecError, match="amounts from -5 to 5"):
        edit(face, {"first": 9.0}, Paths(files()))
    with pytest.raises(ModelError, match="no paths are shipped"):
        load_paths("photo")


@pytest.mark.slow
def test_commands_edit_and_morph_compressed_faces(face, tmp_path: Path):
    write_paths(tmp_path / "a.eocp", manifest(), {"first": graph(np.tile([0.5, 0.0], (STEPS, 1)))})
    Image.fromarray(face).save(tmp_path / "face.png")
    runner = CliRunner()

    def run(*arguments: str) -> None:
        result = runner.invoke(cli, [*arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    for name, options in (("face", ["--bytes", "400"]), ("tiny", ["--tiny", "--bytes", "60"])):
        source, target = str(tmp_path / f"{name}.eoc"), str(tmp_path / f"{name}-out.eoc")
        run("compress", "--model", "face64", *options, str(tmp_path / "face.png"), "-o", source)
        run("edit", source, "--path", "first=1", "--paths", str(tmp_path / "a.eocp"), "-o", target)
        assert len(Path(target).read_bytes()) <= len(Path(source).read_bytes())
        a, b = (eocodec.decompress(Path(p).read_bytes()).astype(float) for p in (source, target))
        assert 1 < np.abs(a - b).mean() < 60
    run("edit", str(tmp_path / "face.eoc"), "--path", "first=1", "--paths", str(tmp_path / "a.eocp"),
        "-o", str(tmp_path / "out.png"))  # fmt: skip
    assert Image.open(tmp_path / "out.png").size == (64, 64)
    run("morph", str(tmp_path / "face.eoc"), str(tmp_path / "face-out.eoc"), "-n", "4", "-o", str(tmp_path / "m.png"))
    assert Image.open(tmp_path / "m.png").size == (256, 64)
    result = runner.invoke(cli, ["edit", str(tmp_path / "face.eoc"), "--path", "first", "-o", str(tmp_path / "x.eoc")])
    assert result.exit_code == 2 and "NAME=AMOUNT" in result.output


def test_commands_replace_no_file_unasked_and_name_the_input_that_is_wrong(face, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_paths(tmp_path / "a.eocp", manifest(), {"first": graph(np.tile([0.5, 0.0], (STEPS, 1)))})
    data = eocodec.compress(face, 300, model="face64")
    for name, content in (
        ("a.eoc", data),
        ("b.eoc", data),
        ("cut.eoc", data[:16]),
        ("large.eoc", eocodec.compress(np.zeros((80, 80), "u1"))),
        ("photo.eoc", eocodec.compress(face)),
    ):
        Path(name).write_bytes(content)
    Path("old.png").write_bytes(b"old")
    edit, morph = ["edit", "--path", "first=1", "--paths", "a.eocp"], ["morph", "-n", "2"]
    for command, said in (
        ([*edit, "a.eoc", "-o", "old.png"], "old.png exists; use --force"),
        ([*edit, "a.eoc", "-o", "a.eoc", "-f"], "a.eoc is the input itself"),
        ([*edit, "large.eoc", "-o", "new.png"], "large.eoc: the file was made with model"),
        ([*edit, "photo.eoc", "-o", "new.eoc"], "photo.eoc: the file was made with model"),
        ([*morph, "photo.eoc", "a.eoc", "-o", "new.png"], "photo.eoc: the file was made with model"),
        ([*edit, "cut.eoc", "-o", "new.eoc"], "cut.eoc: the picture cannot be compressed to 16 bytes"),
        ([*edit, "a.eocp", "-o", "new.png"], "a.eocp: not an .eoc file"),
        ([*morph, "a.eoc", "b.eoc", "-o", "old.png"], "old.png exists; use --force"),
        ([*morph, "a.eoc", "large.eoc", "-o", "new.png"], "large.eoc: the file was made with model"),
        ([*morph, "a.eoc", "missing.eoc", "-o", "new.png"], "missing.eoc: no such file"),
    ):
        with pytest.raises(EocodecError, match=re.escape(said)):
            CliRunner().invoke(cli, command, catch_exceptions=False, standalone_mode=False)
    assert Path("old.png").read_bytes() == b"old" and Path("a.eoc").read_bytes() == data
    assert not Path("new.png").exists()


def test_a_face_that_does_not_move_keeps_its_file(face, tmp_path: Path):
    source, target = tmp_path / "a.eoc", tmp_path / "b.eoc"
    for options in ({"max_bytes": 300}, {"max_bytes": 60, "tiny": True}):
        source.write_bytes(eocodec.compress(face, model="face64", **options))
        for steps in (["light=0"], ["light=1", "light=-1"]):
            words = [word for step in steps for word in ("--path", step)]
            result = CliRunner().invoke(cli, ["edit", str(source), *words, "-o", str(target), "-f"])
            assert result.exit_code == 0 and target.read_bytes() == source.read_bytes()
    CliRunner().invoke(cli, ["edit", str(source), "--path", "light=0", "--bytes", "40", "-o", str(target), "-f"])
    assert len(target.read_bytes()) <= 40


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (slice(16), "cut short before the end of its first segment: a flat picture"),
        (None, "without latents: a flat picture"),
        (slice(-1), "cut short before the end of its first segment: a flat picture"),
    ],
)
def test_commands_say_it_of_faces_without_latents(face, end: slice | None, said: str, tmp_path: Path):
    whole = eocodec.compress(face, 300, model="face64")
    a, b, out = (str(tmp_path / name) for name in ("a.eoc", "b.eoc", "o.png"))
    Path(a).write_bytes(whole)
    Path(b).write_bytes(eocodec.truncate(whole, max_bytes=20) if end is None else whole[end])
    for words in (["edit", b, "--path", "light=1"], ["morph", b, a], ["morph", a, b], ["denoise", b]):
        result = CliRunner().invoke(cli, [*words, "-o", out, "-f"])
        assert result.exit_code == 0 and f"eocodec: {b}: warning: {said}" in result.stderr, words
    assert f"({said})" in CliRunner().invoke(cli, ["decompress", b, "-o", out, "-f"]).stdout


def test_a_size_is_for_results_that_are_files(face, tmp_path: Path):
    source = tmp_path / "a.eoc"
    source.write_bytes(eocodec.compress(face, 300, model="face64"))
    words = ["edit", str(source), "--path", "light=1", "--bytes", "100", "-o", str(tmp_path / "o.png")]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2 and "--bytes goes with" in result.output and not (tmp_path / "o.png").exists()


def test_edits_and_measures_need_no_torch():
    code = (
        "import sys, eocodec.lab.paths.editing, eocodec.lab.report.comparison, eocodec.lab.measures.manifold; "
        "assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())

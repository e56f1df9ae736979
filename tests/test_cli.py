"""The command: every command has help and an example, pipes work, errors are one line and lose nothing."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from eocodec_cli import COMMANDS, cli
from paths import ROOT, SAMPLES, Runner, environment
from PIL import Image

import eocodec

CROP = (0, 0, 80, 60)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_an_example(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert f"eocodec {name}" in result.output.split("Example", 1)[1]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    undocumented = [p.name for p in command.params if isinstance(p, click.Option) and not p.help and p.name != "device"]
    assert not undocumented
    assert name in (ROOT / "README.md").read_text()


def test_help_starts_fast() -> None:
    times = []
    for _ in range(3):
        start = os.times()
        subprocess.run(
            [sys.executable, "-m", "eocodec_cli", "--help"], check=True, capture_output=True, env=environment()
        )
        end = os.times()
        times.append(end.children_user + end.children_system - start.children_user - start.children_system)
    assert 0 < min(times) < 0.5  # seconds of the processor


@pytest.mark.parametrize("given", [None, "20"])
def test_threads_of_numpy_do_not_spin_on_a_core_that_imports_need(given: str | None) -> None:
    started = {k: v for k, v in environment().items() if k != "OPENBLAS_THREAD_TIMEOUT"}
    if given is not None:
        started["OPENBLAS_THREAD_TIMEOUT"] = given
    code = "import atexit, os, sys, eocodec_cli\nassert 'numpy' not in sys.modules\n"
    code += "atexit.register(lambda: print(os.environ['OPENBLAS_THREAD_TIMEOUT']))\neocodec_cli.main(['--version'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=started)
    assert done.stdout.split()[-1] == (given or "4")


@pytest.mark.slow
def test_everything_but_training_works_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    script = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx"):
            raise ImportError(name + " is refused")
sys.meta_path.insert(0, Refuse())
import numpy as np, eocodec
from eocodec_cli import demo, main
demo.RATES = demo.RATES[1:2]  # the others take as long, and nothing else
picture = sys.argv[1]
def call(*arguments):
    try:
        main(list(arguments))
    except SystemExit as e:
        assert not e.code, arguments
call("compress", picture, "-o", "a.eoc", "--rate", "200")
call("decompress", "a.eoc", "-o", "a.png")
call("truncate", "a.eoc", "--latents", "400")
call("info", "a.eoc"); call("models")
call("denoise", "a.png", "-o", "b.png", "--shifts", "1")
call("demo", "-o", "strip.png")
try:
    main(["train", sys.argv[2]])
except SystemExit as e:
    assert e.code == 1
else:
    raise AssertionError("train went on without torch")
assert "torch" not in sys.modules
"""
    config = ROOT / "eocodec" / "models" / "photo.toml"
    Image.open(SAMPLES / "chelsea.png").crop((100, 60, 260, 180)).save(tmp_path / "part.png")
    done = subprocess.run(
        [sys.executable, "-c", script, "part.png", str(config)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'eocodec[train]'" in done.stderr


def test_compress_decompress_round_trip(run: Runner, tmp_path: Path) -> None:
    done = run("compress", "--rate", 64, SAMPLES / "rocket.png", "-o", "r.eoc", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["bytes"] == (tmp_path / "r.eoc").stat().st_size and report["psnr"] > 28
    assert run("decompress", "r.eoc").returncode == 0
    decoded = np.asarray(Image.open(tmp_path / "r.png"))
    original = np.asarray(Image.open(SAMPLES / "rocket.png"))
    mse = np.mean((decoded.astype(float) - original) ** 2)
    assert 10 * np.log10(255**2 / mse) == pytest.approx(report["psnr"], abs=0.01)


def test_pipes(run: Runner) -> None:
    picture = (SAMPLES / "chelsea.png").read_bytes()
    packed = run("compress", "-", "--bpp", 0.4, stdin=picture)
    assert packed.returncode == 0 and packed.stdout[:3] == b"EOC" and b"bpp" in packed.stderr
    unpacked = run("decompress", "-", stdin=packed.stdout)
    assert Image.open(io.BytesIO(unpacked.stdout)).size == (451, 300)
    cut = run("truncate", "-", "--bytes", 3000, stdin=packed.stdout)
    assert len(cut.stdout) <= 3000
    assert run("info", "-", "--json", stdin=cut.stdout).returncode == 0
    clean = run("denoise", "-", "--shifts", 1, stdin=picture)
    assert Image.open(io.BytesIO(clean.stdout)).size == (451, 300)


@pytest.mark.slow
def test_several_inputs_go_to_a_folder_and_errors_are_not_fatal(call: Runner, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    done = call("compress", SAMPLES / "chelsea.png", "bad.png", SAMPLES / "coffee.png", "-o", "out/", "--no-measure")
    assert done.returncode == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["chelsea.eoc", "coffee.eoc"]
    assert done.stderr.decode().count("\n") == 1 and b"bad.png" in done.stderr
    twice = call("compress", SAMPLES / "chelsea.png", ROOT / "eocodec" / "data" / "chelsea.png", "-o", "out/")
    assert twice.returncode == 1 and b"several inputs" in twice.stderr


@pytest.fixture(scope="module")
def compressed() -> bytes:
    """An ordinary file."""
    return eocodec.compress(np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB").crop(CROP)))


@pytest.mark.parametrize(
    "arguments",
    [
        ("compress", "missing.png"),
        ("compress", "text.png"),
        ("compress", "ok.png", "--rate", "0"),
        ("compress", "ok.png", "--rate", "1", "--bpp", "1"),
        ("compress", "ok.png", "--model", "nope"),
        ("compress", "ok.png", "--model", "text.eocm"),
        ("compress", "ok.png", "-o", "no/such/folder.eoc"),
        ("compress", "ok.png", "--bytes", "3"),
        ("compress", "ok.png", "--psnr", "90"),
        ("compress", "ok.png", "--device", "tpu"),
        ("compress", "ok.png", "--threads", "-1"),
        ("decompress", "text.png"),
        ("decompress", "cut.eoc"),
        ("decompress", "flipped.eoc"),
        ("decompress", "huge.eoc"),
        ("decompress", "ok.eoc", "-o", "x.xyz"),
        ("decompress", "ok.eoc", "--max-pixels", "10"),
        ("decompress", "."),
        ("denoise", "text.png"),
        ("denoise", "ok.png", "--sigma", "much"),
        ("denoise", "ok.png", "--sigma", "-3"),
        ("truncate", "ok.eoc"),
        ("truncate", "text.png", "--bytes", "100"),
        ("info", "text.png"),
        ("export", "text.png", "-o", "x.eocm", "--data", "."),
        ("train", "text.png"),
        ("bench", "empty"),
        ("nonsense",),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(
    call: Runner, tmp_path: Path, compressed: bytes, arguments: tuple[str, ...]
) -> None:
    Image.open(SAMPLES / "chelsea.png").crop(CROP).save(tmp_path / "ok.png")
    (tmp_path / "text.png").write_text("this is not a picture")
    (tmp_path / "text.eocm").write_text("this is not a bundle")
    (tmp_path / "empty").mkdir()
    (tmp_path / "ok.eoc").write_bytes(compressed)
    (tmp_path / "cut.eoc").write_bytes(compressed[:9])
    flipped = bytearray(compressed)
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.eoc").write_bytes(bytes(flipped))
    (tmp_path / "huge.eoc").write_bytes(compressed[:9] + b"\xff\xff\xff\x7f" * 2 + compressed[11:])
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    done = call(*arguments)
    message = done.stderr.decode()
    assert done.returncode in (1, 2), message
    assert "Traceback" not in message and message.strip()
    lines = [x for x in message.strip().splitlines() if not x.startswith(("Usage:", "Try ")) and x]
    assert len(lines) == 1, message
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["n", "not", "the"])
def test_a_name_that_begins_the_sentence_is_said_all_the_same(
    name: str, call: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"no file of this format")
    said = call("decompress", name, "-o", "out.png").stderr.decode()
    assert f"eocodec: {name}: " in said and f"{name}: {name}: " not in said
    assert "eocodec: gone: no such file" in call("decompress", "gone", "-o", "out.png").stderr.decode()
    Path("n.png").write_bytes(b"")
    assert "eocodec: n.png is the input itself" in call("denoise", "n.png", "-o", "n.png").stderr.decode()


def test_nothing_is_overwritten_by_accident(call: Runner, tmp_path: Path) -> None:
    Image.open(SAMPLES / "chelsea.png").crop((0, 0, 80, 60)).save(tmp_path / "a.png")
    original = (tmp_path / "a.png").read_bytes()
    assert call("compress", "a.png").returncode == 0
    refused = call("decompress", "a.eoc")
    assert refused.returncode == 1 and b"--force" in refused.stderr
    assert (tmp_path / "a.png").read_bytes() == original
    assert call("denoise", "a.png", "-o", "a.png").returncode == 1
    assert call("decompress", "a.eoc", "--force").returncode == 0
    assert (tmp_path / "a.png").read_bytes() != original


def test_a_prefix_without_an_intact_segment_is_called_flat(call: Runner, tmp_path: Path) -> None:
    Image.open(SAMPLES / "coffee.png").crop((90, 90, 330, 270)).save(tmp_path / "in.png")
    call("compress", "in.png", "-o", "c.eoc", "--no-measure")
    raw = (tmp_path / "c.eoc").read_bytes()
    first = json.loads(call("info", "c.eoc", "--json").stdout)["segments"][0]["end"]
    for end, word in ((first - 1, b"flat picture"), (first + 1, b"lower rate")):
        (tmp_path / "cut.eoc").write_bytes(raw[:end])
        assert word in call("decompress", "cut.eoc", "-o", "cut.png", "-f").stdout


def test_salvage(call: Runner, tmp_path: Path) -> None:
    Image.open(SAMPLES / "coffee.png").crop((90, 90, 330, 270)).save(tmp_path / "in.png")
    call("compress", "in.png", "-o", "c.eoc")
    raw = bytearray((tmp_path / "c.eoc").read_bytes())
    raw[len(raw) // 2] ^= 16
    (tmp_path / "c.eoc").write_bytes(bytes(raw))
    assert call("decompress", "c.eoc").returncode == 1
    done = call("decompress", "c.eoc", "--salvage", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["damaged"]

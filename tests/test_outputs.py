"""What a command writes where: nothing is replaced unasked, devices and links stay what they are."""

import contextlib
import json
import os
import pkgutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from eocodec_cli import cli
from eocodec_cli.work import _Gate
from paths import SAMPLES, Runner, bound_by_modes, environment
from PIL import Image

import eocodec
from eocodec.errors import EocodecError

OLD = b"what was there before"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.open(SAMPLES / "chelsea.png").crop((0, 0, 40, 30)).save(tmp_path / "a.png")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "b.eoc").write_bytes(eocodec.compress(Image.open(tmp_path / "a.png"), 40))
    return tmp_path


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("a.eoc", ("compress", "a.png")),
        ("x.eoc", ("compress", "a.png", "-o", "x.eoc")),
        ("out/a.eoc", ("compress", "a.png", "-o", "out")),
        ("b.png", ("decompress", "b.eoc")),
        ("x.webp", ("decompress", "b.eoc", "-o", "x.webp")),
        ("a.denoised.png", ("denoise", "a.png", "--sigma", 5)),
        ("x.png", ("denoise", "a.png", "--sigma", 5, "-o", "x.png")),
        ("b.cut.eoc", ("truncate", "b.eoc", "--bytes", 400)),
        ("x.eoc", ("truncate", "b.eoc", "--bytes", 400, "-o", "x.eoc")),
        pytest.param("eocodec-demo.png", ("demo",), marks=pytest.mark.slow),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_no_existing_file_is_replaced_unasked(
    call: Runner, folder: Path, target: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eocodec_cli.demo.RATES", (12,))  # the others take as long, and nothing else
    (folder / "out").mkdir()
    (folder / target).write_bytes(OLD)
    refused = call(*arguments)
    assert refused.returncode == 1 and refused.stderr.count(b"\n") == 1 and b"--force" in refused.stderr
    assert (folder / target).read_bytes() == OLD
    assert call(*arguments, "--force").returncode == 0
    assert (folder / target).read_bytes() != OLD


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("a.eoc", ("compress", "a.png", "c.png")),
        ("b.png", ("decompress", "b.eoc", "d.eoc")),
        ("a.denoised.png", ("denoise", "a.png", "c.png", "--sigma", "5")),
        ("b.cut.eoc", ("truncate", "b.eoc", "d.eoc", "--bytes", "400")),
        ("demo.png", ("demo", "-o", "demo.png")),
        ("small.eocm", ("models", "strip", "face64", "--decode-only", "-o", "small.eocm")),
    ],
    ids=lambda v: v[0] if isinstance(v, tuple) else "",
)
def test_a_file_that_appears_during_the_work_is_not_replaced_unasked(
    folder: Path, target: str, line: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another program would do, or a second run of the same line."""

    def appears(*given: object, **options: object) -> object:
        (folder / target).write_bytes(OLD)
        return written(*given, **options)

    monkeypatch.chdir(folder)
    monkeypatch.setattr("eocodec_cli.demo.RATES", (12,))
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "d.eoc").write_bytes((folder / "b.eoc").read_bytes())
    name = "eocodec.model.bundle.write_bundle" if line[0] == "models" else "eocodec.image.atomic_write"
    written: Callable[..., object] = pkgutil.resolve_name(name)
    monkeypatch.setattr(name, appears)
    before = set(folder.iterdir())
    done = CliRunner().invoke(cli, line)
    assert done.exit_code == 1 and f"{target} exists; use --force to overwrite it" in f"{done.stderr}{done.exception}"
    assert (folder / target).read_bytes() == OLD
    new = {p.name for p in set(folder.iterdir()) - before}
    assert len(new) == 1 + ("c.png" in line or "d.eoc" in line), new
    monkeypatch.setattr(name, written)
    assert CliRunner().invoke(cli, [*line, "--force"]).exit_code == 0
    assert (folder / target).read_bytes() != OLD


@pytest.mark.parametrize(
    "line",
    [
        ("compress", "a.png", "-o", "none/x.eoc"),
        ("decompress", "b.eoc", "-o", "none/x.png"),
        ("denoise", "a.png", "-o", "none/x.png"),
        ("truncate", "b.eoc", "--bytes", "400", "-o", "none/x.eoc"),
        ("edit", "b.eoc", "--path", "light=1", "-o", "none/x.png"),
        ("morph", "b.eoc", "c.eoc", "-o", "none/x.png"),
        ("demo", "-o", "none/x.png"),
        ("models", "strip", "face64", "--decode-only", "-o", "none/x.eocm"),
    ],
    ids=lambda v: v[0],
)
def test_a_missing_folder_is_found_before_any_work(
    folder: Path, line: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def worked(*_: object, **__: object) -> None:
        pytest.fail("it has worked first")

    monkeypatch.chdir(folder)
    (folder / "c.eoc").write_bytes((folder / "b.eoc").read_bytes())
    for name in ("model.bundle.read_bundle", "image.read_picture", "format.from_bytes", "format.tiny_from_text"):
        monkeypatch.setattr(f"eocodec.{name}", worked)
    for target in (line[-1], line[-1].replace("none", "a.png")):
        done = CliRunner().invoke(cli, [*line[:-1], target])
        why = "No such file or directory" if target == line[-1] else "Not a directory"
        assert done.exit_code == 1 and f"{target}: cannot be written ({why})" in f"{done.stderr}{done.exception}"


def test_a_missing_input_is_said_before_its_folder(call: Runner, folder: Path) -> None:
    assert call("compress", "none/x.png").stderr == b"eocodec: none/x.png: no such file\n"


@pytest.mark.parametrize(
    "line",
    [
        ("compress", "none.png", "no.png", "-o", "made/"),
        ("compress", "-r", "none", "-o", "made/below"),
        ("decompress", "a.png", "-o", "made/"),
        ("denoise", "none.png", "-o", "made/"),
        ("truncate", "--bytes", 400, "none.eoc", "a.png", "-o", "made/"),
        ("inspect", "face64", "none.png", "-o", "made"),
    ],
    ids=str,
)
def test_a_folder_that_was_made_for_nothing_is_removed(call: Runner, folder: Path, line: tuple[object, ...]) -> None:
    assert call(*line).returncode == 1 and not (folder / "made").exists()
    (folder / "made").mkdir()
    assert call(*line).returncode == 1 and list(folder.glob("made/*")) == [], "it was there before"


def test_a_folder_with_any_result_stays(call: Runner, folder: Path) -> None:
    done = call("compress", "-r", "none.png", "a.png", "-o", "made/below", "--no-measure")
    assert done.returncode == 1 and (folder / "made" / "below" / "a.eoc").exists()


def test_the_file_of_another_picture_is_not_replaced(call: Runner, folder: Path) -> None:
    assert call("compress", "--lossless", "a.png").returncode == 0
    before = (folder / "a.eoc").read_bytes()
    assert call("compress", "a.jpg").returncode == 1
    assert (folder / "a.eoc").read_bytes() == before


def test_an_input_that_is_given_twice_is_refused_once(call: Runner, folder: Path) -> None:
    for line in (("compress", "a.png", "a.png", "--force"), ("truncate", "b.eoc", "b.eoc", "--bytes", 400)):
        done = call(*line)
        assert done.returncode == 1 and done.stderr == f"eocodec: {line[1]}: it is given more than once\n".encode()
    done = call("compress", "a.png", "a.jpg")
    assert done.returncode == 1 and done.stderr.count(b"several inputs would be written to a.eoc") == 2


def test_two_inputs_do_not_get_one_output_however_it_is_spelled(call: Runner, folder: Path) -> None:
    (folder / "link").symlink_to(".")
    (folder / "below").mkdir()
    for other in (folder / "a.jpg", "link/a.jpg", "below/../a.jpg"):
        done = call("compress", "a.png", other)
        assert done.returncode == 1 and done.stderr.count(b"several inputs would be written to") == 2, other
        assert not (folder / "a.eoc").exists()
    (folder / "out").mkdir()
    (folder / "out" / "a.eoc").symlink_to("c.eoc")
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    assert call("compress", "a.png", "c.png", "-o", "out").stderr.count(b"several inputs") == 2


def _bound(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that modes of files bind."""
    return subprocess.run(
        [*bound_by_modes(), sys.executable, "-m", "eocodec_cli", *arguments],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
def test_a_folder_that_may_not_be_entered_costs_its_own_input_only(folder: Path) -> None:
    (folder / "locked").mkdir()
    for name in ("x.png", "x.eoc"):
        (folder / "locked" / name).write_bytes((folder / "a.png").read_bytes())
    (folder / "locked").chmod(0)
    try:
        done = _bound(folder, "compress", "locked/x.png", "a.png", "-o", "out/")
        assert (done.returncode, done.stderr) == (1, "eocodec: locked/x.png: no permission to read it\n")
        assert done.stdout.startswith("a.png -> out/a.eoc") and (folder / "out" / "a.eoc").exists()
        decoded = _bound(folder, "decompress", "locked/x.eoc", "b.eoc")
        assert decoded.stderr == "eocodec: locked/x.eoc: cannot be read (Permission denied)\n"
        assert decoded.returncode == 1 and (folder / "b.png").exists()
        bundle = _bound(folder, "compress", "a.png", "--model", "locked/x.eocm")
        assert (bundle.returncode, bundle.stderr) == (1, "eocodec: locked/x.eocm: cannot be read (Permission denied)\n")
        target = _bound(folder, "compress", "a.png", "-o", "locked/a.eoc")
        assert target.stderr == "eocodec: a.png: locked/a.eoc: cannot be written (Permission denied)\n"
    finally:
        (folder / "locked").chmod(0o755)


@pytest.mark.slow
def test_a_folder_below_that_cannot_be_read_is_said_and_the_others_are_worked_at(folder: Path) -> None:
    for name in ("in/locked", "in/listed", "in/open"):
        (folder / name).mkdir(parents=True)
        (folder / name / "x.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "in" / "locked").chmod(0)
    (folder / "in" / "listed").chmod(0o444)
    try:
        done = _bound(folder, "compress", "-r", "in", "-o", "out", "--json")
        assert done.stderr.splitlines() == [
            "eocodec: in/locked: cannot be read (Permission denied)",
            "eocodec: in/listed/x.png: no permission to read it",
        ]
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(r["input"], "error" in r) for r in rows] == [
            ("in/locked", True), ("in/listed/x.png", True), ("in/open/x.png", False)
        ]  # fmt: skip
        assert done.returncode == 1 and (folder / "out" / "open" / "x.eoc").exists()
        only = _bound(folder, "denoise", "-r", "in/locked", "-o", "out")
        assert only.returncode == 1 and only.stderr == "eocodec: in/locked: cannot be read (Permission denied)\n"
    finally:
        for name in ("locked", "listed"):
            (folder / "in" / name).chmod(0o755)


def test_a_refused_input_leaves_the_others_alone(call: Runner, folder: Path) -> None:
    (folder / "c.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "a.eoc").write_bytes(OLD)
    done = call("compress", "a.png", "c.png", "--json")
    assert done.returncode == 1 and done.stderr.startswith(b"eocodec: a.png: a.eoc exists")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert "error" in first and second["output"] == "c.eoc" and (folder / "c.eoc").exists()
    assert (folder / "a.eoc").read_bytes() == OLD


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_pipes_and_devices_are_written_into(call: Runner, folder: Path, force: tuple[str, ...]) -> None:
    os.mkfifo(folder / "pipe.eoc")
    reader = subprocess.Popen(["cat", "pipe.eoc"], cwd=folder, stdout=subprocess.PIPE)
    assert call("compress", "a.png", "-o", "pipe.eoc", *force).returncode == 0
    assert reader.communicate(timeout=30)[0].startswith(b"EOC")
    assert stat.S_ISFIFO((folder / "pipe.eoc").stat().st_mode)
    assert call("compress", "a.png", "-o", os.devnull, *force).returncode == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_pipes_without_an_extension_get_a_png(call: Runner, folder: Path) -> None:
    assert call("compress", "a.png", "-o", "a.eoc").returncode == 0
    os.mkfifo(folder / "pipe")
    for command in (("decompress", "a.eoc"), ("denoise", "a.png", "--sigma", "20", "--method", "shrink")):
        reader = subprocess.Popen(["cat", "pipe"], cwd=folder, stdout=subprocess.PIPE)
        assert call(*command, "-o", "pipe").returncode == 0
        assert reader.communicate(timeout=60)[0].startswith(b"\x89PNG")
    assert call("decompress", "a.eoc", "-o", os.devnull).returncode == 0
    done = call("decompress", "a.eoc", "-o", "nameless")
    assert done.returncode != 0 and not (folder / "nameless").exists()


def test_standard_output_by_its_name_is_standard_output(folder: Path) -> None:
    """What is said got between the bytes, or over them where a file was the output."""
    program = [sys.executable, "-m", "eocodec_cli"]
    for redirect in (folder / "file.eoc", None):
        with contextlib.ExitStack() as stack:
            out = subprocess.PIPE if redirect is None else stack.enter_context(redirect.open("wb"))
            done = subprocess.run(
                [*program, "compress", "a.png", "-o", "/dev/stdout", "--force"], stdout=out, stderr=subprocess.PIPE,
                cwd=folder, env=environment(), check=True,
            )  # fmt: skip
        data = done.stdout if redirect is None else redirect.read_bytes()
        assert eocodec.decompress(data).shape[2] == 3 and b"bpp" in done.stderr


def test_inputs_that_can_be_read_once_are_read_once(call: Runner, folder: Path) -> None:
    for command in ("compress", "denoise"):
        pipe = folder / f"{command}.fifo"
        os.mkfifo(pipe)
        writer = threading.Thread(target=lambda path=pipe: path.write_bytes((folder / "a.png").read_bytes()))
        writer.start()
        done = call(command, pipe, "-o", folder / f"{command}.out.png" if command == "denoise" else f"{command}.eoc")
        writer.join(30)
        assert done.returncode == 0, done.stderr


def test_what_a_type_cannot_hold_is_said(call: Runner, folder: Path) -> None:
    Image.new("RGBA", (40, 30), (9, 90, 200, 99)).save(folder / "through.png")
    words = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    Image.fromarray(words).save(folder / "deep.png")
    assert call("compress", "through.png").returncode == 0
    for command in (("decompress", "through.eoc"), ("denoise", "through.png")):
        done = call(*command, "-o", "opaque.jpg", "--force")
        assert done.returncode == 0 and b"transparency is lost, which .jpg cannot hold" in done.stderr
    icon = call("decompress", "through.eoc", "-o", "through.ico")
    assert icon.returncode == 1 and b"sizes of its own" in icon.stderr
    assert call("denoise", "deep.png", "-o", "same.png").returncode == 0
    assert np.array_equal(np.asarray(Image.open(folder / "same.png")), words), "nothing was changed"
    done = call("denoise", "--json", "--sigma", 9, "deep.png", "-o", "less.png")
    assert b"16 bits a sample are rounded to 8, with which noise is removed" in done.stderr
    assert json.loads(done.stdout)["depth"] == 8
    assert json.loads(call("denoise", "--json", "deep.png", "-o", "same.png", "-f").stdout)["depth"] == 16
    done = call("denoise", "--json", "deep.png", "-o", "less.bmp")
    assert b"none was removed; --sigma S removes it" in done.stderr and b"nothing was changed" not in done.stderr
    assert b"rounded to 8, which is what .bmp holds" in done.stderr and json.loads(done.stdout)["depth"] == 8


def test_links_are_followed_and_modes_kept(call: Runner, folder: Path) -> None:
    (folder / "disk").mkdir()
    (folder / "disk" / "real.eoc").write_bytes(OLD)
    (folder / "disk" / "real.eoc").chmod(0o600)
    (folder / "link.eoc").symlink_to("disk/real.eoc")
    assert call("compress", "a.png", "-o", "link.eoc").returncode == 1
    assert call("compress", "a.png", "-o", "link.eoc", "-f").returncode == 0
    assert (folder / "link.eoc").is_symlink()
    assert (folder / "disk" / "real.eoc").read_bytes().startswith(b"EOC")
    assert stat.S_IMODE((folder / "disk" / "real.eoc").stat().st_mode) == 0o600


def test_names_as_long_as_they_can_be(call: Runner, folder: Path) -> None:
    name = "n" * 251 + ".eoc"
    assert call("compress", "a.png", "-o", name).returncode == 0
    assert (folder / name).exists()


def test_control_characters_of_names_do_not_reach_the_terminal(call: Runner, folder: Path) -> None:
    name = "a\x1b[2Jb\n.png"
    (folder / name).write_bytes((folder / "a.png").read_bytes())
    done = call("compress", name, name + ".jpg", "-o", "out/")
    assert b"\x1b" not in done.stdout + done.stderr and rb"out/a\x1b[2Jb\n.eoc" in done.stdout
    assert (done.stdout.count(b"\n"), done.stderr.count(b"\n")) == (1, 1)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_not_utf_8(call: Runner, folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (folder / name).write_bytes((folder / "a.png").read_bytes())
    done = call("compress", name, "--json")
    assert done.returncode == 0 and (folder / os.fsdecode(b"caf\xe9.eoc")).exists()
    assert rb"caf\xe9.eoc" in call("compress", name, "-f").stdout


def test_an_input_by_another_name_is_not_written_over(call: Runner, folder: Path) -> None:
    os.link(folder / "b.eoc", folder / "same.eoc")
    before = (folder / "b.eoc").read_bytes()
    for target in ("b.eoc", "./b.eoc", "same.eoc"):
        done = call("truncate", "b.eoc", "--bytes", 400, "--force", "-o", target)
        assert done.returncode == 1 and b"is the input itself" in done.stderr, target
        assert (folder / "b.eoc").read_bytes() == before


def test_no_file_is_begun_after_an_interruption() -> None:
    gate = _Gate()
    with gate.passing():
        pass
    gate.close()
    with pytest.raises(EocodecError, match="interrupted"), gate.passing():
        raise AssertionError("it is being written")

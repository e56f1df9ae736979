"""Nothing is lost when a command is killed or cannot write: the old file stays, or all of the new one."""

import os
import random
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES, Runner, environment, processor_seconds, wait_until
from PIL import Image

import eocodec
from eocodec import codec, format
from eocodec.errors import EocodecError

pytestmark = pytest.mark.slow

KILLS = 12


def _spawn(folder: Path, *arguments: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "eocodec_cli", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env=environment(),
    )


def test_a_killed_command_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """Kills at random moments of three commands that replace their output."""
    picture = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[:60, :80]
    Image.fromarray(picture).save(tmp_path / "in.png")
    (tmp_path / "in.eoc").write_bytes(eocodec.compress(picture, rate=200))
    commands = [
        ("out.eoc", ("compress", "-f", "in.png", "-o", "out.eoc")),
        ("out.png", ("decompress", "-f", "in.eoc", "-o", "out.png")),
        ("cut.eoc", ("truncate", "-f", "--latents", 400, "in.eoc", "-o", "cut.eoc")),
    ]
    old = b"what was there before"
    new: dict[str, bytes] = {}
    seconds: dict[str, float] = {}
    for target, arguments in commands:
        begun = os.times()
        assert _spawn(tmp_path, *arguments).wait(60) == 0
        end = os.times()
        seconds[target] = end.children_user + end.children_system - begun.children_user - begun.children_system
        new[target] = (tmp_path / target).read_bytes()
    rng = random.Random(5)
    interrupted = 0
    for k in range(KILLS):
        target, arguments = commands[k % len(commands)]
        (tmp_path / target).write_bytes(old)
        process = _spawn(tmp_path, *arguments)
        moment = rng.uniform(0.5, 1.1) * seconds[target]  # of the processor
        wait_until(lambda: process.poll() is not None or processor_seconds(process.pid) >= moment, every=0.002)  # noqa: B023
        process.send_signal(rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)))
        interrupted += process.wait(60) != 0
        assert (tmp_path / target).read_bytes() in (old, new[target])
    assert interrupted >= KILLS // 5, "too few were hit while they worked"
    visible = {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")}
    assert visible == {"in.png", "in.eoc", *new}


def _limit_files() -> None:
    """Files of this process may have 2000 bytes: writing more fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path: Path) -> None:
    (tmp_path / "out.eoc").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-B", "-m", "eocodec_cli", "compress", "-f", str(SAMPLES / "chelsea.png"), "-o", "out.eoc"],
        capture_output=True,
        cwd=tmp_path,
        env=environment(),
        preexec_fn=_limit_files,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1 and b"cannot be written" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["out.eoc"]
    assert (tmp_path / "out.eoc").read_bytes() == b"old"


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_one_sentence(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    done = run("compress", SAMPLES / "chelsea.png", "-o", "closed/out.eoc")
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1


def test_a_folder_that_is_missing_is_one_sentence(call: Runner) -> None:
    done = call("compress", SAMPLES / "chelsea.png", "-o", "missing/out.eoc")
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"cannot be written" in done.stderr


KINDS: list[dict[str, object]] = [
    {"rate": 40}, {"bpp": 0.5}, {"psnr": 34}, {"progressive": True}, {"lossless": True}, {"denoise": 15}
]  # fmt: skip


@pytest.mark.parametrize("options", KINDS, ids=lambda o: next(iter(o)))
def test_verified_files_are_those_that_are_written(options: dict[str, object]) -> None:
    picture = Image.open(SAMPLES / "chelsea.png").crop((100, 60, 180, 113))
    picture.putalpha(128)
    done = codec.compress_picture(picture, verify=True, **options)  # type: ignore[arg-type]
    assert done.data == codec.compress_picture(picture, **options).data  # type: ignore[arg-type]


def test_verifying_finds_a_file_that_decodes_to_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[:48, :64]
    right = format.to_bytes

    def wrong(file: format.AnyFile) -> bytes:
        assert isinstance(file, format.File)
        return right(replace(file, segments=file.segments[:-1]))

    monkeypatch.setattr(format, "to_bytes", wrong)
    codec.compress_picture(picture, 90)
    with pytest.raises(EocodecError, match="does not decode"):
        codec.compress_picture(picture, 90, verify=True)

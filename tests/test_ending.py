"""How a command ends when its streams are full or closed, and when it is interrupted: at once, with a sentence."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES, environment, processor_seconds, wait_until
from PIL import Image

pytestmark = pytest.mark.slow

FACE = SAMPLES / "faces" / "astronaut.png"


def _shell(line: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = f"{sys.executable} -m eocodec_cli {line}"
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True, timeout=120
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("line", ["models", f"compress {FACE} -o -", f"compress {FACE} -f -o x.eoc", "--help"])
def test_a_full_disk_behind_standard_output_is_one_sentence(tmp_path: Path, line: str) -> None:
    done = _shell(f"{line} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "eocodec: standard output: cannot be written (No space left on device)\n"


BUFFERS = pytest.mark.parametrize("unbuffered", ["", "1"])  # the latter as most container images have it


@pytest.mark.skipif(os.name == "nt", reason="limits the size of files by the shell")
@BUFFERS
@pytest.mark.parametrize("line", [f"compress {FACE} --lossless -o -", "compress --help"])
def test_a_disk_that_fills_up_behind_standard_output_is_one_sentence(
    tmp_path: Path, line: str, unbuffered: str
) -> None:
    """The first bytes find room; without a buffer, nobody looked at how many those are."""
    command = f"ulimit -f 1; {sys.executable} -m eocodec_cli {line} > out"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env={**environment(), "PYTHONUNBUFFERED": unbuffered},
        stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "eocodec: standard output: cannot be written (File too large)\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes have no such mode there")
@BUFFERS
def test_a_pipe_that_does_not_wait_gets_all_or_there_is_a_sentence(tmp_path: Path, unbuffered: str) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    os.write(theirs, bytes((1 << 16) - 1))  # all but a byte of what it holds
    done = subprocess.run(
        [sys.executable, "-m", "eocodec_cli", "compress", str(FACE), "-o", "-"],
        env={**environment(), "PYTHONUNBUFFERED": unbuffered}, stdout=theirs, stderr=subprocess.PIPE, text=True,
        timeout=120,
    )  # fmt: skip
    for end in (ours, theirs):
        os.close(end)
    assert done.returncode == 1 and done.stderr.startswith("eocodec: standard output: cannot be written (")
    assert done.stderr.count("\n") == 1


@BUFFERS
def test_what_is_said_goes_out_at_once(tmp_path: Path, unbuffered: str) -> None:
    (tmp_path / "a.png").write_bytes(FACE.read_bytes())
    ours, theirs = os.pipe()  # the second picture, which lets the first line be read before it comes
    process = subprocess.Popen(
        [sys.executable, "-m", "eocodec_cli", "compress", "--threads", "1", "a.png", f"/dev/fd/{ours}", "-o", "out/"],
        cwd=tmp_path, env={**environment(), "PYTHONUNBUFFERED": unbuffered}, pass_fds=(ours,),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(ours)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"a.png -> out/a.eoc")
    with open(theirs, "wb") as second:
        second.write(FACE.read_bytes())
    assert process.communicate(timeout=60)[1] == b"" and process.returncode == 0


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (f"compress {FACE} -o - >&-", 1, "standard output is closed"),
        ("compress - -o - <&- >/dev/null", 1, "standard input is closed"),
        ("info x.eoc >&-", 1, "standard output is closed"),
        ("models >&-", 1, "standard output is closed"),
        ("batch --help >&-", 1, "standard output is closed"),
        (f"compress {FACE} -o x.eoc --json >&-", 1, "standard output is closed"),
        (f"compress {FACE} -o x.eoc >&-", 0, ""),
        (f"compress {FACE} -o x.eoc 2>&- >&-", 0, ""),
        ("compress missing.png -o x.eoc 2>&- >&- <&-", 1, ""),
    ],
)
def test_closed_streams_are_one_sentence_at_most(tmp_path: Path, line: str, code: int, said: str) -> None:
    done = _shell(line, tmp_path)
    assert done.returncode == code
    assert said in done.stderr and done.stderr.count("\n") == bool(said)
    assert not (tmp_path / "x.eoc").exists() or (tmp_path / "x.eoc").read_bytes()[:3] == b"EOC"


def test_a_reader_that_leaves_is_no_error_to_speak_of(tmp_path: Path) -> None:
    done = _shell("models --json | true", tmp_path)
    assert done.stderr == ""


def _children() -> float:
    """Processor time of the processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def _interrupted(folder: Path, arguments: list[str], after: float) -> tuple[int, str, float]:
    """Exit code, errors and processor time after an interrupt at `after` seconds of the processor."""
    before = _children()
    process = subprocess.Popen(
        [sys.executable, "-m", "eocodec_cli", *arguments],
        cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: processor_seconds(process.pid) >= after)
    at = processor_seconds(process.pid)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    return process.returncode, error, _children() - before - at


def test_an_interrupt_ends_several_pictures_at_once_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    for k in range(3):
        Image.fromarray(noise).save(tmp_path / f"{k}.bmp")
    names = sorted(p.name for p in tmp_path.iterdir())
    arguments = ["compress", "--lossless", "--threads", "2", *names]
    code, error, seconds = _interrupted(tmp_path, arguments, 3)
    assert code == 130 and error.strip() == "eocodec: interrupted"
    assert 0 < seconds < 3
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_an_interrupt_while_modules_are_imported_shows_no_traceback(tmp_path: Path) -> None:
    script = """
import os, signal, sys
import eocodec_cli
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
eocodec_cli.main(["models"])
"""
    for module, code in (("click", -signal.SIGINT), ("eocodec_cli.models", 130), ("numpy", 130)):
        done = subprocess.run(
            [sys.executable, "-c", script, module],
            cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, (module, done.stderr)
        assert "Traceback" not in done.stderr


def _little_memory(folder: Path, size: tuple[int, int], code: str) -> None:
    """Compress a picture in a process that limits its address space by `code`, and see what it says."""
    Image.open(SAMPLES / "coffee.png").resize(size).save(folder / "large.jpg")
    done = subprocess.run(
        [sys.executable, "-c", code + "\nimport eocodec_cli as c; c.main(['compress', '--no-measure', 'large.jpg'])"],
        cwd=folder, env={**environment(), "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "memory" in done.stderr
    assert os.listdir(folder) == ["large.jpg"]


limits_memory = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")


@limits_memory
@pytest.mark.parametrize("kilobytes", [500_000, 900_000])
def test_too_little_memory_is_one_sentence_that_says_so(tmp_path: Path, kilobytes: int) -> None:
    """For the pixels of a picture of 24 megapixels; for the first of its tiles."""
    code = f"import resource as r; r.setrlimit(r.RLIMIT_AS, ({kilobytes << 10},) * 2)"
    _little_memory(tmp_path, (6000, 4000), code)


LATE = """
import resource
from eocodec.coding.ordinary import OrdinaryJob

plan = OrdinaryJob._plan

def later(job, delta):
    with open("/proc/self/statm") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return plan(job, delta)

OrdinaryJob._plan = later
"""


@limits_memory
def test_memory_that_runs_out_while_symbols_are_coded_is_said_as_well(tmp_path: Path) -> None:
    """From the moment when the latents are there, the process gets no more than it has."""
    _little_memory(tmp_path, (1500, 1000), LATE)


LAST = """
import atexit, sys
from eocodec_cli import main
class Kept:
    def __del__(self):
        print("taken apart", flush=True)
sys.modules["kept"] = Kept()
atexit.register(print, "last words")
sys.argv = ["eocodec", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(("name", "code"), [(str(FACE), 0), ("missing.png", 1)])
def test_a_command_that_is_done_says_all_it_has_to_say_and_leaves(tmp_path: Path, name: str, code: int) -> None:
    """Streams are flushed and what was registered for the end is run, but nothing is freed piece by piece."""
    done = subprocess.run(
        [sys.executable, "-c", LAST, "compress", name, "-o", "x.eoc"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == "last words" and "taken apart" not in done.stdout
    assert code or (tmp_path / "x.eoc").read_bytes()[:3] == b"EOC"

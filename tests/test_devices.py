"""`--device`, `--threads` and batches: what runs where, and that results do not depend on it."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from eocodec_cli import cli, files
from eocodec_cli.work import for_each
from paths import SAMPLES, end_pool
from PIL import Image

from eocodec import codec, format
from eocodec.coding import ordinary
from eocodec.errors import EocodecError
from eocodec.model import library, runtime, threads, transform
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

pytestmark = pytest.mark.slow

OFFERED = [runtime.CUDA, runtime.CPU]


class Sessions:
    """Stands in for `onnxruntime.InferenceSession`: CPU sessions that may claim to be on CUDA; keeps what was asked."""

    def __init__(self, cuda: str) -> None:
        self.cuda, self.asked = cuda, []  # type: ignore[var-annotated]
        self.real = ort.InferenceSession

    def __call__(self, content: bytes, options: Any, providers: list[Any]) -> Any:
        names = [p if isinstance(p, str) else p[0] for p in providers]
        self.asked.append((names, options.intra_op_num_threads))
        session = self.real(content, options, providers=[runtime.CPU])
        if runtime.CUDA in names:
            if self.cuda == "raises":
                raise RuntimeError("no device\nand a second line")
            if self.cuda == "works":
                session.get_providers = lambda: OFFERED
        return session


@pytest.fixture
def files_of_photo() -> dict[str, bytes]:
    return load_model("photo", device="cpu").files


def _patched(monkeypatch: pytest.MonkeyPatch, cuda: str) -> Sessions:
    end_pool()  # what it opens ahead was asked for before
    sessions = Sessions(cuda)
    monkeypatch.setattr(ort, "InferenceSession", sessions)
    monkeypatch.setattr(ort, "get_available_providers", lambda: OFFERED if cuda != "missing" else [runtime.CPU])
    library._load.cache_clear()
    return sessions


@pytest.fixture(autouse=True)
def _no_patched_models() -> Any:
    yield
    library._load.cache_clear()  # they must not serve later tests


@pytest.mark.parametrize(
    ("cuda", "settled"), [("missing", "cpu"), ("raises", "cpu"), ("falls back", "cpu"), ("works", "cuda")]
)
def test_auto_takes_cuda_only_where_a_session_opens_on_it(
    cuda: str, settled: str, files_of_photo: dict[str, bytes], chelsea: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = _patched(monkeypatch, cuda)
    model = Model(files_of_photo)
    picture = chelsea[:40, :50]
    assert codec.decompress(codec.compress(picture, 60, model=model), model).shape == picture.shape
    assert model.device == settled
    on_cuda = [names for names, _ in sessions.asked if runtime.CUDA in names]
    assert len(on_cuda) == {"missing": 0, "works": 2}.get(cuda, 1)  # encoder and decoder; after a failure no more


def test_entropy_graphs_run_on_the_cpu_whatever_the_device(
    files_of_photo: dict[str, bytes], chelsea: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = _patched(monkeypatch, "works")
    model = Model(files_of_photo, device="cuda")
    codec.decompress(codec.compress(chelsea[:40, :50], 60, model=model), model)
    names = [n for n in files_of_photo if n.startswith("entropy/") and "lossless" not in n]
    only_cpu = [asked for asked, _ in sessions.asked if asked == [runtime.CPU]]
    assert len(only_cpu) >= 20 and len(only_cpu) <= len(names)
    assert len(sessions.asked) - len(only_cpu) == 2


@pytest.mark.parametrize(
    ("cuda", "word"), [("missing", "onnxruntime-gpu"), ("raises", "no device"), ("falls back", "cuDNN")]
)
def test_cuda_by_name_fails_at_once_and_says_why(cuda: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _patched(monkeypatch, cuda)
    with pytest.raises(EocodecError, match="CUDA does not work here") as caught:
        load_model("photo", device="cuda")
    assert word in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(EocodecError, match="auto, cuda, cpu"):
        load_model("photo", device="tpu")


@pytest.mark.parametrize("name", ["compress", "decompress", "denoise", "bench"])
def test_a_device_that_is_not_there_is_one_line_and_an_exit_code(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from eocodec_cli import main

    _patched(monkeypatch, "missing")
    Image.open(SAMPLES / "chelsea.png").crop((0, 0, 40, 30)).save(tmp_path / "a.png")
    (tmp_path / "a.eoc").write_bytes(codec.compress(Image.open(tmp_path / "a.png"), 50))
    inputs = {"decompress": ["a.eoc", "a.eoc"], "bench": ["."]}.get(name, ["a.png"])
    extra = [] if name == "bench" else ["-o", f"{tmp_path}/out/"]
    with pytest.raises(SystemExit) as left:
        main([name, *(str(tmp_path / i) for i in inputs), "--device", "cuda", *extra])
    assert left.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("eocodec: CUDA does not work here")
    assert not (tmp_path / "out").exists()


def _symbols(model: Model, data: bytes) -> list[np.ndarray]:
    file = format.parse(data)
    return ordinary.decode(model, file.header, file.segments, ordinary.fineness_of(model, file))


@pytest.mark.skipif(runtime.CUDA not in ort.get_available_providers(), reason="onnxruntime has no CUDA provider")
def test_files_decode_to_identical_symbols_on_cuda_and_cpu(chelsea: np.ndarray) -> None:
    try:
        cuda = load_model("photo", device="cuda")
    except EocodecError as e:
        pytest.skip(str(e))
    cpu = load_model("photo", device="cpu")
    latents = transform.analyse(cuda, chelsea)
    header = format.Header(cpu.id, chelsea.shape[1], chelsea.shape[0], 0, 32768 + 8192)
    segments = ordinary.encode(cuda, header, latents)
    assert segments == ordinary.encode(cpu, header, latents)
    data = format.serialise(format.File(header, None, segments))
    assert all((a == b).all() for a, b in zip(_symbols(cuda, data), _symbols(cpu, data), strict=True))
    difference = np.abs(codec.decompress(data, cuda).astype(int) - codec.decompress(data, cpu))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_files_decode_to_identical_symbols_where_transforms_differ(
    files_of_photo: dict[str, bytes], chelsea: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What CUDA may change, the transform's last digits, changes no symbol of a file that exists."""
    picture = chelsea[:120, :150]
    exact = Model(files_of_photo, device="cpu")
    other = Model(files_of_photo, device="cpu")
    run = other.run

    def inexact(graph: str, inputs: dict[str, Any]) -> list[np.ndarray]:
        out = run(graph, inputs)
        return out if graph.startswith("entropy/") else [o * np.float32(1 + 1e-3) for o in out]

    monkeypatch.setattr(other, "run", inexact)
    data = codec.compress(picture, 120, model=other)
    assert data != codec.compress(picture, 120, model=exact)
    assert all((a == b).all() for a, b in zip(_symbols(exact, data), _symbols(other, data), strict=True))


def test_what_is_opened_ahead_is_open_before_sessions_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    end_pool()
    begun, opened = threading.Event(), []

    def opens(graph: str) -> None:
        begun.set()
        time.sleep(0.02)
        opened.append((graph, ort.InferenceSession))

    real = ort.InferenceSession
    threads.ahead(opens, ["a", "b", "c"], 2)
    assert begun.wait(20)
    _patched(monkeypatch, "missing")
    assert opened == [("a", real), ("b", real), ("c", real)]


@pytest.mark.parametrize("name", ["compress", "decompress", "denoise", "bench"])
@pytest.mark.parametrize(("pictures", "asked", "expected"), [(1, 3, {3}), (2, 2, {1}), (2, 3, {3})])
def test_threads_reach_every_session(
    name: str, pictures: int, asked: int, expected: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Image.open(SAMPLES / "chelsea.png").crop((0, 0, 40, 30))
    inputs = []
    for k in range(pictures):
        inputs.append(str(tmp_path / f"{k}.{'eoc' if name == 'decompress' else 'png'}"))
        if name == "decompress":
            Path(inputs[-1]).write_bytes(codec.compress(small, 50))
        else:
            small.save(inputs[-1])
    sessions = _patched(monkeypatch, "missing")

    def bound(options: Any, number: int, exact: bool) -> None:
        options.intra_op_num_threads = number
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # on a core that others need

    monkeypatch.setattr(runtime, "bound_threads", bound)
    if name == "bench":  # its pictures come one after another: it takes times
        pytest.importorskip("matplotlib")
        from eocodec.bench.codecs import CODECS

        monkeypatch.setitem(CODECS, "eocodec", replace(CODECS["eocodec"], settings=(20,)))
        arguments, expected = [str(tmp_path), "--codecs", "eocodec", "--measures", "psnr", "--no-cache"], {asked}
    else:
        arguments = [*inputs, "-o", f"{tmp_path}/out/"]
    done = CliRunner().invoke(cli, [name, *arguments, "--threads", str(asked)])
    assert done.exit_code == 0, done.output
    assert sessions.asked and {threads for _, threads in sessions.asked} == expected


def test_batches_give_the_same_files_in_the_same_order(tmp_path: Path) -> None:
    for k in range(5):
        Image.open(SAMPLES / "coffee.png").crop((20 * k, 0, 20 * k + 150 - 30 * (k % 2), 90)).save(
            tmp_path / f"{k}.png"
        )
    (tmp_path / "2.png").write_text("no picture")
    names = [str(tmp_path / f"{k}.png") for k in range(5)]
    lines = []
    for number, folder in ((1, "one/"), (3, "three/")):
        done = CliRunner().invoke(
            cli, ["compress", *names, "-o", f"{tmp_path}/{folder}", "--threads", str(number), "--json"]
        )
        assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "2.png" in done.stderr
        rows = [json.loads(x) for x in done.stdout.splitlines()]
        assert [r["input"] for r in rows] == names and ["error" in r for r in rows] == [k == 2 for k in range(5)]
        lines.append([{k: v for k, v in r.items() if k != "output"} for r in rows])
    assert lines[0] == lines[1]
    for k in (0, 1, 3, 4):
        assert (tmp_path / "one" / f"{k}.eoc").read_bytes() == (tmp_path / "three" / f"{k}.eoc").read_bytes()


def test_jobs_run_side_by_side_and_large_ones_alone(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [1, files.LARGE, 1, 1, files.LARGE, 1]
    lanes = files.Lanes(len(sizes), 3, "cpu")
    running: list[int] = []
    together: list[tuple[int, ...]] = []
    lock, meeting = threading.Lock(), threading.Barrier(2, timeout=20)

    def work(job: files.Job) -> dict[str, Any]:
        number = int(job.source)
        with lanes.turn(sizes[number]) as threads:
            with lock:
                running.append(number)
                together.append(tuple(running))
            if number in (0, 2):
                meeting.wait()  # passes only if both are here at the same time
            with lock:
                running.remove(number)
        return {"number": number, "threads": threads}

    jobs = [files.Job(str(k), "") for k in range(len(sizes))]
    for_each(jobs, work, lambda r: f"{r['number']} {r['threads']}", False, lanes.workers)
    assert capsys.readouterr().out.split("\n")[:-1] == [f"{k} {3 if sizes[k] > 1 else 1}" for k in range(len(sizes))]
    assert all(len(t) == 1 for t in together if any(sizes[k] > 1 for k in t))


def test_other_errors_end_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    def work(job: files.Job) -> dict[str, Any]:
        if job.source == "1":
            raise ZeroDivisionError
        return {}

    jobs = [files.Job(str(k), "") for k in range(200)]
    with pytest.raises(ZeroDivisionError):
        for_each(jobs, work, lambda r: "done", False, workers=2)
    assert capsys.readouterr().out == "done\n"


def test_a_picture_that_takes_too_much_memory_is_said_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def work(job: files.Job) -> dict[str, Any]:
        if job.source == "1":
            raise MemoryError
        return {}

    with pytest.raises(click.exceptions.Exit):
        for_each([files.Job(str(k), "") for k in range(3)], work, lambda r: "done", False, workers=2)
    out, err = capsys.readouterr()
    assert out == "done\ndone\n" and err == "eocodec: 1: not enough memory for this picture\n"

"""Commands start fast: what is not needed is not imported, bundles are read when they are used, work is shared."""

import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT, SAMPLES, bundle_of, end_pool, environment

import eocodec
from eocodec.coding import lossless_walk, residuals, walk
from eocodec.coding.describe import describe
from eocodec.errors import ModelError
from eocodec.model import threads
from eocodec.model.bundle import Model, open_bundle, read_bundle, write_bundle
from eocodec.model.library import load_model
from eocodec.model.parts import listed
from eocodec.model.shelf import peek_id, plate_of, shipped_models

VECTORS = ROOT / "tests" / "vectors"
HEAVY = {"numpy", "PIL", "onnxruntime", "torch", "constriction", "zstandard", "onnx", "scipy", "fastapi", "pydantic"}
SLOW_STANDARD = {"importlib.metadata", "difflib", "asyncio", "hashlib", "tempfile", "multiprocessing"}
COMMAND = "import eocodec_cli\ntry:\n    eocodec_cli.main({arguments!r})\nexcept SystemExit:\n    pass"


def _imported(code: str, **extra: str) -> set[str]:
    """Names of all modules that code imports in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        env={**environment(), **extra},
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert done.returncode == 0 and len(lines) > 20, done.stderr
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["compress", "--help"],
        ["decompress", "--help"],
        ["denoise", "--help"],
        ["info", "--help"],
        ["serve", "--help"],
        ["info", str(VECTORS / "segments.eoc")],
        ["info", "--json", str(VECTORS / "colour.eoc"), str(VECTORS / "lossless.eoc"), str(VECTORS / "face.eoc")],
        ["completion", "bash"],
    ],
    ids=" ".join,
)
def test_commands_that_look_at_no_picture_import_nothing_heavy(arguments: list[str]) -> None:
    found = _imported(COMMAND.format(arguments=arguments))
    assert not found & (HEAVY | SLOW_STANDARD)


def test_completing_a_command_line_imports_nothing_heavy() -> None:
    found = _imported(
        COMMAND.format(arguments=[]),
        _EOCODEC_COMPLETE="bash_complete",
        COMP_WORDS="eocodec compress --model ph",
        COMP_CWORD="3",
    )
    assert not found & HEAVY


@pytest.mark.slow
def test_an_ordinary_picture_needs_no_other_form_and_no_denoising(tmp_path: Path) -> None:
    picture, made = str(SAMPLES / "faces" / "astronaut.png"), str(tmp_path / "made.eoc")
    others = {"eocodec.coding.embedded", "eocodec.coding.flat", "eocodec.denoising", "eocodec.service", "torch"}
    compressed = _imported(COMMAND.format(arguments=["compress", picture, "-o", made]))
    shown = _imported(COMMAND.format(arguments=["decompress", made, "-o", str(tmp_path / "shown.png")]))
    for found in (compressed, shown):
        assert "onnxruntime" in found and not found & (others | {"email", "importlib.metadata", "numpy.ma"})
        assert "PIL.PngImagePlugin" in found and "PIL.PdfImagePlugin" not in found
        assert not found & {"PIL.ImageCms", "PIL.TiffImagePlugin", "platformdirs", "random", "secrets"}
        assert "eocodec.coding.lossless_deep" not in found
    assert "eocodec.coding.lossless" not in shown


AHEAD = """
import sys
from eocodec.model.runtime import Runtime
def begin(self, graphs):
    print(*graphs, "eocodec.codec" in sys.modules, file=sys.stderr)
    Runtime.open_ahead = lambda self, graphs: None
Runtime.open_ahead = begin
"""


@pytest.mark.slow
def test_the_transform_is_opened_while_all_else_is_imported(tmp_path: Path) -> None:
    made = str(tmp_path / "made.eoc")
    for graph, arguments in (
        ("encoder", ["compress", str(SAMPLES / "faces" / "astronaut.png"), "-o", made]),
        ("decoder", ["decompress", made, "-o", str(tmp_path / "shown.png")]),
    ):
        code = AHEAD + COMMAND.format(arguments=arguments)
        done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr.splitlines()[0] == f"{graph} False", done.stderr


@pytest.mark.parametrize("name", ["segments", "colour", "lossless", "lossless-packed", "face", "prefix", "alpha"])
def test_what_is_told_without_a_model_is_what_is_told_with_it(name: str) -> None:
    data = (VECTORS / f"{name}.eoc").read_bytes()
    models = [load_model(bundle_of(m)) for m in ("photo", "face64")]
    assert describe(data) == describe(data, {m.id: m for m in models})


def test_plates_say_what_manifests_say() -> None:
    for name, path in shipped_models().items():
        model = load_model(name)
        plate = plate_of(peek_id(path)[:4])
        assert plate is not None and (plate.name, plate.edge) == (model.name, model.any_manifest.edge)
    assert plate_of(b"none") is None


def test_entries_are_unpacked_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    path = shipped_models()["photo"]
    read: list[str] = []
    before = zipfile.ZipFile.read

    def watched(self: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
        read.append(entry.filename)
        return before(self, entry)

    monkeypatch.setattr(zipfile.ZipFile, "read", watched)
    files = open_bundle(path)
    assert not read and len(files) > 50 and "denoise/clean.onnx" in files and "x" not in files
    model = Model(files)
    assert read and not any(name.startswith("denoise/") for name in read)
    model.runtime.open("denoise/sigma")
    assert read[-1] == "denoise/sigma.onnx"
    content = files["denoise/sigma.onnx"]
    assert read.count("denoise/sigma.onnx") == 1 and content == read_bundle(path)["denoise/sigma.onnx"]


def _spoiled(path: Path, name: str) -> None:
    """Turn a bit in the middle of an entry's packed bytes."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(name)
    raw = bytearray(path.read_bytes())
    raw[entry.header_offset + 30 + len(name) + entry.compress_size // 2] ^= 1
    path.write_bytes(bytes(raw))


def test_a_bundle_whose_nets_are_damaged_is_refused_when_they_are_wanted(tmp_path: Path) -> None:
    path = tmp_path / "mine.eocm"
    path.write_bytes(shipped_models()["photo"].read_bytes())
    _spoiled(path, "entropy/luma1_3.onnx")
    model = load_model(path)  # the list of parts is intact
    with pytest.raises(ModelError, match=r"Bad CRC-32|damaged"):
        model.runtime.open("entropy/luma1_3")
    path.write_bytes(shipped_models()["face64"].read_bytes())  # has no list
    _spoiled(path, "entropy/block0.onnx")
    with pytest.raises(ModelError):
        load_model(path)


@pytest.mark.slow
def test_a_bundle_with_other_nets_than_its_id_stands_for_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    files = read_bundle(shipped_models()["photo"])
    path = tmp_path / "mine.eocm"
    write_bundle(path, listed({**files, "lossless/1_0_1.onnx": files["lossless/1_0_2.onnx"]}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = peek_id(shipped_models()["photo"]).hex().encode()
    with pytest.raises(ModelError, match="does not have the content"):
        load_model(path)


def test_damaged_denoising_nets_are_refused_when_they_are_used(tmp_path: Path) -> None:
    path = tmp_path / "mine.eocm"
    path.write_bytes(shipped_models()["photo"].read_bytes())
    _spoiled(path, "denoise/sigma.onnx")
    model = load_model(path)
    with pytest.raises(ModelError, match="damaged"):
        model.runtime.open("denoise/sigma")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"rate": 200}, {"lossless": True}, {"progressive": True, "rate": 20}], ids=str)
def test_side_by_side_gives_the_same_bytes_and_pictures(
    options: dict[str, object], chelsea: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd sizes, small strips and pieces, so that there are many of both, at the edges too."""
    picture = chelsea[:237, :299]
    monkeypatch.setattr(threads, "cores", lambda: 5)
    end_pool()
    models = {n: Model(read_bundle(shipped_models()["photo"]), n) for n in (1, 3, 5)}
    shared: list[int] = []

    def watched(rows: slice, width: int, number: int) -> list[slice]:
        parts = before(rows, width, number)
        shared.append(len(parts))
        return parts

    before = walk.pieces
    for module in (walk, lossless_walk):
        monkeypatch.setattr(module, "pieces", watched)
        monkeypatch.setattr(module, "STRIP", 4096)  # the order of symbols depends on it, so all have the same
    monkeypatch.setattr(walk, "PIECE", 128)
    monkeypatch.setattr(residuals, "CHUNK", 700)
    alone = eocodec.compress(picture, model=models[1], **options)  # type: ignore[arg-type]
    shown = eocodec.decompress(alone, models[1])
    assert set(shared) == {1}
    for n in (3, 5):
        assert eocodec.compress(picture, model=models[n], **options) == alone  # type: ignore[arg-type]
        assert np.array_equal(eocodec.decompress(alone, models[n]), shown)
        assert max(shared) == n


def test_pieces_cover_the_rows_and_begin_at_even_ones() -> None:
    for start, stop, width, number in ((0, 7, 999999, 3), (6, 30, 4000, 5), (2, 3, 1, 4), (0, 4096, 16, 16)):
        parts = walk.pieces(slice(start, stop), width, number)
        assert [p.start for p in parts] == [start, *(p.stop for p in parts[:-1])] and parts[-1].stop == stop
        assert len(parts) <= number and all((p.start - start) % 2 == 0 for p in parts)


def test_work_is_shared_in_order_and_errors_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 4)
    end_pool()
    both = threading.Barrier(2, timeout=20)

    def square(x: int) -> int:
        if x < 2:
            both.wait()  # two threads are at work at the same time
        return x * x

    assert threads.side_by_side(square, range(50), 4) == [x * x for x in range(50)]
    nested = threads.side_by_side(lambda x: sum(threads.side_by_side(lambda y: x * y, range(9), 4)), range(40), 4)
    assert nested == [36 * x for x in range(40)]
    with pytest.raises(ZeroDivisionError):
        threads.side_by_side(lambda x: 1 // (x - 17), range(40), 4)
    assert len([t for t in threading.enumerate() if t.name.startswith("eocodec")]) <= 3


def test_what_is_begun_is_worked_out_once_and_raises_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    end_pool()
    done: list[str] = []
    busy, leave = threading.Event(), threading.Event()

    def work() -> str:
        busy.set()
        assert leave.wait(20)
        done.append(threading.current_thread().name)
        return "result"

    result = threads.begun(work, 2)
    assert busy.wait(20)
    late = threads.begun(lambda: threading.current_thread().name, 2)  # the pool's only thread is busy
    assert late() == threading.current_thread().name
    leave.set()
    assert result() == "result" and done[0].startswith("eocodec") and len(done) == 1
    for number in (1, 2):
        with pytest.raises(ZeroDivisionError):
            threads.begun(lambda: 1 // 0, number)()


def test_without_more_threads_the_calling_one_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.setattr(threads, "startable", lambda wanted: 1)
    end_pool()
    names = threads.side_by_side(lambda x: threading.current_thread().name, range(20), 4)
    assert set(names) == {threading.current_thread().name}


@pytest.mark.slow
def test_the_reported_quality_is_that_of_the_decoded_file(chelsea: np.ndarray) -> None:
    from eocodec.codec import compress_picture
    from eocodec.metrics import psnr

    for options in ({"rate": 40.0}, {"psnr": 36.0}, {"max_bytes": 4000}, {"rate": 300.0}):
        done = compress_picture(chelsea[:125, :187], measure=True, **options)  # type: ignore[arg-type]
        assert done.psnr == psnr(chelsea[:125, :187], eocodec.decompress(done.data))

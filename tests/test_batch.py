"""Batches: every picture of a corpus once, whatever is damaged, killed or done already; nothing half-written."""

import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import SAMPLES, Runner, bound_by_modes, environment, processor_seconds, wait_until
from PIL import Image

from eocodec import format
from eocodec.codec import compress, decompress
from eocodec.errors import EocodecError
from eocodec.model.bundle import Model

fsspec = pytest.importorskip("fsspec", reason="batches need the extra `batch`")
pq = pytest.importorskip("pyarrow.parquet", reason="batches need the extra `batch`")

from eocodec import batch  # noqa: E402
from eocodec.batch import Batch, Row, Settings, Source, Store, Work  # noqa: E402
from eocodec.batch.work import LOST, _check_pixels  # noqa: E402

pytestmark = pytest.mark.slow

SMALL = Settings(rate=24, device="cpu")


def make_corpus(folder: Path, count: int, edge: int = 64) -> list[str]:
    """Square pictures in two folders; gives their names."""
    coffee = np.asarray(Image.open(SAMPLES / "coffee.png").convert("RGB"))
    rng = np.random.default_rng(0)
    names = []
    for i in range(count):
        top, left = rng.integers(0, 400 - edge), rng.integers(0, 600 - edge)
        name = f"{'ab'[i % 2]}/{i:03}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coffee[top : top + edge, left : left + edge]).save(folder / name)
        names.append(name)
    return sorted(names)


def manifest(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "manifest.parquet").to_pylist()
    return rows


def files_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def all_of(run: Batch, engine: batch.Engine | None = None) -> list[Row]:
    with run:
        return list(run.run(engine or in_this_process))


def in_this_process(work: Work, sources: Any) -> Iterator[Row]:
    yield from map(work, sources)


def test_the_limit_of_pixels_is_that_of_the_settings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = io.BytesIO()
    Image.new("L", (40, 30)).save(file, "PNG")
    _check_pixels(file.getvalue(), 1200)
    with pytest.raises(EocodecError, match="40x30 pixels are more than the limit of 1199"):
        _check_pixels(file.getvalue(), 1199)


def test_every_picture_of_a_tree_is_compressed_once(run: Runner, tmp_path: Path, model: Model) -> None:
    names = make_corpus(tmp_path / "in", 4)
    crop = Image.open(SAMPLES / "chelsea.png").crop((0, 0, 64, 48))
    crop.save(tmp_path / "in" / "a" / "same.jpg")
    crop.convert("LA").save(tmp_path / "in" / "a" / "same.PNG")
    (tmp_path / "in" / "notes.txt").write_text("no picture, and not asked for")
    done = run("batch", "in", "out", "--rate", 24, "--device", "cpu")
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    names = sorted([*names, "a/same.PNG", "a/same.jpg"])
    assert files_in(tmp_path / "out") == [*(f"{n}.eoc" for n in names), "manifest.parquet"]
    rows = manifest(tmp_path / "out")
    assert [r["source"] for r in rows] == names
    for row in rows:
        data = (tmp_path / "out" / row["output"]).read_bytes()
        assert data == compress(Image.open(tmp_path / "in" / row["source"]), rate=24, model=model)
        picture = decompress(data)
        assert (row["width"], row["height"]) == (picture.shape[1], picture.shape[0])
        assert row["bytes_out"] == len(data)
        assert row["bytes_in"] == (tmp_path / "in" / row["source"]).stat().st_size
        assert row["bpp"] == pytest.approx(8 * len(data) / picture.shape[0] / picture.shape[1], abs=1e-5)
        assert row["status"] == "done" and row["error"] is None and row["model"] == model.id.hex()
        assert row["rate"] == pytest.approx(24, abs=0.02) and row["seconds"] > 0 and len(row["settings"]) == 16
        original = np.asarray(Image.open(tmp_path / "in" / row["source"]).convert("RGB")).astype(float)
        assert row["psnr"] == pytest.approx(
            10 * np.log10(255**2 / np.mean((original - picture[..., :3]) ** 2)), abs=1e-3
        )
    line = done.stdout.decode()
    assert line.count("\n") == 1 and "6 files: 6 done" in line
    assert f"{sum(r['bytes_in'] for r in rows)} -> {sum(r['bytes_out'] for r in rows)} bytes" in line
    assert f"mean {np.mean([r['bpp'] for r in rows]):.3f} bpp  {np.mean([r['psnr'] for r in rows]):.2f} dB" in line


def test_json_has_one_object_per_file_then_the_totals(call: Runner, tmp_path: Path) -> None:
    names = make_corpus(tmp_path / "in", 3)
    (tmp_path / "in" / "bad.png").write_text("no picture")
    done = call("batch", "in", "out", "--lossless", "--json", "--workers", 1)
    *rows, last = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1
    assert sorted(r["source"] for r in rows) == sorted([*names, "bad.png"])
    assert sorted(rows, key=lambda r: r["source"]) == manifest(tmp_path / "out")
    assert all(r["psnr"] is None for r in rows)
    totals = last["totals"]
    assert (totals["files"], totals["done"], totals["before"], totals["failed"]) == (4, 3, 0, 1)
    assert totals["bytes_out"] == sum(r["bytes_out"] or 0 for r in rows)
    with Image.open(tmp_path / "in" / names[0]) as image:
        exact = decompress((tmp_path / "out" / f"{names[0]}.eoc").read_bytes())
        assert np.array_equal(exact, np.asarray(image))


def test_what_is_unusual_stands_in_the_manifest(call: Runner, tmp_path: Path) -> None:
    """As `compress` says it; rows of a version without that column are read."""
    (tmp_path / "in").mkdir()
    words = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16 + 1
    Image.fromarray(words).save(tmp_path / "in" / "deep.png")
    frames = [Image.new("L", (32, 32), k) for k in (10, 200)]
    frames[0].save(tmp_path / "in" / "film.gif", save_all=True, append_images=frames[1:])
    Image.open(SAMPLES / "chelsea.png").crop((0, 0, 64, 48)).save(tmp_path / "in" / "plain.png")
    assert call("batch", "in", "out", "--rate", 24, "--workers", 1).returncode == 0
    deep, film, plain = (row["notes"] for row in manifest(tmp_path / "out"))
    assert "16 bits a sample" in deep and "frame" in film and plain is None
    path = tmp_path / "out" / "manifest.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns("notes"), path)
    assert call("batch", "in", "out", "--rate", 24, "--workers", 1).returncode == 0
    assert [row["status"] for row in manifest(tmp_path / "out")] == ["done"] * 3


def test_errors_in_pictures_are_collected_and_not_fatal(call: Runner, tmp_path: Path) -> None:
    names = make_corpus(tmp_path / "in", 2)
    whole = (tmp_path / "in" / names[0]).read_bytes()
    (tmp_path / "in" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "text.jpg").write_text("no picture")
    (tmp_path / "in" / "empty.webp").write_bytes(b"")
    (tmp_path / "in" / "gone.png").symlink_to("nowhere.png")
    Image.new("RGB", (65, 64)).save(tmp_path / "in" / "large.png")
    os.close(os.open(os.fsencode(tmp_path / "in") + b"/\xff.png", os.O_CREAT))
    done = call("batch", "in", "out", "--rate", 24, "--max-pixels", 64 * 64, "--workers", 1)
    assert done.returncode == 1
    errors = {r["source"]: r["error"] for r in manifest(tmp_path / "out") if r["status"] == "failed"}
    assert sorted(errors) == ["\\xff.png", "cut.png", "empty.webp", "gone.png", "large.png", "text.jpg"]
    assert "limit of 4096" in errors["large.png"] and "damaged" in errors["cut.png"]
    assert "does not exist" in errors["gone.png"] and "not a picture" in errors["text.jpg"]
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 6 and "1 more failed" in lines[-1] and "manifest.parquet" in lines[-1]
    assert "8 files: 2 done, 6 failed" in done.stdout.decode()
    assert files_in(tmp_path / "out") == [*(f"{n}.eoc" for n in names), "manifest.parquet"]
    again = call(
        "batch", "in", "out", "--rate", 24, "--workers", 1
    )  # failed before: not tried again, and still not well
    assert again.returncode == 1 and "6 failed" in again.stdout.decode()
    retried = call("batch", "in", "out", "--rate", 24, "--retry-failed", "--workers", 1)
    assert retried.returncode == 1 and "3 done (2 before), 5 failed" in retried.stdout.decode()
    assert "large.png.eoc" in files_in(tmp_path / "out")


def test_what_is_done_is_left_alone_and_what_has_changed_is_done_again(tmp_path: Path) -> None:
    names = make_corpus(tmp_path / "in", 6)
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    assert len(all_of(Batch(source, target, SMALL))) == 6
    before = {n: (tmp_path / "out" / f"{n}.eoc").stat().st_mtime_ns for n in names}
    assert all_of(Batch(source, target, SMALL)) == []
    assert all_of(Batch(source, target, replace(SMALL, measure=False, max_pixels=10))) == []  # gives the same files
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "in" / names[1])  # changed
    (tmp_path / "out" / f"{names[2]}.eoc").unlink()
    (tmp_path / "out" / f"{names[3]}.eoc").write_bytes(b"")  # as after a power cut
    os.utime(tmp_path / "in" / names[4], ns=(1, 1))
    run = Batch(source, target, SMALL)
    assert sorted(row.source for row in all_of(run)) == names[1:5]
    assert (run.totals.files, run.totals.done, run.totals.before) == (6, 6, 2)
    after = {n: (tmp_path / "out" / f"{n}.eoc").stat().st_mtime_ns for n in names}
    assert [n for n in names if after[n] == before[n]] == [names[0], names[5]]
    assert [r["source"] for r in manifest(tmp_path / "out")] == names
    (tmp_path / "in" / names[0]).unlink()  # a source that has gone keeps its file and its row
    assert all_of(Batch(source, target, SMALL)) == []
    assert [r["source"] for r in manifest(tmp_path / "out")] == names


def test_other_settings_and_other_corpora_are_refused_unless_forced(call: Runner, tmp_path: Path) -> None:
    names = make_corpus(tmp_path / "in", 3)
    source, moved, target = (str(tmp_path / name) for name in ("in", "moved", "out"))
    all_of(Batch(source, target, SMALL))
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    for change in ({"rate": 25.0}, {"rate": None, "bpp": 1.0}, {"progressive": True}, {"denoise": "auto"}):
        with pytest.raises(EocodecError, match=r"rate=24 .*--force"):
            all_of(Batch(source, target, replace(SMALL, **change)))  # type: ignore[arg-type]
    (tmp_path / "in").rename(moved)
    refused = call("batch", "moved", "out", "--rate", 24)
    assert refused.returncode == 1 and refused.stderr.count(b"\n") == 1
    assert b"/in;" in refused.stderr and b"--force" in refused.stderr
    assert before == {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert all_of(Batch(moved, target, SMALL, force=True)) == []
    assert all_of(Batch(moved, target, SMALL)) == []
    forced = call("batch", "moved", "out", "--rate", 25, "--force", "--json", "--workers", 1)
    assert forced.returncode == 0 and len(forced.stdout.splitlines()) == 4
    assert {r["rate"] for r in manifest(tmp_path / "out")} == {25.0}
    assert all_of(Batch(moved, target, replace(SMALL, rate=25))) == []
    assert [r["source"] for r in manifest(tmp_path / "out")] == names


# The same command, with a part file for every row, so that what a killed run had told of is on record.
COMMAND = "import eocodec.batch.manifest as b, eocodec_cli; b.PART_ROWS, b.PART_PAUSE = 1, 0; eocodec_cli.main()"


def test_a_run_that_is_killed_at_any_moment_goes_on_and_leaves_no_half_file(tmp_path: Path) -> None:
    names = make_corpus(tmp_path / "in", 120)
    out = tmp_path / "out"
    arguments = ["batch", str(tmp_path / "in"), str(out), "--rate", "24", "--json", "--no-measure"]
    dice = random.Random(3)
    told: set[str] = set()
    for wait_for in (0, 1, 13):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.PIPE, env=environment(), text=True
        )
        assert process.stdout is not None
        for _ in range(wait_for):
            row = json.loads(process.stdout.readline())
            assert row["source"] not in told, "done twice"
            told.add(row["source"])
        moment = processor_seconds(process.pid) + (dice.uniform(0, 0.02) if wait_for else dice.uniform(0.2, 1.0))
        wait_until(lambda: process.poll() is not None or processor_seconds(process.pid) >= moment, every=0.002)  # noqa: B023
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = children.read_text().split() if children.exists() else []
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            told.add(json.loads(line)["source"]) if line.endswith("}\n") else None
        process.wait()
        for worker in workers:  # end with the process that started them
            wait_until(lambda: not Path(f"/proc/{worker}").exists())  # noqa: B023
        for name in files_in(out) if out.exists() else []:
            if not name.startswith(".eocodec-batch/"):
                assert format.parse((out / name).read_bytes()).complete, name
        assert not (out / "manifest.parquet").exists()
    assert 14 <= len(told) < 120
    last = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, env=environment(), text=True, check=True
    )
    *rows, totals = map(json.loads, last.stdout.splitlines())
    assert not told & {r["source"] for r in rows}
    assert totals["totals"]["before"] >= len(told) and totals["totals"]["done"] == 120
    assert [r["source"] for r in manifest(out)] == names
    assert files_in(out) == [*(f"{n}.eoc" for n in names), "manifest.parquet"]
    assert (out / f"{names[7]}.eoc").read_bytes() == compress(Image.open(tmp_path / "in" / names[7]), rate=24)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupt_keeps_every_row_and_leaves_nothing_unfinished(tmp_path: Path, sign: signal.Signals) -> None:
    make_corpus(tmp_path / "in", 40)
    arguments = ["batch", "in", "out", "--rate", "24", "--json", "--no-measure", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "eocodec_cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        cwd=tmp_path,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    told = {json.loads(process.stdout.readline())["source"] for _ in range(3)}
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = children.read_text().split() if children.exists() else []
    process.send_signal(sign)
    told |= {json.loads(line)["source"] for line in process.stdout if line.startswith('{"source"')}
    assert process.stderr.read().strip() == "eocodec: interrupted" and process.wait() == 130
    for worker in workers:
        wait_until(lambda: not Path(f"/proc/{worker}").exists())  # noqa: B023
    assert not [name for name in files_in(tmp_path / "out") if "/partial/" in name]
    settings = Settings(rate=24, measure=False)
    with Batch(str(tmp_path / "in"), str(tmp_path / "out"), settings) as run:
        assert told <= {s.name for s in run.sources} - {s.name for s in run.pending}


@dataclass(frozen=True)
class Deadly(Work):
    """Work that a process does not survive: always, or when a picture is tried for the first time."""

    marks: str = ""

    def __call__(self, source: Source) -> Row:
        mark = Path(self.marks, source.name.replace("/", "-"))
        tries = int(mark.read_text()) if mark.exists() else 0
        mark.write_text(str(tries + 1))
        if source.name == "a/000.png" or (source.name == "b/003.png" and tries == 0):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(source)


def deadly(run: Batch, marks: Path) -> None:
    """Let a batch work deadly."""
    marks.mkdir()
    w = run.work
    run.work = Deadly(w.corpus, w.results, w.settings, w.digest, w.model, str(marks))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_does_not_end_the_run(tmp_path: Path, workers: int) -> None:
    names = make_corpus(tmp_path / "in", 12)
    run = Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL)
    deadly(run, tmp_path / "marks")
    rows = all_of(run, batch.local(workers))
    assert sorted(r.source for r in rows) == names
    failed = {r.source: r.error for r in rows if r.status == "failed"}
    assert list(failed) == ["a/000.png"] and "killed" in str(failed["a/000.png"])
    tries = {p.name: int(p.read_text()) for p in (tmp_path / "marks").iterdir()}
    assert {n for n, t in tries.items() if t != 1} == {"a-000.png", "b-003.png"} and set(tries.values()) == {1, 2}
    assert [r["source"] for r in manifest(tmp_path / "out")] == names


@dataclass(frozen=True)
class Unfit(Settings):
    """Settings with which no worker process begins."""

    def loaded(self) -> Model:
        if multiprocessing.parent_process() is not None:
            os._exit(3)
        return super().loaded()


def test_workers_that_never_begin_end_the_run_with_a_sentence(tmp_path: Path) -> None:
    make_corpus(tmp_path / "in", 2)
    run = Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL)
    run.work = replace(run.work, settings=Unfit(rate=24, device="cpu"))
    with pytest.raises(EocodecError, match=r"end before they begin \(exit code 3\)"):
        all_of(run, batch.local(1))


def test_object_stores_need_no_folder() -> None:
    memory = fsspec.filesystem("memory")
    crop = Image.open(SAMPLES / "coffee.png").crop((0, 0, 64, 64))
    out = io.BytesIO()
    crop.save(out, "PNG")
    for name in ("x/1.png", "x/deep/2.png", "x/deep/readme.md"):
        memory.pipe_file(f"/corpus/{name}", out.getvalue())
    run = Batch("memory://corpus", "memory://results/small", SMALL)
    rows = all_of(run, batch.local(2))
    assert [r.output for r in rows] == ["x/1.png.eoc", "x/deep/2.png.eoc"]
    assert memory.cat_file("/results/small/x/1.png.eoc") == compress(crop, rate=24)
    assert all_of(Batch("memory://corpus", "memory://results/small", SMALL)) == []
    memory.pipe_file("/corpus/x/1.png", out.getvalue())  # the same content, put anew
    assert [r.source for r in all_of(Batch("memory://corpus", "memory://results/small", SMALL))] == ["x/1.png"]
    table = pq.read_table(io.BytesIO(memory.cat_file("/results/small/manifest.parquet")))
    assert table["source"].to_pylist() == ["x/1.png", "x/deep/2.png"]
    assert not [n for n in memory.find("/results") if "/.eocodec-batch/" in n]


def test_globs_take_what_they_name_and_keep_paths(tmp_path: Path) -> None:
    names = make_corpus(tmp_path / "in", 4)
    (tmp_path / "in" / "a" / "raw.data").write_bytes((tmp_path / "in" / names[0]).read_bytes())
    odd = tmp_path / "in [2026]"
    (tmp_path / "in").rename(odd)

    def found(pattern: str) -> list[str]:
        return [s.name for s in batch.pictures(str(tmp_path / pattern))[1]]

    assert found("in [2026]") == names  # a folder of that name is no glob
    assert found("in*/a/*") == [f"in [2026]/a/{n}" for n in ("000.png", "002.png", "raw.data")]
    assert found("in*/a") == ["in [2026]/a/000.png", "in [2026]/a/002.png"]
    assert found("in*/**/00[13].png") == ["in [2026]/b/001.png", "in [2026]/b/003.png"]
    for nothing in ("nope", "in*/*.jpg", "in [2026]/a/000.png"):
        with pytest.raises(EocodecError, match="there "):
            found(nothing)


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = Store.at(str(tmp_path / "here"))
    local.write("a/b.eoc", b"old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        local.write("a/b.eoc", b"new and longer")
    assert local.read("a/b.eoc") == b"old" and files_in(tmp_path / "here") == ["a/b.eoc"]

    class Slow(fsspec.get_filesystem_class("file")):  # type: ignore[misc]
        """A remote filesystem that is no object store: it can be cut off while it writes."""

        protocol = "slow"
        cut = False

        def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
            assert "/.eocodec-batch/partial/" in path
            Path(path).write_bytes(value[: len(value) // 2] if Slow.cut else value)
            if Slow.cut:
                raise ConnectionError("cut off")

    fsspec.register_implementation("slow", Slow, clobber=True)
    remote = Store.at(f"slow://{tmp_path}/there", ".eocodec-batch/partial")
    remote.write("a/b.eoc", b"old")
    remote.write("a/b.eoc", b"older")
    Slow.cut = True
    with pytest.raises(ConnectionError):
        remote.write("a/b.eoc", b"new and longer")
    assert remote.read("a/b.eoc") == b"older"


def test_old_parts_that_were_not_removed_do_not_undo_a_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_corpus(tmp_path / "in", 1)
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    all_of(Batch(source, target, replace(SMALL, max_pixels=10)))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "clear", lambda self, folder, own: None)  # killed after a merge, twice
        all_of(Batch(source, target, replace(SMALL, max_pixels=10), retry_failed=True))
        all_of(Batch(source, target, SMALL, retry_failed=True))
    parts = sorted((tmp_path / "out" / ".eocodec-batch").glob("part-*"))
    assert len(parts) == 2
    parts[1].unlink()
    run = Batch(source, target, SMALL)
    assert all_of(run) == [] and run.totals.before == 1


def test_names_that_lead_out_of_the_results_are_refused(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "out"))
    work = Work(Store.at(str(tmp_path)), store, SMALL, "", "")
    crop = Image.open(SAMPLES / "coffee.png").crop((0, 0, 64, 64))
    crop.save(tmp_path / "x.png")
    for name in ("../x.png", "a/../../x.png", "/x.png", "a//x.png", "./x.png"):
        row = work(Source(name, ""))
        assert row.status == "failed" and "no file of that name" in str(row.error)
    assert not (tmp_path / "out").exists() and files_in(tmp_path) == ["x.png"]
    assert work(Source("x.png", "")).status == "done"


def test_two_batches_cannot_work_at_the_same_results(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="this system has no such locks")
    make_corpus(tmp_path / "in", 1)
    with (
        Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL),
        pytest.raises(EocodecError, match="another batch"),
        Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL),
    ):
        pass
    assert len(all_of(Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL))) == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["in", "out", "--rate", "1", "--bpp", "1"], "only one"),
        (["in", "out", "--lossless", "--psnr", "40"], "excludes"),
        (["in", "out", "--rate", "800"], "from 1 to 768"),
        (["in", "out", "--model", "nope"], "nope"),
        (["in", "out", "--engine", "ray", "--workers", "2"], "--workers"),
        (["in", "out", "--engine", "ray", "--device", "cuda"], "--device cuda"),
        (["nowhere", "out"], "no such folder"),
        (["empty", "out"], "no pictures"),
        (["in", "strange"], "not a manifest of eocodec"),
        (["in", "in/a.png"], "in/a.png"),
        (["nope://in", "out"], "nope"),
        (["in", "nope://out"], "nope"),
    ],
)
def test_what_cannot_begin_is_one_sentence_and_leaves_nothing(
    call: Runner, tmp_path: Path, arguments: list[str], word: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "strange").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "in" / "a.png")
    (tmp_path / "strange" / "manifest.parquet").write_bytes(b"somebody else's")
    before = files_in(tmp_path)
    done = call("batch", *arguments)
    message = done.stderr.decode()
    assert done.returncode in (1, 2) and word in message and "Traceback" not in message
    assert len([x for x in message.splitlines() if x and not x.startswith(("Usage:", "Try "))]) == 1
    assert files_in(tmp_path) == before and done.stdout == b""


def test_what_must_be_installed_is_told(tmp_path: Path) -> None:
    for package in ("pyarrow", "fsspec"):
        script = f"import sys; sys.modules['{package}'] = None; from eocodec_cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", script, "batch", str(SAMPLES), str(tmp_path / "out")],
            capture_output=True,
            text=True,
            env=environment(),
        )
        assert done.returncode == 1 and "pip install 'eocodec[batch]'" in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1


def test_progress_shows_on_a_terminal(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="this system has no terminals")
    make_corpus(tmp_path / "in", 2)
    ours, theirs = pty.openpty()
    arguments = ["batch", str(tmp_path / "in"), str(tmp_path / "out"), "--rate", "24", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "eocodec_cli", *arguments], stdout=subprocess.PIPE, stderr=theirs, env=environment()
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.stdout is not None
    assert b"2 files: 2 done" in process.stdout.read() and process.wait() == 0
    assert b"100%" in shown and b".png" in shown


def test_nobodys_files_are_removed_whatever_their_folders_are_called(call: Runner, tmp_path: Path) -> None:
    for folder in ("manifest", "partial", ".eocodec-batch", "a"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.new("RGB", (24, 16), (90, 40, 20)).save(tmp_path / "in" / folder / "x.png")
    (tmp_path / "out" / "manifest").mkdir(parents=True)
    (tmp_path / "out" / ".eocodec-batch" / "partial").mkdir(parents=True)
    mine = [tmp_path / "out" / n for n in ("manifest/thesis.txt", ".eocodec-batch/mine", ".eocodec-batch/partial/own")]
    for path in mine:
        path.write_text("mine")
    for k in range(2):
        done = call("batch", "in", "out", "--rate", 8, "--workers", 1)
        assert done.returncode == 1 and b".eocodec-batch/x.png" in done.stderr, k
        for folder in ("manifest", "partial", "a"):
            assert (tmp_path / "out" / folder / "x.png.eoc").exists()
        assert all(path.read_text() == "mine" for path in mine)
    (tmp_path / "in" / ".eocodec-batch" / "x.png").unlink()
    place = call("batch", "in", "in", "--rate", 8, "--workers", 1)
    assert place.returncode == 0, place.stderr
    assert all((tmp_path / "in" / f / n).exists() for f in ("manifest", "partial", "a") for n in ("x.png", "x.png.eoc"))


def test_files_that_no_batch_has_made_are_not_replaced_unasked(call: Runner, tmp_path: Path) -> None:
    names = make_corpus(tmp_path / "in", 4)
    before = {n: (tmp_path / "in" / n).read_bytes() for n in names}
    line = ("batch", "in", "out", "--rate", 24, "--workers", 1, "--json")
    for name in names[:3]:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / f"{names[0]}.eoc").write_bytes(b"mine")
    (tmp_path / "out" / f"{names[1]}.eoc").symlink_to(tmp_path / "in" / names[1])
    (tmp_path / "out" / f"{names[2]}.eoc").write_bytes(b"mine")
    done = call(*line)
    *rows, totals = map(json.loads, done.stdout.splitlines())
    assert [(r["source"], r["status"]) for r in rows] == [*((n, "failed") for n in names[:3]), (names[3], "done")]
    assert done.returncode == 1 and (totals["totals"]["done"], totals["totals"]["failed"]) == (1, 3)
    refused = f"{names[0]}.eoc exists, and no batch has made it; use --force to overwrite it"
    assert done.stderr.decode().splitlines()[0] == f"eocodec: {names[0]}: {refused}"
    assert manifest(tmp_path / "out")[0]["error"] == refused
    assert (tmp_path / "out" / f"{names[0]}.eoc").read_bytes() == b"mine"
    (tmp_path / "out" / f"{names[0]}.eoc").unlink()
    again = [json.loads(text) for text in call(*line).stdout.splitlines()][:-1]
    assert [(r["source"], r["status"]) for r in again] == [*((n, "failed") for n in names[1:3]), (names[0], "done")]
    forced = call(*line, "--force")
    assert forced.returncode == 1 and f"{names[1]}.eoc is the source itself" in forced.stderr.decode()
    assert format.parse((tmp_path / "out" / f"{names[2]}.eoc").read_bytes()).complete
    assert before == {n: (tmp_path / "in" / n).read_bytes() for n in names}


@pytest.mark.parametrize("settings", [SMALL, replace(SMALL, rate=25.0)], ids=["same", "other"])
def test_an_output_whose_row_was_lost_is_made_again(tmp_path: Path, settings: Settings) -> None:
    names = make_corpus(tmp_path / "in", 2)
    run = Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL)

    def killed(work: Work, sources: Any) -> Iterator[Row]:
        yield from ()
        work(sources[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        all_of(run, killed)
    assert (tmp_path / "out" / f"{names[0]}.eoc").exists()
    (tmp_path / "out" / f"{names[0]}.eoc").write_bytes(b"as coded on another device")
    rows = all_of(Batch(str(tmp_path / "in"), str(tmp_path / "out"), settings))
    assert [(r.source, r.status) for r in rows] == [(n, "done") for n in names]
    assert files_in(tmp_path / "out") == [*(f"{n}.eoc" for n in names), "manifest.parquet"]


def test_an_output_whose_process_was_killed_is_made_again(tmp_path: Path) -> None:
    (name,) = make_corpus(tmp_path / "in", 1)

    def lost(work: Work, sources: Any) -> Iterator[Row]:
        work(sources[0])
        yield work.row(sources[0], LOST)

    (row,) = all_of(Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL), lost)
    assert row.status == "failed" and (tmp_path / "out" / f"{name}.eoc").stat().st_size == row.bytes_out
    (row,) = all_of(Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL, retry_failed=True))
    assert row.status == "done"


def test_an_output_of_an_earlier_version_is_replaced_after_a_failure(tmp_path: Path) -> None:
    (name,) = make_corpus(tmp_path / "in", 1)
    whole = (tmp_path / "in" / name).read_bytes()
    for content, status in ((whole, "done"), (b"damaged", "failed"), (b"damaged too", "failed"), (whole, "done")):
        (tmp_path / "in" / name).write_bytes(content)
        (row,) = all_of(Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL))
        assert row.status == status, row.error
        assert row.bytes_out == (tmp_path / "out" / row.output).stat().st_size


def test_two_sources_do_not_get_one_output_through_links(tmp_path: Path) -> None:
    make_corpus(tmp_path / "in", 1)
    (tmp_path / "in" / "b").mkdir()
    (tmp_path / "in" / "b" / "000.png").write_bytes((tmp_path / "in" / "a" / "000.png").read_bytes())
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "b").symlink_to("a")
    rows = all_of(Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL, force=True))
    assert [str(r.error).partition(" to ")[0] for r in rows] == ["several sources would be written"] * 2
    assert not (tmp_path / "out" / "a" / "000.png.eoc").exists()


@pytest.mark.parametrize("source", ["in", "in/**", "in/*/*.png", "in/*"])
def test_a_folder_that_cannot_be_listed_is_a_row_until_it_can(tmp_path: Path, source: str) -> None:
    names = make_corpus(tmp_path / "in", 4)
    command = [sys.executable, "-m", "eocodec_cli", "batch", source, "out", "--rate", "24", "--no-measure"]
    (tmp_path / "in" / "a").chmod(0)
    try:
        done = subprocess.run(
            [*bound_by_modes(), *command, "--workers", "1"], cwd=tmp_path, env=environment(), capture_output=True,
            text=True,
        )  # fmt: skip
    finally:
        (tmp_path / "in" / "a").chmod(0o755)
    assert (done.returncode, done.stderr) == (1, "eocodec: a: cannot be listed (Permission denied)\n")
    assert "3 files: 2 done, 1 failed" in done.stdout
    rows = [(r["source"], r["output"], r["status"]) for r in manifest(tmp_path / "out")]
    assert rows == [("a", "", "failed"), *((n, f"{n}.eoc", "done") for n in names[2:])]
    assert all(r.status == "done" for r in all_of(Batch(str(tmp_path / source), str(tmp_path / "out"), SMALL)))
    assert [r["source"] for r in manifest(tmp_path / "out")] == names


def test_a_folder_that_a_glob_does_not_mean_need_not_be_readable(tmp_path: Path) -> None:
    make_corpus(tmp_path / "in", 4)
    (tmp_path / "in" / "a").chmod(0)
    script = "import sys; from eocodec.batch import pictures; print([len(x) for x in pictures(sys.argv[1])[1:]])"
    try:
        for pattern, found in (("in/b*/*.png", "[2, 0]"), ("in/*/*.png", "[2, 1]"), ("in/b/**", "[2, 0]")):
            done = subprocess.run(
                [*bound_by_modes(), sys.executable, "-c", script, str(tmp_path / pattern)], env=environment(),
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert done.stdout.strip() == found, pattern
    finally:
        (tmp_path / "in" / "a").chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_not_utf_8(call: Runner, tmp_path: Path) -> None:
    make_corpus(tmp_path / "in", 1)
    picture = (tmp_path / "in" / "a" / "000.png").read_bytes()
    (tmp_path / "in" / os.fsdecode(b"d\xe9j\xe0")).mkdir()
    names = [b"d\xe9j\xe0/caf\xe9.png", rb"caf\xe9.png", b"caf\xe9.png", "café.png".encode()]
    for name in names:
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(picture)
    (tmp_path / "in" / os.fsdecode(b"no\xff.png")).write_bytes(b"")
    done = call("batch", "in", "out", "--rate", 24, "--workers", 1)
    assert done.returncode == 1 and b"5 done, 1 failed" in done.stdout
    assert done.stderr.startswith(rb"eocodec: no\xff.png: ")
    assert all((tmp_path / "out" / os.fsdecode(name + b".eoc")).exists() for name in names)
    sources = {r["source"] for r in manifest(tmp_path / "out")}
    assert {"café.png", r"caf\xe9.png", r"caf\x5cxe9.png", r"d\xe9j\xe0/caf\xe9.png"} < sources and len(sources) == 6
    assert all_of(Batch(str(tmp_path / "in"), str(tmp_path / "out"), SMALL)) == []


def test_pipes_fail_and_links_to_folders_are_no_files(call: Runner, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (24, 16), (90, 40, 20)).save(tmp_path / "in" / "x.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in")
    done = call("batch", "in", "out", "--rate", 8, "--workers", 1)
    assert done.returncode == 1 and b"pipe.png: is not a regular file" in done.stderr
    assert (tmp_path / "out" / "x.png.eoc").exists()
    (tmp_path / "in" / "pipe.png").unlink()
    assert call("batch", "in/*", "globbed", "--rate", 8, "--workers", 1).returncode == 0

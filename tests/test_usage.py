"""What users of other tools type works: qualities, two names, folders, `.eoc` files; errors say what helps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES, VECTORS, Runner, environment
from PIL import Image

from eocodec import codec
from eocodec.coding.rate_control import rate_of_step_quality
from eocodec.errors import EocodecError
from eocodec.model.bundle import Model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.open(SAMPLES / "chelsea.png").convert("RGB").crop((100, 60, 180, 120)).save(tmp_path / "a.png")
    return tmp_path


def test_quality_rises_over_its_whole_scale_and_means_the_same_on_every_picture(
    model: Model, samples: dict[str, np.ndarray]
) -> None:
    rates = [rate_of_step_quality(model, q) for q in (0, 20, 40, 60, 80, 100)]
    assert rates[0] == pytest.approx(1) and rates[-1] == pytest.approx(model.block) and rates == sorted(rates)
    steps = [model.manifest.step_of(c) for c in (rate_of_step_quality(model, 60), codec.DEFAULT_RATE)]
    assert steps[0] == pytest.approx(steps[1], rel=0.15)
    reached = []
    for picture in samples.values():
        done = codec.compress_picture(picture[:160, :240], rate_of_step_quality(model, 75), model=model, measure=True)
        reached.append(done.psnr)
    assert max(reached) - min(reached) < 4  # type: ignore[operator,type-var]
    for wrong in (-1, 101, float("nan")):
        with pytest.raises(EocodecError):
            rate_of_step_quality(model, wrong)


def test_quality_is_an_option(call: Runner, folder: Path) -> None:
    sizes = [json.loads(call("compress", "a.png", "-q", q, "--json", "-f").stdout)["bytes"] for q in (20, 60, 95)]
    assert sizes == sorted(sizes) and sizes[2] > 3 * sizes[0]
    assert call("compress", "a.png", "-q", 50, "--rate", 20, "-f").returncode == 2


def test_the_second_of_two_names_is_the_output(call: Runner, folder: Path) -> None:
    assert call("compress", "a.png", "b.eoc").returncode == 0
    assert call("decompress", "b.eoc", "c.webp").returncode == 0
    assert sorted(p.name for p in folder.iterdir()) == ["a.png", "b.eoc", "c.webp"]
    assert call("compress", "a.png", "b.eoc").returncode == 1  # it exists


def test_folders_are_walked_when_asked_for(call: Runner, folder: Path) -> None:
    (folder / "in" / "deep").mkdir(parents=True)
    for name in ("in/x.png", "in/deep/y.png"):
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    (folder / "in" / "notes.txt").write_text("no picture")
    assert call("compress", "in").returncode == 1
    assert call("compress", "-r", "in", "-o", "out", "--no-measure").returncode == 0
    found = sorted(str(p.relative_to(folder / "out")) for p in (folder / "out").rglob("*") if p.is_file())
    assert found == ["deep/y.eoc", "x.eoc"]
    assert call("decompress", "-r", "out", "-o", "back").returncode == 0
    assert (folder / "back" / "deep" / "y.png").exists()
    (folder / "empty").mkdir()
    assert b"nothing in this folder" in call("compress", "-r", "empty").stderr


def test_folders_are_worked_at_again_without_the_results_of_earlier_runs(call: Runner, tmp_path: Path) -> None:
    (tmp_path / "in/b").mkdir(parents=True)
    small = Image.open(SAMPLES / "chelsea.png").convert("RGB").crop((0, 0, 40, 30))
    small.save(tmp_path / "in/a.PNG")
    small.save(tmp_path / "in/b/c.jpg")
    for arguments, new in (
        (("compress", "--no-measure", "--rate", 9), ["in/a.eoc", "in/b/c.eoc"]),
        (("compress", "--no-measure", "--rate", 9, "-o", "in/out"), ["in/out/a.eoc", "in/out/b/c.eoc"]),
        (("denoise", "--sigma", 5), ["in/a.denoised.png", "in/b/c.denoised.png", "in/out/a.denoised.png"]),
        (("denoise", "--sigma", 5, "-o", "in/clean"), ["in/clean/a.denoised.png", "in/clean/b/c.denoised.png"]),
    ):
        for again in ((), ("--force",)):
            done = call(*arguments, "-r", "in", *again)
            assert done.returncode == 0, done.stderr
        found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
        assert set(new) <= found and not any("denoised.denoised" in name or "out/out" in name for name in found)
    assert call("compress", "--no-measure", "-r", "in", "-o", "in", "--force").returncode == 0  # its own folder
    assert call("compress", "--no-measure", "in/a.eoc", "-o", "again.eoc").returncode == 0  # named ones go in


def test_eoc_files_are_pictures(call: Runner, folder: Path) -> None:
    assert call("compress", "a.png", "--rate", 300).returncode == 0
    again = json.loads(call("compress", "a.eoc", "-o", "small.eoc", "--rate", 20, "--json").stdout)
    assert again["bytes"] < again["bytes_in"] == (folder / "a.eoc").stat().st_size
    assert call("denoise", "a.eoc", "--sigma", 5, "--shifts", 1).returncode == 0
    assert Image.open(folder / "a.denoised.png").size == (80, 60)
    assert b"is the input itself" in call("compress", "a.eoc").stderr


def test_time_stamps_are_kept_on_request(call: Runner, folder: Path) -> None:
    os.utime(folder / "a.png", (1e9, 1e9))
    assert call("compress", "a.png").returncode == 0 and (folder / "a.eoc").stat().st_mtime > 1.5e9
    assert call("compress", "a.png", "--keep-times", "-f").returncode == 0
    assert (folder / "a.eoc").stat().st_mtime == 1e9
    assert call("decompress", "a.eoc", "b.png", "--keep-times").returncode == 0
    assert (folder / "b.png").stat().st_mtime == 1e9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("comprss", "a.png"), "compress"),
        (("compress", "--los", "a.png"), "--lossless"),
        (("compress", "--model", "foto", "a.png"), "did you mean photo"),
        (("compress", "--psnr", 70, "a.png"), "--lossless"),
        (("compress", "--focus", "0,0,0,5", "a.png"), "the region 0,0,0,5 has no width"),
        (("compress", "--bytes", 1, "a.png"), "a.png: the picture cannot be compressed to 1 byte; its smallest"),
        (("compress", "--bytes", 1, "--progressive", "a.png"), "the picture cannot be compressed to 1 byte; its"),
        (("truncate", "--bytes", 1, VECTORS / "colour.eoc", "-o", "b.eoc"), "the file cannot be cut to 1 byte; its"),
        (("truncate", "--bytes", 1, VECTORS / "embedded.eoc", "-o", "b.eoc"), "the file cannot be cut to 1 byte; its"),
        (
            ("compress", "--lossless", "--depth", 8, VECTORS / "deep.png", "-o", "b.eoc"),
            "than --depth 8 holds; leave out --depth 8, or convert the picture to 8 bits first",
        ),
        (("adapt", ".", "-o", "my pictures.eocm"), "'my pictures' is no name for a model"),
        (("adapt", ".", "-o", "photo.eocm"), "another name"),
        (("export", "a.png", "--data", ".", "-o", "new.eocm", "--name", "../new"), "'../new' is no name for a model"),
    ],
)
def test_errors_name_what_helps(call: Runner, folder: Path, arguments: tuple[object, ...], words: str) -> None:
    done = call(*arguments)
    assert done.returncode in (1, 2) and words in done.stderr.decode()


def test_files_that_get_the_name_of_a_picture_are_named(call: Runner, folder: Path) -> None:
    done = call("compress", "--no-measure", "a.png", "-o", "b.jpg")
    assert done.returncode == 0 and done.stderr.decode().count("written as an .eoc file") == 1
    assert "written as" in call("truncate", "--latents", 768, "b.jpg", "-o", "c.png").stderr.decode()
    for fine in ("b.eoc", "b.dat"):
        assert not call("compress", "--no-measure", "a.png", "-o", fine).stderr


def test_names_of_models_are_completed(tmp_path: Path) -> None:
    env = {**environment(), "_EOCODEC_COMPLETE": "bash_complete", "COMP_WORDS": "eocodec compress --model ph",
           "COMP_CWORD": "3"}  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "eocodec_cli"], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert "plain,photo" in done.stdout, done


@pytest.mark.slow
def test_planning_many_files_takes_no_time_to_speak_of(tmp_path: Path) -> None:
    import time

    from eocodec_cli import files

    begun = time.process_time()
    jobs = files.plan([f"{k}.png" for k in range(20000)], str(tmp_path / "out") + "/", ".eoc", False)
    assert len(jobs) == 20000 and time.process_time() - begun < 5


@pytest.mark.slow
def test_the_same_rate_means_the_same_in_truncate_as_in_compress(call: Runner, folder: Path) -> None:
    for name, extra in (("p", ["--progressive"]), ("o", [])):
        assert call("compress", "a.png", f"{name}.eoc", "--rate", 200, "--no-measure", *extra).returncode == 0
    assert call("truncate", "--rate", 40, "p.eoc").returncode == 0
    assert call("compress", "a.png", "q.eoc", "--rate", 40, "--progressive", "--no-measure").returncode == 0
    assert (folder / "p.cut.eoc").read_bytes() == (folder / "q.eoc").read_bytes()
    refused = call("truncate", "--rate", 40, "o.eoc")
    assert refused.returncode == 1 and b"compress the picture again" in refused.stderr
    assert call("truncate", "--latents", 768, "o.eoc").returncode == 0 and (folder / "o.cut.eoc").exists()
    assert b"no segment" in call("truncate", "--latents", 1, "o.eoc", "-f").stderr
    assert call("compress", "a.png", "l.eoc", "--lossless", "--no-measure").returncode == 0
    exact = call("truncate", "--rate", 40, "l.eoc", "-f")
    assert exact.returncode == 1 and b"a lossless file, which has no step; compress" in exact.stderr
    emptied = call("truncate", "--bytes", 60, "o.eoc", "-f")  # less than its first segment
    assert emptied.returncode == 0 and b"nothing but one colour is left of it" in emptied.stderr
    assert b"(without latents: a flat picture)" in call("decompress", "o.cut.eoc", "-f").stdout
    assert b"no latents: a picture of one colour" in call("info", "o.cut.eoc").stdout
    first = min(s["end"] for s in json.loads(call("info", "l.eoc", "--json").stdout)["segments"])
    assert call("truncate", "--bytes", first - 1, "l.eoc").returncode == 0
    done = call("decompress", "l.cut.eoc", "-f")
    assert b"(cut short before the end of its first segment: a flat picture)" in done.stdout
    whole = bytearray((folder / "l.eoc").read_bytes())
    whole[first - 9] ^= 1
    (folder / "l.cut.eoc").write_bytes(whole)
    done = call("decompress", "--salvage", "l.cut.eoc", "-f")
    assert b"(damaged within its first segment: a flat picture)" in done.stdout
    assert b"--rate or --bytes" in call("truncate", "--latents", 40, "p.eoc", "-f").stderr

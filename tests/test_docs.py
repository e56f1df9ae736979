"""Documents: figures are those of the measurements, code runs, links lead somewhere, lines and words are plain."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from eocodec_cli import cli
from paths import ROOT, SAMPLES
from PIL import Image

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "samples/*.md", "samples/*/README.md", "eocodec/models/*.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)
WIDTH = 120
# Documents speak of the project: nobody asks, tells, or wonders in them.
WORDS = re.compile(
    r"\b(asked|the issue|testers?|DESIGN|told|whoever|we|us|our|ours|at hand|last night|TODO)\b", re.IGNORECASE
)
README = (ROOT / "README.md").read_text()
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))


def _lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """Number, line, and whether it is code."""
    code = False
    for number, line in enumerate(text.splitlines(), 1):
        fence = line.lstrip().startswith("```")
        yield number, line, code or fence
        code ^= fence


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def _anchors(path: Path) -> set[str]:
    heads = [
        line.lstrip("#").strip() for _, line, code in _lines(path.read_text()) if line.startswith("#") and not code
    ]
    plain = (re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads)
    return set(plain)


# Figures


@pytest.mark.slow
def test_tables_are_those_of_the_measurements() -> None:
    pytest.importorskip("scipy")
    pytest.importorskip("torch", reason="the table of the objective comes from a program that needs torch")
    from benchmarks import tables

    assert not tables.differing(), "run: python benchmarks/tables.py"
    used = {name for d in tables.DOCUMENTS for _, name, _, _ in tables.BLOCK.findall((ROOT / d).read_text())}
    assert used == set(tables.TABLES)


def test_a_table_that_differs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    from benchmarks import tables

    monkeypatch.setattr(tables, "DOCUMENTS", ("docs/RESULTS.md",))
    monkeypatch.setattr(tables, "TABLES", {name: lambda: "| other |" for name in tables.TABLES})
    assert "docs/RESULTS.md: kodak-points" in tables.differing()


def test_every_measurement_names_the_bundle_it_was_made_with() -> None:
    from benchmarks import tables

    paths = sorted((ROOT / "benchmarks").glob("*.json"))
    assert len(paths) >= 20
    for path in paths:
        identity = tables.bundle_of(path.stem)
        assert identity is None or re.fullmatch("[0-9a-f]{8}([0-9a-f]{56})?", identity), path.name
        assert json.loads(path.read_text())
    earlier = {p.name for p in paths if (i := tables.bundle_of(p.stem)) and not _shipped(i)}
    section = (
        (ROOT / "docs" / "RESULTS.md").read_text().partition("## Which bundle was measured")[2].partition("\n## ")[0]
    )
    assert all(section.count(name) >= 2 for name in earlier), "in the table, and in the text that gives the reason"


def _shipped(identity: str) -> bool:
    from benchmarks import tables

    return any(full.startswith(identity) for full in tables.shipped().values())


# Code


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """An empty folder with the samples in it, as the README's commands expect them, but cut to a small size."""
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "faces").symlink_to(SAMPLES / "faces")
    for path in SAMPLES.glob("*.png"):
        Image.open(path).crop((0, 0, *request.param)).save(tmp_path / "samples" / path.name)
    rocket = np.asarray(Image.open(SAMPLES / "rocket.png").convert("RGB"))[:120, :180].astype(float)
    noisy = np.clip(rocket + np.random.default_rng(0).normal(0, 20, rocket.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    Image.fromarray((rocket[..., 1] * 257 + 3).astype(np.uint16)).save(tmp_path / "scan16.tif")
    Image.fromarray((rocket[..., 1] * 16 + 3).astype(np.uint16)).save(tmp_path / "ct12.png")
    Image.fromarray((rocket[..., 1] * 5 + 32000).astype(np.uint16)).save(tmp_path / "ct-offset.tif")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("checkout", [(240, 170)], indirect=True)
def test_the_commands_of_the_readme_run(checkout: Path) -> None:
    blocks = _blocks(README.partition("## Commands")[0], "console")
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ eocodec ")]
    lines = [line for line in lines if not line.startswith(("eocodec serve", "eocodec batch"))]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    assert len(commands) >= 15
    for command in commands:
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, (command, done.output)
        if "-o" in command:
            assert (checkout / command[command.index("-o") + 1]).stat().st_size > 0
    assert (checkout / "small.eoc").stat().st_size <= 8000 < (checkout / "any.eoc").stat().st_size
    assert len((checkout / "face.txt").read_bytes()) <= 33
    exact, coffee = (np.asarray(Image.open(p)) for p in (_decoded("exact.eoc"), "samples/coffee.png"))
    assert np.array_equal(exact, coffee)


def _decoded(name: str) -> str:
    assert CliRunner().invoke(cli, ["decompress", name, "-o", "decoded.png", "-f"]).exit_code == 0
    return "decoded.png"


@pytest.mark.slow
@pytest.mark.parametrize("checkout", [(345, 230)], indirect=True)
def test_the_lines_of_python_of_the_readme_run(checkout: Path) -> None:
    (block,) = _blocks(README, "python")
    block, found = re.subn(re.escape("(400, 600, 3)"), "(230, 345, 3)", block)  # the noise, as large as the picture
    assert found == 1
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    data, smaller, placeholder = (names[k] for k in ("data", "smaller", "placeholder"))
    assert isinstance(data, bytes) and isinstance(smaller, bytes) and len(smaller) <= 8000 < len(data)
    assert isinstance(placeholder, bytes) and len(placeholder) <= 24
    assert np.shape(names["picture"]) == (230, 345, 3)


def test_programs_that_the_readme_begins_with_are_there() -> None:
    (first, *_) = _blocks(README, "console")
    assert "eocodec demo" in first and "./check" in first
    assert (ROOT / "check").stat().st_mode & 0o111
    assert shutil.which("bash") is None or (ROOT / "check").read_text().startswith("#!/usr/bin/env bash")


# Links and names


@every_document
def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(line for _, line, code in _lines(path.read_text()) if not code)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in _anchors(found), f"{path.name}: {target}"


@every_document
def test_tests_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    files = {p.name: p.read_text() for p in (ROOT / "tests").glob("test_*.py")}
    every = "\n".join(files.values())
    for name in set(re.findall(r"\btest_\w+", text)):
        assert f"{name}.py" in files or re.search(rf"def {name}\w*\(", every), f"{path.name}: {name}"


# Lines and words


@every_document
def test_lines_are_wrapped(path: Path) -> None:
    long = [
        number
        for number, line, code in _lines(path.read_text())
        if len(line) > WIDTH and not code and not line.lstrip().startswith(("|", "<!--"))
    ]
    assert not long, f"{path.name}, lines {long}"


@every_document
def test_words_are_plain(path: Path) -> None:
    found = []
    for number, line, code in _lines(path.read_text()):
        words = WORDS.findall(re.sub(r"`[^`]*`|\]\([^)]*\)", "", line))
        if words and not code:
            found.append((number, words))
    assert not found, f"{path.name}: {found}"

"""A short run of what `benchmarks/fuzz.py` does at length: hostile files give a picture or a sentence."""

import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

import pytest
from mutations import SIDES, SIZES, mutate
from paths import ROOT, VECTORS

# Of the shipped models, which are found without being given.
INDEX = json.loads((VECTORS / "vectors.json").read_text())
FILES = [(VECTORS / f"{v['name']}.eoc").read_bytes() for v in INDEX if not v["model"].endswith(".eocm")]


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks" / "fuzz.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mutations_reach_what_lies_behind_the_checksums() -> None:
    from eocodec import format
    from eocodec.errors import EocodecError

    rng = random.Random(3)
    changed = accepted = 0
    for _ in range(400):
        data = mutate(FILES, rng, SIZES)
        changed += data not in FILES
        try:
            accepted += bool(format.is_tiny(data) or format.parse(data).segments)
        except EocodecError:
            continue
    assert changed > 350 and accepted > 100


@pytest.mark.slow
def test_the_parser_survives_mutated_files(fuzz: ModuleType, tmp_path: Path) -> None:
    result = fuzz.run(fuzz.parse, FILES, 10_000, 11, SIDES, tmp_path)
    assert result["failures"] == 0, sorted(tmp_path.iterdir())
    assert len(result["outcomes"]) >= 4


@pytest.mark.slow
def test_the_decoder_survives_mutated_files(fuzz: ModuleType, tmp_path: Path) -> None:
    small = [f for f in FILES if len(f) < 5000]
    for f in small:
        fuzz.decode(f) if len(f) < 1000 else None
    result = fuzz.run(fuzz.decode, small, 200, 12, SIZES, tmp_path)
    assert result["failures"] == 0, sorted(tmp_path.iterdir())
    assert result["outcomes"]["accepted"] > 50


@pytest.mark.parametrize("name", ["alpha", "embedded-deep", "lossless-alpha", "face", "colour"])
def test_a_file_cut_at_every_byte_is_a_picture_or_a_sentence(name: str, fuzz: ModuleType) -> None:
    from eocodec.errors import EocodecError

    data = (VECTORS / f"{name}.eoc").read_bytes()
    for end in range(len(data)):
        try:
            fuzz.parse(data[:end])
        except EocodecError as e:
            assert "\n" not in str(e)

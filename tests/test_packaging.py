"""What a release consists of: one version everywhere, and distributions that hold what they should and no more."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from paths import ROOT, wait_until

import eocodec

LARGEST = 30 * 1000 * 1000  # bytes of a distribution


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "eocodec/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", eocodec.__version__)


def test_changelog_and_citation_are_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", changelog, re.M)
    assert "\n## [Unreleased]\n" in changelog and versions
    citation = (ROOT / "CITATION.cff").read_text()
    cited = re.search(r"^version: (\S+)$", citation, re.M), re.search(r"^date-released: (\S+)$", citation, re.M)
    assert tuple(found[1] for found in cited if found) == versions[0]
    assert versions[0][0] == eocodec.__version__
    assert "2602.06940" in citation.partition("preferred-citation:")[2]


def test_the_bill_of_materials_holds_what_the_service_needs() -> None:
    """Made by `.ci/supply-chain`, in the versions that continuous integration is pinned to."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [
        re.split(r"[<>=!~\[]", d)[0] for d in (*project["dependencies"], *project["optional-dependencies"]["serve"])
    ]
    components = json.loads((ROOT / "docs" / "sbom.json").read_text())["components"]
    listed = {_normal(c["name"]): c["version"] for c in components}
    pins = [line.split("==") for line in (ROOT / ".ci" / "constraints.txt").read_text().splitlines() if "==" in line]
    pinned = {_normal(name): version for name, version in pins}
    assert {_normal(name) for name in needed} <= listed.keys()
    assert listed.pop("eocodec") == eocodec.__version__
    assert {name: pinned[name] for name in listed if name in pinned} == {n: v for n, v in listed.items() if n in pinned}
    assert len(listed.keys() & pinned.keys()) >= len(needed)


def _normal(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.slow
def test_distributions_build_and_are_complete(tmp_path: Path) -> None:
    """Those that continuous integration builds meanwhile in the folder EOCODEC_DISTRIBUTIONS, or else built here."""
    folder = Path(os.environ.get("EOCODEC_DISTRIBUTIONS", tmp_path))
    if folder == tmp_path:
        pytest.importorskip("build")
        pytest.importorskip("hatchling", reason="building without a network needs hatchling")
        subprocess.run(
            [sys.executable, "-m", "build", "-q", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)], check=True
        )
    wait_until(lambda: any(folder.glob("*.whl")) and any(folder.glob("*.tar.gz")), 300)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    assert max(p.stat().st_size for p in (wheel, source)) < LARGEST
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in ("eocodec/py.typed", "eocodec/models/photo.eocm", "eocodec/models/face64.eocm",
                   "eocodec/service/page/index.html", "eocodec_cli/demo.py", "eocodec_export/graphs.py"):  # fmt: skip
        assert needed in names, needed
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/")) or "node_modules" in n]
    with tarfile.open(source) as archive:
        members = {m.partition("/")[2] for m in archive.getnames()}
    assert {"check", "conftest.py", "tests/test_laws.py", "CITATION.cff", "docs/FORMAT.md"} <= members
    assert not [m for m in members if "node_modules" in m or m.endswith((".pyc", ".partial"))]

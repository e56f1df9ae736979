"""The house: which room may know which, nobody reaches into another's drawers, and old addresses are forwarded.

The rooms are drawn in docs/ARCHITECTURE.md. Imports are read from the source, those inside functions included.
"""

import ast
import functools
import importlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT, environment

from eocodec import _moved

PACKAGE = ROOT / "eocodec"
GROUND = {
    "arguments", "cached", "cores", "damage", "data", "errors", "files", "format", "headers", "image", "kinds",
    "levels", "matte", "memory", "metrics", "pieces", "profiles", "regions", "remarks", "results", "settings", "steps",
    "tiff", "varint", "wide", "writing",
}  # fmt: skip
# What a room of the ground may know of the ground besides `errors`.
OF_GROUND = {
    "format": {"pieces", "regions", "steps", "varint"},
    "headers": {"settings"},
    "image": {"arguments", "damage", "files", "format", "levels", "profiles", "settings", "tiff", "wide"},
    "matte": {"image"},
    "regions": {"varint"},
    "remarks": {"format", "image", "results", "wide", "writing"},
    "results": {"image"},
    "settings": {"format"},
    "wide": {"kinds", "levels", "tiff"},
    "writing": {"kinds"},
}
# What a room may know besides itself and the ground, `flow` apart.
MAY_KNOW = {
    **{room: set() for room in GROUND},
    "storage": set(),
    "workers": set(),
    "model": set(),
    "coding": {"model"},
    "denoising": {"model", "coding"},
    "effort": {"model", "coding"},
    "codec": {"_moved", "model", "coding", "denoising", "effort"},
    "flow": {"model", "coding"},
    "_moved": {"model"},
    "adapt": {"codec", "denoising", "model"},
    "batch": {"codec", "model", "storage", "workers"},
    "bench": {"codec", "denoising", "inspection", "model", "workers"},
    "doctor": {"codec", "model"},
    "inspection": {"coding", "model"},
    "lab": {"codec", "coding", "model"},
    "pillow": {"codec", "model"},
    "service": {"codec", "coding", "denoising", "lab", "model", "storage", "workers"},
    "": {"_moved", "codec", "denoising", "model", "results"},  # eocodec/__init__.py
}
WALK_ONLY = {"coding.scales", "coding.units", "coding.walk"}  # all that denoising and flow may know of coding
PARTS_ONLY = {("service", "lab"): "lab.paths", ("bench", "inspection"): "inspection.sheets"}
KNOWS_FLOW = {"flow", "lab", "adapt", "effort"}
MOST_LINES, LONGEST_FUNCTION = 600, 120


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(p for p in parts if p != "__init__"), path


MODULES = dict(_modules())


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _imports(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    """Modules below `eocodec` that a tree imports, without the prefix, and the name taken from each, or None."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in ("eocodec", "eocodec_export", "eocodec_cli"):
                    yield alias.name.removeprefix("eocodec").removeprefix("."), None
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            base = node.module or ""
            for alias in node.names:
                if base == "eocodec":
                    yield alias.name, None
                elif base.startswith("eocodec."):
                    name = f"{base.removeprefix('eocodec.')}.{alias.name}"
                    yield (name, None) if name in MODULES else (base.removeprefix("eocodec."), alias.name)
                elif base.split(".")[0] in ("eocodec_export", "eocodec_cli"):
                    yield base, alias.name


def _room(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_rooms_know_only_those_below_them(module: str) -> None:
    room = _room(module)
    for known, _ in _imports(_parsed(MODULES[module])):
        other = _room(known)
        if other in (room, "", "__version__"):
            continue
        assert not other.startswith("eocodec_"), f"{module} knows {other}"
        if other == "flow":
            assert room in KNOWS_FLOW, f"{module} knows {known}"
        else:
            ground = {"errors", *OF_GROUND.get(room, ())} if room in GROUND or not room else GROUND
            assert other in MAY_KNOW[room] | ground, f"{module} knows {known}"
            assert known.startswith(PARTS_ONLY.get((room, other), "")), f"{module} knows {known}"
            if other == "coding" and room in ("denoising", "flow"):
                assert known in WALK_ONLY, f"{module} knows {known}"


def test_imports_of_every_spelling_are_seen() -> None:
    source = """
import eocodec.codec
def f():
    from eocodec import codec
    from eocodec.codec import compress
    from eocodec.coding import walk
    from eocodec_export import bundle
"""
    assert list(_imports(ast.parse(source))) == [
        ("codec", None),
        ("codec", None),
        ("codec", "compress"),
        ("coding.walk", None),
        ("eocodec_export", "bundle"),
    ]


@pytest.mark.parametrize(
    "path",
    [*MODULES.values(), *(ROOT / "export").rglob("*.py"), *(ROOT / "cli").rglob("*.py")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_nobody_reaches_into_another_modules_drawers(path: Path) -> None:
    tree = _parsed(path)
    ours = {
        alias.asname or alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (node.module or "" if isinstance(node, ast.ImportFrom) else alias.name).startswith("eocodec")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eocodec"):
            names = [a.name for a in node.names if not a.name.startswith("__")]
            private = [n for n in names if n.startswith("_") and n != "_moved"]
            assert not private, f"{path}: {private}"
        if isinstance(node, ast.Attribute):
            assert node.attr != "__dict__", f"{path}:{node.lineno}"
            if isinstance(node.value, ast.Name) and node.value.id in ours:
                dunder = node.attr.startswith("__")
                assert dunder or not node.attr.startswith("_"), f"{path}:{node.lineno} {node.value.id}.{node.attr}"


@pytest.mark.parametrize(
    "module", [m for m in MODULES if _room(m) in {*GROUND, "model", "coding", "denoising", "codec"}]
)
def test_modules_and_functions_can_be_read_in_one_go(module: str) -> None:
    assert MODULES[module].read_text().count("\n") <= MOST_LINES
    for node in ast.walk(_parsed(MODULES[module])):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < LONGEST_FUNCTION, node.name


@pytest.mark.parametrize(
    "path", [*MODULES.values(), *(ROOT / "export").rglob("*.py"), *(ROOT / "cli").rglob("*.py"),
             *(ROOT / "benchmarks").rglob("*.py")],
    ids=lambda p: str(p.relative_to(ROOT)),
)  # fmt: skip
def test_nothing_that_torch_loads_is_run(path: Path) -> None:
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert given.get("weights_only") == "True", f"{path}:{node.lineno}"


def test_importing_the_package_is_cheap_and_its_names_are_listed() -> None:
    script = (
        "import sys, eocodec\n"
        "heavy = {'onnxruntime', 'numpy', 'PIL', 'constriction', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'compress', 'Compressed', 'decode_file', 'Library', 'load_model'} <= set(dir(eocodec))\n"
        "assert all(hasattr(eocodec, name) for name in eocodec.__all__)\n"
        "assert not hasattr(eocodec, 'nothing')\n"
        "assert 'torch' not in sys.modules and 'onnxruntime' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True, timeout=120)


@pytest.mark.parametrize("old", _moved.HOMES)
def test_old_modules_are_forwarded_with_a_warning(old: str) -> None:
    sys.modules.pop(f"eocodec.{old}", None)
    with pytest.warns(DeprecationWarning, match="has moved to"):
        module = importlib.import_module(f"eocodec.{old}")
    assert module.__doc__ is not None
    for name in _moved.RENAMED.get(old, {}):
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute"):
        _ = module.nothing


def test_old_names_do_what_they_did() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from eocodec.entropy import Walk
        from eocodec.flat import delta_of_rate, rate_of_delta

        from eocodec import bundle, codec, latents

        model = bundle.load_model("face64")
        assert rate_of_delta(model.flat, delta_of_rate(model.flat, 100)) == pytest.approx(100)
        assert latents.band_steps.__qualname__ == "PhotoManifest.steps"
        assert codec.find_model(model.id, model) is model
    from eocodec.coding import walk

    assert Walk is walk.Walk

"""Which faults the tests would not notice: small changes of the library's code, each run against the tests.

    python benchmarks/mutants.py format --tests tests/test_format.py [--sample 30] [--seed 0] [--json FILE]
        [--keep EXPRESSION] [--mark "not slow"] [--seconds 60] [--lines 48,55]

In: a module of `eocodec` and the tests that hold its promises. A mutant changes one place: a comparison, an operator, a
number, a condition, a `raise` or a call that is left out. Each runs in a process forked from one that has loaded
everything but eocodec. Out: the mutants that every test passes, with line and change; some are equivalent to the
original, the others show what is not tested. Texts, annotations and docstrings are not changed.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}


@dataclass(frozen=True)
class Mutant:
    """One change: where, what, and what it leads to ("caught", "survived", "too long")."""

    line: int
    change: str
    outcome: str = ""


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Variants of one node."""
    other = copy.deepcopy(node)
    if isinstance(node, ast.Compare) and isinstance(other, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        other.ops[0] = COMPARISONS[type(node.ops[0])]()
        yield "comparison", other
    elif isinstance(node, ast.BinOp) and isinstance(other, ast.BinOp) and type(node.op) in OPERATORS:
        other.op = OPERATORS[type(node.op)]()
        yield "operator", other
    elif isinstance(node, ast.BoolOp) and isinstance(other, ast.BoolOp):
        other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", other
    elif isinstance(node, ast.Constant) and isinstance(other, ast.Constant):
        if isinstance(node.value, bool):
            other.value = not node.value
            yield "truth", other
        elif isinstance(node.value, int | float):
            other.value = node.value + 1
            yield "number", other
    elif isinstance(node, ast.If | ast.While | ast.IfExp) and isinstance(other, ast.If | ast.While | ast.IfExp):
        other.test = ast.UnaryOp(ast.Not(), other.test)
        yield "condition", other
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "left out", ast.copy_location(ast.Pass(), node)


def _children(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Parent, field, place in the field and child, below a node; annotations and texts are left out."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "keywords") and not isinstance(node, ast.Call):
            continue
        if isinstance(node, ast.JoinedStr):
            continue
        many = isinstance(value, list)
        for at, child in enumerate(value if many else [value]):
            if isinstance(child, ast.AST):
                if isinstance(child, ast.Raise):  # its message may change
                    yield node, name, at if many else None, child
                    continue
                yield node, name, at if many else None, child
                yield from _children(child)


def mutants(source: str) -> list[tuple[Mutant, str]]:
    """Every mutant of a module with its source."""
    tree = ast.parse(source)
    found = []
    for parent, name, at, child in list(_children(tree)):
        for kind, variant in _changes(child):
            place = getattr(parent, name)
            if at is None:
                setattr(parent, name, variant)
            else:
                place[at] = variant
            before, after = (ast.unparse(n).split("\n")[0] for n in (child, variant))
            line = int(getattr(child, "lineno", 0))
            found.append((Mutant(line, f"{kind}: {before}  →  {after}"), ast.unparse(ast.fix_missing_locations(tree))))
            if at is None:
                setattr(parent, name, child)
            else:
                place[at] = child
    return found


class _Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module from a source that is given."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_loader(name, self, origin=str(self.path))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self.path)
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def outcome(name: str, path: Path, source: str, arguments: Sequence[str], seconds: float) -> str:
    """Whether the tests notice this source, in a process of its own."""
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        sys.meta_path.insert(0, _Instead(name, path, source))
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *arguments])))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "caught"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "too long"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", help="below eocodec, with dots")
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("--keep", default="", help="pytest -k")
    parser.add_argument("--mark", default="not slow and not browser and not ports", help="pytest -m")
    parser.add_argument("--sample", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120, help="a mutant may take")
    parser.add_argument("--lines", default="", help="of the sample, only the mutants of these lines")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.chdir(ROOT)
    path = ROOT / "eocodec" / (options.module.replace(".", "/") + ".py")
    source = path.read_text()
    arguments = [*options.tests, "-m", options.mark, *(["-k", options.keep] if options.keep else [])]
    for heavy in ("constriction", "hypothesis.extra.numpy", "numpy", "onnxruntime", "PIL.Image", "pytest", "zstandard"):
        importlib.import_module(heavy)
    name = f"eocodec.{options.module}"
    if outcome(name, path, source, arguments, 10 * options.seconds) != "survived":
        sys.exit("the tests do not pass without a change")
    every = mutants(source)
    chosen = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    if options.lines:
        lines = set(map(int, options.lines.split(",")))
        chosen = [m for m in chosen if m[0].line in lines]
    results = []
    for mutant, changed in sorted(chosen, key=lambda m: m[0].line):
        results.append(Mutant(mutant.line, mutant.change, outcome(name, path, changed, arguments, options.seconds)))
        print(f"{results[-1].outcome:9} {path.name}:{mutant.line}  {mutant.change}", flush=True)
    survived = sum(r.outcome == "survived" for r in results)
    print(f"{name}: {len(results)} of {len(every)} mutants, {survived} survived")
    if options.json:
        result = {"module": name, "of": len(every), "mutants": [asdict(r) for r in results]}
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

"""Carries a report out: trains or loads every subject, measures it, writes JSON, pages and the comparison.

Files in the report's folder:

    runs/NAME-SEED.pt, .json, .npz    weights, measures and codes of a run; runs that are there are not repeated
    NAME.json, NAME.html              a subject over its runs
    comparison.json, comparison.md, index.html
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eocodec.errors import EocodecError
from eocodec.files import atomic_file, atomic_write, make_folder
from eocodec.lab.data.dataset import Dataset
from eocodec.lab.data.library import load_set
from eocodec.lab.measures.alignment import similarity
from eocodec.lab.report.comparison import comparison, comparison_table, over_runs
from eocodec.lab.report.configuration import Report
from eocodec.lab.report.examination import Effort, check_samples, examine, same_pairs, shared_directions
from eocodec.lab.report.page import index_page, subject_page
from eocodec.lab.subjects.divergence import diverged, is_finite
from eocodec.lab.subjects.plans import Plan
from eocodec.lab.subjects.subject import Subject

__all__ = ["MEASURING", "carry_out", "length", "slug"]

MEASURING = 100  # what measuring counts in iterations, for progress
KEPT = 1000  # samples whose codes are kept


def slug(title: str) -> str:
    """A name for files: letters and digits, others as dashes, and a mark where that is not the title itself.

    Example:
        >>> slug("bfVAE"), slug("flow λ = 1")
        ('bfVAE', 'flow-1-8b3252')
    """
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", title).strip("-.")
    return plain if plain == title else f"{plain}-{hashlib.sha256(title.encode()).hexdigest()[:6]}".lstrip("-")


def length(report: Report) -> int:
    """How much `carry_out` counts to."""
    return sum(plan.iterations_of_training + MEASURING for plan, _ in report.runs)


def _mark(report: Report, plan: Plan, seed: int) -> str:
    """Changes with everything that a run depends on."""
    values = [plan.kind, dataclasses.asdict(plan), seed, report.top, report.data]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def carry_out(report: Report, say: Callable[[str, int], object] = lambda message, done: None) -> dict[str, Any]:
    """Carry out all runs that are not there yet, and write the report.

    Arguments:
        report: what to do.
        say: called with what is being done, and how much of `length` is done.

    Returns:
        The comparison: figures of every subject, mean and deviation over its runs.

    Raises:
        EocodecError: the folder cannot be written to, a set or subject cannot be made, a training diverges, or there
            are too few held-out samples.
    """
    folder = report.out / "runs"
    try:
        make_folder(folder)  # before the set is read
    except OSError as e:
        raise EocodecError(f"{folder}: cannot be written to ({e.strerror})") from None
    data = load_set(report.data, report.folder)
    for plan in report.plans:  # before the first is trained
        check_samples(plan.title, min(report.top, plan.size(data)), data)
    subjects: dict[str, Any] = {}
    done = 0
    for plan in report.plans:
        runs, codes, made = [], [], []
        for seed in (s for p, s in report.runs if p is plan):
            say(f"{plan.title}, seed {seed}", done)
            found, values, subject = _run(report, plan, seed, data, _after(say, f"{plan.title}, seed {seed}", done))
            done += plan.iterations_of_training + MEASURING
            runs.append(found)
            codes.append(values)
            made.append(subject)
        result = over_runs(plan.title, runs, codes)
        result["features"] = list(data.feature_names)
        if len(runs) > 1:
            a, b = result["reference"], 0 if result["reference"] else 1
            information = shared_directions(made[a], made[b], data, report.top)
            result["mcpmi"] = information.round(4).tolist()
            result["same_pairs"] = same_pairs(information, similarity(codes[a], codes[b]))
        subjects[plan.title] = result
        name = slug(plan.title)
        text = json.dumps(result, ensure_ascii=False) + "\n"
        atomic_write(report.out / f"{name}.json", text.encode())
        page = subject_page(result, codes, made[result["reference"]], data)
        atomic_write(report.out / f"{name}.html", page.encode())
    say("comparison", done)
    table = comparison(subjects)
    links = {title: f"{slug(title)}.html" for title in subjects}
    for name, text in (
        ("comparison.json", json.dumps(table, ensure_ascii=False, indent=1) + "\n"),
        ("comparison.md", comparison_table(table) + "\n"),
        ("index.html", index_page(data.name, table, links)),
    ):
        atomic_write(report.out / name, text.encode())
    return table


def _after(say: Callable[[str, int], object], message: str, done: int) -> Callable[[int], object]:
    """What a run calls with its iterations, of a report that has `done` behind it."""
    return lambda k: say(message, done + k)


def _run(
    report: Report, plan: Plan, seed: int, data: Dataset, progress: Callable[[int], object]
) -> tuple[dict[str, Any], np.ndarray, Subject]:
    """Measures, codes and subject of a run, from its files or anew."""
    base = report.out / "runs" / f"{slug(plan.title)}-{seed}"
    weights, measures, codes = (base.with_name(base.name + end) for end in (".pt", ".json", ".npz"))
    mark = _mark(report, plan, seed)
    subject = _restored(plan, data, weights, mark)
    if subject is None:
        subject, state = plan.train(data, seed, progress)
        if not is_finite(subject, data.held_out):
            raise diverged(plan.title)
        with atomic_file(weights) as file:
            torch.save({"mark": mark, "state": state}, file)
    kept = _measured(measures, codes, mark)
    if kept is not None:
        return *kept, subject
    found, values = examine(subject, data, Effort.suited(data, report.top))
    found |= {"seed": seed, "mark": mark}
    values = values[:KEPT]
    with atomic_file(codes) as file:
        np.savez_compressed(file, codes=values.astype(np.float32))
    atomic_write(measures, f"{json.dumps(found)}\n".encode())
    return found, values, subject


def _restored(plan: Plan, data: Dataset, path: Path, mark: str) -> Subject | None:
    try:
        held = torch.load(path, weights_only=True)
        if held["mark"] != mark:
            return None
        subject = plan.restore(data, held["state"])
        return subject if is_finite(subject, data.held_out) else None  # earlier versions kept broken weights
    except EocodecError:
        raise
    except Exception:  # torch raises errors of many kinds for files that are none of its own
        return None


def _measured(measures: Path, codes: Path, mark: str) -> tuple[dict[str, Any], np.ndarray] | None:
    try:
        found = json.loads(measures.read_text(encoding="utf-8"))
        if found["mark"] != mark:
            return None
        with np.load(codes) as held:
            return found, held["codes"].astype(np.float64)
    except (OSError, ValueError, KeyError):
        return None

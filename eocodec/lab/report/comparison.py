"""Figures of subjects over their runs, and the table that compares them."""

import math
import statistics
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.lab.measures.alignment import align, stability

__all__ = ["COLUMNS", "comparison", "comparison_table", "over_runs"]

Floats = npt.NDArray[np.float64]

COLUMNS: dict[str, tuple[str, ...]] = {
    "FVH-LSSI": ("fvh", "lssi"),
    "FVH-LSDI": ("fvh", "lsdi"),
    "DBSR-LSSI": ("dbsr", "lssi"),
    "informative": ("fvh", "count"),
    "mean c, nats": ("gaps", "mean"),
    "max c, nats": ("gaps", "max"),
    "MTC a latent, nats": ("spectrum", "mtc_per_latent"),
    "TC of codes, nats": ("dependence", "total_correlation"),
    "MIG": ("supervised", "mig"),
    "DCI-D": ("supervised", "dci_disentanglement"),
    "SAP": ("supervised", "sap"),
    "FactorVAE score": ("supervised", "factor_vae_score"),
    "β-VAE score": ("supervised", "beta_vae_score"),
    "modularity": ("supervised", "modularity"),
    "IRS": ("supervised", "irs"),
    "squared error": ("reconstruction",),
}
"""Columns of the table, and where a run's measures hold the figure."""


def _informative(run: dict[str, Any], codes: Floats) -> Floats:
    return codes[:, np.array(run["fvh"]["informative"], bool)]


def over_runs(title: str, runs: list[dict[str, Any]], codes: list[Floats]) -> dict[str, Any]:
    """A subject's runs, the reference among them, and how well they agree.

    Arguments:
        title: of the subject.
        runs: what `examine` gave.
        codes: of the same samples in every run, `(n, K)`.

    Returns:
        `runs`; `reference`, the place of the run with the highest FVH-LSSI; `gas`, the mean strength of pairs between
        any two runs' informative latents (None for one run); `aligned`, of every other run with the reference;
        `mean_variance`, the mean of the traversal matrices in the reference's order, and its `mean_lssi`.
    """
    from eocodec.lab.measures.separation import separation

    reference = int(np.argmax([run["fvh"]["lssi"] for run in runs]))
    kept = [_informative(run, c) for run, c in zip(runs, codes, strict=True)]
    agreement = stability(kept)
    aligned, matrices = [], [np.array(runs[reference]["fvh"]["variance"])]
    for place, (run, values) in enumerate(zip(runs, codes, strict=True)):
        if place == reference:
            continue
        found = align(codes[reference], values)
        matrix = np.zeros_like(matrices[0])
        matrix[found.reference] = np.array(run["fvh"]["variance"])[found.other]
        matrices.append(matrix)
        aligned.append(
            {
                "seed": run["seed"],
                "reference": found.reference.tolist(),
                "other": found.other.tolist(),
                "strength": found.strength.round(4).tolist(),
                "sign": found.sign.tolist(),
            }
        )
    mean = np.mean(matrices, axis=0)
    return {
        "name": title,
        "reference": reference,
        "gas": None if np.isnan(agreement) else round(agreement, 4),
        "aligned": aligned,
        "mean_variance": mean.round(5).tolist(),
        "mean_lssi": round(separation(mean).lssi, 4),
        "runs": runs,
    }


def comparison(subjects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of the figures of `COLUMNS` over runs, with GAS, by subject; None where not finite."""
    out: dict[str, Any] = {}
    for title, subject in subjects.items():
        row: dict[str, Any] = {"runs": len(subject["runs"])}
        for column, path in COLUMNS.items():
            values = [v for run in subject["runs"] if (v := _at(run, path)) is not None]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            row[column] = [round(statistics.mean(values), 5), round(deviation, 5)] if values else None
        row["GAS"] = None if subject["gas"] is None else [subject["gas"], 0.0]
        out[title] = row
    return out


def _at(run: dict[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = run
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if value is not None and math.isfinite(value) else None


def _shown(cell: list[float] | None, runs: int) -> str:
    if cell is None:
        return "–"
    mean, deviation = cell
    digits = 4 if abs(mean) < 0.05 else 3 if abs(mean) < 10 else 1
    spread = f" ± {deviation:.{digits}f}" if runs > 1 and deviation else ""
    return f"{round(mean, digits) + 0.0:.{digits}f}{spread}"


def comparison_rows(table: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the comparison as text; columns that no subject fills are left out."""
    columns = [c for c in [*COLUMNS, "GAS"] if any(row[c] is not None for row in table.values())]
    rows = [[title, *(_shown(row[c], row["runs"]) for c in columns)] for title, row in table.items()]
    return ["", *columns], rows


def comparison_table(table: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    head, rows = comparison_rows(table)
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])

"""What an adaptation gained, for people and programs: a card, a table, a plot, JSON.

In: an :class:`Outcome`. Out: `mine.md`, `mine.json` and `mine.png` beside `mine.eocm`.
"""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import eocodec
from eocodec.errors import EocodecError
from eocodec.files import atomic_write

if TYPE_CHECKING:
    from eocodec.adapt.measure import Curve

__all__ = ["SUFFIXES", "Outcome", "table", "write_report"]

SUFFIXES = (".md", ".json", ".png")
"""Of the files that :func:`write_report` writes beside the bundle."""

LOSSES = {
    "embedded": "embedded streams (`--progressive`)",
    "denoise": "the net for denoising (`--denoise` takes the method `shrink`)",
    "lossless": "lossless files",
    "grey": "the faster coding of grey pictures (they take the adapted nets)",
}


@dataclass(frozen=True)
class Outcome:
    """What came of it; the fields are the keys of the JSON file.

    Arguments:
        name, identity: of the new model; the id in full.
        base, base_identity: of the model it started from.
        goal, place, quality, unit: what it is for, what the two numbers of a point are, and in what the gain is.
        gain: on held-out pictures.
        before, after: points of both models.
        held_out: pictures measured.
        facts, notes: see `eocodec.adapt.survey.Survey`.
        iterations: of every part of the training.
        refinement: what training it on files gave; empty: it was not.
        history: seconds and estimated gain.
        seconds: it all took.
        size: of the bundle in bytes.
        delta: whether it needs its base.
        dropped: what the base can do and this one cannot.
        machine: on which it was done.
    """

    name: str
    identity: str
    base: str
    base_identity: str
    goal: str
    place: str
    quality: str
    unit: str
    gain: float
    before: "Curve"
    after: "Curve"
    held_out: int
    facts: dict[str, int]
    notes: tuple[str, ...]
    iterations: dict[str, int]
    refinement: str
    history: list[tuple[float, float]]
    seconds: float
    size: int
    delta: bool
    dropped: list[str]
    machine: str


def table(outcome: Outcome) -> str:
    """Points before and after, as a Markdown table."""
    place, quality = (f"{text[0].upper()}{text[1:]}" for text in (outcome.place, outcome.quality))
    rows = [
        f"| {place}, {outcome.base} | {quality} | {place}, {outcome.name} | {quality} |",
        "|---|---|---|---|",
    ]
    for (a, b), (c, d) in zip(outcome.before, outcome.after, strict=True):
        rows.append(f"| {a:.4g} | {b:.2f} | {c:.4g} | {d:.2f} |")
    return "\n".join(rows)


def card(outcome: Outcome) -> str:
    """The model card, Markdown."""
    kind = (
        f"a delta of `{outcome.base}` (id `{outcome.base_identity[:8]}`), which it needs" if outcome.delta else "whole"
    )
    than = f" than `{outcome.base}`" if outcome.unit.startswith("%") else ""
    lost = "; ".join(LOSSES.get(k, k) for k in outcome.dropped) or "nothing"
    rows = {
        "Bundle": f"`{outcome.name}.eocm`, {outcome.size / 1e6:.2f} MB, id `{outcome.identity[:8]}`, {kind}",
        "Use": f"pictures like those it was adapted to, for {outcome.goal}; others may take more bytes than with "
        f"`{outcome.base}`",
        "Pictures": "; ".join(outcome.notes),
        "Gain": f"{outcome.gain:.2f} {outcome.unit}{than} on {outcome.held_out} held-out pictures",
        "Cannot do": f"{lost}" if outcome.dropped else "nothing that its base can",
        "Training": f"`eocodec adapt --for {outcome.goal}`, version {eocodec.__version__}, {outcome.machine}, "
        f"{outcome.seconds / 60:.1f} minutes; iterations: "
        + "; ".join(f"{k}: {n}" for k, n in outcome.iterations.items()),
        **({"Refinement": outcome.refinement} if outcome.refinement else {}),
        "Licence": f"that of `{outcome.base}`, and what the pictures' owners say",
    }
    lines = [f"# Model card: `{outcome.name}`", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join([*lines, "", "## Held-out pictures, before and after", "", table(outcome), ""])


def plot(outcome: Outcome) -> bytes:
    """Curves before and after, and the gain over the time: PNG.

    Raises:
        EocodecError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise EocodecError("the plot needs matplotlib; install it with: pip install 'eocodec[adapt]'") from None
    figure: Any = Figure(figsize=(9, 3.8), layout="constrained")
    curves, progress = figure.subplots(1, 2)
    for name, points in ((outcome.base, outcome.before), (outcome.name, outcome.after)):
        curves.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    curves.set_xlabel(outcome.place)
    curves.set_ylabel(outcome.quality)
    curves.legend()
    progress.plot([t / 60 for t, _ in outcome.history], [g for _, g in outcome.history], marker="o", markersize=3)
    progress.axhline(0, color="grey", linewidth=0.8)
    progress.set_xlabel("minutes")
    progress.set_ylabel(f"{outcome.unit}, estimated in training")
    for axis in (curves, progress):
        axis.grid(alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
    return out.getvalue()


def write_report(bundle: Path, outcome: Outcome) -> None:
    """Write card, figures and plot beside a bundle, in the place of files that have their names."""
    contents = (card(outcome).encode(), (json.dumps(asdict(outcome), indent=1) + "\n").encode(), plot(outcome))
    for suffix, content in zip(SUFFIXES, contents, strict=True):
        atomic_write(bundle.with_suffix(suffix), content)

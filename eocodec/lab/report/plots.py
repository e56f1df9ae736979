"""Plots of a subject's measures, as SVG text for pages."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.errors import EocodecError

__all__ = ["bars", "heat_map"]

Floats = npt.NDArray[np.float64]

NAMED = 40  # features at most whose names are drawn


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise EocodecError("reports need matplotlib; install it with: pip install 'eocodec[lab]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context({"svg.hashsalt": "eocodec", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def heat_map(
    values: Floats,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    symmetric: bool = False,
    top: float | None = None,
) -> str:
    """A matrix as a heat map: SVG.

    Arguments:
        values: `(R, C)`.
        rows, columns: names; columns are left unnamed where there are more than 40.
        label: of the colour bar.
        symmetric: colours around zero, for signed values.
        top: value of the last colour; None takes the largest.
    """
    height = max(1.6, 0.24 * len(rows) + 0.9)
    figure, axis = _figure(9.0, height)
    limit = top or float(np.abs(values).max(initial=0.0)) or 1.0
    image = axis.imshow(
        values,
        aspect="auto",
        cmap="RdBu_r" if symmetric else "Greys",
        vmin=-limit if symmetric else 0.0,
        vmax=limit,
        interpolation="nearest",
    )
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    if len(columns) <= NAMED:
        axis.set_xticks(range(len(columns)), columns, fontsize=8, rotation=60 if max(map(len, columns)) > 4 else 0,
                        ha="right" if max(map(len, columns)) > 4 else "center")  # fmt: skip
    else:
        axis.set_xlabel(f"{len(columns)} features", fontsize=8)
        axis.set_xticks([])
    figure.colorbar(image, ax=axis, label=label, pad=0.01)
    return _svg(figure)


def bars(series: dict[str, Floats], names: Sequence[str], label: str) -> str:
    """Bars side by side, one group a latent: SVG.

    Arguments:
        series: legend to values `(K,)`.
        names: of the groups.
        label: of the axis.
    """
    figure, axis = _figure(9.0, 2.4)
    width = 0.8 / len(series)
    for k, (legend, values) in enumerate(series.items()):
        places = np.arange(len(values)) + (k - (len(series) - 1) / 2) * width
        axis.bar(places, values, width, label=legend, color=f"C{k}")
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_ylabel(label, fontsize=9)
    axis.grid(axis="y", alpha=0.3)
    if len(series) > 1:
        axis.legend(fontsize=8)
    return _svg(figure)

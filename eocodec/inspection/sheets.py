"""Sheets and plots that show what a model's latents do.

In: pictures and figures, of :mod:`eocodec.inspection.measures` or others. Out: Pillow images, bytes of plots.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from eocodec.errors import EocodecError
from eocodec.model.spectrum import Spectrum, noise_floor
from eocodec.model.transform import to_levels

__all__ = ["around_grey", "detail_gain", "plot_spectrum", "sheet"]

DETAIL_GAINS = (1, 2, 4, 8, 16)
GREY = 0.5
VISIBLE = 0.5 / 255
MARGIN, GAP = 10, 4  # pixels of a sheet

Float32 = npt.NDArray[np.float32]


def detail_gain(details: Sequence[Float32]) -> int:
    """By how much details are to be magnified to be seen: the largest of 1, 2, 4, 8, 16 that clips one value in 50.

    1 if they are rounding errors.
    """
    magnitude = np.concatenate([np.abs(d).ravel() for d in details])
    if magnitude.max() < VISIBLE:
        return 1
    spread = float(np.quantile(magnitude, 0.98))
    return max(g for g in DETAIL_GAINS if g == 1 or g * spread <= GREY)


def around_grey(column: Float32) -> Float32:
    """A signed picture scaled to 0 … 1 with zero at grey."""
    return GREY + column / np.float32(max(2 * float(np.abs(column).max()), 1e-12))


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def sheet(
    cells: Sequence[Sequence[Float32 | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    captions: Sequence[Sequence[str]] | None = None,
    edge: int = 128,
) -> Image.Image:
    """Pictures in rows and columns with labels.

    Arguments:
        cells: pictures `(h, w, 3)`, 0 to 1, or None; small ones are enlarged by whole factors, nearest neighbour.
        rows: a label for every row, may have several lines.
        columns: a label for every column.
        title: line above.
        captions: a line below every cell.
        edge: pixels up to which cells are enlarged.
    """
    font, small = _font(15), _font(12)
    images = [[None if c is None else _enlarged(c, edge) for c in row] for row in cells]
    widths = [
        max((row[k].width for row in images if k < len(row) and row[k] is not None), default=0)  # type: ignore[union-attr]
        for k in range(len(columns))
    ]
    heights = [max((i.height for i in row if i is not None), default=0) for row in images]
    below = 17 if captions else 0
    ruler = ImageDraw.Draw(Image.new("L", (1, 1)))
    indent = MARGIN + math.ceil(max((ruler.textbbox((0, 0), r, small)[2] for r in rows), default=0)) + MARGIN
    head = MARGIN + (24 if title else 0) + (20 if any(columns) else 0)
    width = max(indent + sum(widths) + GAP * len(widths), math.ceil(ruler.textlength(title, font)) + MARGIN) + MARGIN
    height = head + sum(h + below + GAP for h in heights) + MARGIN
    out = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(out)
    if title:
        draw.text((MARGIN, MARGIN), title, "black", font)
    lefts = [indent + sum(widths[:k]) + GAP * k for k in range(len(widths))]
    for left, w, label in zip(lefts, widths, columns, strict=True):
        draw.text((left + w / 2, head - 6), label, "black", small, anchor="ms")
    top = head
    for number, (row, label, h) in enumerate(zip(images, rows, heights, strict=True)):
        box = ruler.multiline_textbbox((0, 0), label, small)
        draw.multiline_text((MARGIN, top + (h - box[3]) / 2), label, "black", small)
        for k, image in enumerate(row):
            if image is not None:
                out.paste(image, (lefts[k], top))
            if captions and image is not None:
                draw.text((lefts[k] + widths[k] / 2, top + h + 2), captions[number][k], "black", small, anchor="ma")
        top += h + below + GAP
    return out


def _enlarged(cell: Float32, edge: int) -> Image.Image:
    pixels = to_levels(np.clip(np.asarray(cell, np.float32), 0, 1))
    factor = max(1, edge // max(cell.shape[:2]))
    return Image.fromarray(np.ascontiguousarray(pixels.repeat(factor, 0).repeat(factor, 1)))


def plot_spectrum(result: Spectrum, name: str, sigmas: Sequence[float], delta: float, suffix: str = "png") -> bytes:
    """H over the rank with noise floors, and the cumulative rate below it, as the bytes of a picture file.

    Arguments:
        result: the spectrum.
        name: of the model.
        sigmas: noise levels whose floors are drawn, range 0 to 1.
        delta: step of the rate, range 0 to 1.
        suffix: "png" or "svg".

    Raises:
        EocodecError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise EocodecError("plots need matplotlib; install it with: pip install 'eocodec[bench]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import ScalarFormatter

    ranks = np.arange(1, int(result.count.sum()) + 1)
    entropy = np.repeat(result.entropy, result.count)
    with plt.rc_context({"svg.hashsalt": "eocodec"}):
        figure, (upper, lower) = plt.subplots(
            2, 1, sharex=True, figsize=(9, 7.5), height_ratios=(3, 2), constrained_layout=True
        )
        upper.plot(ranks, entropy, drawstyle="steps-mid", color="black", linewidth=1.6)
        for k, sigma in enumerate(sigmas):
            floor, above = noise_floor(sigma), result.above(sigma)
            upper.axhline(floor, color=f"C{k}", linestyle="--", linewidth=1.2)
            upper.annotate(
                f"noise of {255 * sigma:g} levels: {above} latents above",
                (1.1, floor), (0, 3), textcoords="offset points", color=f"C{k}", va="bottom",
            )  # fmt: skip
        root = 255 / math.sqrt(2 * math.pi * math.e)
        right = upper.secondary_yaxis(
            "right",
            functions=(lambda h: root * np.exp(h), lambda s: np.log(np.maximum(s, 1e-12) / root)),
        )
        right.set_yscale("log")
        right.set_ylabel("equivalent deviation $\\sigma_i$ (8-bit levels)")
        visible = entropy[entropy > entropy.max() - 14]
        upper.set(ylabel="explained entropy $H_i$ (nats)", xscale="log", xlim=(0.9, ranks[-1]))
        upper.xaxis.set_major_formatter(ScalarFormatter())
        upper.set_ylim(float(visible.min()) - 0.3, float(entropy.max()) + 0.5)
        bits = np.cumsum(np.repeat(result.bits(delta), result.count))
        lower.plot(ranks, bits, color="black", linewidth=1.6)
        lower.set(
            xlabel=f"rank i of the latent, in a {result.unit} of {result.pixels} pixels",
            ylabel=f"bits of the first i latents at\n$\\Delta$ = {255 * delta:g} levels",
        )
        lower.set_ylim(0, max(1.0, 1.06 * float(bits[-1])))
        lower.annotate(f"{bits[-1]:.0f} bits", (ranks[-1], bits[-1]), (-6, -6), textcoords="offset points",
                       ha="right", va="top")  # fmt: skip
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
        figure.suptitle(f"{name}: explained entropy of {ranks[-1]} latents")
        out = io.BytesIO()
        figure.savefig(out, format=suffix, dpi=110, metadata={"Date": None} if suffix == "svg" else None)
        plt.close(figure)
    return out.getvalue()

"""Rate-distortion comparisons on a folder of pictures.

In: a folder, codecs, measures. Out: plain dictionaries with every point, text tables, a plot. Sizes are those of the
encoded files; qualities are those of the decoded 8-bit RGB picture; curves are means over pictures at equal settings.

Pictures are encoded and decoded one after another, so that the seconds are those of one picture with all threads; they
are measured several at a time.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # noqa: F401  (fails here, with a clear message, where the extra is missing)

from eocodec import codec
from eocodec.bench import codecs as registry
from eocodec.bench import plots
from eocodec.bench.codecs import CODECS, OURS, Codec
from eocodec.bench.measures import ALIKE, MEASURES, Measure
from eocodec.bench.pictures import Bytes, machine, read_pictures
from eocodec.bench.scores import Scorer
from eocodec.errors import EocodecError
from eocodec.image import Picture
from eocodec.metrics import bd_rate, bd_rate_between, psnr, with_hidden_of
from eocodec.model.bundle import Model

__all__ = ["compression", "compression_table", "differences", "plot", "published"]

AT_ONCE = 4  # pictures a measuring process that are coded before they are measured
Point = tuple[float, float]


def compression(
    folder: Path,
    codecs: Sequence[str],
    model: Model,
    limit: int | None,
    rates: tuple[float, float],
    say: Callable[[str], None],
    scorer: Scorer | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
    anchors: Path | None = None,
) -> dict[str, Any]:
    """Every codec at every setting on every picture; averages and Bjøntegaard rate differences.

    Arguments:
        folder: of pictures.
        codecs: names in :data:`eocodec.bench.codecs.CODECS`.
        model: of eocodec.
        limit: only the first pictures.
        rates: bits per pixel of the anchor between which rate differences are taken.
        say: gets a line for every point.
        scorer: measures the pictures; default: PSNR and MS-SSIM, in this process.
        tick: gets how many files are done, and how many there are.
        anchors: an earlier result on the same pictures, as JSON; its other codecs are taken over.

    Raises:
        EocodecError: no readable picture, an unknown codec, or anchors that were measured on other pictures or by
            fewer measures.
    """
    chosen, left_out = registry.choose(codecs)
    for name, reason in left_out.items():
        say(f"{name} is left out: {reason}")
    unreadable: dict[str, str] = {}
    pictures = read_pictures(folder, limit, unreadable.__setitem__)
    for name, reason in unreadable.items():
        say(f"{name} is left out: {reason}")
    scorer = scorer or Scorer([MEASURES["psnr"], MEASURES["ms_ssim"]])
    result: dict[str, Any] = {
        "folder": Path(folder).name,
        "pictures": [name for name, _ in pictures],
        "unreadable": unreadable,
        "machine": machine(),
        "versions": registry.versions(),
        "model": model.full_id.hex(),
        "labels": {c.name: c.label for c in chosen},
        "codecs": {c.name: [] for c in chosen},
    }
    if anchors is not None:
        _take_over(anchors, result, scorer.measures)
    if any(c.name in OURS for c in chosen):  # opening sessions is not encoding
        codec.decompress(codec.compress(pictures[0][1].rgb, model=model), model)
    done, total = 0, len(pictures) * sum(len(c.settings) for c in chosen)
    for c in chosen:
        for setting in c.settings:
            rows = []
            for row in _rows(c, [picture for _, picture in pictures], setting, model, scorer):
                rows.append(row)
                done += 1
                tick(done, total)
            result["codecs"][c.name].append(point := _mean(setting, rows, scorer.measures))
            say(_line(c.name, point, scorer.measures))
    result["measures"] = {m.name: differences(m, result["codecs"], rates) for m in scorer.measures}
    if "eocodec-psnr" in result["codecs"]:
        result["measures_psnr"] = {
            m.name: differences(m, result["codecs"], rates, "eocodec-psnr") for m in scorer.measures
        }
    result["bd_rate"] = result["measures"].get("psnr", {"bd_rate": {}})["bd_rate"]
    result["bd_range"] = list(rates)
    return result


def _take_over(path: Path, result: dict[str, Any], measures: Sequence[Measure]) -> None:
    """Put the curves of an earlier result into one, but for those that are to be measured."""
    try:
        earlier = json.loads(path.read_text())
        curves, labels, pictures = earlier["codecs"], earlier["labels"], earlier["pictures"]
        taken = {n: points for n, points in curves.items() if n not in result["codecs"]}
        lacking = [m.name for m in measures if any(m.name not in p for points in taken.values() for p in points)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise EocodecError(f"{path} is no result of this benchmark") from e
    if pictures != result["pictures"]:
        raise EocodecError(f"{path} was measured on other pictures")
    if lacking:
        raise EocodecError(f"{path} lacks the measure {lacking[0]}; choose others with --measures")
    result["codecs"] = {**result["codecs"], **taken}
    result["labels"] = {**result["labels"], **{n: labels[n] for n in taken}}
    result["anchors"] = {"versions": earlier.get("versions"), "machine": earlier.get("machine")}


def _rows(
    c: Codec, pictures: Sequence[Picture], setting: float, model: Model, scorer: Scorer
) -> Iterator[dict[str, Any]]:
    """Size, seconds and scores of every picture at a setting; transparency is not coded, what it hides not scored."""
    step = AT_ONCE * scorer.jobs
    for start in range(0, len(pictures), step):
        originals = pictures[start : start + step]
        coded = [_coded(c, picture.rgb, setting, model) for picture in originals]
        shown = [with_hidden_of(p.rgb, rgb, p.alpha) for p, (rgb, _) in zip(originals, coded, strict=True)]
        found = scorer([(p.rgb, rgb) for p, rgb in zip(originals, shown, strict=True)])
        for picture, rgb, (_, row), scores in zip(originals, shown, coded, found, strict=True):
            if picture.alpha is not None and "psnr" in scores:
                scores = {**scores, "psnr": min(psnr(picture.rgb, rgb, picture.alpha), ALIKE)}
            yield {**row, **scores}


def _coded(c: Codec, picture: Bytes, setting: float, model: Model) -> tuple[Bytes, dict[str, float]]:
    start = time.perf_counter()
    data = c.encode(picture, setting, model)
    middle = time.perf_counter()
    decoded = c.decode(data, model)
    end = time.perf_counter()
    return decoded, {
        "bpp": 8 * len(data) / (picture.shape[0] * picture.shape[1]),
        "encode_s": middle - start,
        "decode_s": end - middle,
    }


def _mean(setting: float, rows: Sequence[dict[str, Any]], measures: Sequence[Measure]) -> dict[str, Any]:
    """A point of a curve: means over pictures, and the values of each."""
    point: dict[str, Any] = {"setting": setting}
    names = [m.name for m in measures]
    for key in ("bpp", *names, "encode_s", "decode_s"):
        values = [row[key] for row in rows if row[key] is not None]
        point[key] = float(np.mean(values)) if values else None
    if "psnr" in names:
        point["each"] = [[round(row["bpp"], 5), round(row["psnr"], 4)] for row in rows]
    point["scores"] = {
        name: [None if row[name] is None else round(row[name], 5) for row in rows] for name in names if name != "psnr"
    }
    return point


def _line(name: str, point: dict[str, Any], measures: Sequence[Measure]) -> str:
    shown = [f"{m.label} {point[m.name]:.{m.decimals}f}" for m in measures if point[m.name] is not None]
    return "  ".join([f"{name:11} {point['setting']:6g}  {point['bpp']:.4f} bpp", *shown])


def _curve(points: Sequence[dict[str, Any]], measure: Measure) -> list[Point]:
    """Bits per pixel and quality, on the measure's scale."""
    return [(p["bpp"], measure.scale(p[measure.name])) for p in points if p.get(measure.name) is not None]


def differences(
    measure: Measure, curves: dict[str, Any], rates: tuple[float, float], own: str = "eocodec"
) -> dict[str, Any]:
    """Rate differences of a curve of ours against every other by one measure, in percent; None without an overlap."""
    found: dict[str, float | None] = {}
    ours = _curve(curves.get(own, []), measure)
    for name, points in curves.items() if ours else ():
        if name != own:
            found[name] = _difference(measure, _curve(points, measure), ours, rates)
    return {
        "label": measure.label,
        "better": "higher" if measure.higher else "lower",
        "range": {"bpp": list(rates)} if measure.scores is None else {"score": list(measure.scores)},
        "bd_rate": found,
    }


def _difference(
    measure: Measure, anchor: Sequence[Point], ours: Sequence[Point], rates: tuple[float, float]
) -> float | None:
    try:
        if measure.scores is None:
            return bd_rate(anchor, ours, *rates)
        return bd_rate_between(anchor, ours, *(measure.scale(s) for s in measure.scores))
    except (ValueError, IndexError):  # IndexError: a curve without points
        return None


def compression_table(result: dict[str, Any]) -> str:
    """Text of a compression result: points, then a table of BD-rates, a row for each measure."""
    measures = [MEASURES[name] for name in result["measures"]]
    columns = "".join(f" {m.label:>11}" for m in measures)
    lines = [f"{'codec':11} {'setting':>7} {'bpp':>8}{columns} {'encode s':>9} {'decode s':>9}"]
    for name, points in result["codecs"].items():
        for p in points:
            values = "".join(
                f" {'' if p[m.name] is None else format(p[m.name], f'.{m.decimals}f'):>11}" for m in measures
            )
            lines.append(
                f"{name:11} {p['setting']:7g} {p['bpp']:8.4f}{values} {p['encode_s']:9.3f} {p['decode_s']:9.3f}"
            )
    for own, found in (("eocodec", result["measures"]), ("eocodec-psnr", result.get("measures_psnr", {}))):
        others = [name for name in result["codecs"] if name != own]
        if others and own in result["codecs"]:
            lines += ["", f"{f'BD-rate of {own} against':32}" + "".join(f" {name:>12}" for name in others)]
            lines += [_difference_line(row, others) for row in found.values()]
    for name, curve in result.get("published", {}).items():
        own = "eocodec-psnr" if "eocodec-psnr" in result["codecs"] else "eocodec"
        lines.append(f"BD-rate of {own} against {name} (published curve): {_percent(curve['bd_rate'])}")
    if any(name.startswith("avif") for name in result["codecs"]):
        tune = result["versions"].get("avif tune", "not one of those known")
        lines.append(f"AVIF: Pillow {result['versions']['pillow']}, whose default tune here is {tune}")
    return "\n".join(lines)


def _difference_line(row: dict[str, Any], others: Sequence[str]) -> str:
    (unit, (low, high)) = next(iter(row["range"].items()))
    where = f"{row['label']}, {low:g} to {high:g}{' bpp' if unit == 'bpp' else ''}"
    return f"{where:32}" + "".join(f" {_percent(row['bd_rate'].get(name)):>12}" for name in others)


def _percent(value: float | None) -> str:
    return "no overlap" if value is None else f"{value:+.2f} %"


def published(files: Sequence[Path], result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Published curves by name: points, and the BD-rate of eocodec against them where the ranges overlap.

    The curve tuned for PSNR is compared where there is one.

    Arguments:
        files: JSON as CompressAI keeps its results: `name`, `results` with lists `bpp`, `psnr-rgb`, `ms-ssim-rgb`.
        result: of :func:`compression`.

    Raises:
        EocodecError: a file is not of this kind.
    """
    curve = result["codecs"].get("eocodec-psnr", result["codecs"].get("eocodec", []))
    ours = [(p["bpp"], p["psnr"]) for p in curve]
    curves: dict[str, dict[str, Any]] = {}
    for path in files:
        try:
            content = json.loads(Path(path).read_text())
            values = content["results"]
            quality = values.get("psnr-rgb", values.get("psnr"))
            points = sorted(zip(map(float, values["bpp"]), map(float, quality), strict=True))
            name = str(content.get("name", Path(path).stem))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise EocodecError(f"{path} is no published curve: JSON with results, bpp and psnr-rgb") from e
        try:
            difference: float | None = bd_rate(points, ours, *result["bd_range"]) if ours else None
        except ValueError:
            difference = None
        similarity = values.get("ms-ssim-rgb", values.get("ms-ssim"))
        curves[name if name not in curves else Path(path).stem] = {
            "points": points,
            "ms_ssim": sorted(zip(map(float, values["bpp"]), map(float, similarity), strict=True))
            if similarity
            else [],
            "bd_rate": difference,
        }
    return curves


def plot(result: dict[str, Any], kind: str) -> bytes:
    """Rate against quality, an axis for each measure, as a file of a type of :func:`eocodec.bench.plots.file_type`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    measures = [MEASURES[name] for name in result["measures"]]
    columns = min(2, len(measures))
    rows = -(-len(measures) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(6.5 * columns, 5.5 * rows), constrained_layout=True, squeeze=False
    )
    for axis, measure in zip(grid.flat, measures, strict=False):
        _draw(axis, result, measure)
    for axis in grid.flat[len(measures) :]:
        axis.set_visible(False)
    grid.flat[0].legend(fontsize=8)
    figure.suptitle(f"{result['folder']}, {len(result['pictures'])} pictures")
    return plots.encode(figure, kind)


PUBLISHED = {"psnr": "points", "ms_ssim": "ms_ssim"}  # where a published curve has a measure


def _draw(axis: Any, result: dict[str, Any], measure: Measure) -> None:
    """One measure's curves, as far as 2.5 bits per pixel."""
    for name, points in result["codecs"].items():
        curve = _curve(points, measure)
        own: dict[str, Any] = {"linewidth": 2.4, "color": "black", "zorder": 5}
        style = {**own, "linestyle": "-" if name == "eocodec" else ":"} if name in OURS else {"linewidth": 1.4}
        if curve:
            label = CODECS[name].label.split(";")[0].split(", tune")[0] if name in CODECS else name
            axis.plot(*zip(*curve, strict=True), marker="o", markersize=3.5, label=label, **style)
    for name, curve in result.get("published", {}).items():
        points = [(rate, measure.scale(value)) for rate, value in curve.get(PUBLISHED.get(measure.name, ""), [])]
        if points:
            axis.plot(*zip(*points, strict=True), linewidth=1, linestyle="--", label=f"{name} (published)")
    axis.set(xlabel="bits per pixel (file size)", ylabel=measure.axis, xlim=(0, 2.5))
    if measure.name == "psnr":
        axis.set_ylim(24, 46)
    elif measure.scores is not None:
        axis.set_ylim(0, 100)
    axis.grid(alpha=0.3)

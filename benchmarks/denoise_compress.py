"""Compression of noisy pictures, measured against the clean ones: what it gains to remove the noise in the codec.

    python benchmarks/denoise_compress.py FOLDER [--sigma 10 25] [--codecs NAME,…] [--limit N] [--every N] [--json F]
        [--plot F]

White Gaussian noise (seed: the picture's number, from 0) is added, clipped and rounded, since files hold 8 bits.
Every codec gets the same noisy pictures at all its settings: eocodec as it is, told the noise level, and estimating it
(`eocodec.compress(…, denoise=sigma or "auto")`); JPEG, WebP, AVIF and JPEG XL; and AVIF of what BM3D makes of the
picture, clipped and rounded, where the package `bm3d` is installed. Sizes are those of the files, PSNR is that of the
decoded 8-bit RGB picture against the clean one; curves are means over pictures at equal settings.

The tables compare at equal bits per pixel, on every picture's own curve (PCHIP over log rate); above its highest rate
a curve keeps its last value, below its lowest the picture is left out for this codec. A codec that keeps noise is worse
with more bits from some rate on; the first table takes curves as they are, the second the best a codec reaches with at
most so many bits, as if its user knew the clean picture.

With --json every picture is saved when it is done, and a run that was interrupted goes on from there: begin with a new
file when the code has changed. Needs the extra `bench`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eocodec import codec
from eocodec.bench.codecs import CODECS as ALL
from eocodec.bench.pictures import Bytes, machine, read_folder
from eocodec.errors import EocodecError
from eocodec.image import atomic_write
from eocodec.metrics import psnr
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

TOLD, ESTIMATED, BM3D = "eocodec, sigma given", "eocodec, sigma auto", "BM3D, then AVIF"
CODECS = {
    "eocodec-told": TOLD,
    "eocodec-auto": ESTIMATED,
    "eocodec": "eocodec",
    "bm3d-avif": BM3D,
    "avif": "AVIF",
    "jxl": "JPEG XL",
    "webp": "WebP",
    "jpeg": "JPEG",
}
ANCHOR = "avif"
RATES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # bits per pixel, of the table
Point = list[float]  # setting, bits per pixel, dB, seconds to encode


def noisy_picture(picture: Bytes, sigma: float, number: int) -> Bytes:
    """`(H, W, 3)` with noise, 8 bits."""
    noise = np.random.default_rng(number).normal(0, sigma, picture.shape)
    return np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)


def curve(name: str, clean: Bytes, noisy: Bytes, sigma: float, model: Model, every: int) -> list[Point]:
    """A codec at every `every`-th of its settings on one picture; BM3D, if any, runs once and is not in the seconds."""
    source, base = noisy, name
    if name == "bm3d-avif":
        import bm3d

        source = np.clip(np.round(bm3d.bm3d_rgb(noisy / 255, sigma / 255) * 255), 0, 255).astype(np.uint8)
        base = "avif"
    remove: dict[str, float | str] = {"eocodec-told": sigma, "eocodec-auto": "auto"}
    points = []
    for setting in ALL["eocodec" if name in remove else base].settings[::every]:
        start = time.perf_counter()
        if name in remove:
            data = codec.compress(source, setting, denoise=remove[name], model=model)
            seconds, decoded = time.perf_counter() - start, codec.decompress(data, model)
        else:
            data = ALL[base].encode(source, setting, model)
            seconds, decoded = time.perf_counter() - start, ALL[base].decode(data, model)
        bpp = 8 * len(data) / (clean.shape[0] * clean.shape[1])
        points.append([setting, round(bpp, 5), round(psnr(clean, decoded), 4), round(seconds, 4)])
    return points


def at_rate(points: Sequence[Point], bpp: float, at_most: bool) -> float | None:
    """PSNR of one picture's curve at a rate, or the best at this rate and below; None below its lowest."""
    from scipy.interpolate import PchipInterpolator

    best = dict(sorted((p[1], p[2]) for p in points))  # of equal sizes the better
    rates, quality = np.array(list(best)), list(best.values())
    if bpp < rates[0]:
        return None
    end = min(bpp, rates[-1])
    there = float(PchipInterpolator(np.log(rates), quality)(np.log(end))) if len(best) > 1 else quality[0]
    return max([there, *(q for r, q in best.items() if r <= end)]) if at_most else there


def gains(curves: dict[str, dict[str, list[Point]]], name: str, at_most: bool) -> list[tuple[float | None, int]]:
    """Mean dB above the anchor at every rate, over the pictures whose curves both reach it, and their number."""
    result: list[tuple[float | None, int]] = []
    for bpp in RATES:
        differences = []
        for picture, points in curves[name].items():
            anchor = curves[ANCHOR].get(picture, [])
            ours = at_rate(points, bpp, at_most)
            theirs = at_rate(anchor, bpp, at_most) if anchor else None
            if ours is not None and theirs is not None:
                differences.append(ours - theirs)
        result.append((float(np.mean(differences)) if differences else None, len(differences)))
    return result


def mean_curve(pictures: dict[str, list[Point]]) -> np.ndarray:
    """`(settings, 4)`: setting, bpp, dB, seconds, means over pictures at equal settings."""
    return np.mean(list(pictures.values()), axis=0)


def table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = []
    for sigma, row in result["sigmas"].items():
        lines.append(f"\nσ = {sigma}, noisy pictures {np.mean(list(row['noisy'].values())):.2f} dB")
        if ANCHOR not in row["curves"]:
            continue
        for at_most in (False, True):
            head = [f"{'at most' if at_most else 'at'} {r:g} bpp" for r in RATES]
            lines.append("\n| dB above AVIF | " + " | ".join(head) + " | best of the mean curve |")
            lines.append("|---" * (len(RATES) + 2) + "|")
            for name, pictures in row["curves"].items():
                cells = []
                for gain, count in gains(row["curves"], name, at_most):
                    shown = "–" if gain is None else f"{gain:+.2f}"
                    cells.append(shown if count in (0, len(pictures)) else f"{shown} ({count} of {len(pictures)})")
                best = max(mean_curve(pictures), key=lambda p: p[2])
                lines.append(f"| {CODECS[name]} | " + " | ".join(cells) + f" | {best[2]:.2f} dB at {best[1]:.2f} bpp |")
    return "\n".join(lines).strip()


def plot(result: dict[str, Any], path: Path) -> None:
    """Rate against PSNR to the clean picture, a panel for each σ."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    count = len(result["sigmas"])
    figure, axes = plt.subplots(1, count, figsize=(6.5 * count, 5.5), constrained_layout=True, squeeze=False)
    for axis, (sigma, row) in zip(axes[0], result["sigmas"].items(), strict=True):
        for name, pictures in row["curves"].items():
            style: dict[str, Any] = {"linewidth": 1.4, "color": f"C{list(CODECS).index(name)}"}
            label = CODECS[name] if len(pictures) == len(row["noisy"]) else f"{CODECS[name]} ({len(pictures)} pictures)"
            if name in ("eocodec-told", "eocodec-auto"):
                style = {"linewidth": 2.4, "color": "black", "linestyle": "-" if name == "eocodec-told" else "--"}
            points = mean_curve(pictures)
            axis.plot(points[:, 1], points[:, 2], marker="o", markersize=3.5, label=label, **style)
        noisy = float(np.mean(list(row["noisy"].values())))
        axis.axhline(noisy, color="grey", linewidth=1, linestyle=":", label="noisy picture")
        axis.set(xlabel="bits per pixel (file size)", ylabel="PSNR to the clean picture (dB, RGB)", xlim=(0, 2))
        axis.set_title(f"σ = {sigma}, {len(row['noisy'])} pictures")
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    figure.suptitle(f"{result['folder']} with noise")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def begun(path: Path | None, head: dict[str, Any]) -> dict[str, Any]:
    """The result so far, from a file of an interrupted run of the same kind.

    Raises:
        EocodecError: the file is no such result.
    """
    if path is None or not path.exists():
        return {**head, "machine": machine(), "sigmas": {}}
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        same = all(result[key] == value for key, value in head.items()) and isinstance(result["sigmas"], dict)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise EocodecError(f"{path} is no result of this benchmark; choose another name") from e
    if not same:
        raise EocodecError(f"{path} was measured with another folder or model; choose another name")
    return result


def measure(
    result: dict[str, Any],
    pictures: list[tuple[str, Bytes]],
    sigmas: Sequence[float],
    codecs: Sequence[str],
    model: Model,
    every: int,
    save: Callable[[], None],
) -> None:
    """Add to `result` what is missing in it, picture by picture."""
    for sigma in sigmas:
        row = result["sigmas"].setdefault(f"{sigma:g}", {"noisy": {}, "curves": {}})
        for number, (picture, clean) in enumerate(pictures):
            missing = [name for name in codecs if picture not in row["curves"].get(name, {})]
            if not missing:
                continue
            noisy = noisy_picture(clean, sigma, number)
            row["noisy"][picture] = round(psnr(clean, noisy), 4)
            start = time.perf_counter()
            for name in missing:
                row["curves"].setdefault(name, {})[picture] = curve(name, clean, noisy, sigma, model, every)
            save()
            print(f"σ {sigma:g}  {picture}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of clean pictures")
    parser.add_argument("--sigma", type=float, nargs="+", default=[10, 25], help="noise levels, 8-bit (default: 10 25)")
    parser.add_argument("--codecs", default=",".join(CODECS), help="default: %(default)s")
    parser.add_argument("--limit", type=int, help="only the first pictures")
    parser.add_argument("--every", type=int, default=1, help="only every N-th setting of the codecs (default: 1)")
    parser.add_argument("--model", default="photo", help="a name or a bundle (default: photo)")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime (default: one per core)")
    parser.add_argument("--json", type=Path, help="results; an interrupted run goes on from them")
    parser.add_argument("--plot", type=Path, help="picture of the curves")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    codecs = options.codecs.split(",")
    if unknown := [name for name in codecs if name not in CODECS]:
        sys.exit(f"no codec is called {unknown[0]}; known are {', '.join(CODECS)}")
    if "bm3d-avif" in codecs:
        try:
            import bm3d  # noqa: F401
        except ImportError:
            print("bm3d-avif is left out: the package bm3d is not installed", file=sys.stderr)
            codecs.remove("bm3d-avif")
    try:
        model = load_model(options.model, options.threads)
        pictures = read_folder(options.folder, options.limit)
        head = {"folder": options.folder.name, "model": model.full_id.hex(), "every": options.every}
        result = begun(options.json, head)
    except EocodecError as e:
        sys.exit(str(e))

    def save() -> None:
        if options.json:
            atomic_write(options.json, (json.dumps(result) + "\n").encode())

    codec.decompress(codec.compress(pictures[0][1], denoise=1, model=model), model)  # opening sessions is not encoding
    measure(result, pictures, options.sigma, codecs, model, options.every, save)
    print(table(result))
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()

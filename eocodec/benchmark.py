"""Rate-distortion comparisons on a folder of pictures (extra `bench`).

In: a folder. Out: plain dictionaries with every point, a text table, a plot. Sizes are those of the encoded files;
PSNR is that of the decoded 8-bit RGB picture; curves are means over pictures at equal settings.
"""

import io
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # noqa: F401  (fails here, with a clear message, where the extra is missing)
from PIL import Image

from eocodec import codec
from eocodec.errors import EocodecError, ImageError
from eocodec.image import read_picture
from eocodec.metrics import bd_rate, ms_ssim, psnr
from eocodec.model.bundle import Model

__all__ = [
    "CODECS",
    "SETTINGS",
    "compression",
    "compression_table",
    "encode",
    "machine",
    "plot",
    "published",
    "read_folder",
]

Bytes = npt.NDArray[np.uint8]

SETTINGS: dict[str, Sequence[float]] = {
    "eocodec": (8, 12, 18, 26, 38, 56, 84, 130, 190, 250, 320, 450),  # C
    "jpeg": (3, 5, 8, 14, 22, 33, 47, 60, 72, 80, 86, 90, 94),  # quality
    "webp": (0, 3, 8, 16, 28, 44, 60, 75, 85, 91, 95, 98),
    "avif": (14, 22, 30, 38, 46, 54, 62, 70, 78, 85, 91),
    "jxl": (5, 15, 25, 35, 45, 55, 65, 75, 84, 90, 94),  # quality, as libjxl maps it to a distance
}
CODECS = tuple(SETTINGS)


def _pillow(kind: str, picture: Bytes, **options: Any) -> tuple[bytes, Callable[[], Bytes]]:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind, **options)
    data = out.getvalue()
    return data, lambda: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def encode(name: str, picture: Bytes, setting: float, model: Model) -> tuple[bytes, Callable[[], Bytes]]:
    """The file a codec makes of a picture, and a function that decodes it."""
    if name == "eocodec":
        data = codec.compress(picture, setting, model=model)
        return data, lambda: codec.decompress(data, model)
    if name == "jpeg":
        return _pillow("JPEG", picture, quality=int(setting), optimize=True, subsampling="4:2:0")
    if name == "webp":
        return _pillow("WEBP", picture, quality=int(setting), method=6)
    if name == "avif":
        return _pillow("AVIF", picture, quality=int(setting), speed=6, subsampling="4:2:0")
    if name == "jxl":
        import pillow_jxl  # noqa: F401

        return _pillow("JXL", picture, quality=int(setting), effort=7)
    raise EocodecError(f"no codec is called {name}; known are {', '.join(CODECS)}")


def read_folder(folder: Path, limit: int | None = None) -> list[tuple[str, Bytes]]:
    """Names and `(H, W, 3)` pictures of a folder in the order of their names, at most `limit`.

    Raises:
        EocodecError: there is none that can be read.
    """
    found = []
    for path in sorted(Path(folder).iterdir()):
        if path.is_file():
            try:
                found.append((path.name, read_picture(path).rgb))
            except ImageError:
                continue
        if limit and len(found) == limit:
            break
    if not found:
        raise EocodecError(f"{folder} holds no picture that can be read")
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}


def compression(
    folder: Path,
    codecs: Sequence[str],
    model: Model,
    limit: int | None,
    rates: tuple[float, float],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Every codec at every setting on every picture; averages and Bjøntegaard rate differences.

    Raises:
        EocodecError: no readable picture, or an unknown codec.
    """
    for name in codecs:
        if name not in SETTINGS:
            raise EocodecError(f"no codec is called {name}; known are {', '.join(CODECS)}")
    pictures = read_folder(folder, limit)
    result: dict[str, Any] = {
        "folder": Path(folder).name,
        "pictures": [name for name, _ in pictures],
        "machine": machine(),
        "model": model.full_id.hex(),
        "codecs": {},
    }
    if "eocodec" in codecs:  # opening sessions is not encoding
        codec.decompress(codec.compress(pictures[0][1], model=model), model)
    for name in codecs:
        points = []
        for setting in SETTINGS[name]:
            rows = [_measure(name, picture, setting, model) for _, picture in pictures]
            point: dict[str, Any] = {"setting": setting}
            for key in ("bpp", "psnr", "ms_ssim", "encode_s", "decode_s"):
                values = [r[key] for r in rows if r[key] is not None]
                point[key] = float(np.mean(values)) if values else None
            point["each"] = [[round(r["bpp"], 5), round(r["psnr"], 4)] for r in rows]
            points.append(point)
            say(f"{name:8} {setting:6g}  {point['bpp']:.4f} bpp  {point['psnr']:.3f} dB")
        result["codecs"][name] = points
    result["bd_rate"] = _differences(result["codecs"], rates)
    result["bd_range"] = list(rates)
    return result


def _measure(name: str, picture: Bytes, setting: float, model: Model) -> dict[str, Any]:
    start = time.perf_counter()
    data, decode = encode(name, picture, setting, model)
    middle = time.perf_counter()
    decoded = decode()
    end = time.perf_counter()
    return {
        "bpp": 8 * len(data) / (picture.shape[0] * picture.shape[1]),
        "psnr": min(psnr(picture, decoded), 99.0),
        "ms_ssim": ms_ssim(picture, decoded) if min(picture.shape[:2]) >= 176 else None,
        "encode_s": middle - start,
        "decode_s": end - middle,
    }


def _differences(curves: dict[str, Any], rates: tuple[float, float]) -> dict[str, float | None]:
    if "eocodec" not in curves:
        return {}
    ours = [(p["bpp"], p["psnr"]) for p in curves["eocodec"]]
    result: dict[str, float | None] = {}
    for name, points in curves.items():
        if name != "eocodec":
            try:
                result[name] = bd_rate([(p["bpp"], p["psnr"]) for p in points], ours, *rates)
            except ValueError:
                result[name] = None
    return result


def compression_table(result: dict[str, Any]) -> str:
    """Text of a compression result: points, then BD-rates."""
    lines = [f"{'codec':8} {'setting':>8} {'bpp':>8} {'PSNR':>7} {'MS-SSIM':>8} {'encode s':>9} {'decode s':>9}"]
    for name, points in result["codecs"].items():
        for p in points:
            similarity = "" if p["ms_ssim"] is None else f"{p['ms_ssim']:.4f}"
            lines.append(
                f"{name:8} {p['setting']:8g} {p['bpp']:8.4f} {p['psnr']:7.3f} {similarity:>8} "
                f"{p['encode_s']:9.3f} {p['decode_s']:9.3f}"
            )
    low, high = result["bd_range"]
    for name, value in result["bd_rate"].items():
        shown = "no overlap" if value is None else f"{value:+.2f} %"
        lines.append(f"BD-rate (PSNR, {low:g} to {high:g} bpp) of eocodec against {name}: {shown}")
    for name, curve in result.get("published", {}).items():
        shown = "no overlap" if curve["bd_rate"] is None else f"{curve['bd_rate']:+.2f} %"
        lines.append(f"BD-rate of eocodec against {name} (published curve): {shown}")
    return "\n".join(lines)


def published(files: Sequence[Path], result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Published curves by name: points, and the BD-rate of eocodec against them where the ranges overlap.

    Arguments:
        files: JSON as CompressAI keeps its results: `name`, `results` with lists `bpp`, `psnr-rgb`, `ms-ssim-rgb`.
        result: of :func:`compression`.

    Raises:
        EocodecError: a file is not of this kind.
    """
    ours = [(p["bpp"], p["psnr"]) for p in result["codecs"].get("eocodec", [])]
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


def plot(result: dict[str, Any], path: Path) -> None:
    """Rate against PSNR, and against MS-SSIM in dB, as a picture file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(13, 5.5), constrained_layout=True)
    for name, points in result["codecs"].items():
        bpp = [p["bpp"] for p in points]
        style = {"linewidth": 2.4, "color": "black", "zorder": 5} if name == "eocodec" else {"linewidth": 1.4}
        axes[0].plot(bpp, [p["psnr"] for p in points], marker="o", markersize=3.5, label=name, **style)
        if all(p["ms_ssim"] is not None for p in points):
            decibels = [-10 * np.log10(1 - p["ms_ssim"]) for p in points]
            axes[1].plot(bpp, decibels, marker="o", markersize=3.5, label=name, **style)
    for name, curve in result.get("published", {}).items():
        line = axes[0].plot(
            *zip(*curve["points"], strict=True), linewidth=1, linestyle="--", label=f"{name} (published)"
        )
        decibels = [(r, -10 * np.log10(1 - s)) for r, s in curve["ms_ssim"] if s < 1]
        if decibels:
            axes[1].plot(*zip(*decibels, strict=True), linewidth=1, linestyle="--", color=line[0].get_color())
    for axis, label in zip(axes, ("PSNR (dB, RGB)", "MS-SSIM (dB)"), strict=True):
        axis.set(xlabel="bits per pixel (file size)", ylabel=label, xlim=(0, 2.5))
        axis.grid(alpha=0.3)
    axes[0].set_ylim(24, 46)
    axes[0].legend(fontsize=8)
    figure.suptitle(f"{result['folder']}, {len(result['pictures'])} pictures")
    figure.savefig(path, dpi=110)
    plt.close(figure)

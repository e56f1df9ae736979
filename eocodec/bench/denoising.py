"""Denoising comparisons on a folder of pictures (extra `bench`).

In: a folder, noise levels, names of methods. Out: plain dictionaries with the figures of every picture, text tables,
a plot.

All methods get the same noisy pictures: the seed is the picture's number in the folder, from 0. Noise is added to the
8-bit values and neither clipped nor rounded, as the literature on white Gaussian noise does, unless it is "jpeg".
What a method returns is clipped to 0 to 255 and not rounded before PSNR and SSIM are taken; the noisy picture is
measured as it is. Figures are means over pictures; seconds are those of one picture, on as many cores as a method
takes by itself.
"""

import functools
import importlib
import io
import itertools
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.metrics import structural_similarity

from eocodec import denoising
from eocodec.bench import plots
from eocodec.bench.pictures import Bytes, machine, read_folder
from eocodec.errors import EocodecError
from eocodec.metrics import psnr
from eocodec.model.bundle import Model

__all__ = ["METHODS", "NOISES", "add_noise", "compare", "levels", "levels_table", "luma", "plot", "ssim", "table"]

Floats = npt.NDArray[np.float64]
Run = Callable[[Floats, float], npt.NDArray[Any]]  # noisy picture in 0 to 1, σ in 8-bit levels → clean, 0 to 1

NOISES = ("gaussian", "poisson", "jpeg")
READ_NOISE = 0.3  # of "poisson": the part of σ that does not depend on the picture
JPEG_QUALITY = 75
SSIM_WINDOW = 11  # pixels

NLM_FACTORS = (0.4, 0.6, 0.8, 1.0)  # h / σ
OPENCV_FACTORS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8)


def luma(picture: Bytes) -> Bytes:
    """Luma `(H, W)` of a picture `(H, W, 3)`, ITU-R BT.601, rounded to 8 bits."""
    return np.floor(picture @ np.array([0.299, 0.587, 0.114]) + 0.5).astype(np.uint8)


def add_noise(picture: Bytes, sigma: float, number: int, noise: str = "gaussian") -> Floats:
    """The noisy picture, in 8-bit levels.

    Arguments:
        picture: `(H, W, 3)` or `(H, W)`.
        sigma: standard deviation in 8-bit levels.
        number: the seed.
        noise: "gaussian": white, not clipped, not rounded. "poisson": photon noise a·Poisson(x / a) with Gaussian noise
            of 0.3 σ, so that a value x has the variance (0.3 σ)² + a·x; a is chosen for the picture such that the
            mean variance is σ² (a black picture has the Gaussian part only); not clipped, not rounded. "jpeg": white
            Gaussian, clipped, rounded and put through JPEG at quality 75, 4:2:0.

    Raises:
        EocodecError: unknown noise.

    References:
        Foi, Trimeche, Katkovnik & Egiazarian, *Practical Poissonian-Gaussian noise modeling and fitting for
        single-image raw-data*, 2008. https://doi.org/10.1109/TIP.2008.2001399
    """
    random = np.random.default_rng(number)
    if noise == "poisson":
        mean = float(picture.mean())
        gain = (1 - READ_NOISE**2) * sigma**2 / mean if mean else 0.0
        shot = gain * random.poisson(picture / gain) if gain else picture.astype(np.float64)
        return shot + random.normal(0, READ_NOISE * sigma, picture.shape)
    noisy: Floats = picture + random.normal(0, sigma, picture.shape)
    if noise == "gaussian":
        return noisy
    if noise == "jpeg":
        out = io.BytesIO()
        Image.fromarray(_eight_bit(noisy / 255)).save(out, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
        return np.asarray(Image.open(out), np.float64)
    raise EocodecError(f"no noise is called {noise}; known are {', '.join(NOISES)}")


def ssim(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float | None:
    """Structural similarity of two pictures in 8-bit levels, `(H, W)` or `(H, W, 3)` (mean over RGB).

    None where a side is below the window's 11 pixels.

    References:
        Wang, Bovik, Sheikh & Simoncelli, *Image quality assessment: from error visibility to structural similarity*,
        2004. https://doi.org/10.1109/TIP.2003.819861
    """
    if min(a.shape[:2]) < SSIM_WINDOW:
        return None
    value = structural_similarity(  # type: ignore[no-untyped-call]
        a.astype(np.float64),
        b.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=_channels(a),
        data_range=255,
    )
    return float(value)


def _channels(picture: npt.NDArray[Any]) -> int | None:
    return -1 if picture.ndim == 3 else None


def _eight_bit(values: npt.NDArray[Any]) -> Bytes:
    return np.clip(np.round(values * 255), 0, 255).astype(np.uint8)


Rows = dict[str, dict[str, Run]]  # name of a row of the table → settings to choose from → what removes the noise


def _own(model: Model, method: str, automatic: bool = False) -> Run:
    def run(noisy: Floats, sigma: float) -> npt.NDArray[Any]:
        clean = denoising.denoise(noisy, "auto" if automatic else sigma, method=method, model=model)
        return clean if noisy.ndim == 3 else clean[..., 0]

    return run


def _net(model: Model) -> Rows:
    return {"eocodec net": {"": _own(model, "net")}, "eocodec net, sigma auto": {"": _own(model, "net", True)}}


def _bm3d(model: Model) -> Rows:
    module = importlib.import_module("bm3d")
    return {"BM3D": {"": lambda x, s: (module.bm3d_rgb if x.ndim == 3 else module.bm3d)(x, s / 255)}}


def _non_local_means(model: Model) -> Rows:
    from skimage.restoration import denoise_nl_means

    def run(noisy: Floats, sigma: float, factor: float) -> Floats:
        return denoise_nl_means(
            noisy,
            patch_size=5,
            patch_distance=6,
            h=factor * sigma / 255,
            sigma=sigma / 255,
            fast_mode=True,
            channel_axis=_channels(noisy),
        )

    return {"non-local means": {f"h = {f:g} σ": functools.partial(run, factor=f) for f in NLM_FACTORS}}


def _bayes(model: Model) -> Rows:
    importlib.import_module("pywt")  # which scikit-image imports only when the wavelets are used
    from skimage.restoration import denoise_wavelet

    def once(noisy: Floats, sigma: float) -> Floats:
        return denoise_wavelet(
            noisy,
            sigma=sigma / 255,
            method="BayesShrink",
            mode="soft",
            rescale_sigma=True,
            convert2ycbcr=noisy.ndim == 3,
            channel_axis=_channels(noisy),
        )

    def spun(noisy: Floats, sigma: float) -> Floats:  # as skimage's cycle_spin does at max_shifts = 3
        total = np.zeros_like(noisy)
        for shift in itertools.product(range(4), repeat=2):
            back = (-shift[0], -shift[1])
            total += np.roll(once(np.roll(noisy, shift, (0, 1)), sigma), back, (0, 1))
        return total / 16

    return {"BayesShrink": {"": once}, "BayesShrink, 16 shifts": {"": spun}}


def _opencv(model: Model) -> Rows:
    cv2 = importlib.import_module("cv2")

    def run(noisy: Floats, sigma: float, factor: float) -> Floats:
        h, levels = round(factor * sigma, 2), _eight_bit(noisy)
        if noisy.ndim == 2:
            return cv2.fastNlMeansDenoising(levels, None, h, 7, 21) / 255
        return cv2.fastNlMeansDenoisingColored(levels, None, h, h, 7, 21) / 255

    return {"OpenCV non-local means": {f"h = {f:g} σ": functools.partial(run, factor=f) for f in OPENCV_FACTORS}}


METHODS: dict[str, Callable[[Model], Rows]] = {
    "net": _net,
    "shrink": lambda model: {"eocodec shrink": {"": _own(model, "shrink")}},
    "drop": lambda model: {"eocodec drop": {"": _own(model, "drop")}},
    "bm3d": _bm3d,
    "nlm": _non_local_means,
    "bayes": _bayes,
    "opencv": _opencv,
}
OWN = ("net", "shrink", "drop")
BENCH = "install it with: pip install 'eocodec[bench]'"
INSTALL = {"bm3d": "where its licence, for non-commercial use, allows: pip install 'eocodec[bench-bm3d]'"}
PACKAGES = ("bm3d", "opencv-python-headless", "scikit-image")


def _rows(methods: Sequence[str], model: Model, noisy: Floats, sigma: float) -> tuple[Rows, dict[str, str]]:
    """Rows of the methods that work here, each tried on one picture, and why the others do not."""
    rows: Rows = {}
    left_out: dict[str, str] = {}
    for name in methods:
        try:
            found = METHODS[name](model)
            if name in OWN:  # the first call also opens the sessions, which is not denoising
                for settings in found.values():
                    settings[""](noisy, sigma)
        except ImportError as e:
            left_out[name] = f"it needs {e.name}; {INSTALL.get(name, BENCH)}"
        except EocodecError as e:
            left_out[name] = str(e)
        else:
            rows.update(found)
    return rows, left_out


def _check(methods: Sequence[str], noise: str, sigmas: Sequence[float], lowest: float) -> None:
    """Raise an :class:`EocodecError` for unknown names and levels out of range."""
    for name in methods:
        if name not in METHODS:
            raise EocodecError(f"no method is called {name}; known are {', '.join(METHODS)}")
    if noise not in NOISES:
        raise EocodecError(f"no noise is called {noise}; known are {', '.join(NOISES)}")
    for sigma in sigmas:
        if not lowest <= sigma <= 255:
            raise EocodecError(f"sigma must be from {lowest:g} to 255 levels, not {sigma:g}")


def _read(
    folder: Path, limit: int | None, grey: bool, say: Callable[[str], None]
) -> tuple[list[tuple[str, Bytes]], dict[str, str]]:
    """The pictures, and why others cannot be read."""
    unreadable: dict[str, str] = {}
    pictures = read_folder(folder, limit, unreadable.__setitem__)
    for name, reason in unreadable.items():
        say(f"{name} is left out: {reason}")
    return ([(name, luma(picture)) for name, picture in pictures] if grey else pictures), unreadable


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def compare(
    folder: Path,
    sigmas: Sequence[float],
    model: Model,
    methods: Sequence[str] = tuple(METHODS),
    *,
    noise: str = "gaussian",
    grey: bool = False,
    limit: int | None = None,
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """PSNR, SSIM and seconds of methods on the same noisy pictures.

    OpenCV's non-local means takes 8 bits only and gets the noisy picture clipped and rounded; all others get its
    values. Methods with a setting are shown at the best for all pictures (PSNR), the others are listed.

    Arguments:
        folder: of pictures; its order of names gives the seeds.
        sigmas: noise levels in 8-bit levels, 0.3 to 255; every method gets them, but for "sigma auto".
        model: of the methods net, shrink and drop.
        methods: names in :data:`METHODS`; those that do not work here are left out and said.
        noise: see :func:`add_noise`.
        grey: pictures are converted to luma first and get noise in one channel.
        limit: only the first pictures.
        say: gets lines on the way.
        keep: gets the unfinished result after every row.

    Raises:
        EocodecError: no readable picture, an unknown name, a level out of range, or no method works here.
    """
    _check(methods, noise, sigmas, denoising.SMALLEST_SIGMA)
    pictures, unreadable = _read(folder, limit, grey, say)
    noisy = add_noise(pictures[0][1], sigmas[0], 0, noise)
    rows, left_out = _rows(methods, model, noisy / 255, sigmas[0])
    for name, reason in left_out.items():
        say(f"{name} is left out: {reason}")
    if not rows:
        raise EocodecError(f"none of the methods works here: {', '.join(methods)}")
    result = _head(folder, pictures, unreadable, model, noise, grey) | {"left_out": left_out, "sigmas": []}
    own = any(name in OWN and name not in left_out for name in methods)
    rows = {"noisy": {"": lambda x, _: x}, **rows}
    for sigma in sigmas:
        figures: dict[str, Any] = {"sigma": sigma, "methods": {}}
        result["sigmas"].append(figures)
        if own:
            figures["level"] = _estimates(pictures, sigma, model, noise)
        for name, settings in rows.items():
            figures["methods"][name] = row = _row(pictures, sigma, noise, settings, clip=name != "noisy")
            say(f"sigma {sigma:g}  {_label(name, row)}: {row['psnr']:.3f} dB")
            keep(result)
    return result


def _head(
    folder: Path, pictures: list[tuple[str, Bytes]], unreadable: dict[str, str], model: Model, noise: str, grey: bool
) -> dict[str, Any]:
    return {
        "folder": Path(folder).name,
        "pictures": [name for name, _ in pictures],
        "unreadable": unreadable,
        "noise": noise,
        "grey": grey,
        "machine": machine(),
        "versions": _versions(),
        "model": model.full_id.hex(),
    }


def _row(
    pictures: list[tuple[str, Bytes]], sigma: float, noise: str, settings: dict[str, Run], clip: bool
) -> dict[str, Any]:
    """Figures of a method at its best setting; `each` holds those of every picture in order."""
    tried: dict[str, float] = {}
    if len(settings) > 1:
        for setting, run in settings.items():
            tried[setting] = float(np.mean(_measure(pictures, sigma, noise, run, clip, False)["psnr"]))
    best = max(tried, key=lambda s: tried[s]) if tried else next(iter(settings))
    each = _measure(pictures, sigma, noise, settings[best], clip, True)
    similarities = [s for s in each["ssim"] if s is not None]
    row: dict[str, Any] = {
        "psnr": float(np.mean(each["psnr"])),
        "ssim": float(np.mean(similarities)) if similarities else None,
        "seconds": float(np.mean(each["seconds"])),
        "each": each,
    }
    return row | {"setting": best, "psnr_by_setting": tried} if tried else row


def _measure(
    pictures: list[tuple[str, Bytes]], sigma: float, noise: str, run: Run, clip: bool, similarity: bool
) -> dict[str, list[Any]]:
    each: dict[str, list[Any]] = {"psnr": [], "ssim": [], "seconds": []}
    for number, (_, picture) in enumerate(pictures):
        noisy = add_noise(picture, sigma, number, noise) / 255
        start = time.perf_counter()
        clean = run(noisy, sigma)
        each["seconds"].append(round(time.perf_counter() - start, 4))
        values = np.asarray(clean, np.float64) * 255
        if clip:
            values = np.clip(values, 0, 255)
        each["psnr"].append(round(min(psnr(picture, values), 99.0), 4))
        similar = ssim(picture, values) if similarity else None
        each["ssim"].append(None if similar is None else round(similar, 5))
    return each


def levels(
    folder: Path,
    sigmas: Sequence[float],
    model: Model,
    *,
    noise: str = "gaussian",
    grey: bool = False,
    limit: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """How well the noise level is estimated, without denoising; arguments and errors as for :func:`compare`.

    `sigmas` may go down to 0.
    """
    _check((), noise, sigmas, 0)
    pictures, unreadable = _read(folder, limit, grey, say)
    result = _head(folder, pictures, unreadable, model, noise, grey) | {"levels": []}
    for sigma in sigmas:
        result["levels"].append(_estimates(pictures, sigma, model, noise))
        say(f"sigma {sigma:g}: {result['levels'][-1]['mean']:.3f}")
    return result


def _estimates(pictures: list[tuple[str, Bytes]], sigma: float, model: Model, noise: str) -> dict[str, Any]:
    """Estimated levels of noisy pictures, in 8-bit levels; errors are relative, but for σ = 0."""
    start = time.perf_counter()
    each = [
        float(denoising.estimate_sigma(add_noise(picture, sigma, number, noise) / 255, model))
        for number, (_, picture) in enumerate(pictures)
    ]
    errors = np.abs(np.array(each) - sigma) / (sigma or 1)
    worst = int(errors.argmax())
    return {
        "sigma": sigma,
        "mean": float(np.mean(each)),
        "std": float(np.std(each)),
        "error": float(errors.mean()),
        "worst": float(errors[worst]),
        "worst_picture": pictures[worst][0],
        "seconds": (time.perf_counter() - start) / len(each),
        "each": [round(value, 4) for value in each],
    }


def _label(name: str, row: dict[str, Any]) -> str:
    return f"{name}, {row['setting']}" if "setting" in row else name


def _title(result: dict[str, Any]) -> str:
    colour = "grey" if result["grey"] else "colour"
    return f"{result['folder']}, {len(result['pictures'])} pictures, {colour}, {result['noise']} noise"


def table(result: dict[str, Any]) -> str:
    """Text of a result of :func:`compare`: a block for every σ, then the level estimates."""
    lines = [_title(result)]
    for figures in result["sigmas"]:
        head = f"sigma {figures['sigma']:g}"
        lines.append(f"{head:36} {'PSNR dB':>8} {'SSIM':>7} {'seconds':>8}")
        for name, row in figures["methods"].items():
            similarity = "" if row["ssim"] is None else f"{row['ssim']:.4f}"
            lines.append(f"{_label(name, row):36} {row['psnr']:8.3f} {similarity:>7} {row['seconds']:8.3f}")
    estimated = [figures["level"] for figures in result["sigmas"] if "level" in figures]
    if estimated:
        lines.append(_level_lines(estimated))
    return "\n".join(lines)


def levels_table(result: dict[str, Any]) -> str:
    """Text of a result of :func:`levels`."""
    return f"{_title(result)}\n{_level_lines(result['levels'])}"


def _level_lines(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'level estimate':>14} {'mean':>8} {'spread':>8} {'error':>8} {'worst':>8}"]
    for row in rows:
        errors = [f"{100 * e:.2f} %" if row["sigma"] else f"{e:.2f}" for e in (row["error"], row["worst"])]
        head = f"sigma {row['sigma']:g}"
        lines.append(
            f"{head:>14} {row['mean']:8.3f} {row['std']:8.3f} {errors[0]:>8} {errors[1]:>8}  {row['worst_picture']}"
        )
    return "\n".join(lines)


def plot(result: dict[str, Any], kind: str) -> bytes:
    """PSNR and SSIM of every method against σ, from a result of :func:`compare`, as a file of a type of plots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(13, 5.5), constrained_layout=True)
    sigmas = [figures["sigma"] for figures in result["sigmas"]]
    for name in result["sigmas"][0]["methods"]:
        rows = [figures["methods"][name] for figures in result["sigmas"]]
        own = name.startswith("eocodec")
        style: dict[str, Any] = {"linewidth": 2.2 if own else 1.4, "linestyle": "--" if "auto" in name else "-"}
        if name == "noisy":
            style |= {"color": "lightgrey"}
        axes[0].plot(sigmas, [row["psnr"] for row in rows], marker="o", markersize=4, label=name, **style)
        if all(row["ssim"] is not None for row in rows):
            axes[1].plot(sigmas, [row["ssim"] for row in rows], marker="o", markersize=4, label=name, **style)
    for axis, label in zip(axes, ("PSNR (dB)", "SSIM"), strict=True):
        axis.set(xlabel="noise level σ (8-bit levels)", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle(_title(result))
    return plots.encode(figure, kind)

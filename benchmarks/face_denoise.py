"""Denoising of faces by dropping detail latents: PSNR against the number of latents kept, C.

    python benchmarks/face_denoise.py EVAL [--train TRAIN] [--flow-only] [--photo] [--json FILE] [--plot FILE]

EVAL and TRAIN are tars or folders of 64×64 lossless pictures. White Gaussian noise is added to EVAL, neither clipped
nor rounded. The latents of the noisy faces are cut off after the first C in the model's order and decoded, as in
`eocodec.denoise`, at the step Δ that goes with C, or with `--flow-only` by the inverse of the flow alone, to 8 bits.
"Known" is the C that the model's spectrum gives for the true noise level, "estimated" that for the level measured in
each face. With TRAIN the same is done with principal components, the linear ordered transform. PSNR is that of the
8-bit RGB picture; all figures are means over faces.

Needs the extra `bench` and, for the PCA, `torch`.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from faces import Bytes, Float32, Floats, Pca, face_psnr, read_faces, versions

import eocodec
from eocodec.denoising import dropping
from eocodec.errors import EocodecError
from eocodec.model import manifest, transform
from eocodec.model.bundle import Model
from eocodec.model.library import load_model

SIGMAS = (15, 25, 50)  # 8-bit levels
SEED = 0
LOWEST, POINTS = 4, 28  # of the grid of C
BATCH = 64
PHOTO_FACES = 64


def rates(most: int) -> list[float]:
    """The grid of C: geometric, whole numbers."""
    return np.unique(np.rint(np.geomspace(LOWEST, most, POINTS))).tolist()


def noisy_faces(faces: Bytes, sigma: float) -> Float32:
    """`(N, S, S, 3)` in 8-bit levels; the same draw for every level."""
    noise = np.random.default_rng(SEED).standard_normal(faces.shape, np.float32)
    return faces + np.float32(sigma) * noise


def encode(model: Model, pictures: Float32) -> Float32:
    """Latents `(N, D)` of pictures `(N, S, S, 3)` in 8-bit levels."""
    x = (pictures / np.float32(255)).transpose(0, 3, 1, 2)
    parts = [
        model.run("encoder", {"picture": np.ascontiguousarray(x[k : k + BATCH])})[0] for k in range(0, len(x), BATCH)
    ]
    return np.concatenate(parts)


def decode(model: Model, latents: Float32, deltas: list[float]) -> Bytes:
    """Pictures of latents `(N, D)`, each decoded at its own step Δ (range 0 to 1)."""
    parts = []
    for k in range(0, len(latents), BATCH):
        some, step = latents[k : k + BATCH], np.array(deltas[k : k + BATCH], np.float32)
        (picture,) = model.run("decoder", {"latents": some, "step": step})
        parts.append(transform.to_levels(np.clip(picture, 0, 1).transpose(0, 2, 3, 1)))
    return np.concatenate(parts)


def curve(points: list[tuple[float, Floats]]) -> dict[str, Any]:
    """Points `(C, PSNR of every face)` as figures, and the best of them."""
    means = [(round(c), round(float(psnr.mean()), 4)) for c, psnr in points]
    best = max(means, key=lambda p: p[1])
    return {"c": [c for c, _ in means], "psnr": [q for _, q in means], "best": {"c": best[0], "psnr": best[1]}}


def of_model(model: Model, faces: Bytes, noisy: Float32, sigma: float, flow_only: bool) -> dict[str, Any]:
    """The model's curve, and its automatic C with the noise level known and estimated."""
    latents = encode(model, noisy)
    points = []

    def delta(c: float) -> float:
        return manifest.FLOW_ONLY if flow_only else model.flat.core_step(c)

    def psnr_at(c: float) -> Floats:
        return face_psnr(faces, decode(model, latents * model.flat.kept(c), [delta(c)] * len(faces)))

    for c in rates(latents.shape[1]):
        points.append((c, psnr_at(c)))
        print(f"σ {sigma:g}  C {c:6.0f}  {points[-1][1].mean():7.3f} dB", file=sys.stderr, flush=True)
    known = dropping.rate_of_noise(model.flat, sigma / 255)
    levels = np.array([dropping.noise_level(model.flat, h) for h in latents])
    chosen = np.array([dropping.rate_of_noise(model.flat, level) for level in levels])
    psnr = psnr_at(known)
    each = np.stack([h * model.flat.kept(c) for h, c in zip(latents, chosen, strict=True)])
    best = max((p for _, p in points), key=lambda p: float(p.mean()))
    first = slice(PHOTO_FACES)
    return {
        **curve(points),
        "known": {"c": known, "psnr": _mean(psnr)},
        "estimated": {
            "c_median": float(np.median(chosen)),
            "c_range": [float(chosen.min()), float(chosen.max())],
            "level_mean": round(255 * float(levels.mean()), 3),
            "level_std": round(255 * float(levels.std()), 3),
            "psnr": _mean(face_psnr(faces, decode(model, each, [delta(c) for c in chosen]))),
        },
        "first_faces": {"best": _mean(best[first]), "known": _mean(psnr[first])},
    }


def of_pca(pca: Pca, faces: Bytes, noisy: Float32, sigma: float) -> dict[str, Any]:
    """The same for principal components; C is known to be the number of those with more signal than noise."""
    basis, _ = pca.basis(True)
    coefficients = basis.coefficients(noisy)
    grid = [int(c) for c in rates(faces[0].size) if c <= len(coefficients)]
    points = [(float(c), face_psnr(faces, basis.faces(coefficients[:c]))) for c in grid]
    known = max(1, int(np.count_nonzero(basis.stds > sigma)))
    psnr = face_psnr(faces, basis.faces(coefficients[:known]))
    return {**curve(points), "known": {"c": known, "psnr": _mean(psnr)}}


def of_photo(faces: Bytes, noisy: Float32, sigma: float) -> dict[str, Any]:
    """The shipped model for photographs, which shrinks latents instead of dropping them, on the first faces."""
    pictures = noisy[:PHOTO_FACES] / np.float32(255)
    cleaned = np.stack([eocodec.denoise(x, sigma, model="photo") for x in pictures])
    return {"faces": len(cleaned), "psnr": _mean(face_psnr(faces[: len(cleaned)], transform.to_levels(cleaned)))}


def _mean(psnr: Floats) -> float:
    return round(float(psnr.mean()), 4)


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| σ | noisy | best C | C, σ known | C, σ estimated | PCA, best C | PCA, C, σ known |",
        "|---|---|---|---|---|---|---|",
    ]
    for sigma, row in result["levels"].items():
        m, linear = row["model"], row.get("pca", {})
        estimated = {"c": m["estimated"]["c_median"], "psnr": m["estimated"]["psnr"]}
        cells = [
            f"{p['psnr']:.2f} dB (C = {p['c']:.0f})" if p else ""
            for p in (m["best"], m["known"], estimated, linear.get("best"), linear.get("known"))
        ]
        lines.append("| " + " | ".join([sigma, f"{row['noisy']:.2f} dB", *cells]) + " |")
    for sigma, row in result["levels"].items():
        if photo := row.get("photo"):
            own = row["model"]["first_faces"]
            lines.append(
                f"\nFirst {photo['faces']} faces, σ = {sigma}: photo {photo['psnr']:.2f} dB, "
                f"{result['model']} {own['known']:.2f} dB (σ known), {own['best']:.2f} dB (best C)"
            )
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """PSNR against C as a picture file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure, axis = plt.subplots(figsize=(8.5, 5.5), constrained_layout=True)
    for (sigma, row), colour in zip(result["levels"].items(), ("tab:green", "tab:blue", "tab:red"), strict=False):
        m = row["model"]
        axis.plot(m["c"], m["psnr"], color=colour, linewidth=2, label=f"σ = {sigma}")
        if linear := row.get("pca"):
            axis.plot(linear["c"], linear["psnr"], color=colour, linewidth=1.2, linestyle="--")
        best, known, estimated = m["best"], m["known"], m["estimated"]
        axis.plot(best["c"], best["psnr"], "*", color=colour, markersize=13)
        axis.plot(known["c"], known["psnr"], "o", color=colour, markersize=8, markerfacecolor="white")
        axis.plot(estimated["c_median"], estimated["psnr"], "x", color="black", markersize=7, markeredgewidth=1.8)
        axis.annotate(
            f"C = {best['c']}: {best['psnr']:.1f} dB",
            (best["c"], best["psnr"]),
            (0, 10),
            textcoords="offset points",
            ha="center",
            color=colour,
        )
    for style, label in (("*", "best C"), ("o", "automatic C, σ known"), ("x", "automatic C, σ estimated (median)")):
        axis.plot([], [], style, color="black", markerfacecolor="white" if style == "o" else "black", label=label)
    if any("pca" in row for row in result["levels"].values()):
        axis.plot([], [], "--", color="black", linewidth=1.2, label="PCA, first C components")
    axis.set_xscale("log")
    axis.set(xlabel="latents kept, C", ylabel="PSNR (dB, RGB)")
    axis.set_xticks([4, 16, 64, 256, 1024, 4096, 12288])
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(y=0.09)
    axis.grid(alpha=0.3)
    axis.legend()
    axis.set_title(f"White noise on {result['faces']} faces, 64×64: {result['model']}, {result['decoder']}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("eval", type=Path, help="tar or folder of 64×64 pictures")
    parser.add_argument("--train", type=Path, help="tar or folder the PCA is fitted to (default: no PCA)")
    parser.add_argument("--model", default="face64", help="a name or a bundle (default: face64)")
    parser.add_argument("--flow-only", action="store_true", help="decode without the refinement")
    parser.add_argument("--photo", action="store_true", help=f"also run the model photo on {PHOTO_FACES} faces")
    parser.add_argument("--pictures", type=int, help="measure so many faces, evenly spread (default: all)")
    parser.add_argument("--threads", type=int, default=0, help="of ONNX Runtime (default: one per core)")
    parser.add_argument("--json", type=Path, help="results")
    parser.add_argument("--plot", type=Path, help="picture of the curves")
    parser.add_argument("--cache", type=Path, help="folder that keeps the principal components between runs")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    try:
        model = load_model(options.model, threads=options.threads)
        size = model.flat.size
    except EocodecError as e:
        sys.exit(str(e))
    faces = read_faces(options.eval)
    if faces.shape[1:3] != (size, size):
        sys.exit(f"the model {model.name} takes pictures of {size}x{size} pixels")
    if options.pictures:
        faces = faces[np.linspace(0, len(faces) - 1, min(options.pictures, len(faces))).astype(int)]
    pca = Pca(options.train, options.cache) if options.train else None
    result: dict[str, Any] = {
        "model": model.name,
        "model_id": model.id.hex(),
        "eval": options.eval.name,
        "faces": len(faces),
        "decoder": "flow alone" if options.flow_only else "with refinement",
        "seed": SEED,
        "versions": versions(),
        "levels": {},
    }
    for sigma in SIGMAS:
        start = time.perf_counter()
        noisy = noisy_faces(faces, sigma)
        row: dict[str, Any] = {
            "noisy": _mean(face_psnr(faces, noisy)),
            "model": of_model(model, faces, noisy, sigma, options.flow_only),
        }
        if pca:
            row["pca"] = of_pca(pca, faces, noisy, sigma)
        if options.photo:
            row["photo"] = of_photo(faces, noisy, sigma)
        result["levels"][str(sigma)] = row
        print(f"σ {sigma}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(table(result))
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()

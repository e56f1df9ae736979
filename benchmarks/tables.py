"""The tables of the documents, generated from the measurements beside this file.

    python benchmarks/tables.py [--check]

A table stands in a document between `<!-- table: NAME -->` and `<!-- /table -->`. Without --check the documents are
rewritten; with it nothing is, and the exit code is 1 if a document differs from its JSON. In: `benchmarks/*.json`, each
with the id of the bundle it was measured with. Out: Markdown. Needs the extra `bench`, and `train` for the table of the
objective.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))  # the programs that measure, imported by their names

ROOT = FOLDER.parent
DOCUMENTS = ("README.md", "docs/RESULTS.md", "docs/METHOD.md", "docs/SERVICE.md")
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- /table -->)", re.S)
UNTRAINED = ("objective", "stability", "training_size")  # no bundle took part
SHIPPED = ("photo", "face64")

CODECS = {
    "jpeg": "JPEG (libjpeg-turbo, 4:2:0, optimised)",
    "webp": "WebP (method 6)",
    "avif": "AVIF (speed 6, 4:2:0)",
    "avif-s2-444": "AVIF (speed 2, 4:4:4)",
    "jxl": "JPEG XL (effort 7)",
}
TUNINGS = {"eocodec": "default", "eocodec-psnr": "psnr"}
MEASURES = {
    "psnr": ("PSNR", 3),
    "ms_ssim": ("MS-SSIM", 4),
    "ssimulacra2": ("SSIMULACRA2", 2),
    "butteraugli": ("Butteraugli", 3),
}  # their names and decimals
BD_RANGES = ((0.15, 1.5), (0.1, 0.5), (0.1, 1.0), (1.0, 2.4))  # bits per pixel

# CBSD68, PSNR in dB at σ = 15, 25, 50: Zhang, Li, Zuo, Zhang, Van Gool & Timofte, *Plug-and-play image restoration with
# deep denoiser prior*, 2021, table 2. https://arxiv.org/abs/2008.13751
DENOISERS = {
    "CBM3D": (33.52, 30.71, 27.38),
    "DnCNN": (33.90, 31.24, 27.95),
    "FFDNet": (33.87, 31.21, 27.96),
    "DRUNet": (34.30, 31.69, 28.51),
}

# The first 800 principal components of the training faces, a uniform step, the ideal static entropy of each, no header:
# bytes, dB
PCA_IDEAL = (
    *((7, 21.1), (13, 22.4), (24, 23.9), (40, 25.3), (61, 26.8)),
    *((86, 28.1), (119, 29.6), (159, 31.1), (197, 32.3), (235, 33.4)),
)


@cache
def measured(name: str) -> Any:
    """A result by the name of its file."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def bundle_of(name: str) -> str | None:
    """Id in hexadecimal of the bundle a result was measured with, None if no bundle took part."""
    if name in UNTRAINED:
        return None
    result = measured(name)
    return str(result.get("model_id") or result["model"])


@cache
def shipped() -> dict[str, str]:
    """Ids of the bundles in the package, in hexadecimal, by name."""
    from eocodec import load_model

    return {name: load_model(name).full_id.hex() for name in SHIPPED}


def grid(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def bundles() -> str:
    """Which bundle each result was measured with."""
    rows = []
    for path in sorted(FOLDER.glob("*.json")):
        identity = bundle_of(path.stem)
        name = next((n for n, full in shipped().items() if identity and full.startswith(identity)), None)
        shown = "none, flows trained by the program" if identity is None else f"`{identity[:8]}`"
        state = "–" if identity is None else f"`{name}` as shipped" if name else "an earlier `photo`"
        rows.append([f"[{path.name}](../benchmarks/{path.name})", shown, state])
    return grid(["Result", "Bundle", "That is"], rows)


def _bd_rows(curves: dict[str, list[tuple[float, float]]], bold: bool, suffix: str = "") -> list[list[str]]:
    from eocodec.metrics import bd_rate

    curves_of = measured("kodak")["codecs"]
    ours = [(p["bpp"], p["psnr"]) for p in curves_of.get("eocodec-psnr", curves_of["eocodec"])]
    rows = []
    for name, points in curves.items():
        cells = []
        for low, high in BD_RANGES:
            try:
                cells.append(f"{bd_rate(points, ours, low, high):+.1f} %")
            except ValueError:
                cells.append("–")
        cells[0] = f"**{cells[0]}**" if bold else cells[0]
        rows.append([name + suffix, *cells])
    return rows


def _others() -> dict[str, str]:
    """Names and labels of the other codecs that were measured on Kodak."""
    return {name: label for name, label in CODECS.items() if name in measured("kodak")["codecs"]}


def _bd_table(published: bool) -> str:
    result = measured("kodak")
    own = {label: [(p["bpp"], p["psnr"]) for p in result["codecs"][name]] for name, label in _others().items()}
    rows = _bd_rows(own, bold=True)
    if published:
        others = {name: [(r, q) for r, q in curve["points"]] for name, curve in result["published"].items()}
        rows += _bd_rows(others, bold=False, suffix=" (published)")
    own_name = "eocodec --tune psnr" if "eocodec-psnr" in result["codecs"] else "eocodec"
    head = [f"BD-rate (PSNR) of {own_name} against", *(f"{low:g}–{high:.1f} bpp" for low, high in BD_RANGES)]
    return grid(head, rows)


def kodak_eye() -> str:
    """Rate differences by every measure, tuned for the eye and for squared error."""
    result = measured("kodak")
    every = {**CODECS, "eocodec-psnr": "eocodec --tune psnr"}
    names = {name: label for name, label in every.items() if name in result["codecs"]}
    rows = []
    for own, key in (("eocodec", "measures"), ("eocodec --tune psnr", "measures_psnr")):
        for row in result.get(key, {}).values():
            (unit, (low, high)) = next(iter(row["range"].items()))
            cells = [row["bd_rate"].get(name) for name in names]
            where = f"{row['label']}, {low:g}–{high:g}{' bpp' if unit == 'bpp' else ''}"
            rows.append([own, where, *("–" if c is None else f"{c:+.1f} %" for c in cells)])
    return grid(["BD-rate of", "by", *(f"against {label}" for label in names.values())], rows)


def kodak_effort() -> str:
    """What effort saves, by every measure, and what AVIF is ahead or behind of it."""
    from eocodec.bench.compression import differences
    from eocodec.bench.measures import MEASURES as SCORES

    curves = measured("kodak-effort")["codecs"]
    rows = []
    for name, plain, label in (
        ("eocodec-effort", "eocodec", "default"),
        ("eocodec-psnr-effort", "eocodec-psnr", "--tune psnr"),
    ):
        # The same settings of both: a curve through twice the points is another one.
        same = [p for p in curves[plain] if p["setting"] in {q["setting"] for q in curves[name]}]
        for measure in MEASURES:
            found = differences(SCORES[measure], {**curves, plain: same}, BD_RANGES[0], name)["bd_rate"]
            cells = [found.get(other) for other in (plain, "avif", "jxl")]
            rows.append([label, MEASURES[measure][0], *("–" if c is None else f"{c:+.1f} %" for c in cells)])
    head = ["--effort 5", "BD-rate by", "against none", f"against {CODECS['avif']}", f"against {CODECS['jxl']}"]
    return grid(head, rows)


def kodak_points() -> str:
    """Every rate of eocodec on Kodak, tuned for the eye and for squared error."""
    curves = measured("kodak")["codecs"]
    known = [m for m in MEASURES if all(m in p for p in curves["eocodec"])]
    rows = [
        [tune, f"{p['setting']:g}", f"{p['bpp']:.4f}"]
        + [f"{p[m]:.{MEASURES[m][1]}f}" for m in known]
        + [f"{p[key]:.3f}" for key in ("encode_s", "decode_s")]
        for name, tune in TUNINGS.items()
        for p in curves.get(name, ())
    ]
    return grid(["tune", "C", "bpp", *(MEASURES[m][0] for m in known), "encode s", "decode s"], rows)


def kodak_others() -> str:
    """Every point of the other codecs on Kodak."""
    curves = measured("kodak")["codecs"]
    rows = [
        [label, "  ".join(f"{p['bpp']:.3f}:{p['psnr']:.2f}" for p in curves[name])] for name, label in _others().items()
    ]
    return grid(["Codec", "points"], rows)


def embedded_loss() -> str:
    """What an embedded stream costs, by bits per pixel."""
    from embedded import table

    return str(table(measured("embedded")["pictures"])).partition("\n\n")[0]


def rate_control() -> str:
    """How closely targets are met."""
    from rate_control import table

    return str(table(measured("rate_control")))


def grey() -> str:
    """Grey pictures with a model of their own and without."""
    rows = []
    for tune, found in measured("grey")["tunings"].items():
        for figure in ("psnr", "ssimulacra2"):
            cells = [f"{value:+.1f} %" for value in found["differences"][figure]]
            rows.append([f"`--tune {tune}`", MEASURES[figure][0], *cells])
    return grid(["Bytes, with the part against without", "At equal", "All", "From 0.35 bpp on"], rows)


def grey_times() -> str:
    """Milliseconds of colour and grey."""
    rows = []
    for row in measured("grey")["times"]:
        cells = []
        for what in ("encode", "decode"):
            colour, own = row[f"colour_{what}"], row[f"grey_{what}"]
            cells += [f"{1000 * colour:.0f}", f"{1000 * own:.0f} ({colour / own:.2f} times as fast)"]
        rows.append([f"C = {row['C']}", *cells])
    return grid(["", "Compress, colour", "grey", "Decompress, colour", "grey"], rows)


def lossless() -> str:
    """Mean sizes and times of lossless files."""
    means = measured("lossless")["means"]
    rows = [["**mean**", *(f"**{m['bpp']:.3f}**" for m in means.values())]]
    for key, label in (("encode_s", "seconds to encode"), ("decode_s", "seconds to decode")):
        rows.append([label, *(f"{m[key]:.2f}" for m in means.values())])
    count = len(measured("lossless")["pictures"])
    return grid([f"Mean of {count} pictures", *(f"{name}, bpp" for name in means)], rows)


def pages() -> str:
    """Text with photographs: bytes with pages, without, and of WebP lossless, at C = 96."""
    rows = []
    for row in measured("pages")["pages"]:
        with_pages, without = (row["targets"]["C = 96"][kind] for kind in ("with pages", "without"))
        rows.append(
            [
                f"{row['page']}, {row['width']}×{row['height']}, {100 * row['photographs']:.0f} % photographs",
                f"**{with_pages['bytes']:,}**; {with_pages['photographs']:.1f} dB",
                f"{without['bytes']:,}; {without['photographs']:.1f} dB, text {without['rest']:.1f} dB",
                f"{row['webp_lossless']:,}",
            ]
        )
    return grid(["Page", "Bytes", "Without pages", "WebP lossless"], rows)


def stages() -> str:
    """Where the time of one picture goes."""
    from stages import table

    return str(table(measured("stages"))).partition("\n\n")[2]


def denoising() -> str:
    """PSNR, SSIM and seconds of every method on CBSD68."""
    result = measured("cbsd68-denoise")
    bm3d = {row["sigma"]: row["methods"] for row in measured("cbsd68-bm3d")["sigmas"]}
    sigmas = [row["sigma"] for row in result["sigmas"]]

    def cell(row: dict[str, Any] | None, bold: bool) -> str:
        if row is None:
            return "–"
        quality = f"{row['psnr']:.2f}"
        return f"{f'**{quality}**' if bold else quality} / {row['ssim']:.3f} / {row['seconds']:.2f}"

    rows = []
    for name in result["sigmas"][0]["methods"]:
        found = [row["methods"].get(name) for row in result["sigmas"]]
        if name == "noisy":
            rows.append([name, *(f"{row['psnr']:.2f}" for row in found)])
        else:
            rows.append([name, *(cell(row, name == "eocodec net") for row in found)])
    rows.append(["BM3D", *(cell(bm3d.get(s, {}).get("BM3D"), False) if s == 25 else "–" for s in sigmas)])
    rows += [[f"{name}, published", *(f"{v:.2f}" for v in values)] for name, values in DENOISERS.items()]
    return grid(["PSNR dB / SSIM / seconds", *(f"σ = {s:g}" for s in sigmas)], rows)


def noise_levels() -> str:
    """Estimated against true levels of the noise."""
    head, rows = ["true σ"], []
    for name, label in (("cbsd68-levels", "CBSD68"), ("kodak-levels", "Kodak")):
        levels = measured(name)["levels"]
        head = ["true σ", *(f"{row['sigma']:g}" for row in levels)]
        rows.append([f"{label}: mean estimate", *(f"{row['mean']:.2f}" for row in levels)])
        for key, title in (("error", "mean error"), ("worst", "worst picture")):
            rows.append([title, *(f"{100 * r[key]:.1f} %" if r["sigma"] else f"{r[key]:.2f}" for r in levels)])
    return grid(head, rows)


def other_noise() -> str:
    """Noise that is not white, Gaussian and coloured."""
    columns = {
        "noisy": "noisy",
        "net, σ given": "eocodec net",
        "net, σ estimated": "eocodec net, sigma auto",
        "shrink": "eocodec shrink",
        "drop": "eocodec drop",
        "BM3D, σ given": "BM3D",
    }
    rows = []
    for name, label in (
        ("cbsd68-poisson", "Poisson–Gaussian (floats)"),
        ("cbsd68-jpeg", "JPEG quality 75 after the noise (8 bits)"),
        ("cbsd68-grey", "grey (floats)"),
    ):
        methods = measured(name)["sigmas"][0]["methods"]
        found = (methods.get(key) for key in columns.values())
        rows.append([label, *("–" if row is None else f"{row['psnr']:.2f}" for row in found)])
    return grid(["CBSD68, first 10 pictures, σ = 25", *columns], rows)


def denoise_compress() -> str:
    """Files of noisy pictures against the clean ones."""
    from denoise_compress import table

    return str(table(measured("denoise-kodak")))


def service_load() -> str:
    """Requests under load: two lengths of the queue, and beside clients that leave or read slowly if that was run."""
    rows = []
    for name in ("load", "load-queue4", "load-rude"):
        if name == "load-rude" and not (FOLDER / f"{name}.json").exists():
            continue
        r = measured(name)
        rude = f", {r['abandoning']} leave, {r['dawdling']} read slowly" if r.get("abandoning") else ""
        answered = r["requests"]
        memory = f"{r['memory_first_third_mb']:.0f} / {r['memory_last_third_mb']:.0f} MB"
        library = " / ".join(f"{v:g}" for v in r["library_per_second"])
        without = r["refused_without_retry_after"]
        rows.append(
            [
                *(f"{r['queue']}{rude}", f"{r['per_second']:g}", library, f"{100 * r['share_of_library']:.1f} %"),
                *(f"{answered}", f"{r['refused'] - without}", f"{without}", f"{r['failed']}", memory),
            ]
        )
    head = [
        "queue",
        "requests a second",
        "library",
        "share",
        "answered",
        "503 with Retry-After",
        "503 without",
        "failed",
    ]
    return grid([*head, "memory, first and last third"], rows)


def slider_processor() -> str:
    """Processor seconds until each part of what a moved slider shows is there, and how far estimates were off."""
    from slider import processor_table

    return str(processor_table(measured("slider")))


def service_latency() -> str:
    """Seconds a request takes under load."""
    result = measured("load")
    rows = [
        [name, *(f"{row[key]:.2f}" for key in ("p50", "p95", "p99", "max"))]
        for name, row in {**result["latency"], "all": result["latency_all"]}.items()
    ]
    return grid(["", "p50", "p95", "p99", "largest"], rows)


def fuzzing() -> str:
    """Inputs and failures of the fuzzer."""
    rows = []
    for name, label in (("parser", "parser"), ("decoder", "whole decoder, pictures to 2¹⁷ pixels")):
        r = measured("fuzz")[name]
        refused = sum(n for outcome, n in r["outcomes"].items() if outcome != "accepted")
        rows.append(
            [
                *(label, f"{r['inputs']:,}", f"**{r['failures']}**", f"{r['outcomes']['accepted']:,}"),
                *(f"{refused:,}", f"{r['slowest_seconds']:g}", f"{r['seconds']:g}"),
            ]
        )
    return grid(["", "inputs", "failures", "accepted", "refused with a sentence", "slowest, s", "seconds"], rows)


def _ideal_bytes(decibels: list[float]) -> list[float]:
    """Bytes of :data:`PCA_IDEAL` at these qualities, dB linear over log bytes."""
    import numpy as np

    sizes, quality = zip(*PCA_IDEAL, strict=True)
    return [float(v) for v in np.exp(np.interp(decibels, quality, np.log(sizes)))]


def faces() -> str:
    """Bytes of a face at equal quality."""
    derived = measured("faces")["derived"]
    levels = [str(d) for d in range(24, 32)]
    pca, plain = derived["bytes_at_psnr"][derived["pca"]], _ideal_bytes([float(d) for d in levels])

    def cells(values: dict[str, float | None], form: str) -> list[str]:
        return ["" if values[d] is None else format(values[d], form) for d in levels]

    own = derived["bytes_at_psnr"]["face64"]
    return grid(
        ["PSNR, dB", *levels],
        [
            ["`face64`, bytes", *cells(own, ".1f")],
            ["PCA, same coder, bytes", *cells(pca, ".1f")],
            ["**`face64` in % of it**", *cells(derived["percent_of_pca"]["face64"], ".1f")],
            [
                "in % of PCA, ideal entropy",
                *(f"{100 * own[d] / size:.0f}" for d, size in zip(levels, plain, strict=True)),
            ],
            ["WebP, bytes", *cells(derived["bytes_at_psnr"]["webp"], ".1f")],
        ],
    )


def face_denoising() -> str:
    """Dropping latents of noisy faces."""
    rows = []
    for sigma, row in measured("face_denoise")["levels"].items():
        m = row["model"]
        rows.append(
            [
                *(sigma, f"{row['noisy']:.2f}", f"{m['best']['psnr']:.2f} (C = {m['best']['c']:.0f})"),
                *(f"**{m['known']['psnr']:.2f}** ({m['known']['c']:.0f})", f"{m['estimated']['psnr']:.2f}"),
                f"{row['pca']['best']['psnr']:.2f} ({row['pca']['best']['c']:.0f})",
                *(f"{m['first_faces']['known']:.2f}", f"{row['photo']['psnr']:.2f}"),
            ]
        )
    head = ["σ", "noisy", "best C", "C chosen from σ", "σ estimated, C from it", "PCA, best C"]
    return grid([*head, "first 64 faces: `face64`, C from σ", "`photo`, shrinkage"], rows)


def stability() -> str:
    """Agreement of flows trained apart."""
    from stability import table

    return "\n".join(line for line in str(table(measured("stability"))).splitlines() if not line.startswith("| H_"))


def objective() -> str:
    """What the total correlation's weight buys."""
    from objective import table

    return str(table(measured("objective")))


TABLES: dict[str, Callable[[], str]] = {
    "bundles": bundles,
    "kodak-eye": kodak_eye,
    "kodak-effort": kodak_effort,
    "kodak-bd": lambda: _bd_table(published=False),
    "kodak-bd-published": lambda: _bd_table(published=True),
    "kodak-points": kodak_points,
    "kodak-others": kodak_others,
    "embedded-loss": embedded_loss,
    "rate-control": rate_control,
    "grey": grey,
    "grey-times": grey_times,
    "lossless": lossless,
    "pages": pages,
    "stages": stages,
    "denoising": denoising,
    "noise-levels": noise_levels,
    "other-noise": other_noise,
    "denoise-compress": denoise_compress,
    "service-load": service_load,
    "service-latency": service_latency,
    "slider-processor": slider_processor,
    "fuzzing": fuzzing,
    "faces": faces,
    "face-denoising": face_denoising,
    "stability": stability,
    "objective": objective,
}


def rewritten(text: str) -> str:
    """A document with its tables as the measurements have them.

    Raises:
        KeyError: a table has a name that is none of :data:`TABLES`.
    """
    return BLOCK.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[4]}", text)


def differing() -> list[str]:
    """Tables that differ from their measurements, as `document: name`."""
    found = []
    for document in DOCUMENTS:
        for _, name, content, _ in BLOCK.findall((ROOT / document).read_text()):
            if content != TABLES[name]() + "\n":
                found.append(f"{document}: {name}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a document differs")
    if parser.parse_args().check:
        found = differing()
        sys.exit("these tables are not those of the measurements: " + ", ".join(found) if found else 0)
    for document in DOCUMENTS:
        path = ROOT / document
        path.write_text(rewritten(path.read_text()))


if __name__ == "__main__":
    main()

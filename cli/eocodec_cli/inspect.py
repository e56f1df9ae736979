"""`eocodec inspect`."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eocodec.errors import EocodecError
from eocodec_cli import files
from eocodec_cli.compress import check_resize

if TYPE_CHECKING:
    from PIL import Image

    from eocodec.image import Bytes
    from eocodec.inspection import Spectrum, TotalCorrelation
    from eocodec.model.bundle import Model

RATES = (8.0, 32.0, 128.0, 512.0)
TEMPERATURES = (0.5, 0.7, 0.85, 1.0)
SAMPLES = 8
TRAVERSED = 16  # latents
SPREAD = (-3, -2, -1, 0, 1, 2, 3)
CROP = 384  # pixels shown of a photo, in its middle; a multiple of every block
SHARES = (0.5, 0.9, 0.99)
SUMMARY = "inspect.json"


@click.command("inspect")
@click.argument("model", metavar="MODEL")
@click.argument("images", nargs=-1, metavar="[IMAGE...]")
@click.option("-o", "--output", metavar="DIR", help="Folder for the results; default: inspect-MODEL.")
@click.option(
    "--sigma", "sigmas", type=float, multiple=True, metavar="S", help="Noise floor in 8-bit levels; default 2. Repeats."
)
@click.option("--step", type=float, default=24.0, show_default=True, help="Step of rate and samples, 8-bit levels.")
@click.option("--top", type=click.IntRange(min=1), default=16, show_default=True, help="Rows of the table.")
@click.option(
    "--rate", "rates", type=float, multiple=True, metavar="C", help="C of a core; default 8, 32, 128, 512. Repeats."
)
@click.option("--samples", type=click.IntRange(min=0), help="Samples to draw; default 8 for models of one size.")
@click.option(
    "--temperature",
    "temperatures",
    type=float,
    multiple=True,
    metavar="T",
    help="Temperature of a row of samples; default 0.5, 0.7, 0.85, 1. Repeats.",
)
@click.option(
    "--probes",
    type=click.IntRange(min=0),
    default=128,
    show_default=True,
    help="Columns measured for the total correlation.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random choices.")
@click.option("--resize", is_flag=True, help="Crop and scale the pictures to the model's size.")
@click.option("--svg", is_flag=True, help="Plot the spectrum as SVG, not PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, which inspect.json holds in any case.")
@files.threads_option
@files.force_option
def command(
    model: str,
    images: tuple[str, ...],
    output: str | None,
    sigmas: tuple[float, ...],
    step: float,
    top: int,
    rates: tuple[float, ...],
    samples: int | None,
    temperatures: tuple[float, ...],
    probes: int,
    seed: int,
    resize: bool,
    svg: bool,
    as_json: bool,
    threads: int,
    force: bool,
) -> None:
    """Show what a model's ordered latents do: spectrum, total correlation, core and detail, traversals, samples.

    MODEL is a shipped model's name or an .eocm file. Prints the spectrum and writes sheets of pictures into a folder:
    spectrum (needs the extra `bench`), core-detail of the IMAGES, and basis (`photo`) or traversals and samples
    (models of one size).

    \b
    Examples:
      eocodec inspect photo samples/*.png
      eocodec inspect face64 face.png -o faces/ --samples 12 --temperature 0.7
      eocodec inspect photo --sigma 2 --sigma 10 --json
    """
    from eocodec import inspection
    from eocodec.model.library import load_model

    sigmas, temperatures = sigmas or (2.0,), temperatures or TEMPERATURES
    for name, values in (("--sigma", sigmas), ("--step", (step,)), ("--temperature", temperatures)):
        for value in values:
            if not (math.isfinite(value) and 0 < value <= 1000):
                raise EocodecError(f"{name} must be a positive number up to 1000, not {value:g}")
    loaded = load_model(model, threads)
    check_resize(resize, loaded)
    rates = rates or tuple(c for c in RATES if c < loaded.block)
    for rate in rates:
        if not 1 <= rate <= loaded.block:
            raise EocodecError(f"the rate must be from 1 to {loaded.block} latents, not {rate:g}")
    if loaded.size is None and samples:
        raise EocodecError(f"samples need a model for pictures of one size, such as face64; {loaded.name} is not")
    samples = SAMPLES if samples is None and loaded.size is not None else samples or 0
    folder = _folder(output or f"inspect-{Path(model).stem}", force)
    pictures = _pictures(images, loaded, resize)

    delta = step / 255
    spectrum = inspection.spectrum(loaded)
    results: dict[str, bytes] = {}
    try:
        kind = "svg" if svg else "png"
        floors = [s / 255 for s in sigmas]
        results[f"spectrum.{kind}"] = inspection.plot_spectrum(spectrum, loaded.name, floors, delta, kind)
    except EocodecError as e:
        click.echo(f"eocodec: no plot of the spectrum: {e}", err=True)
    correlation = _correlation(loaded, pictures, delta, probes, seed) if probes else None
    if pictures:
        results["core-detail.png"] = _png(_core_sheet(loaded, pictures, rates))
    if loaded.size is not None:
        for name, sheet in _traversals(loaded, pictures):
            results[name] = _png(sheet)
        if samples:
            results["samples.png"] = _png(_sample_sheet(loaded, samples, temperatures, delta, seed))
    else:
        results["basis.png"] = _png(_basis_sheet(loaded, pictures))

    summary = _summary(loaded, spectrum, sigmas, step, correlation)
    summary["files"] = sorted([*results, SUMMARY])
    results[SUMMARY] = (json.dumps(summary) + "\n").encode()
    _write(folder, results)
    click.echo(json.dumps(summary) if as_json else _table(summary, top))
    click.echo(f"wrote {', '.join(summary['files'])} to {folder}", err=as_json)


def _folder(output: str, force: bool) -> Path:
    """The folder for the results, if it may be written to: new, empty, or with an earlier inspection."""
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise EocodecError(f"{folder} is not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SUMMARY).exists() and not force:
        raise EocodecError(f"{folder} holds other files; use --force to write into it, or -o to choose another folder")
    return folder


def _pictures(images: Sequence[str], model: "Model", resize: bool) -> dict[str, "Bytes"]:
    """The pictures under names that are unique: their stems, numbered where they repeat."""
    from eocodec.codec import fit
    from eocodec.image import read_picture
    from eocodec.model.transform import analyse_vector

    result: dict[str, Bytes] = {}
    for source in images:
        if source == files.PIPE:
            picture = read_picture(io.BytesIO(files.read_bytes(source)), "standard input")
        else:
            picture = read_picture(source)
        stem = name = "stdin" if source == files.PIPE else Path(source).stem
        number = 1
        while name in result:
            number += 1
            name = f"{stem}-{number}"
        if model.size is not None:
            if resize:
                picture = fit(picture, model.flat.size)
            try:
                analyse_vector(model, picture.rgb)
            except EocodecError as e:
                raise EocodecError(f"{source}: {e}, which --resize does") from None
            result[name] = picture.rgb
        else:
            height, width = picture.rgb.shape[:2]
            top, left = max(0, height - CROP) // 2, max(0, width - CROP) // 2
            result[name] = picture.rgb[top : top + CROP, left : left + CROP]
    return result


def _bundled() -> "Bytes":
    """The picture that stands in where a model needs one and none was given."""
    import eocodec.data
    from eocodec.image import read_picture

    rgb = read_picture(Path(eocodec.data.__file__).parent / "chelsea.png").rgb
    return rgb[:CROP, :CROP]


def _correlation(
    model: "Model", pictures: dict[str, "Bytes"], delta: float, probes: int, seed: int
) -> tuple[str, "TotalCorrelation"]:
    """Where the total correlation was measured, and the measurement."""
    from eocodec import inspection

    if pictures:
        where = "1 picture" if len(pictures) == 1 else f"{len(pictures)} pictures"
        return where, inspection.total_correlation(model, list(pictures.values()), probes, seed)
    if model.size is not None:
        latents, _ = inspection.sample(model, SAMPLES, 1.0, delta, seed)
        return f"{SAMPLES} samples of the model", inspection.total_correlation(model, latents, probes, seed)
    return "the bundled picture", inspection.total_correlation(model, [_bundled()], probes, seed)


def _core_sheet(model: "Model", pictures: dict[str, "Bytes"], rates: Sequence[float]) -> "Image.Image":
    """Two rows a picture: the core at every C, and what it lacks; details of a column share one magnification."""
    import numpy as np

    from eocodec import inspection
    from eocodec.metrics import psnr

    originals = {name: p.astype(np.float32) / np.float32(255) for name, p in pictures.items()}
    columns = [*sorted(rates), float(model.block)] if model.block not in rates else sorted(rates)
    cores = {name: [inspection.core(model, p, c) for c in columns] for name, p in pictures.items()}
    details = {name: [originals[name] - c for c in cores[name]] for name in pictures}
    gains = [inspection.detail_gain([d[k] for d in details.values()]) for k in range(len(columns))]
    rows, labels, captions = [], [], []
    for name in pictures:
        rows += [cores[name], [0.5 + g * d for g, d in zip(gains, details[name], strict=True)]]
        labels += [f"{name}\ncore", "detail"]
        decibels = [psnr(255 * originals[name].astype(float), 255 * c.astype(float)) for c in cores[name]]
        captions += [[f"{d:.1f} dB" if d < 60 else "identical" for d in decibels]]
        captions += [["detail" if g == 1 else f"detail x {g}" for g in gains]]
    heads = ["all" if c == model.block else f"C = {c:g}" for c in columns]
    per = "latents of every block" if model.size is None else "latents"
    title = f"{model.name}: picture of the top C {per}, and what the others hold"
    return inspection.sheet(rows, labels, heads, title=title, captions=captions)


def _traversals(model: "Model", pictures: dict[str, "Bytes"]) -> list[tuple[str, "Image.Image"]]:
    """A sheet for every picture, or one around the picture of zeros."""
    import numpy as np

    from eocodec import inspection
    from eocodec.model import transform

    spectrum = inspection.spectrum(model)
    starts = {f"traversals-{name}.png": (name, transform.analyse_vector(model, p)) for name, p in pictures.items()}
    if not starts:
        starts["traversals.png"] = ("all latents zero", np.zeros(len(model.flat.gain), np.float32))
    top = min(TRAVERSED, len(spectrum.names))
    labels = [
        f"rank {k + 1}, {spectrum.names[k]}\nH = {spectrum.entropy[k]:.2f} nats\ns = {spectrum.deviation[k]:.0f} levels"
        for k in range(top)
    ]
    heads = [f"{t:+d} s" if t else "picture" for t in SPREAD]
    result = []
    for file, (name, latents) in starts.items():
        cells = [list(row) for row in inspection.traversal(model, latents, top, SPREAD)]
        title = f"{model.name}: the first latents moved by multiples of their deviation s, around: {name}"
        result.append((file, inspection.sheet(cells, labels, heads, title=title)))
    return result


def _basis_sheet(model: "Model", pictures: dict[str, "Bytes"]) -> "Image.Image":
    """Columns of J at the first picture, or at the bundled one."""
    from eocodec import inspection

    name, picture = next(iter(pictures.items()), ("the bundled picture", _bundled()))
    columns = inspection.basis(model, picture)
    levels = len(columns) - 1
    labels = []
    for k, row in enumerate(columns):
        level = levels + 1 - k if k else levels
        labels.append(f"{f'detail {level}' if k else 'low-pass'}\n{row[0].shape[0]}x{row[0].shape[1]} pixels")
    cells = [[inspection.around_grey(c) for c in row] for row in columns]
    details = [f"{c} {o}" for c in inspection.COLOURS for o in inspection.ORIENTATIONS]
    captions = [list(inspection.COLOURS), *([details] * levels)]
    title = f"{model.name}: what one latent of every band adds to the picture, at the middle of: {name}"
    return inspection.sheet(cells, labels, [""] * len(details), title=title, captions=captions)


def _sample_sheet(
    model: "Model", samples: int, temperatures: Sequence[float], delta: float, seed: int
) -> "Image.Image":
    from eocodec import inspection

    cells = [list(inspection.sample(model, samples, t, delta, seed)[1]) for t in temperatures]
    title = f"{model.name}: samples at a step of {255 * delta:g} levels, temperature T"
    return inspection.sheet(cells, [f"T = {t:g}" for t in temperatures], [""] * samples, title=title)


def _png(image: "Image.Image") -> bytes:
    from eocodec.writing import encode_picture

    return encode_picture(image, ".png")


def _write(folder: Path, results: dict[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise EocodecError(f"{folder}: cannot be made ({e.strerror})") from None
    for name, content in results.items():
        files.write_bytes(str(folder / name), content, force=True)


def _summary(
    model: "Model",
    spectrum: "Spectrum",
    sigmas: Sequence[float],
    step: float,
    correlation: "tuple[str, TotalCorrelation] | None",
) -> dict[str, Any]:
    from eocodec import inspection

    delta = step / 255
    bits, total = spectrum.bits(delta), spectrum.cumulative_bits(delta)
    result: dict[str, Any] = {
        "model": model.name,
        "id": model.id.hex(),
        "unit": spectrum.unit,
        "pixels": spectrum.pixels,
        "latents": int(spectrum.count.sum()),
        "step": step,
        "bits": round(float(total[-1]), 3),
        "bpp": round(float(total[-1]) / spectrum.pixels, 5),
        "rate": round(inspection.latents_of_rate(model, delta), 2),
        "latents_for_share": {f"{s:g}": spectrum.latents_for(s, delta) for s in SHARES},
        "floors": [
            {
                "sigma": s,
                "entropy": round(inspection.noise_floor(s / 255), 5),
                "latents_above": spectrum.above(s / 255),
            }
            for s in sigmas
        ],
        "total_correlation": None,
        "spectrum": {
            "rank": spectrum.first.tolist(),
            "count": spectrum.count.tolist(),
            "name": list(spectrum.names),
            "entropy": [round(float(h), 5) for h in spectrum.entropy],
            "deviation": [round(float(s), 5) for s in spectrum.deviation],
            "bits": [round(float(b), 5) for b in bits],
            "cumulative_bits": [round(float(b), 3) for b in total],
        },
    }
    if correlation:
        where, measured = correlation
        result["total_correlation"] = {
            "at": where,
            "per_latent": measured.per_latent,
            "standard_error": measured.error,
            "total": measured.per_latent * measured.latents,
            "probes": sum(n for _, _, n, _, _ in measured.parts),
            "parts": [
                {"name": name, "latents": count, "probes": n, "mean": mean, "deviation": deviation}
                for name, count, n, mean, deviation in measured.parts
            ],
        }
    return result


def _table(r: dict[str, Any], top: int) -> str:
    s = r["spectrum"]
    kind = f"a block of {r['pixels']} pixels" if r["unit"] == "block" else f"a picture of {r['pixels']} pixels"
    width = max(len(n) for n in s["name"][:top])
    lines = [
        f"{r['model']} ({r['id']}): {r['latents']} latents in {kind}",
        f"{'rank':>9}  {'latent':{width}}  {'H nats':>7}  {'s levels':>8}  {'bits':>6}  {'all so far':>10}",
    ]
    for k in range(min(top, len(s["name"]))):
        first, last = s["rank"][k], s["rank"][k] + s["count"][k] - 1
        lines.append(
            f"{first if first == last else f'{first}-{last}':>9}  {s['name'][k]:{width}}  {s['entropy'][k]:7.3f}  "
            f"{s['deviation'][k]:8.2f}  {s['bits'][k]:6.2f}  {s['cumulative_bits'][k]:10.1f}"
        )
    if top < len(s["name"]):
        lines.append(f"{'...':>9}")
    shares = ", ".join(f"{float(q):.0%} in the first {n}" for q, n in r["latents_for_share"].items())
    lines += [
        f"rate at a step of {r['step']:g} levels (C = {r['rate']:.1f}): "
        f"{r['bits']:.0f} bits, {r['bpp']:.3f} bpp; {shares}",
        *(
            f"above noise of {f['sigma']:g} levels (H > {f['entropy']:.2f}): {f['latents_above']} latents"
            for f in r["floors"]
        ),
    ]
    if r["total_correlation"]:
        c = r["total_correlation"]
        lines.append(
            f"total correlation: {c['per_latent']:.4f} \u00b1 {c['standard_error']:.4f} nats a latent, "
            f"{c['total']:.1f} in all ({c['probes']} columns at {c['at']})"
        )
    return "\n".join(lines)

"""`eocodec decompress`."""

from typing import TYPE_CHECKING, Any

import click

from eocodec_cli import files, pictures
from eocodec_cli.work import for_each

if TYPE_CHECKING:
    from eocodec.format import File


@click.command("decompress")
@files.inputs_argument
@files.output_option
@click.option("--salvage", is_flag=True, help="Decode what comes before the damage instead of refusing.")
@click.option(
    "--max-pixels", type=click.IntRange(min=1), default=1 << 27, show_default=True, help="Refuse larger pictures."
)
@click.option(
    "--depth",
    type=click.Choice(["8", "16"]),
    help="Bits a sample to write; default: those of the file, or 8 for types other than PNG and TIFF.",
)
@files.model_option
@files.threads_option
@files.device_option
@files.force_option
@files.recursive_option
@files.times_option
@files.json_option
@click.option(
    "--texture", type=click.FloatRange(0, 1), default=0.0, metavar="T",
    help="Draw texture where the file has none, 0 to 1: rougher areas at low rates, a larger squared error.",
)  # fmt: skip
def command(
    inputs: tuple[str, ...],
    output: str | None,
    salvage: bool,
    max_pixels: int,
    depth: str | None,
    model: str | None,
    threads: int,
    device: str,
    force: bool,
    recursive: bool,
    keep_times: bool,
    as_json: bool,
    texture: float,
) -> None:
    """Decode .eoc files to pictures.

    The output's extension chooses the type; the default is PNG. A file that was cut short decodes at a lower rate. Tiny
    files (compress --tiny) are recognised, as bytes or as base64 text.

    \b
    Examples:
      eocodec decompress photo.eoc
      eocodec decompress photo.eoc photo.webp
      eocodec decompress --texture 0.6 small.eoc
      eocodec decompress *.eoc -o decoded/
      eocodec decompress slide.eoc -o slide.tif
      eocodec decompress --depth 8 slide.eoc -o slide.png
      eocodec decompress -r small/ -o decoded/
      eocodec decompress photo.eoc -o photo.webp
      eocodec decompress - < photo.eoc > photo.png
      echo "$placeholder" | eocodec decompress - > face.png
    """
    from eocodec import wide
    from eocodec.coding.forms import blank_pictures
    from eocodec.errors import ImageError
    from eocodec.format import Tiny, from_bytes, tiny_from_text
    from eocodec.image import to_pillow
    from eocodec.levels import white_remarks
    from eocodec.model.library import library_of
    from eocodec.remarks import file_remarks, type_remarks
    from eocodec.writing import encode_picture, keeps_alpha

    jobs = files.plan(
        inputs,
        output,
        ".png",
        force,
        recursive=recursive,
        wanted=lambda name: name.lower().endswith(pictures.EOC),
        written=pictures.is_other_name,
    )
    lanes = files.Lanes(len(jobs), threads, device)
    if model or lanes.workers > 1 or device == "cuda":
        lanes.load(model or "photo")
    for job in jobs:
        if job.target not in ("", files.PIPE):
            suffix = files.picture_suffix(job.target)
            if depth == "16" and not wide.holds(suffix):
                raise ImageError(f"pictures of 16 bits a sample cannot be written as {suffix}; use .png or .tif")

    files.make_folders(jobs)

    def work(job: files.Job) -> dict[str, Any]:
        data = tiny_from_text(files.read_bytes(job.source))
        file = from_bytes(data, salvage=True)
        with lanes.turn(0 if isinstance(file, Tiny) else file.header.width * file.header.height) as share:
            loaded = library_of(model, share, device).of(file)
            if lanes.workers == 1 and not isinstance(file, Tiny) and _is_plain(file):
                loaded.runtime.open_ahead(["decoder"])  # while all else is imported
            from eocodec.codec import decode_file

            bits = None if depth is None else int(depth)
            decoded = decode_file(data, loaded, salvage=salvage, max_pixels=max_pixels, texture=texture, depth=bits)
        suffix = files.picture_suffix(job.target)
        deep = decoded.rgb.dtype.itemsize > 1
        image = to_pillow(decoded.eight_bit(), decoded.alpha, decoded.grey)
        warnings = file_remarks(file)
        if texture and (
            isinstance(file, Tiny) or file.lossless is not None or file.header.embedded or file.header.deep
        ):
            warnings.append("texture is drawn in ordinary files only, and this is none")
        warnings += type_remarks(suffix, alpha=decoded.alpha is not None, deep=deep, image=image)
        deep = deep and wide.holds(suffix)
        if not deep and not isinstance(file, Tiny) and file.header.deep:
            warnings += white_remarks(decoded.white, file.header.span)
        opaque = decoded.alpha is not None and not keeps_alpha(suffix)
        if deep:
            content = wide.encode(decoded.rgb, decoded.alpha, decoded.grey, suffix)
        else:
            content = encode_picture(image, suffix)
        files.write_bytes(job.target, content, force, job.source if keep_times else None)
        return {
            "input": job.source,
            "output": job.target,
            "width": image.width,
            "height": image.height,
            "mode": image.mode.removesuffix("A") if opaque else image.mode,
            "depth": 16 if deep else 8,
            "complete": decoded.complete,
            "damaged": decoded.damaged,
            "segments": decoded.segments,
            "page": not isinstance(file, Tiny) and file.header.page,
            "blank": blank_pictures(file),
            "warnings": warnings,
        }

    def line(r: dict[str, Any]) -> str:
        lacking = pictures.shortfall(r["complete"], r["damaged"], r["segments"], r["page"], r["blank"])
        state = f"  ({lacking})" if lacking else ""
        depth = "  16 bits" if r["depth"] == 16 else ""
        return f"{r['input']} -> {r['output']}  {r['width']}x{r['height']} {r['mode']}{depth}{state}"

    for_each(jobs, work, line, as_json, lanes.workers)


def _is_plain(file: "File") -> bool:
    """Whether the picture of a file is made by the decoder graph with its refinement, and by nothing else."""
    header = file.header
    return file.lossless is None and not (header.page or header.deep or header.luma)

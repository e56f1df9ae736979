"""`eocodec compress`."""

import base64
from typing import TYPE_CHECKING, Any

import click

from eocodec.arguments import MOST_EFFORT
from eocodec_cli import files, pictures
from eocodec_cli.denoise import sigma_or_auto
from eocodec_cli.shown import with_options
from eocodec_cli.work import for_each

if TYPE_CHECKING:
    from eocodec.codec import Compressed
    from eocodec.model.bundle import Model

rate_option = click.option(
    "--rate",
    type=float,
    metavar="C",
    help="Latents kept: per block 1 to 768 (photo), in all 1 to 12288 (face64); default 96.",
)
bpp_option = click.option("--bpp", type=float, metavar="X", help="Instead: at most X bits per pixel, at most 2 % less.")
psnr_option = click.option(
    "--psnr",
    type=float,
    metavar="DB",
    help="Instead: at least DB decibels, at most 0.1 more; on a page with text: of its photographs.",
)
denoise_option = click.option(
    "--denoise",
    type=sigma_or_auto,
    metavar="[auto|S]",
    is_flag=False,
    flag_value="auto",
    help="Remove noise first; S: its level in 8-bit levels, default auto. PSNR then counts against the clean picture.",
)
lossless_option = click.option("--lossless", is_flag=True, help="Instead: keep every value exactly; photo only.")
progressive_option = click.option(
    "--progressive", is_flag=True, help="Write an embedded stream: the file may be cut at any byte."
)


def value_range(value: str) -> str | tuple[int, int]:
    """The name of a range of values, or `LOW:HIGH` as numbers."""
    from eocodec.levels import VALUE_RANGES

    low, colon, high = value.partition(":")
    if value in VALUE_RANGES:
        return value
    if not (colon and low.isdecimal() and high.isdecimal() and len(value) < 12 and int(low) < int(high) < 1 << 16):
        names = ", ".join(VALUE_RANGES)
        raise click.BadParameter(f"{value!r} is not {names} or LOW:HIGH, from 0 to {(1 << 16) - 1}, LOW the lesser")
    return int(low), int(high)


depth_option = click.option(
    "--depth",
    type=click.Choice(["8", "16"]),
    help="Bits a sample to keep. Default: 16 for pictures that have more than 8, where the form of file can; else 8.",
)
range_option = click.option(
    "--range",
    "value_range",
    type=value_range,
    metavar="bits|filled|full|LOW:HIGH",
    help="Of which values of pictures of 16 bits a sample C counts, and within which they are coded: from 0 to the "
    "greatest of so many bits as they need (bits, the default), from the least to the greatest of them (filled), all "
    "of 16 bits (full), or from LOW to HIGH.",
)
effort_option = click.option(
    "-e", "--effort", type=click.IntRange(0, MOST_EFFORT), default=0, metavar="N",
    help="Rounds of looking for a better file, some seconds a megapixel each; most is gained by 5. Needs the "
    "extra 'effort'.",
)  # fmt: skip
no_measure_option = click.option("--no-measure", is_flag=True, help="Do not find the PSNR to report; faster.")


def region(value: str) -> tuple[float, ...]:
    """`X,Y,W,H` or `X,Y,W,H:OCTAVES` as numbers."""
    place, colon, octaves = value.partition(":")
    try:
        numbers = tuple(float(v) for v in [*place.split(","), *([octaves] if colon else [])])
    except ValueError:
        numbers = ()
    if len(numbers) != 4 + len(colon):
        raise click.BadParameter(f"{value!r} is not X,Y,W,H or X,Y,W,H:OCTAVES")
    return numbers


class _Compress(click.Command):
    """Hands `--denoise=-3` to the option: click takes a negative number after an optional value for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As that of click.

        Raises:
            click.UsageError: a level of noise is negative, or the line is wrong otherwise.
        """
        for argument in args[: args.index("--") if "--" in args else None]:
            name, _, value = argument.partition("=")
            if name == "--denoise" and value.startswith("-"):
                try:
                    sigma_or_auto(value)
                except click.BadParameter as e:
                    raise click.BadParameter(e.message, ctx, param_hint=f"'{name}'") from None
        return super().parse_args(ctx, args)


@click.command("compress", cls=_Compress)
@files.inputs_argument
@files.output_option
@click.option(
    "-q", "--quality", type=click.FloatRange(0, 100), metavar="Q",
    help="Quality from 0 to 100, the same on every picture; 60 is about the default.",
)  # fmt: skip
@rate_option
@bpp_option
@click.option(
    "--bytes", "max_bytes", type=int, metavar="N",
    help="Instead: at most N bytes, at most 2 % less; with --tiny 6 % or 3 bytes.",
)  # fmt: skip
@psnr_option
@denoise_option
@files.model_option
@files.threads_option
@files.device_option
@files.force_option
@files.recursive_option
@files.times_option
@files.json_option
@pictures.frame_option
@pictures.lenient_option
@click.option("--tiny", is_flag=True, help="Write the placeholder form: 2 bytes of overhead, 64x64 faces only.")
@lossless_option
@progressive_option
@depth_option
@range_option
@click.option("--base64", "as_text", is_flag=True, help="Write the file as base64 text, for JSON and HTML.")
@click.option("--resize", is_flag=True, help="Fit pictures to a model of one size: middle square, scaled.")
@click.option(
    "--tune", type=click.Choice(["eye", "psnr"]),
    help="What steps follow: what people see, or squared error. Default: eye where the model can; psnr with --psnr, or "
    "where no file for the eye is as small as wanted.",
)  # fmt: skip
@click.option(
    "--focus", type=region, multiple=True, metavar="X,Y,W,H[:OCTAVES]",
    help="A region that matters, in pixels: its steps are an octave finer, or OCTAVES, -2 to 2. May be repeated.",
)  # fmt: skip
@click.option(
    "--focus-mask", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
    help="Instead: a grey picture of the same size; white is an octave finer, black as ever.",
)  # fmt: skip
@effort_option
@click.option("--verify", is_flag=True, help="Decode the finished file and compare before it is written.")
@no_measure_option
def command(
    inputs: tuple[str, ...],
    output: str | None,
    quality: float | None,
    rate: float | None,
    model: str | None,
    threads: int,
    device: str,
    force: bool,
    recursive: bool,
    keep_times: bool,
    as_json: bool,
    frame: int,
    lenient: bool,
    as_text: bool,
    no_measure: bool,
    focus: tuple[tuple[float, ...], ...],
    focus_mask: str | None,
    **options: Any,
) -> None:
    """Compress pictures to .eoc files.

    Reads PNG, JPEG, WebP, AVIF, TIFF, BMP, PPM, .eoc and more; orientation is applied, colour profiles are converted to
    sRGB, transparency is kept losslessly. Prints bytes, bits per pixel, ratio to the raw samples and PSNR relative to
    full scale. With --lossless the sRGB values come back exactly, which is checked by decoding unless
    --no-measure is given. Pictures of more than 8 bits a sample keep 16 unless --depth 8 says otherwise; where their
    values need fewer bits than 16 (12 of many a sensor), C counts the range of these, see --range. With --denoise
    the file holds the clean picture, and the PSNR, also that of --psnr, is measured against it; before a file name
    write --denoise=auto. Pixels that are fully transparent count in no PSNR. -r takes pictures only: .eoc files, which
    earlier runs have written, go in by name. What is unusual is said on standard error, and in "warnings" of --json.

    \b
    Examples:
      eocodec compress photo.jpg
      eocodec compress photo.png photo.eoc
      eocodec compress -q 80 photo.jpg
      eocodec compress --rate 48 *.png -o small/
      eocodec compress -r photos/ -o small/
      eocodec compress --bytes 20000 photo.png -o photo.eoc
      eocodec compress --psnr 38 --device cuda *.jpg
      eocodec compress --lossless scan.png
      eocodec compress --depth 16 --psnr 70 slide.tif
      eocodec compress --range filled scan.tif
      eocodec compress --focus 120,80,200,200 portrait.jpg
      eocodec compress --frame 2 scan.tif -o page3.eoc
      eocodec compress --verify --rate 200 archive/*.png
      eocodec compress --effort 5 -q 70 photo.jpg
      eocodec compress --progressive --rate 300 photo.jpg
      eocodec compress noisy.jpg --denoise
      eocodec compress --denoise=25 --bpp 0.4 noisy.png
      cat photo.png | eocodec compress --bpp 0.5 - > photo.eoc
      eocodec compress --model face64 --resize portrait.jpg
      eocodec compress --tiny --base64 --bytes 24 face.png -o -
    """
    from eocodec.errors import EocodecError
    from eocodec.model.library import load_model

    _check(options, rate, quality, as_text)
    name = model or ("face64" if options["tiny"] else "photo")
    jobs = files.plan(inputs, output, pictures.EOC, force, recursive=recursive, wanted=pictures.is_picture_name)
    lanes = files.Lanes(len(jobs), threads, device)
    loaded = lanes.load(name)
    check_resize(options["resize"], loaded)
    alone = lanes.workers == 1 and not options["lossless"]
    if alone:
        loaded.runtime.open_ahead(["encoder"])  # while all else is imported

    from eocodec.codec import compress_picture
    from eocodec.coding.rate_control import rate_of_step_quality
    from eocodec.coding.walk import Walk

    if alone and loaded.size is None and not options["progressive"]:
        loaded.runtime.open_ahead(Walk.graph_names(loaded))  # while the picture is read

    if rate is not None and not 1 <= rate <= loaded.block:
        raise EocodecError(f"the rate must be from 1 to {loaded.block} latents, not {rate:g}")
    if quality is not None:
        rate = rate_of_step_quality(loaded, quality)
    files.make_folders(jobs)
    options["measure"] = not no_measure
    wanted = options.pop("depth")
    options["depth"] = None if wanted is None else int(wanted)
    options["focus"] = list(focus) or None
    if focus_mask is not None:
        if focus:
            raise click.UsageError("give either --focus or --focus-mask")
        options["focus"] = pictures.mask(focus_mask)

    def work(job: files.Job) -> dict[str, Any]:
        source = pictures.read(job, frame, lenient, loaded)
        with lanes.turn(source.picture.pixels) as share:
            try:
                done = compress_picture(source.picture, rate, model=load_model(name, share, device=device), **options)
            except EocodecError as e:
                raise EocodecError(_hint(str(e), name)) from None
        content = base64.b64encode(done.data) + b"\n" if as_text else done.data
        files.write_bytes(job.target, content, force, job.source if keep_times else None)
        return _row(job, source, done, options)

    for_each(jobs, work, _line, as_json, lanes.workers)


def _check(options: dict[str, Any], rate: float | None, quality: float | None, as_text: bool) -> None:
    """See that options go together.

    Raises:
        click.UsageError: they do not.
    """
    targets = [rate, quality, *(options[k] for k in ("bpp", "max_bytes", "psnr"))]
    given = sum(t is not None for t in targets)
    if given > 1:
        raise click.UsageError("give only one of --quality, --rate, --bpp, --bytes and --psnr")
    if options["lossless"] and (options["tiny"] or given):
        raise click.UsageError("--lossless excludes --quality, --rate, --bpp, --bytes, --psnr and --tiny")
    if options["progressive"] and (options["tiny"] or options["lossless"]):
        raise click.UsageError("--progressive excludes --tiny and --lossless")
    if options["denoise"] is not None and options["lossless"]:
        raise click.UsageError("--lossless excludes --denoise: a lossless file keeps the noise")
    check_effort(options["effort"], options["lossless"], options["progressive"], options["tiny"])
    if as_text and not options["tiny"]:
        raise click.UsageError("--base64 goes with --tiny")


def check_effort(effort: int, *others: bool) -> None:
    """See that effort is asked for ordinary files only.

    Raises:
        click.UsageError: one of the other forms is, too.
    """
    if effort and any(others):
        raise click.UsageError("--effort is for ordinary files, without --lossless, --progressive and --tiny")


def check_resize(resize: bool, model: "Model") -> None:
    """See that pictures are resized for models of one size only.

    Raises:
        EocodecError: the model takes pictures of any size.
    """
    if resize and model.size is None:
        from eocodec.errors import EocodecError

        raise EocodecError(f"--resize needs a model for pictures of one size, such as face64; {model.name} takes any")


def _hint(message: str, name: str) -> str:
    """The library's sentence with the option that helps."""
    if "is out of reach" in message and name == "photo":
        return f"{message}; --lossless keeps every value"
    return with_options(message)


def _row(job: files.Job, source: pictures.Source, done: "Compressed", options: dict[str, Any]) -> dict[str, Any]:
    from eocodec.remarks import Contents, remarks

    height, width = done.size
    contents = Contents.of(done.data)
    said = remarks(
        source.picture,
        done,
        source.size,
        depth=options["depth"],
        exact=options["lossless"],
        limited=options["bpp"] is not None or options["max_bytes"] is not None,
    )
    return {
        "input": job.source,
        "output": job.target,
        "width": width,
        "height": height,
        "bytes_in": source.size,
        "bytes": len(done.data),
        "bpp": round(done.bits_per_pixel, 5),
        "depth": done.depth,
        "ratio": round((1 if source.picture.grey else 3) * done.depth // 8 * height * width / len(done.data), 3),
        "psnr": None if done.psnr is None or done.psnr == float("inf") else round(done.psnr, 3),
        "rate": round(done.rate, 3),
        "lossless": contents.exact,
        "page": contents.photographs > 0,
        "photographs": contents.photographs,
        "tune": done.tune,
        "sigma": None if done.sigma is None else round(done.sigma, 2),
        "frames": source.picture.frames,
        "alpha_bytes": contents.alpha,
        "warnings": [*(with_options(sentence) for sentence in said), *pictures.misnamed(job.target)],
    }


def _line(r: dict[str, Any]) -> str:
    quality = "" if r["psnr"] is None else f"  {r['psnr']:.2f} dB"
    rate = "lossless" if r["lossless"] else f"C={r['rate']:g}" + ("  for the eye" if r["tune"] == "eye" else "")
    rate += "  16 bits" if r["depth"] == 16 else ""
    removed = "" if r["sigma"] is None else f"  sigma={r['sigma']:.1f} removed" if r["sigma"] else "  no noise removed"
    return (
        f"{r['input']} -> {r['output']}  {r['width']}x{r['height']}  {r['bytes']} bytes  {r['bpp']:.3f} bpp  "
        f"1:{r['ratio']:.1f}{quality}  {rate}{removed}"
    )

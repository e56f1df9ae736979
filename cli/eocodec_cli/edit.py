"""`eocodec edit`."""

from pathlib import Path

import click

from eocodec_cli import files, pictures


def _amounts(texts: tuple[str, ...]) -> dict[str, float]:
    """Amounts by name, in the order given."""
    amounts: dict[str, float] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        try:
            amounts[name] = amounts.get(name, 0.0) + float(value)
        except ValueError:
            sign = ""
        if not sign:
            raise click.UsageError(f"--path takes NAME=AMOUNT, such as light=+1, not {text}")
    return amounts


@click.command("edit")
@click.argument("face", metavar="FACE.eoc")
@click.option(
    "--path",
    "steps",
    multiple=True,
    required=True,
    metavar="NAME=AMOUNT",
    help="Move so many steps along this path, backwards if negative. Repeats.",
)
@click.option("--paths", "source", default="face64", show_default=True, help="Whose paths: a model, or an .eocp file.")
@click.option("--bytes", "size", type=click.IntRange(min=1), help="Size of an .eoc result; default: that of FACE.eoc.")
@click.option("-o", "--output", required=True, metavar="FILE", help="Result: .eoc, or a picture by its extension.")
@files.threads_option
@files.force_option
def command(
    face: str, steps: tuple[str, ...], source: str, size: int | None, output: str, threads: int, force: bool
) -> None:
    """Change a compressed face along named paths in its latents; its original is not needed.

    The face is decoded, moved and encoded anew; where nothing moves, and no --bytes is given, its file stays as it is.

    \b
    Examples:
      eocodec edit face.eoc --path light=+1 -o brighter.eoc
      eocodec edit face.eoc --path "side light=-2" --path tint=0.5 -o warm.png
    """
    import eocodec
    from eocodec.format import tiny_from_text
    from eocodec.image import to_pillow
    from eocodec.lab.paths.editing import edit, encoded_anew, load_paths
    from eocodec.writing import encode_picture

    amounts = _amounts(steps)
    target = files.plan_one([face], output, force)
    suffix = Path(target).suffix.lower()
    if suffix != ".eoc":
        suffix = files.picture_suffix(target)
        if size is not None:
            raise click.UsageError("--bytes goes with a result that is an .eoc file")
    paths = load_paths(source)
    model = eocodec.load_model("face64", threads)
    with files.named(face):
        data = tiny_from_text(files.read_bytes(face))
        picture = pictures.face(data, model, face)
        result = edit(picture, amounts, paths, model)
        if suffix == ".eoc":
            content = encoded_anew(result, picture, data, model, size)
        else:
            content = encode_picture(to_pillow(result, None, False), suffix)
    files.write_bytes(target, content, force)

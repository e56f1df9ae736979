"""`eocodec export`."""

from pathlib import Path

import click

from eocodec.errors import EocodecError, ModelError
from eocodec.model.shelf import check_name
from eocodec_cli import files


@click.command("export")
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The .eocm bundle."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Pictures to calibrate on: folder, .tar, or a pattern of shards.",
)
@click.option("--name", help="What the model is called; default: the name of the .eocm file.")
@click.option("--card", default="", help="One line about the model.")
@click.option(
    "--pictures", type=click.IntRange(min=2), default=96, show_default=True, help="Photos the tables are fitted on."
)
@click.option("--lossless", is_flag=True, help="Also train the nets for lossless files, an hour; photo models.")
@click.option(
    "--lossless-nets", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="Keep the training of --lossless there, so that a second start goes on where it was.",
)  # fmt: skip
@click.option("--lossless-start", metavar="MODEL", help="Train the nets of a model further; name or .eocm.")
@click.option("--lossless-from", metavar="MODEL", help="Instead: take them from a model, they fit all; name or .eocm.")
@click.option(
    "--parts-from", metavar="MODEL",
    help="Take what the checkpoint has no nets for (lossless, embedded, denoising) from a model with the same flow.",
)  # fmt: skip
@click.option("--tiny", type=click.IntRange(0, 3), default=0, help="Number in tiny files; models of one size only.")
@files.force_option
def command(
    checkpoint: Path,
    output: Path,
    data: Path,
    name: str | None,
    card: str,
    pictures: int,
    lossless: bool,
    lossless_nets: Path | None,
    lossless_start: str | None,
    lossless_from: str | None,
    parts_from: str | None,
    tiny: int,
    force: bool,
) -> None:
    """Turn a training checkpoint into a model bundle (needs the extra `train`).

    Builds the ONNX graphs, fits the entropy tables on photos, and refuses to write if torch and ONNX Runtime disagree.

    \b
    Examples:
      eocodec export runs/photo/checkpoint.pt --data photos/ -o photo.eocm --lossless-from photo
      eocodec export runs/faces/checkpoint.pt --data faces.tar -o faces.eocm --name faces --tiny 2
    """
    try:
        from eocodec_export import export
        from eocodec_export.lossless import add_lossless
        from eocodec_export.sharing import add_parts
    except ImportError as e:
        raise EocodecError(
            f"exporting needs {e.name or 'torch'}; install it with: pip install 'eocodec[train]'"
        ) from None

    if output.suffix != ".eocm":
        raise EocodecError(f"{output}: a bundle's name must end in .eocm")
    name = output.stem if name is None else name
    try:
        check_name(name)
    except ModelError as e:
        raise EocodecError(f"{e}; --name gives it one") from None
    files.check_new(str(output), force)
    files.check_place(str(output))
    if lossless_start and not lossless:
        raise EocodecError("--lossless-start is for --lossless")
    if tiny and (lossless or lossless_from or parts_from):
        raise EocodecError("lossless files and other parts are for models for pictures of any size")
    source, start, giver = _bundle(lossless_from), _bundle(lossless_start), _bundle(parts_from)

    def report(message: str) -> None:
        click.echo(message, err=True)

    model = export(
        checkpoint,
        output,
        data,
        name=name,
        card=card,
        pictures=pictures,
        tiny=tiny,
        report=report,
    )
    if lossless or source is not None:
        model = add_lossless(output, data, output, source=source, start=start, nets=lossless_nets, report=report)
    if giver is not None:
        model = add_parts(output, giver, output, report)
    click.echo(f"{output}  id {model.id.hex()}  {output.stat().st_size / 1e6:.2f} MB")


def _bundle(name: str | None) -> Path | None:
    """The path of a model given by name or path.

    Raises:
        EocodecError: there is no such file.
    """
    from eocodec.model.library import installed_models

    if name is None:
        return None
    path = installed_models().get(name, Path(name))
    if not path.is_file():
        raise EocodecError(f"{path}: no such model bundle")
    return path

"""`eocodec export`."""

from pathlib import Path

import click

from eocodec.errors import EocodecError


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
@click.option("--name", default="photo", show_default=True, help="Name in the manifest.")
@click.option("--card", default="", help="One line about the model.")
@click.option(
    "--pictures", type=click.IntRange(min=2), default=96, show_default=True, help="Photos the tables are fitted on."
)
@click.option("--tiny", type=click.IntRange(0, 3), default=0, help="Number in tiny files; models of one size only.")
def command(checkpoint: Path, output: Path, data: Path, name: str, card: str, pictures: int, tiny: int) -> None:
    """Turn a training checkpoint into a model bundle (needs the extra `train`).

    Builds the ONNX graphs, fits the entropy tables on photos, and refuses to write if torch and ONNX Runtime disagree.

    \b
    Examples:
      eocodec export runs/photo/checkpoint.pt --data photos/ -o photo.eocm
      eocodec export runs/faces/checkpoint.pt --data faces.tar -o faces.eocm --name faces --tiny 2
    """
    try:
        from eocodec_export import export
    except ImportError as e:
        raise EocodecError(
            f"exporting needs {e.name or 'torch'}; install it with: pip install 'eocodec[train]'"
        ) from None

    if output.suffix != ".eocm":
        raise EocodecError(f"{output}: a bundle's name must end in .eocm")
    model = export(
        checkpoint,
        output,
        data,
        name=name,
        card=card,
        pictures=pictures,
        tiny=tiny,
        report=lambda message: click.echo(message, err=True),
    )
    click.echo(f"{output}  id {model.id.hex()}  {output.stat().st_size / 1e6:.2f} MB")

"""`eocodec models`."""

import json

import click

from eocodec_cli import files


@click.command("models")
@files.json_option
def command(as_json: bool) -> None:
    """List the installed models: name, id, largest C and size.

    \b
    Example:
      eocodec models --json
    """
    from eocodec.model.library import load_model, shipped_models

    for name, path in shipped_models().items():
        model = load_model(name)
        row = {
            "name": name,
            "id": model.id.hex(),
            "sha256": model.full_id.hex(),
            "size": model.size,
            "block": model.block,
            "bytes": path.stat().st_size,
            "licence": model.any_manifest.licence,
            "card": model.any_manifest.card,
            "path": str(path),
        }
        if as_json:
            click.echo(json.dumps(row))
        else:
            click.echo(
                f"{name}  id {row['id']}  {row['size'] or 'any size'}  C up to {row['block']}  "
                f"{path.stat().st_size / 1e6:.1f} MB  {row['card']}"
            )

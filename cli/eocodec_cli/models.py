"""`eocodec models`, with a command for each thing that is done to models at hand: `add`, `remove`, `list`, `strip`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eocodec.errors import EocodecError, ModelError
from eocodec_cli import files

if TYPE_CHECKING:
    from eocodec.model.bundle import Model


def _parts(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Parts of bundles, with commas between them."""
    from eocodec.model.parts import OPTIONAL

    found = tuple(part.strip() for value in values for part in value.split(","))
    for part in found:
        if part not in OPTIONAL:
            raise click.BadParameter(f"{part!r} is no part that can be left out; there are: {', '.join(OPTIONAL)}.")
    return found


@click.group("models", invoke_without_command=True)
@files.json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show, add, remove and strip models. Without a command: list them.

    Models that are added lie in a folder of the user's; files made with them then need no --model to be decoded.

    \b
    Examples:
      eocodec models
      eocodec models add mine.eocm
      eocodec models remove mine
      eocodec models strip photo --decode-only -o small.eocm
    """
    if ctx.invoked_subcommand is None:
        _list(as_json)


@command.command("list")
@files.json_option
def list_models(as_json: bool) -> None:
    """List the installed models: name, id, largest C and size; of deltas also their base.

    \b
    Example:
      eocodec models list --json
    """
    _list(as_json)


@command.command("add")
@click.argument("bundle", type=click.Path(dir_okay=False, path_type=Path))
@files.force_option
def add(bundle: Path, force: bool) -> None:
    """Install a model bundle under the name that it gives itself. A delta needs its base installed first.

    One that differs from a shipped model in nothing that files depend on, such as by other nets for denoising, gets the
    name of its file.

    \b
    Example:
      eocodec models add mine.eocm
    """
    from eocodec.files import atomic_write
    from eocodec.model.library import installed_models, load_model, shipped_models, user_folder
    from eocodec.model.shelf import check_name

    if bundle.suffix != ".eocm":
        raise EocodecError(f"{bundle}: not a model bundle, whose name ends in .eocm")
    model = load_model(bundle)
    _check_base(bundle)
    name, ours = model.name, shipped_models()
    if name in ours and bundle.stem not in ours and load_model(ours[name]).full_id == model.full_id:
        name = bundle.stem
    try:
        check_name(name)
    except ModelError as e:
        raise EocodecError(f"{bundle}: cannot be installed: {e}") from None
    present = installed_models().get(name)
    shipped = name in ours
    if present is not None and (shipped or not force):  # by force even one that cannot be read is replaced
        _check_present(bundle, model, present, shipped)
    target = user_folder() / f"{name}.eocm"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, bundle.read_bytes())
    except OSError as e:
        raise EocodecError(f"{target}: cannot be written ({e.strerror or e})") from None
    click.echo(f"{name}  id {model.id.hex()}  {target}")


def _check_present(bundle: Path, model: "Model", present: Path, shipped: bool) -> None:
    """Refuse to replace a model that has the name of the new one, unless nothing is lost.

    Raises:
        EocodecError: it comes with eocodec, or is another, or has more parts.
    """
    from eocodec.model.library import load_model

    if shipped:
        raise EocodecError(
            f"{bundle}: a model called {model.name} comes with eocodec and cannot be replaced; export it under another "
            "--name, or give its path to --model"
        )
    old = load_model(present)
    if old.full_id == model.full_id and set(old.files) <= set(model.files):
        return
    if old.full_id != model.full_id:
        raise EocodecError(f"{bundle}: a model called {model.name} is installed already; use --force to replace it")
    raise EocodecError(
        f"{bundle}: this copy of {model.name} lacks parts that the installed one has; use --force to replace it"
    )


@command.command("remove")
@click.argument("name")
@files.force_option
def remove(name: str, force: bool) -> None:
    """Remove a model that was added. Files made with it need it to be decoded.

    \b
    Example:
      eocodec models remove mine
    """
    from eocodec.model.bundle import peek_id
    from eocodec.model.library import installed_models, shipped_models, user_models

    if name in shipped_models():
        raise EocodecError(f"the model {name} comes with eocodec and cannot be removed")
    own = user_models()
    if name not in own:
        raise EocodecError(f"no model that was added is called {name}; there are: {', '.join(own) or 'none'}")
    identity = peek_id(own[name])
    needing = [other for other, path in own.items() if other != name and _base(path) == identity]
    if any(peek_id(path) == identity for other, path in installed_models().items() if other != name):
        needing = []  # it is there twice
    if needing and not force:
        raise EocodecError(f"{', '.join(needing)} cannot be used without {name}; use --force to remove it all the same")
    try:
        own[name].unlink()
    except OSError as e:
        raise EocodecError(f"{own[name]}: cannot be removed ({e.strerror or e})") from None
    click.echo(f"removed {own[name]}")


@command.command("strip")
@click.argument("model", shell_complete=files.complete_model)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The .eocm bundle."
)
@click.option("--decode-only", is_flag=True, help="Leave out what no decoder needs: encoder and denoising.")
@click.option(
    "--without", "without", multiple=True, callback=_parts, metavar="PART,...",
    help="Leave out encoder, denoising, embedded (progressive files), lossless or grey.",
)  # fmt: skip
@files.force_option
@files.json_option
def strip(model: str, output: Path, decode_only: bool, without: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Write a copy of a model, name or .eocm bundle, without some of its parts.

    The copy has the same id, so files name both alike, and decodes all files but those of the forms left out.

    \b
    Examples:
      eocodec models strip photo --decode-only -o small.eocm
      eocodec models strip photo --decode-only --without lossless,embedded -o smaller.eocm
    """
    from eocodec.model import parts
    from eocodec.model.bundle import Model, read_bundle, write_bundle
    from eocodec.model.library import installed_models
    from eocodec_cli.work import writing

    if not decode_only and not without:
        raise click.UsageError("say what to leave out: --decode-only, or --without PART")
    if output.suffix != ".eocm":
        raise EocodecError(f"{output}: a bundle's name must end in .eocm")
    source = installed_models().get(model, Path(model))
    if output.exists() and source.exists() and output.samefile(source):
        raise EocodecError(f"{output} is the model itself; choose another output with -o")
    files.check_new(str(output), force)
    files.check_place(str(output))
    whole = read_bundle(source)
    if _base(source) is not None:
        raise EocodecError(f"{source}: this bundle is a delta, which only holds what differs; strip its base instead")
    left = sorted({*without, *(parts.BESIDE_PARTS if decode_only else ())})
    small = parts.strip(whole, left)
    identity = Model(small, 1, device="cpu").full_id
    with writing(), files.kept(str(output)):
        write_bundle(output, small, new=not force)
    size, before = output.stat().st_size, source.stat().st_size
    if as_json:
        row = {"path": str(output), "id": identity[:4].hex(), "without": left, "bytes": size, "bytes_before": before}
        click.echo(json.dumps(row))
        return
    click.echo(
        f"{output}  id {identity[:4].hex()}  {size / 1e6:.1f} MB of {before / 1e6:.1f}  without {', '.join(left)}"
    )


def _list(as_json: bool) -> None:
    from eocodec.model.library import installed_models, load_model, shipped_models

    for name, path in installed_models().items():
        try:
            model = load_model(path)
        except EocodecError as e:  # a damaged one, or a delta whose base is gone, must not hide the others
            row: dict[str, Any] = {"name": name, "path": str(path), "error": str(e)}
            click.echo(json.dumps(row) if as_json else f"{name}  unusable: {e}")
            continue
        base = _base(path)
        row = {
            "name": name,
            "id": model.id.hex(),
            "sha256": model.full_id.hex(),
            "size": model.size,
            "block": model.block,
            "bytes": path.stat().st_size,
            "base": base.hex() if base else None,
            "shipped": name in shipped_models(),
            "licence": model.any_manifest.licence,
            "card": model.any_manifest.card,
            "path": str(path),
        }
        if as_json:
            click.echo(json.dumps(row))
        else:
            delta = f"  delta of {base.hex()[:8]}" if base else ""
            click.echo(
                f"{name}  id {row['id']}  {row['size'] or 'any size'}  C up to {row['block']}  "
                f"{path.stat().st_size / 1e6:.1f} MB{delta}  {row['card']}"
            )


def _base(path: Path) -> bytes | None:
    """Full id of the base of a bundle that is a delta; None for others, and for what is no bundle."""
    from eocodec.model.bundle import read_bundle
    from eocodec.model.delta import base_of

    try:
        return base_of(read_bundle(path))
    except EocodecError:
        return None


def _check_base(bundle: Path) -> None:
    """See that what a delta needs is installed, not only beside it.

    Raises:
        EocodecError: it is not.
    """
    from eocodec.model.bundle import peek_id
    from eocodec.model.library import installed_models

    base = _base(bundle)
    if base is not None and base not in {peek_id(path) for path in installed_models().values()}:
        raise EocodecError(
            f"{bundle}: this bundle is a delta of model {base.hex()[:8]}, which is not installed; add that one first"
        )

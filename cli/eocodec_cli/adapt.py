"""`eocodec adapt`."""

import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from eocodec.errors import EocodecError
from eocodec.files import used_folder
from eocodec.model.shelf import check_new_name
from eocodec_cli import files

NOTHING_GAINED = 3
"""Exit code when the adapted model is no better and nothing was written."""

MOST_MINUTES = 60.0 * 24 * 365
REPORT_EVERY = 60.0  # seconds between lines when there is no terminal


@click.command("adapt")
@click.argument("pictures")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The .eocm bundle."
)
@click.option(
    "--minutes", type=click.FloatRange(0.2, MOST_MINUTES), default=30.0, show_default=True, help="For everything."
)
@click.option("--model", default="photo", show_default=True, metavar="NAME|PATH", help="The model to start from.",
              shell_complete=files.complete_model)  # fmt: skip
@click.option("--for", "goal", type=click.Choice(["rate", "eye", "lossless", "denoise"]), default="rate",
              show_default=True,
              help="Fewer bytes at equal PSNR, at equal SSIMULACRA2, without loss, or better denoising.")  # fmt: skip
@click.option("--full", is_flag=True, help="Write a whole bundle, not a delta that needs the model it started from.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@files.threads_option
@files.json_option
@files.force_option
def command(
    pictures: str,
    output: Path,
    minutes: float,
    model: str,
    goal: str,
    full: bool,
    device: str,
    threads: int,
    as_json: bool,
    force: bool,
) -> None:
    """Adapt a model to pictures of one kind (needs the extra `adapt`).

    PICTURES is a folder, a .tar or a pattern of shards. Some are held out and measured; if they gain nothing, nothing
    is written and the exit code is 3. After an interruption the same command goes on. Beside the bundle come a model
    card (.md), the figures (.json) and a plot (.png).

    \b
    Examples:
      eocodec adapt pictures/ -o mine.eocm
      eocodec adapt pictures/ -o mine.eocm --minutes 10 --for eye
      eocodec models add mine.eocm
    """
    try:
        import matplotlib  # noqa: F401  (what is missing shows now, not in half an hour)
        import scipy  # noqa: F401
        from eocodec_export.adapted import adapted_files
        from eocodec_export.exact import exact_files
        from eocodec_export.refining import refined_files

        from eocodec.adapt.report import SUFFIXES, table
        from eocodec.adapt.run import NothingGainedError, adapt
        from eocodec.adapt.stages import Stages
        from eocodec.adapt.state import Order
    except ImportError as e:
        raise EocodecError(
            f"adapting needs {e.name or 'torch'}; install it with: pip install 'eocodec[adapt]'"
        ) from None
    if math.isnan(minutes):
        raise click.BadParameter("nan is no number of minutes", param_hint="--minutes")
    if output.suffix != ".eocm":
        raise EocodecError(f"{output}: a bundle's name must end in .eocm")
    check_new_name(output.stem)  # now, not when the model is to be installed
    for made in (output, *(output.with_suffix(suffix) for suffix in SUFFIXES)):
        if made.is_dir():
            raise EocodecError(f"{made} is a folder")
        files.check_new(str(made), force)
    order = Order(pictures, output, minutes, model, goal, full, device, threads)
    shown = _Shown(minutes * 60)
    try:
        stages = Stages(adapted_files, refined_files, exact_files)
        with _folder(output.parent):
            outcome = adapt(order, stages, shown.say, shown.tick)
    except NothingGainedError as e:
        shown.end()
        click.echo(f"eocodec: {e}", err=True)
        raise click.exceptions.Exit(NOTHING_GAINED) from None
    except KeyboardInterrupt:
        shown.end()
        if order.state.exists():
            click.echo("eocodec: the same command goes on where this one was", err=True)
        raise
    shown.end()
    if as_json:
        click.echo(output.with_suffix(".json").read_text().rstrip())
        return
    click.echo(table(outcome))
    click.echo(
        f"{output}  id {outcome.identity[:8]}  {outcome.size / 1e6:.2f} MB  {outcome.gain:.2f} {outcome.unit} "
        f"on {outcome.held_out} held-out pictures, {outcome.seconds / 60:.1f} minutes"
    )


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """The folder of the output, which is made, and goes again where nothing is left in it.

    Raises:
        EocodecError: it cannot be made, or not be written to.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(used_folder(folder))
        except OSError as e:
            raise EocodecError(f"{folder}: no files can be written there ({e.strerror})") from None
        yield


class _Shown:
    """A bar on a terminal's standard error, or a line now and then."""

    def __init__(self, seconds: float) -> None:
        self.terminal = sys.stderr is not None and sys.stderr.isatty()
        self.text, self.passed, self.said = "", 0.0, 0.0
        self.bar: Any = click.progressbar(
            length=int(seconds), file=sys.stderr, hidden=not self.terminal, item_show_func=lambda _: self.text
        )
        if self.terminal:
            self.bar.render_progress()

    def say(self, message: str) -> None:
        """A sentence on a line of its own."""
        if self.terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
        click.echo(message, err=True)

    def tick(self, passed: float, total: float, text: str) -> None:
        """So many of the seconds have passed, and so much was gained."""
        self.text = f"held-out pictures: {text}" if text else ""
        if self.terminal:
            self.bar.update(int(passed) - int(self.passed))
        elif passed - self.said >= REPORT_EVERY:
            self.said = passed
            click.echo(f"{passed / 60:.1f} of {total / 60:.1f} minutes  {self.text}", err=True)
        self.passed = passed

    def end(self) -> None:
        """Leave the bar's line."""
        if self.terminal:
            self.bar.render_finish()

"""`eocodec lab`."""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from eocodec.errors import EocodecError, EocodecWarning


@click.command("lab")
@click.argument("report", metavar="REPORT.toml", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the results; default: the file's `out`."
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON, not as a table.")
def command(report: Path, out: Path | None, as_json: bool) -> None:
    """Measure what latents mean, side by side, as a TOML file says (needs the extra `lab`).

    Trains or loads every subject (PCA, VAEs, dense flows, face64), measures separation, stability, information and,
    where factors are known, the supervised scores, and writes a page and JSON for each, and a table that compares them.
    Called again, it goes on where it was stopped and repeats only what has changed in the file.

    \b
    Examples:
      eocodec lab report.toml
      eocodec lab report.toml --out results/ --json
    """
    try:
        import torch

        from eocodec.lab.report.comparison import comparison_table
        from eocodec.lab.report.configuration import load_report
        from eocodec.lab.report.running import carry_out, length
    except ImportError as e:
        raise EocodecError(f"the lab needs {e.name}; install it with: pip install 'eocodec[lab]'") from None
    torch.set_num_threads(1)  # products of this size are slower when shared
    loaded = load_report(report, out)
    terminal = sys.stderr.isatty()
    shown = ""
    bar: Any
    with (
        _noted() as notes,
        click.progressbar(
            length=length(loaded), file=sys.stderr, hidden=not terminal, item_show_func=lambda _: shown
        ) as bar,
    ):

        def say(message: str, done: int) -> None:
            nonlocal shown
            if message != shown and not terminal:
                click.echo(message, err=True)
            shown = message
            bar.update(done - bar.pos)

        table = carry_out(loaded, say)
        bar.update(bar.length - bar.pos)
    for note in dict.fromkeys(notes):
        click.echo(note, err=True)
    click.echo(json.dumps(table, ensure_ascii=False) if as_json else comparison_table(table))
    click.echo(f"wrote {loaded.out / 'index.html'}", err=True)


@contextmanager
def _noted() -> Iterator[list[str]]:
    """Keep the sentences of warnings that are eocodec's own, which would stand in the progress bar."""
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", EocodecWarning)
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, EocodecWarning):
                notes.append(str(message))
            else:
                shown(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield notes

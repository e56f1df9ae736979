"""The `eocodec` command: one click command per module, loaded only when it is called."""

import importlib
import sys

import click

__all__ = ["cli", "main"]

COMMANDS = {
    "batch": "Compress a corpus of pictures, on all cores or a cluster.",
    "bench": "Compare with JPEG, WebP, AVIF and JPEG XL on a folder of pictures.",
    "compress": "Compress pictures to .eoc files.",
    "completion": "Print the script that completes commands in a shell.",
    "decompress": "Decode .eoc files to pictures.",
    "demo": "Show compression and denoising on a bundled picture.",
    "denoise": "Remove noise from pictures.",
    "edit": "Change compressed faces along named paths.",
    "export": "Turn a training checkpoint into a model bundle.",
    "info": "Show what an .eoc file holds.",
    "inspect": "Show what a model's ordered latents do.",
    "lab": "Measure what latents mean, beside other methods.",
    "models": "List the installed models.",
    "morph": "Show pictures between two compressed faces.",
    "serve": "Serve compression and denoising over HTTP, with a web page.",
    "train": "Train a model from a TOML configuration.",
    "truncate": "Cut .eoc files to a lower rate without re-encoding.",
}


class Lazy(click.Group):
    """A group whose commands are imported when they are called; the list needs no import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"eocodec_cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from :data:`COMMANDS`."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="eocodec")
def cli() -> None:
    """Compress and denoise images with entropy-ordered flows.

    \b
    Examples:
      eocodec compress photo.jpg                 writes photo.eoc
      eocodec decompress photo.eoc -o back.png
      eocodec denoise night.jpg -o clean.png
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors become one line on standard error and an exit code."""
    from eocodec.errors import EocodecError

    try:
        code = cli.main(args=arguments, prog_name="eocodec", standalone_mode=False)
        if isinstance(code, int) and code:  # click returns the code of an Exit
            sys.exit(code)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("eocodec: interrupted", err=True)
        sys.exit(130)
    except EocodecError as e:
        click.echo(f"eocodec: {e}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except MemoryError:
        click.echo("eocodec: not enough memory for this picture", err=True)
        sys.exit(1)

"""The `eocodec` command: one click command per module, loaded only when it is called.

Nothing is imported before :func:`main` is called, so that an interrupt meets a process that can deal with it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eocodec_cli.group import cli as cli

__all__ = ["COMMANDS", "cli", "main"]

# Imports and parsed graphs make many objects and no cycles: with Python's usual 700, looking for some takes 20 ms, with
# 50,000 still 8 ms.
COLLECT_EVERY = (200_000, 10, 10)
# NumPy's threads for products of matrices otherwise spin, from their start on, for 75 ms on a core that imports need.
# 2**4 cycles is the shortest time that OpenBLAS takes; products are shared out as before.
NO_SPINNING = ("OPENBLAS_THREAD_TIMEOUT", "4")
COMMANDS = {
    "adapt": "Adapt a model to pictures of one kind.",
    "batch": "Compress a corpus of pictures, on all cores or a cluster.",
    "bench": "Compare with JPEG, WebP, AVIF and JPEG XL on a folder of pictures.",
    "compress": "Compress pictures to .eoc files.",
    "completion": "Print the script that completes commands in a shell.",
    "decompress": "Decode .eoc files to pictures.",
    "demo": "Show compression and denoising on a bundled picture.",
    "denoise": "Remove noise from pictures.",
    "doctor": "Show what is installed, and what is slow here and why.",
    "edit": "Change compressed faces along named paths.",
    "export": "Turn a training checkpoint into a model bundle.",
    "info": "Show what an .eoc file holds.",
    "inspect": "Show what a model's ordered latents do.",
    "lab": "Measure what latents mean, beside other methods.",
    "models": "List, add and remove models.",
    "morph": "Show pictures between two compressed faces.",
    "serve": "Serve compression and denoising over HTTP, with a web page.",
    "train": "Train a model from a TOML configuration.",
    "truncate": "Cut .eoc files to a lower rate without re-encoding.",
}


def __getattr__(name: str) -> Any:
    """The group of all commands, imported when it is first used."""
    if name == "cli":
        from eocodec_cli.group import cli

        return cli
    raise AttributeError(f"module 'eocodec_cli' has no attribute {name!r}")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors become one line on standard error and an exit code.

    An interrupt while modules are imported ends the process as a signal does, without a word: nothing has begun yet.
    """
    import gc
    import os
    import signal

    gc.set_threshold(*COLLECT_EVERY)
    os.environ.setdefault(*NO_SPINNING)
    quiet = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if quiet:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        except ValueError:  # only the main thread may
            quiet = False
    from eocodec_cli.group import run

    if quiet:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run(arguments)

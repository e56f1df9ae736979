"""Plots as files.

In: a figure of matplotlib, and the name of a file. Out: its bytes, or a sentence on why there is no such type.
"""

import io
from pathlib import Path
from typing import Any

from eocodec.errors import EocodecError

__all__ = ["encode", "file_type"]

USUAL = "png"  # in pipes, and for names without an extension
UNUSABLE = {"pgf"}  # which runs LaTeX


def file_type(name: str) -> str:
    """Matplotlib's name of the type of file that a name such as "rd.png" stands for.

    Raises:
        EocodecError: plots cannot be written so.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    suffix = Path(name).suffix
    found = suffix.removeprefix(".").lower() or USUAL
    if found in UNUSABLE or found not in FigureCanvasBase.get_supported_filetypes():
        raise EocodecError(f"plots cannot be written as {suffix}; use .png, .svg or .pdf")
    return found


def encode(figure: Any, kind: str) -> bytes:
    """The bytes of a figure, which is closed, as a file of a type that :func:`file_type` gives."""
    from matplotlib import pyplot as plt

    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=110)
    plt.close(figure)
    return out.getvalue()

"""Measures of how alike two pictures are, each an object in :data:`MEASURES`.

In: two pictures `(H, W, 3)` in 8-bit sRGB, the original first. Out: a number. A further measure is one more entry.
"""

import functools
import hashlib
import io
import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from eocodec.bench.pictures import Bytes
from eocodec.errors import EocodecError
from eocodec.metrics import ms_ssim, psnr

__all__ = ["MEASURES", "Measure", "choose"]

BUTTERAUGLI = "butteraugli_main"
ALIKE = 99.0  # dB that equal pictures count for


@dataclass(frozen=True)
class Measure:
    """A measure.

    Arguments:
        name: in results and on the command line.
        label: with its unit, for tables and axes.
        function: original and picture to a number.
        higher: whether more is better.
        decimals: in tables.
        smallest: pixels of the shorter side from which on it is defined.
        scores: values between which Bjøntegaard rate differences are taken; None: by the anchor's rate.
        scale: makes a number of it that rises with quality about evenly; curves are drawn and compared on it.
        axis: what `scale` gives, for plots.
        identity: program and version, by which values are kept; None: too fast to be worth keeping.
    """

    name: str
    label: str
    function: Callable[[Bytes, Bytes], float]
    higher: bool
    decimals: int
    smallest: int = 1
    scores: tuple[float, float] | None = None
    scale: Callable[[float], float] = float
    axis: str = ""
    identity: Callable[[], str] | None = None

    def __call__(self, original: Bytes, picture: Bytes) -> float | None:
        """The value; None for pictures that are too small."""
        if min(original.shape[:2]) < self.smallest:
            return None
        return float(self.function(original, picture))

    def check(self) -> None:
        """Raise ImportError where it cannot work."""
        if self.identity is not None:
            self.identity()


def _psnr(original: Bytes, picture: Bytes) -> float:
    return min(psnr(original, picture), ALIKE)


def _decibels(similarity: float) -> float:
    return -10 * math.log10(max(1 - similarity, 1e-9))


def _png(picture: Bytes) -> io.BytesIO:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=1)
    out.seek(0)
    return out


def _ssimulacra2(original: Bytes, picture: Bytes) -> float:
    from ssimulacra2 import compute_ssimulacra2

    return float(compute_ssimulacra2(_png(original), _png(picture)))


@functools.cache
def _ssimulacra2_identity() -> str:
    import ssimulacra2  # noqa: F401  (version alone would not say whether it can be imported)

    return f"ssimulacra2 {version('ssimulacra2')}"


def _butteraugli(original: Bytes, picture: Bytes) -> float:
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder, name)) for name in ("original.png", "picture.png")]
        for name, pixels in zip(names, (original, picture), strict=True):
            Path(name).write_bytes(_png(pixels).getvalue())
        done = subprocess.run([BUTTERAUGLI, *names], capture_output=True, text=True)
    found = re.search(r"3-norm: (\S+)", done.stdout)
    if done.returncode or not found:
        raise EocodecError(f"{BUTTERAUGLI} does not work: {(done.stderr or done.stdout).strip()[:200]}")
    return float(found[1])


@functools.cache
def _butteraugli_identity() -> str:
    path = shutil.which(BUTTERAUGLI)
    if path is None:
        raise ImportError(name=f"{BUTTERAUGLI} on the path (libjxl; Debian's package libjxl-devtools)")
    return f"butteraugli {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"  # it does not tell its version


MEASURES: dict[str, Measure] = {
    found.name: found
    for found in (
        Measure("psnr", "PSNR", _psnr, True, 3, axis="PSNR (dB, RGB)"),
        Measure(
            "ms_ssim",
            "MS-SSIM",
            ms_ssim,
            True,
            4,
            smallest=176,
            scale=_decibels,
            axis="MS-SSIM (dB)",
            identity=lambda: "eocodec ms_ssim 1",
        ),
        # Sneyers, *SSIMULACRA 2*, 2022. https://github.com/cloudinary/ssimulacra2
        Measure(
            "ssimulacra2",
            "SSIMULACRA2",
            _ssimulacra2,
            True,
            2,
            smallest=8,
            scores=(30.0, 80.0),
            axis="SSIMULACRA2",
            identity=_ssimulacra2_identity,
        ),
        # Alakuijala et al., *Guetzli: perceptually guided JPEG encoder*, 2017. https://arxiv.org/abs/1703.04421
        Measure(
            "butteraugli",
            "Butteraugli",
            _butteraugli,
            False,
            3,
            smallest=8,
            scale=lambda distance: -distance,
            axis="− Butteraugli, 3-norm",
            identity=_butteraugli_identity,
        ),
    )
}


def choose(names: Sequence[str]) -> tuple[list[Measure], dict[str, str]]:
    """The measures of these names that work here, and why the others do not.

    Raises:
        EocodecError: an unknown name.
    """
    found, left_out = [], {}
    for name in names:
        if name not in MEASURES:
            raise EocodecError(f"no measure is called {name}; known are {', '.join(MEASURES)}")
        try:
            MEASURES[name].check()
            found.append(MEASURES[name])
        except ImportError as e:
            left_out[name] = f"it needs {e.name}"
    return found, left_out

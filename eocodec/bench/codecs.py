"""The codecs that are compared, each an object in :data:`CODECS`.

In: pictures `(H, W, 3)` in 8-bit sRGB and a setting. Out: files in memory, and pictures again. A further codec is one
more entry.
"""

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from PIL import Image, features

from eocodec import codec
from eocodec.bench.pictures import Bytes
from eocodec.errors import EocodecError
from eocodec.model.bundle import Model

__all__ = ["CODECS", "OURS", "Codec", "Ours", "avif_tune", "choose", "fitted", "versions"]

AVIF_TUNES = ("iq", "ssim", "psnr")


@dataclass(frozen=True)
class Codec:
    """A codec.

    Arguments:
        name: in results and on the command line.
        label: what it is, in words.
        settings: at which it is measured, from small files to large ones.
        encode: picture, setting and eocodec's model to a file.
        decode: file and eocodec's model to a picture.
        span: lowest and highest setting.
        needs: module that has to be there, besides those of eocodec.
    """

    name: str
    label: str
    settings: Sequence[float]
    encode: Callable[[Bytes, float, Model], bytes]
    decode: Callable[[bytes, Model], Bytes]
    span: tuple[float, float] = (0, 100)
    needs: str | None = None

    def check(self) -> None:
        """Raise ImportError where it cannot work."""
        if self.needs is not None:
            __import__(self.needs)


def _by_pillow(kind: str, picture: Bytes, setting: float, _: Model, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind, quality=int(setting), **options)
    return out.getvalue()


def _from_pillow(data: bytes, _: Model) -> Bytes:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _pillow(name: str, label: str, settings: Sequence[float], kind: str, **options: Any) -> Codec:
    """A codec of Pillow's, whose setting is `quality`."""
    needs = options.pop("needs", None)
    return Codec(name, label, settings, functools.partial(_by_pillow, kind, **options), _from_pillow, needs=needs)


RATES = (8, 12, 18, 26, 38, 56, 84, 130, 190, 250, 320, 450)


@dataclass(frozen=True)
class Ours:
    """How one of our own entries compresses; arguments as of :func:`eocodec.compress`."""

    tune: str | None = None
    effort: int = 0

    def encode(self, picture: Bytes, setting: float, model: Model) -> bytes:
        """See :class:`Codec`."""
        return codec.compress(picture, setting, model=model, tune=self.tune, effort=self.effort)

    @property
    def rates(self) -> Sequence[float]:
        """See :attr:`Codec.settings`; with effort every other one, for each takes seconds."""
        return RATES[1::2] if self.effort else RATES

    @property
    def label(self) -> str:
        """See :class:`Codec`."""
        tune, effort = (f" --{k} {v}" if v else "" for k, v in (("tune", self.tune), ("effort", self.effort)))
        return f"eocodec{tune}{effort}; the setting is C"


EFFORT = 5  # rounds
OURS = {
    "eocodec": Ours(),
    "eocodec-psnr": Ours("psnr"),
    "eocodec-effort": Ours(effort=EFFORT),
    "eocodec-psnr-effort": Ours("psnr", EFFORT),
}
"""Our own entries."""
AVIF = (14, 22, 30, 38, 46, 54, 62, 70, 78, 85, 91)
CODECS: dict[str, Codec] = {
    found.name: found
    for found in (
        *(Codec(name, ours.label, ours.rates, ours.encode, codec.decompress, (1, 768)) for name, ours in OURS.items()),
        _pillow(
            "jpeg",
            "JPEG 4:2:0, optimised Huffman tables",
            (3, 5, 8, 14, 22, 33, 47, 60, 72, 80, 86, 90, 94),
            "JPEG",
            optimize=True,
            subsampling="4:2:0",
        ),
        _pillow("webp", "WebP, method 6", (0, 3, 8, 16, 28, 44, 60, 75, 85, 91, 95, 98), "WEBP", method=6),
        _pillow("avif", "AVIF, speed 6, 4:2:0, tune as Pillow's default", AVIF, "AVIF", speed=6, subsampling="4:2:0"),
        _pillow(
            "avif-s2-444",
            "AVIF, speed 2, 4:4:4, tune as Pillow's default",
            AVIF,
            "AVIF",
            speed=2,
            subsampling="4:4:4",
        ),
        _pillow(
            "jxl",
            "JPEG XL, effort 7; quality as libjxl maps it to a distance",
            (5, 15, 25, 35, 45, 55, 65, 75, 84, 90, 94),
            "JXL",
            effort=7,
            needs="pillow_jxl",
        ),
    )
}


def choose(names: Sequence[str]) -> tuple[list[Codec], dict[str, str]]:
    """The codecs of these names that work here, and why the others do not.

    Raises:
        EocodecError: an unknown name, or none works.
    """
    found, left_out = [], {}
    for name in names:
        if name not in CODECS:
            raise EocodecError(f"no codec is called {name}; known are {', '.join(CODECS)}")
        try:
            CODECS[name].check()
            found.append(CODECS[name])
        except ImportError as e:
            left_out[name] = f"it needs {e.name}; install it with: pip install 'eocodec[bench]'"
    if not found:
        raise EocodecError(f"none of the codecs works here: {', '.join(names)}")
    return found, left_out


def fitted(chosen: Codec, picture: Bytes, size: int, model: Model) -> bytes:
    """The largest file of at most `size` bytes; the smallest there is where all are larger.

    Settings are searched by halving, to whole numbers; eocodec aims at the size itself.
    """
    if chosen.name in OURS:
        ours = OURS[chosen.name]
        return codec.compress(picture, max_bytes=size, model=model, tune=ours.tune, effort=ours.effort)
    low, high = (int(s) for s in chosen.span)
    best = chosen.encode(picture, low, model)
    while low < high and len(best) <= size:
        middle = (low + high + 1) // 2
        data = chosen.encode(picture, middle, model)
        if len(data) <= size:
            low, best = middle, data
        else:
            high = middle - 1
    return best


def avif_tune() -> str | None:
    """Which `tune` Pillow's AVIF files have by default, found by comparing files; None if it is none of those tried.

    libavif chooses it by its own version and libaom's.
    """
    if not features.check("avif"):
        return None
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    picture = Image.fromarray(noise)

    def file(**options: Any) -> bytes | None:
        out = io.BytesIO()
        try:
            picture.save(out, "AVIF", quality=50, speed=6, subsampling="4:2:0", **options)
        except (OSError, ValueError):  # a libaom without this tune
            return None
        return out.getvalue()

    plain = file()
    return next((tune for tune in AVIF_TUNES if file(advanced={"tune": tune}) == plain), None)


def versions() -> dict[str, str]:
    """Versions of what codes, and the `tune` of AVIF."""
    found = {"pillow": version("pillow")}
    for name in ("avif", "webp", "jpg"):
        number = features.version(name)
        if number:
            found[name] = number
    tune = avif_tune()
    return {**found, "avif tune": tune} if tune else found

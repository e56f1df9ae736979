"""Compress, decompress, truncate: transform, latents, entropy and format in a straight line.

In: pictures (see `eocodec.image`) or `.eoc` bytes. Out: `.eoc` bytes or arrays.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zstandard
from PIL import Image

from eocodec import entropy, flat, format, transform
from eocodec.bundle import Model, load_model, peek_id, shipped_models
from eocodec.errors import EocodecError, FormatError
from eocodec.format import File, Header, Segment, Tiny, tiny_step
from eocodec.image import Bytes, ImageLike, Picture, as_picture
from eocodec.latents import (
    band_steps,
    cumulative_latents,
    delta_of_rate,
    rate_code,
    rate_of_delta,
    step_code,
)
from eocodec.metrics import psnr

__all__ = [
    "DEFAULT_RATE",
    "Compressed",
    "Decoded",
    "compress",
    "compress_picture",
    "decode_file",
    "decompress",
    "truncate",
]

DEFAULT_RATE = 96.0  # C when nothing is asked for: about 1 bit per pixel on Kodak, see docs/RESULTS.md
TINY_MODEL = "face64"
TINY_MODELS = {1: TINY_MODEL}  # numbers are never given to another model
ALPHA_LEVEL = 19


@dataclass(frozen=True)
class Compressed:
    """A compressed picture and what it took.

    Arguments:
        data: the file.
        rate: C, latents kept per block.
        bits_per_pixel: file size in bits over pixels.
        psnr: of the decoded picture, 8-bit RGB, dB; None if it was not asked for.
        size: height and width that were coded.
    """

    data: bytes
    rate: float
    bits_per_pixel: float
    psnr: float | None
    size: tuple[int, int]


@dataclass(frozen=True)
class Decoded:
    """A decoded picture: `rgb (H, W, 3)`, `alpha (H, W)` or None, and how much of the file could be used.

    `segments` counts the intact segments; an incomplete file without any gives a flat picture.
    """

    rgb: Bytes
    alpha: Bytes | None
    grey: bool
    complete: bool
    damaged: bool
    segments: int


def pack_alpha(alpha: Bytes) -> bytes:
    """Lossless: each row minus the row above, then zstd."""
    difference = alpha.copy()
    difference[1:] -= alpha[:-1]
    level = ALPHA_LEVEL if alpha.size <= 1 << 24 else 9
    return zstandard.ZstdCompressor(level=level, write_content_size=False).compress(difference.tobytes())


def unpack_alpha(data: bytes, width: int, height: int) -> Bytes:
    """Inverse of :func:`pack_alpha`.

    Raises:
        FormatError: not `width * height` bytes of zstd data.
    """
    size = width * height
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data)
        raw = reader.read(size + 1)
    except (zstandard.ZstdError, MemoryError) as e:
        raise FormatError("the file is damaged: its transparency cannot be decoded") from e
    if len(raw) != size:
        raise FormatError("the file is damaged: its transparency has the wrong size")
    rows = np.frombuffer(raw, np.uint8).reshape(height, width)
    return np.add.accumulate(rows, axis=0, dtype=np.uint8)


class _Job:
    """One picture on its way into a file: the transform runs once, any number of rates follow."""

    def __init__(self, model: Model, picture: Picture, tiny: bool) -> None:
        self.model, self.picture, self.tiny = model, picture, tiny
        self.height, self.width = picture.rgb.shape[:2]
        if tiny and (model.kind != "flat" or not model.flat.tiny):
            raise EocodecError(f"the model {model.name} has no tiny form; face64 has")
        if tiny and picture.alpha is not None:
            raise EocodecError("a tiny file cannot hold transparency")
        if model.kind == "flat":
            self.vector = flat.encode_picture(model, picture.rgb)
        else:
            self.latents = transform.encode_picture(model, picture.rgb)
        self.alpha = None if picture.alpha is None else pack_alpha(picture.alpha)

    def file(self, delta: float) -> "File | Tiny":
        """The file at step Δ (range 0 to 1)."""
        if self.tiny:
            small = Tiny(self.model.flat.tiny, tiny_step(delta), self.picture.grey, b"")
            return replace(small, payload=self._stream(small.step_code, small.delta))
        rate = _rate_of_delta(self.model, delta)
        header = Header(
            self.model.id, self.width, self.height, rate_code(rate), step_code(delta), grey=self.picture.grey
        )
        if self.model.kind == "flat":
            segment = Segment(len(self.model.flat.blocks) + 1, self._stream(header.step, header.delta))
            return File(header, self.alpha, (segment,))
        steps = band_steps(self.model.manifest, header.delta)
        targets = [h / s for h, s in zip(self.latents, steps, strict=True)]
        return File(header, self.alpha, entropy.encode(self.model, header, targets))

    def _stream(self, code: int, delta: float) -> bytes:
        return flat.encode(self.model, code, self.vector, delta)

    def quality(self, file: "File | Tiny") -> float:
        """PSNR of the file's picture to the input, dB."""
        return psnr(self.picture.rgb, _decode_rgb(self.model, file))


def _delta_of_rate(model: Model, rate: float) -> float:
    return flat.delta_of_rate(model.flat, rate) if model.kind == "flat" else delta_of_rate(model.manifest, rate)


def _rate_of_delta(model: Model, delta: float) -> float:
    return flat.rate_of_delta(model.flat, delta) if model.kind == "flat" else rate_of_delta(model.manifest, delta)


def compress_picture(
    image: ImageLike | Picture,
    rate: float | None = None,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    psnr: float | None = None,
    model: str | Path | Model | None = None,
    tiny: bool = False,
    resize: bool = False,
    measure: bool = False,
) -> Compressed:
    """Compress a picture; see :func:`compress` for the arguments. `measure` also decodes and gives the PSNR.

    Raises:
        EocodecError: more than one target, a target out of range or out of reach, or a picture of an unsupported kind.
    """
    if sum(t is not None for t in (rate, bpp, max_bytes, psnr)) > 1:
        raise EocodecError("give only one of rate, bpp, bytes and psnr")
    loaded = load_model((TINY_MODEL if tiny else "photo") if model is None else model)
    picture = as_picture(image)
    if resize and loaded.kind == "flat":
        picture = fit(picture, loaded.flat.size)
    for name, target in (("bpp", bpp), ("bytes", max_bytes), ("psnr", psnr)):
        if target is not None and not (math.isfinite(target) and target > 0):
            raise EocodecError(f"{name} must be a positive number, not {target:g}")
    delta = _delta_of_rate(loaded, DEFAULT_RATE if rate is None else rate)
    job = _Job(loaded, picture, tiny)
    if psnr is not None:
        file = _search_psnr(job, psnr)
    elif bpp is not None or max_bytes is not None:
        limit = int(max_bytes) if max_bytes is not None else int((bpp or 0) * picture.pixels / 8)
        file = _search_bytes(job, limit)
    else:
        file = job.file(delta)
    data = _bytes_of(file)
    return Compressed(
        data,
        _rate_of_delta(loaded, file.delta) if isinstance(file, Tiny) else file.header.rate / format.RATE_UNIT,
        8 * len(data) / picture.pixels,
        job.quality(file) if measure else None,
        (job.height, job.width),
    )


def compress(
    image: ImageLike | Picture,
    rate: float | None = None,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    psnr: float | None = None,
    model: str | Path | Model | None = None,
    tiny: bool = False,
    resize: bool = False,
) -> bytes:
    """Compress a picture to `.eoc` bytes.

    Arguments:
        image: array `(H, W)` or `(H, W, 1…4)` (uint8, uint16, or float in 0 to 1), or a Pillow image.
        rate: C, latents kept, from 1 to 768 per block for `photo`, to 12288 for `face64`; default 96.
        bpp: instead: bits per pixel not to exceed.
        max_bytes: instead: bytes not to exceed.
        psnr: instead: PSNR to reach, dB, 8-bit RGB.
        model: a shipped model's name, a bundle's path or a loaded model; default `photo`, `face64` for tiny files.
        tiny: write the form without a header, 2 bytes of overhead; `face64` only.
        resize: cut the largest square from the middle and scale it to the size of the model, if it has one.

    Raises:
        EocodecError: more than one target, a target out of range or out of reach, or a picture of an unsupported kind.

    Example:
        >>> import numpy as np, eocodec
        >>> data = eocodec.compress(np.zeros((5, 7, 3), np.uint8), rate=20)
        >>> eocodec.decompress(data).shape
        (5, 7, 3)
    """
    done = compress_picture(image, rate, bpp=bpp, max_bytes=max_bytes, psnr=psnr, model=model, tiny=tiny, resize=resize)
    return done.data


def _bytes_of(file: "File | Tiny") -> bytes:
    return format.serialise_tiny(file) if isinstance(file, Tiny) else format.serialise(file)


def fit(picture: Picture, size: int) -> Picture:
    """The largest square in the middle of a picture, scaled to `size` pixels (Lanczos)."""
    height, width = picture.rgb.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2

    def scaled(channels: Bytes) -> Bytes:
        square = Image.fromarray(np.ascontiguousarray(channels[top : top + edge, left : left + edge]))
        return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))

    alpha = None if picture.alpha is None else scaled(picture.alpha)
    return replace(picture, rgb=scaled(picture.rgb), alpha=alpha)


def _bounds(model: Model) -> tuple[float, float]:
    """log2 of the finest and the coarsest step (8-bit levels) that a search considers."""
    fine, coarse = (math.log2(_delta_of_rate(model, c) * 255.0) for c in (model.block, 1))
    return fine, coarse


def _search_bytes(job: _Job, limit: int) -> "File | Tiny":
    """The finest step whose file has at most `limit` bytes: bisection in log Δ; the transform is not run again."""
    fine, coarse = _bounds(job.model)
    best = job.file(2.0**coarse / 255.0)
    smallest = len(_bytes_of(best))
    if smallest > limit:
        raise EocodecError(f"the picture cannot be compressed to {limit} bytes; its smallest file has {smallest}")
    finest = job.file(2.0**fine / 255.0)
    if len(_bytes_of(finest)) <= limit:
        return finest
    for _ in range(12):
        middle = (fine + coarse) / 2
        file = job.file(2.0**middle / 255.0)
        size = len(_bytes_of(file))
        if size <= limit:
            best, coarse = file, middle
            if size >= 0.995 * limit:
                break
        else:
            fine = middle
    return best


def _search_psnr(job: _Job, target: float) -> "File | Tiny":
    """The coarsest step whose picture reaches `target` dB."""
    fine, coarse = _bounds(job.model)
    best = job.file(2.0**coarse / 255.0)
    if job.quality(best) >= target:
        return best
    best = job.file(2.0**fine / 255.0)
    reached = job.quality(best)
    if reached < target:
        raise EocodecError(f"{target:g} dB is out of reach for this picture; the finest step gives {reached:.2f} dB")
    for _ in range(12):
        middle = (fine + coarse) / 2
        file = job.file(2.0**middle / 255.0)
        reached = job.quality(file)
        if reached >= target:
            best, fine = file, middle
            if reached < target + 0.05:
                break
        else:
            coarse = middle
    return best


def _decode_rgb(model: Model, file: "File | Tiny") -> Bytes:
    grey = file.grey if isinstance(file, Tiny) else file.header.grey
    if isinstance(file, Tiny):
        rgb = _decode_flat(model, file.step_code, file.payload, file.delta)
    elif model.kind == "flat":
        header = file.header
        if (header.width, header.height) != (model.flat.size,) * 2 or len(file.segments) > 1:
            raise FormatError(f"the file is damaged: the model {model.name} does not make such files")
        payload = file.segments[0].payload if file.segments else None
        rgb = _decode_flat(model, header.step, payload, header.delta)
    else:
        header = file.header
        steps = band_steps(model.manifest, header.delta)
        latents = entropy.decode(model, header, file.segments, steps)
        rgb = transform.decode_latents(model, latents, header.delta, header.width, header.height)
    if grey:
        rgb[...] = np.floor(rgb.mean(2, keepdims=True) + 0.5).astype(np.uint8)
    return rgb


def _decode_flat(model: Model, code: int, payload: bytes | None, delta: float) -> Bytes:
    latents = flat.decode(model, code, payload, delta)
    return flat.to_bytes(flat.synthesise(model, latents[None], flat.refinement_step(model.flat, delta)))[0]


def find_model(identity: bytes, model: str | Path | Model | None, threads: int = 0) -> Model:
    """The model a file was made with: the one given, or the shipped one with that id.

    Raises:
        ModelError, FormatError: none fits.
    """
    if model is not None:
        loaded = load_model(model)
        if loaded.id != identity:
            raise FormatError(
                f"the file was made with model {identity.hex()}, not with {loaded.name} ({loaded.id.hex()})"
            )
        return loaded
    for name, path in shipped_models().items():
        if peek_id(path)[: len(identity)] == identity:
            loaded = load_model(name, threads)
            if loaded.id == identity:
                return loaded
    raise FormatError(f"the file needs model {identity.hex()}, which is not installed; give its bundle with --model")


def find_tiny_model(number: int, model: str | Path | Model | None, threads: int = 0) -> Model:
    """The model of a tiny file: the one given, or the shipped one with that number.

    Raises:
        ModelError, FormatError: none fits.
    """
    candidates = shipped_models() if model is None else [model]
    for name in candidates:
        loaded = load_model(name, threads)
        if loaded.kind == "flat" and loaded.flat.tiny == number:
            return loaded
    raise FormatError(
        f"the tiny file needs model number {number}, which is not {'installed' if model is None else 'it'}"
    )


def decode_file(
    data: bytes,
    model: str | Path | Model | None = None,
    *,
    salvage: bool = False,
    max_pixels: int | None = None,
) -> Decoded:
    """Decode `.eoc` bytes, or a prefix of them, with what is known about their state.

    Arguments:
        data: the file.
        model: bundle to use; default: the shipped one that the file names.
        salvage: decode what comes before the first damaged segment instead of raising.
        max_pixels: refuse larger pictures.

    Raises:
        FormatError: not an `.eoc` file, damaged, too large, or its model is not at hand.
    """
    if format.is_tiny(data):
        small = format.parse_tiny(data)
        loaded = find_tiny_model(small.number, model)
        if max_pixels is not None and loaded.flat.size**2 > max_pixels:
            raise FormatError(f"the file holds {loaded.size} pixels, more than the limit of {max_pixels}")
        return Decoded(_decode_rgb(loaded, small), None, small.grey, True, False, 1)
    file = format.parse(data, salvage=salvage)
    header = file.header
    if max_pixels is not None and header.width * header.height > max_pixels:
        raise FormatError(f"the file holds {header.width}x{header.height} pixels, more than the limit of {max_pixels}")
    loaded = find_model(header.model, model)
    alpha = None if file.alpha is None else unpack_alpha(file.alpha, header.width, header.height)
    return Decoded(_decode_rgb(loaded, file), alpha, header.grey, file.complete, file.damaged, len(file.segments))


def decompress(data: bytes, model: str | Path | Model | None = None) -> npt.NDArray[np.uint8]:
    """Decode `.eoc` bytes (or a prefix) to `(H, W, 3)` uint8, `(H, W, 4)` if the file holds transparency.

    Raises:
        FormatError: not an `.eoc` file, damaged, or its model is not at hand.
    """
    decoded = decode_file(data, model)
    if decoded.alpha is not None:
        return np.dstack([decoded.rgb, decoded.alpha])
    return decoded.rgb


def truncate(data: bytes, *, rate: float | None = None, max_bytes: int | None = None) -> bytes:
    """Cut a file to a lower rate; no model is needed and nothing is coded again.

    Arguments:
        data: the file.
        rate: keep the first C latents of every block (whole segments that lie within them).
        max_bytes: keep as many whole segments as fit.

    Raises:
        EocodecError: not exactly one target, or out of range.
        FormatError: not an `.eoc` file, or damaged; no cut is as small as asked.
    """
    if (rate is None) == (max_bytes is None):
        raise EocodecError("give either rate or bytes")
    if format.is_tiny(data):
        raise EocodecError("a tiny file cannot be cut; compress the picture again with --bytes")
    file = format.parse(data)
    ends = format.segment_ends(file)
    if max_bytes is not None:
        keep = max((k for k, end in enumerate(ends) if end <= max_bytes), default=-1)
        if keep < 0:
            raise EocodecError(f"the file cannot be cut to {max_bytes} bytes; its smallest form has {ends[0]}")
    else:
        assert rate is not None
        kept = latents_after_segments(file)
        if not rate >= 1:
            raise EocodecError(f"the rate must be at least 1, not {rate:g}")
        keep = max((k for k, latents in enumerate(kept) if latents <= rate), default=0)
    return format.serialise(replace(file, segments=file.segments[:keep]))


def latents_after_segments(file: File, levels: int = 4) -> list[float]:
    """Latents of a block that are present after each number of segments, 0 for none."""
    cumulative = [0.0, *cumulative_latents(levels)]
    result, at = [0.0], 0
    for s in file.segments:
        at = min(at + s.units, len(cumulative) - 1)
        result.append(cumulative[at])
    return result

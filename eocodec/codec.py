"""Compress, decompress, truncate: transform, latents, entropy and format in a straight line.

In: pictures (see `eocodec.image`) or `.eoc` bytes. Out: `.eoc` bytes or arrays.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zstandard
from PIL import Image

from eocodec import drawn, entropy, flat, format, matte, search, transform
from eocodec import lossless as exact
from eocodec import progressive as embedded
from eocodec.arguments import check_numbers, file_bytes
from eocodec.bundle import Model, load_model, peek_id, shipped_models
from eocodec.denoising import denoise_picture
from eocodec.errors import EocodecError, FormatError, LimitError
from eocodec.format import File, Header, Segment, Tiny, tiny_step
from eocodec.image import Bytes, ImageLike, Picture, as_picture
from eocodec.latents import (
    band_steps,
    cumulative_latents,
    delta_of_rate,
    rate_code,
    rate_of_delta,
    refinement_step,
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
        psnr: of the decoded picture to the one that was coded, 8-bit RGB, dB; None if it was not asked for.
        size: height and width that were coded.
        tries: steps that were tried to meet the target.
        sigma: level of the noise that was removed first, 8-bit levels; None if none was to be removed.
    """

    data: bytes
    rate: float
    bits_per_pixel: float
    psnr: float | None
    size: tuple[int, int]
    tries: int = 1
    sigma: float | None = None


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
    """One picture on its way into a file: the transform runs once, any number of rates follow.

    Arguments:
        model: the bundle.
        picture: what the file is measured against.
        tiny: whether the file is to have the form without a header.
        values: the picture's colours before they were rounded, `(H, W, 3)` in 0 to 1, if they are known.
    """

    def __init__(
        self, model: Model, picture: Picture, tiny: bool, values: npt.NDArray[np.float32] | None = None
    ) -> None:
        self.model, self.picture, self.tiny = model, picture, tiny
        self.height, self.width = picture.rgb.shape[:2]
        if tiny and (model.kind != "flat" or not model.flat.tiny):
            raise EocodecError(f"the model {model.name} has no tiny form; face64 has")
        if tiny and picture.alpha is not None:
            raise EocodecError("a tiny file cannot hold transparency")
        colours = picture.rgb if values is None else values
        if model.kind == "flat":
            self.vector = flat.encode_picture(model, colours)
        else:
            self.latents = transform.encode_picture(model, colours)
        self.alpha = None if picture.alpha is None else pack_alpha(picture.alpha)
        self._measured: tuple[File | Tiny, float] | None = None

    def file(self, delta: float) -> "File | Tiny":
        """The file at step Δ (range 0 to 1)."""
        if self.tiny:
            small = Tiny(self.model.flat.tiny, tiny_step(delta), self.picture.grey, b"")
            return replace(small, payload=self._stream(small.step_code, small.delta))
        header = self._header(delta)
        if self.model.kind == "flat":
            segment = Segment(len(self.model.flat.blocks) + 1, self._stream(header.step, header.delta))
            return File(header, self.alpha, (segment,))
        _, targets = self._targets(header)
        return File(header, self.alpha, entropy.encode(self.model, header, targets))

    def draft(self, delta: float) -> "tuple[Bytes, Callable[[], File | Tiny]]":
        """The picture that the file at step Δ decodes to, without coding it where that saves time; and the file."""
        if self.model.kind == "flat":
            small = self.file(delta)
            return _decode_rgb(self.model, small), lambda: small
        header = self._header(delta)
        steps, targets = self._targets(header)
        coder, latents = entropy.foresee(self.model, header, targets, steps)
        told = refinement_step(self.model.manifest, header.delta)
        rgb = transform.decode_latents(self.model, latents, told, self.width, self.height)
        return _greyed(rgb, header.grey), functools.cache(
            lambda: File(header, self.alpha, entropy.finish(header, coder))
        )

    def overhead(self) -> int:
        """Bytes of a file without any latents."""
        return 2 if self.tiny else len(format.serialise(File(self._header(1.0), self.alpha, ())))

    def _header(self, delta: float) -> Header:
        rate = rate_code(_rate_of_delta(self.model, delta))
        return Header(self.model.id, self.width, self.height, rate, step_code(delta), grey=self.picture.grey)

    def _targets(self, header: Header) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
        """Steps of the bands, and the latents in them."""
        steps = band_steps(self.model.manifest, header.delta)
        return steps, [h / s for h, s in zip(self.latents, steps, strict=True)]

    def _stream(self, code: int, delta: float) -> bytes:
        return flat.encode(self.model, code, self.vector, delta)

    def delta_of(self, file: "File | Tiny") -> float:
        """The step Δ that a file of this picture has, or that of a file as good."""
        return file.delta

    def quality(self, file: "File | Tiny") -> float:
        """PSNR of the file's picture to the input, dB."""
        if self._measured is None or self._measured[0] is not file:  # a search has often just measured its last one
            self._measured = file, psnr(self.picture.rgb, _decode_rgb(self.model, file))
        return self._measured[1]


class _EmbeddedJob(_Job):
    """A picture whose files are cuts of one embedded stream."""

    def __init__(self, model: Model, picture: Picture, values: npt.NDArray[np.float32] | None = None) -> None:
        super().__init__(model, picture, False, values)
        if model.kind == "flat":
            raise EocodecError(f"the model {model.name} has no embedded stream; photo has")
        header = Header(model.id, self.width, self.height, 0, 0, grey=picture.grey, embedded=True)
        self.empty = File(header, self.alpha, ())
        self.stream = embedded.Stream(b"", ())

    def _upto(self, depth: float) -> embedded.Stream:
        reached = self.stream.marks[-1].depth if self.stream.marks else -1.0
        if reached <= depth and reached < embedded.LAYERS:
            self.stream = embedded.encode(self.model, self.latents, self.width, self.height, depth)
        return self.stream

    def file(self, delta: float) -> File:
        """The cut that belongs to step Δ."""
        depth = min(embedded.depth_of_delta(delta), float(embedded.LAYERS))
        stream = self._upto(depth)
        end = next((m.end for m in stream.marks if m.depth >= depth), stream.marks[-1].end)
        return self.cut(stream.payload[:end])

    def reaching(self, target: float) -> tuple[File, int]:
        """The shortest cut, nearly, whose picture has `target` dB, and how many were decoded to find it."""
        depth, tries = embedded.depth_of_delta(2.0 ** _expected_step(target) / 255) + 1, 1
        depth = min(depth, float(embedded.LAYERS))
        while self.quality(self.cut(self._upto(depth).payload)) < target and depth < embedded.LAYERS:
            depth, tries = min(depth + 1.5, float(embedded.LAYERS)), tries + 1
        ends = [m.end for m in self.stream.marks]

        def attempt(x: float) -> tuple[float, File]:
            file = self.cut(self.stream.payload[: round(2.0**-x)])
            return self.quality(file), file

        bounds = -math.log2(ends[-1]), -math.log2(ends[0])
        start = max(-math.log2(next(m.end for m in self.stream.marks if m.depth >= depth - 1)), bounds[0])
        found = search.match_quality(attempt, target, bounds, start, 1 / 1024)
        return found.result, tries + found.tries

    def delta_of(self, file: "File | Tiny") -> float:
        """The step whose file is about as good as a cut."""
        assert isinstance(file, File)
        length = len(file.segments[0].payload)
        depth = max((m.depth for m in self.stream.marks if m.end <= length), default=0.0)
        return embedded.delta_of_depth(depth)

    def largest(self, limit: int) -> File:
        """The cut of at most `limit` bytes that has most of the stream."""
        room = format.embedded_room(self.empty, limit)
        if room < 1:
            smallest = format.embedded_size(self.empty, 1)
            raise EocodecError(f"the picture cannot be compressed to {limit} bytes; its smallest file has {smallest}")
        self.stream = embedded.encode(self.model, self.latents, self.width, self.height, size=room)
        return self.cut(self.stream.payload[:room])

    def cut(self, payload: bytes) -> File:
        """The file of a prefix of the stream."""
        return replace(self.empty, segments=(Segment(1, payload),))


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
    denoise: float | str | None = None,
    model: str | Path | Model | None = None,
    tiny: bool = False,
    resize: bool = False,
    progressive: bool = False,
    lossless: bool = False,
    measure: bool = False,
    verify: bool = False,
) -> Compressed:
    """Compress a picture; see :func:`compress` for the arguments.

    Arguments:
        measure: also decode and give the PSNR; of a lossless file, prove that nothing was lost.
        verify: also decode the finished bytes and compare with what the encoder expects of them.

    Raises:
        EocodecError: more than one target, a target out of range or out of reach, a picture of an unsupported kind, or
            a file that does not decode to what it should.
    """
    check_numbers(rate=rate, bpp=bpp, max_bytes=max_bytes, psnr=psnr)
    if sum(t is not None for t in (rate, bpp, max_bytes, psnr)) > 1:
        raise EocodecError("give only one of rate, bpp, bytes and psnr")
    loaded = load_model((TINY_MODEL if tiny else "photo") if model is None else model)
    picture = as_picture(image)
    if resize and loaded.kind == "flat":
        picture = fit(picture, loaded.flat.size)
    if lossless:
        if tiny or progressive or any(t is not None for t in (rate, bpp, max_bytes, psnr)):
            raise EocodecError("a lossless file has no rate, bpp, bytes or psnr to choose, no tiny or progressive form")
        if denoise is not None:
            raise EocodecError("a lossless file keeps the noise; leave denoise out, or denoise the picture first")
        return _compress_losslessly(loaded, picture, measure or verify)
    picture = matte.filled(picture)
    for name, target in (("bpp", bpp), ("bytes", max_bytes), ("psnr", psnr)):
        if target is not None and not (math.isfinite(target) and target > 0):
            raise EocodecError(f"{name} must be a positive number, not {target:g}")
    delta = _delta_of_rate(loaded, DEFAULT_RATE if rate is None else rate)
    if progressive and tiny:
        raise EocodecError("a tiny file cannot be progressive")
    values, sigma = None, None
    if denoise is not None:
        clean = denoise_picture(picture, denoise, model=loaded)
        picture, values, sigma = replace(picture, rgb=clean.rgb), clean.values, clean.sigma
    exact_form = None
    if not progressive and any(name.startswith("lossless/") for name in loaded.files):
        prove = measure or verify
        exact_form = drawn.Exact(picture, lambda: _compress_losslessly(loaded, replace(picture, deep=False), prove))
    limit = int(max_bytes) if max_bytes is not None else int(bpp * picture.pixels / 8) if bpp is not None else None
    if exact_form and limit is not None and (fitting := exact_form.within(limit)):
        return replace(fitting, sigma=sigma)
    job = _EmbeddedJob(loaded, picture, values) if progressive else _Job(loaded, picture, tiny, values)
    tries = 1
    if psnr is not None:
        file, tries = job.reaching(psnr) if isinstance(job, _EmbeddedJob) else _search_psnr(job, psnr)
    elif limit is not None:
        file, tries = (job.largest(limit), 1) if isinstance(job, _EmbeddedJob) else _search_bytes(job, limit)
    else:
        file = job.file(delta)
    data = _bytes_of(file)
    if exact_form and (smaller := exact_form.within(len(data))):
        return replace(smaller, sigma=sigma)
    if verify:
        _verify(job, file, data)
    return Compressed(
        data,
        _rate_of_delta(loaded, job.delta_of(file))
        if isinstance(file, Tiny) or file.header.embedded  # these do not hold C; a step is too coarse for small C
        else file.header.rate / format.RATE_UNIT,
        8 * len(data) / picture.pixels,
        job.quality(file) if measure else None,
        (job.height, job.width),
        tries,
        sigma,
    )


def compress(
    image: ImageLike | Picture,
    rate: float | None = None,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    psnr: float | None = None,
    denoise: float | str | None = None,
    model: str | Path | Model | None = None,
    tiny: bool = False,
    resize: bool = False,
    progressive: bool = False,
    lossless: bool = False,
) -> bytes:
    """Compress a picture to `.eoc` bytes.

    Arguments:
        image: array `(H, W)` or `(H, W, 1…4)` (uint8, uint16, or float in 0 to 1), or a Pillow image.
        rate: C, latents kept, from 1 to 768 per block for `photo`, to 12288 for `face64`; default 96.
        bpp: instead: bits per pixel not to exceed.
        max_bytes: instead: bytes not to exceed; the file has at most 2 % less where its step allows, see
            `eocodec.search.match_size`.
        psnr: instead: PSNR to reach, dB, 8-bit RGB; at most 0.1 dB more, see `eocodec.search.match_quality`.
        denoise: store the picture without its noise: the noise level in 8-bit levels, or "auto", as in
            `eocodec.denoise`. The level is that of the picture that is coded, after `resize`, and the PSNR counts
            against the clean picture. Transparency stays as it is.
        model: a shipped model's name, a bundle's path or a loaded model; default `photo`, `face64` for tiny files.
        tiny: write the form without a header, 2 bytes of overhead; `face64` only.
        resize: cut the largest square from the middle and scale it to the size of the model, if it has one.
        progressive: write an embedded stream (`eocodec.progressive`): every prefix decodes to its best picture, and the
            files of all rates are prefixes of one another, but for the last checksum.
        lossless: instead of a target: give back every 8-bit value exactly, on any machine; `photo` only.

    Raises:
        EocodecError: more than one target, a target out of range or out of reach, or a picture of an unsupported kind.

    Example:
        >>> import numpy as np, eocodec
        >>> data = eocodec.compress(np.zeros((5, 7, 3), np.uint8), rate=20)
        >>> eocodec.decompress(data).shape
        (5, 7, 3)
    """
    return compress_picture(
        image,
        rate,
        bpp=bpp,
        max_bytes=max_bytes,
        psnr=psnr,
        denoise=denoise,
        model=model,
        tiny=tiny,
        resize=resize,
        progressive=progressive,
        lossless=lossless,
    ).data


def _compress_losslessly(model: Model, picture: Picture, measure: bool) -> Compressed:
    if picture.deep:
        raise EocodecError("a lossless file holds 8 bits a sample; the picture has more, convert it to 8 bits first")
    height, width = picture.rgb.shape[:2]
    single = height * width <= entropy.SINGLE_SEGMENT_PIXELS
    parameters, segments = exact.encode(model, picture.rgb, single)
    header = Header(model.id, width, height, rate_code(model.block), format.LOSSLESS_STEP, grey=picture.grey)
    alpha = None if picture.alpha is None else pack_alpha(picture.alpha)
    data = format.serialise(File(header, alpha, segments, lossless=parameters))
    if measure and not np.array_equal(_decode_rgb(model, format.parse(data)), picture.rgb):
        raise EocodecError("the lossless file does not give the picture back; this is a fault of the program")
    return Compressed(data, model.block, 8 * len(data) / picture.pixels, math.inf if measure else None, (height, width))


def _verify(job: _Job, file: "File | Tiny", data: bytes) -> None:
    """Decode the bytes of a file and compare with the encoder's own picture of it.

    Raises:
        EocodecError: they differ.
    """
    decoded = decode_file(data, job.model)
    expected = _decode_rgb(job.model, file) if isinstance(job, _EmbeddedJob) else job.draft(file.delta)[0]
    alpha = job.picture.alpha
    kept = decoded.alpha is None if alpha is None else np.array_equal(decoded.alpha, alpha)  # type: ignore[arg-type]
    if not (kept and decoded.complete and np.array_equal(decoded.rgb, expected)):
        raise EocodecError("the file does not decode to what was encoded; this is a fault of the program")


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


# Where searches start, log2 of Δ in 8-bit levels, from Kodak's means: Δ at 1 bit per pixel and at 37 dB.
START_SIZE, START_QUALITY = 4.9, 4.5
BEYOND = 3  # finer steps tried for tiny files: worth 0.04 dB at 24 bytes (50 faces)


def _resolution(job: _Job) -> float:
    """Octaves between the steps that a file can have."""
    return (format.TINY_UNIT if job.tiny else 1) / format.STEP_UNIT


def _search_bytes(job: _Job, limit: int) -> "tuple[File | Tiny, int]":
    """The file of at most `limit` bytes, and how many were coded to find it; the transform is not run again."""

    def attempt(x: float) -> "tuple[int, File | Tiny]":
        file = job.file(2.0**x / 255.0)
        return len(_bytes_of(file)), file

    start = START_SIZE - math.log2(8 * max(limit, 1) / job.picture.pixels) / search.SIZE_SLOPE
    found = search.match_size(
        attempt,
        limit,
        job.overhead(),
        _bounds(job.model),
        start,
        _resolution(job),
        BEYOND if job.tiny else 0,
    )
    return found.result, found.tries


def _expected_step(target: float) -> float:
    """log2 of the step in 8-bit levels at which a picture has about `target` dB."""
    return START_QUALITY - (target - 37.0) / search.QUALITY_SLOPE


def _search_psnr(job: _Job, target: float) -> "tuple[File | Tiny, int]":
    """The file whose picture reaches `target` dB, and how many pictures were decoded to find it."""

    def attempt(x: float) -> "tuple[float, Callable[[], File | Tiny]]":
        rgb, file = job.draft(2.0**x / 255.0)
        reached = psnr(job.picture.rgb, rgb)
        if target <= reached <= target + search.QUALITY_WIDTH:
            reached = job.quality(file())  # the decoder has the last word
        return reached, file

    start = _expected_step(target)
    found = search.match_quality(attempt, target, _bounds(job.model), start, _resolution(job))
    return found.result(), found.tries


def _decode_rgb(model: Model, file: "File | Tiny") -> Bytes:
    grey = file.grey if isinstance(file, Tiny) else file.header.grey
    if isinstance(file, Tiny):
        rgb = _decode_flat(model, file.step_code, file.payload, file.delta)
    elif model.kind == "flat":
        header = file.header
        payload = flat_payload(model, file)
        rgb = _decode_flat(model, header.step, payload, header.delta)
    elif file.lossless is not None:
        header = file.header
        rgb, _ = exact.decode(model, header.width, header.height, file.lossless, file.segments)
        return rgb
    else:
        header = file.header
        if header.embedded:
            payload = b"".join(s.payload for s in file.segments)
            latents, depth = embedded.decode(model, header.width, header.height, payload)
            delta = embedded.refinement_step(depth)
        else:
            delta = header.delta
            latents = entropy.decode(model, header, file.segments, band_steps(model.manifest, delta))
        told = refinement_step(model.manifest, delta)
        rgb = transform.decode_latents(model, latents, told, header.width, header.height)
    return _greyed(rgb, grey)


def flat_payload(model: Model, file: File) -> bytes | None:
    """The stream of a file of a model with one latent vector, None if the file ends before it.

    Raises:
        FormatError: the model does not make such files.
    """
    header = file.header
    units = sum(s.units for s in file.segments)
    fits = (header.width, header.height) == (model.flat.size,) * 2 and units <= len(model.flat.blocks) + 1
    if not fits or len(file.segments) > 1 or header.embedded or file.lossless is not None:
        raise FormatError(f"the file is damaged: the model {model.name} does not make such files")
    return file.segments[0].payload if file.segments else None


def _greyed(rgb: Bytes, grey: bool) -> Bytes:
    """The picture itself, or with the mean of its channels in all of them."""
    if grey:
        rgb[...] = np.floor(rgb.mean(2, keepdims=True) + 0.5).astype(np.uint8)
    return rgb


def _decode_flat(model: Model, code: int, payload: bytes | None, delta: float) -> Bytes:
    latents = flat.decode(model, code, payload, delta)
    return flat.to_bytes(flat.synthesise(model, latents[None], flat.refinement_step(model.flat, delta)))[0]


def find_model(identity: bytes, model: str | Path | Model | None, threads: int = 0, device: str = "auto") -> Model:
    """The model a file was made with: the one given, or the shipped one with that id.

    Raises:
        ModelError, FormatError: none fits.
    """
    if model is not None:
        loaded = load_model(model, threads, device=device)
        if loaded.id != identity:
            raise FormatError(
                f"the file was made with model {identity.hex()}, not with {loaded.name} ({loaded.id.hex()})"
            )
        return loaded
    for name, path in shipped_models().items():
        if peek_id(path)[: len(identity)] == identity:  # loading shows whether the bundle has that id
            return load_model(name, threads, device=device)
    raise FormatError(f"the file needs model {identity.hex()}, which is not installed; give its bundle as the model")


def find_tiny_model(number: int, model: str | Path | Model | None, threads: int = 0, device: str = "auto") -> Model:
    """The model of a tiny file: the one given, or the shipped one with that number.

    Raises:
        ModelError, FormatError: none fits.
    """
    candidates = shipped_models() if model is None else [model]
    for name in candidates:
        loaded = load_model(name, threads, device=device)
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
    data = file_bytes(data)
    if format.is_tiny(data):
        small = format.parse_tiny(data)
        loaded = find_tiny_model(small.number, model)
        if max_pixels is not None and loaded.flat.size**2 > max_pixels:
            raise LimitError(f"the file holds {loaded.size} pixels, more than the limit of {max_pixels}")
        return Decoded(_decode_rgb(loaded, small), None, small.grey, True, False, 1)
    file = format.parse(data, salvage=salvage)
    header = file.header
    if max_pixels is not None and header.width * header.height > max_pixels:
        raise LimitError(f"the file holds {header.width}x{header.height} pixels, more than the limit of {max_pixels}")
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
    data = file_bytes(data)
    check_numbers(rate=rate, max_bytes=max_bytes)
    if (rate is None) == (max_bytes is None):
        raise EocodecError("give either rate or bytes")
    if format.is_tiny(data):
        raise EocodecError("a tiny file cannot be cut; compress the picture again to fewer bytes")
    file = format.parse(data)
    if file.header.embedded:
        return _cut_embedded(file, rate, max_bytes)
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


def embedded_rate(model: Model, file: File) -> float:
    """C of the usual file that is about as good as what a file holds of an embedded stream."""
    payload = b"".join(s.payload for s in file.segments)
    _, depth = embedded.decode(model, file.header.width, file.header.height, payload)
    return _rate_of_delta(model, embedded.delta_of_depth(depth))


def _cut_embedded(file: File, rate: float | None, max_bytes: int | None) -> bytes:
    payload = b"".join(s.payload for s in file.segments)
    if max_bytes is not None:
        length = format.embedded_room(file, max_bytes)
        if length < 1:
            smallest = format.embedded_size(file, 1)
            raise EocodecError(f"the file cannot be cut to {max_bytes} bytes; its smallest form has {smallest}")
    else:
        assert rate is not None
        header = file.header
        loaded = find_model(header.model, None)
        depth = embedded.depth_of_delta(_delta_of_rate(loaded, rate))
        length = embedded.end_of_depth(loaded, header.width, header.height, payload, depth)
    segments = (Segment(1, payload[:length]),) if payload else ()
    return format.serialise(replace(file, segments=segments))


def latents_after_segments(file: File, levels: int = 4) -> list[float]:
    """Latents of a block that are present after each number of segments, 0 for none."""
    units = cumulative_latents(levels) if file.lossless is None else exact.cumulative_samples()
    cumulative = [0.0, *units]
    result, at = [0.0], 0
    for s in file.segments:
        at = min(at + s.units, len(cumulative) - 1)
        result.append(cumulative[at])
    return result

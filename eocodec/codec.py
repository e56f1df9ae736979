"""Compress, decompress, truncate: the facade over `eocodec.coding` that checks, opens, aims and returns bytes.

In: pictures (see `eocodec.image`) or `.eoc` bytes. Out: `.eoc` bytes or arrays.
"""

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from eocodec import format, levels, matte
from eocodec._moved import moved_names
from eocodec.arguments import check_limits, check_number, check_numbers, file_bytes
from eocodec.coding import alpha as transparency
from eocodec.coding import drawn
from eocodec.coding.base import Coded, Job
from eocodec.coding.fineness import Focus, tuning_for
from eocodec.coding.forms import blank_pictures, tuning_of, unverified
from eocodec.coding.lossless_tables import available
from eocodec.coding.rate_control import Target, whole_bytes
from eocodec.coding.registry import coding_for, coding_of
from eocodec.errors import EocodecError, EocodecWarning, LimitError
from eocodec.format import AnyFile, File, Tiny
from eocodec.image import Bytes, ImageLike, Picture, as_picture
from eocodec.model.bundle import Model
from eocodec.model.library import DEFAULT, ModelLike, Models, library_of, load_model
from eocodec.remarks import ROUNDED, cut_remarks
from eocodec.results import Compressed, Decoded, Truncated

__all__ = [
    "DEFAULT_RATE",
    "Compressed",
    "Decoded",
    "Opened",
    "Truncated",
    "compress",
    "compress_picture",
    "decode_file",
    "decompress",
    "default_rate",
    "fit",
    "open_picture",
    "truncate",
    "truncate_file",
    "truncated",
]

TINY_MODEL = "face64"
FILLED = "value_range='filled'"
FEW = 8  # times fewer values than there are for C are worth a word
DEFAULT_RATE = 96.0  # C when nothing is asked for: about 1 bit per pixel on Kodak, see docs/RESULTS.md


def default_rate(model: Model) -> float:
    """C when nothing is asked for: :data:`DEFAULT_RATE`, or all latents of a model that has fewer."""
    return min(DEFAULT_RATE, float(model.block))


def compress_picture(
    image: ImageLike | Picture,
    rate: float | None = None,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    psnr: float | None = None,
    denoise: float | str | None = None,
    model: ModelLike | None = None,
    tiny: bool = False,
    resize: bool = False,
    progressive: bool = False,
    lossless: bool = False,
    tune: str | None = None,
    focus: Focus | None = None,
    depth: int | None = None,
    effort: int = 0,
    value_range: levels.ValueRange | None = None,
    measure: bool = False,
    verify: bool = False,
) -> Compressed:
    """Compress a picture; see :func:`compress` for the arguments.

    Arguments:
        measure: also give the PSNR, of the picture that the encoder knows a decoder to give; a lossless file is
            decoded, which proves that nothing was lost.
        verify: also decode the finished bytes and compare with what the encoder expects of them.

    Raises:
        EocodecError: more than one target, a target out of range or out of reach, a picture of an unsupported kind, or
            a file that does not decode to what it should.
    """
    check_numbers(rate=rate, bpp=bpp, psnr=psnr)
    check_limits(max_bytes=max_bytes)
    target = Target(rate, bpp, max_bytes, psnr)
    if target.given() > 1:
        raise EocodecError("give only one of rate, bpp, bytes and psnr")
    loaded = load_model((TINY_MODEL if tiny else DEFAULT) if model is None else model)
    manifest = loaded.any_manifest
    if lossless and (tiny or progressive or target.given()):
        raise EocodecError("a lossless file has no rate, bpp, bytes or psnr to choose, no tiny or progressive form")
    coding = coding_for(manifest, tiny=tiny, embedded=progressive, lossless=lossless)
    able = coding.deep and _plain(denoise, tune, focus)
    picture = as_picture(image, _depth(depth, able), ROUNDED if depth is None else None)
    if resize and manifest.edge is not None:
        picture = fit(picture, manifest.edge)
    if not lossless:
        target.check()
        loaded.any_manifest.step_of(default_rate(loaded) if rate is None else rate)
    opened = open_picture(
        picture,
        loaded,
        denoise=denoise,
        tiny=tiny,
        progressive=progressive,
        lossless=lossless,
        tune=tune,
        focus=focus,
        squared=psnr is not None,
        effort=effort,
        value_range=value_range,
    )
    return opened.compressed(target, measure=measure, verify=verify)


@dataclass(frozen=True)
class Opened:
    """A picture whose transform has run, from which any number of files can be made.

    Arguments:
        job: of the form that was chosen.
        sigma: the noise level that was removed, 8-bit levels; None: nothing was.
        lossless: whether its files are exact.
        notes: see :class:`Compressed`.
        exact: of the same picture, where its form of file is taken even if the exact one is no larger.
    """

    job: Job
    sigma: float | None = None
    lossless: bool = False
    notes: tuple[str, ...] = ()
    exact: drawn.Exact | None = None

    def coded(self, target: Target) -> Coded:
        """The file that meets a target; at :func:`default_rate` if there is none.

        Raises:
            EocodecError: the target is out of range or out of reach.
        """
        step = 1 / 255
        if not self.lossless:
            rate = default_rate(self.job.model) if target.rate is None else target.rate
            step = self.job.model.any_manifest.step_of(rate)
        return target.aim(self.job, step)

    def compressed(self, target: Target, *, measure: bool = False, verify: bool = False) -> Compressed:
        """As :func:`compress_picture`."""
        self.job.measuring = measure
        coded = self.coded(target)
        data = format.to_bytes(coded.file)
        if verify:
            _verify(self.job, coded, data)
        return Compressed(
            data,
            coded.rate,
            8 * len(data) / self.job.picture.pixels,
            self.job.quality(coded.file) if measure else None,
            (self.job.height, self.job.width),
            coded.tries,
            self.sigma,
            "eye" if tuning_of(coded.file) else "psnr",
            self.job.picture.depth,
            self.notes_on(coded, len(data)),
        )

    def notes_on(self, coded: Coded, size: int) -> tuple[str, ...]:
        """What is to be said of a file of `size` bytes, see :class:`Compressed`."""
        notes = self.job.notes(coded.file) + (() if _is_exact(coded) else self.notes)  # which say what is not exact
        instead = self.no_larger_exact(size, coded.rate)
        if instead is not None:
            whose = "a lossless file of what it is without the noise" if self.sigma else "its lossless file"
            exact = len(format.to_bytes(instead.file))
            notes += (f"{whose} has {exact} bytes, no more than the {size} of this progressive one",)
        return notes

    def no_larger_exact(self, size: int, rate: float) -> Coded | None:
        """The exact file in the place of one of `size` bytes and C = `rate`, if that is one that has not given way.

        As :class:`eocodec.coding.drawn.EitherJob`, it is looked for where quick tries do not rule it out.
        """
        if self.exact is None:
            return None
        fine = self.job.model.any_manifest.step_of(rate) <= drawn.FINE / 255
        return self.exact.within(size, photo=fine)


def open_picture(
    picture: Picture,
    model: Model,
    *,
    denoise: float | str | None = None,
    tiny: bool = False,
    progressive: bool = False,
    lossless: bool = False,
    tune: str | None = None,
    focus: Focus | None = None,
    squared: bool = False,
    effort: int = 0,
    value_range: levels.ValueRange | None = None,
) -> Opened:
    """Run the transform of a picture, once for all files that are made of it; arguments as of :func:`compress`.

    Arguments:
        squared: whether a PSNR is to be reached, which decides what files are tuned for if `tune` does not.

    Raises:
        EocodecError: forms that exclude one another, or a picture that the form or the model cannot hold.
    """
    from eocodec.effort import improver

    better = improver(effort)
    if lossless and denoise is not None:
        raise EocodecError("a lossless file keeps the noise; leave denoise out, or denoise the picture first")
    if not lossless:
        picture = matte.filled(picture)
    coding = coding_for(model.any_manifest, tiny=tiny, embedded=progressive, lossless=lossless)
    if better is not None and not coding.tunable:
        raise EocodecError("effort is for ordinary files: they are neither lossless, progressive nor of faces")
    if picture.depth > 8 and not (coding.deep and _plain(denoise, tune, focus)):
        picture = picture.at_depth(8)
    if value_range is not None and (picture.depth == 8 or lossless):
        why = "a lossless file keeps all values, whatever they are" if lossless else "of this one 8 are"
        raise EocodecError(f"a value range is for pictures of which 16 bits a sample are kept in ordinary files; {why}")
    if picture.depth > 8 and not lossless:
        picture = replace(picture, span=levels.span_of(picture.rgb, "bits" if value_range is None else value_range))
    values, sigma = None, None
    if denoise is not None:
        from eocodec.denoising.methods import denoise_picture  # takes its time

        clean = denoise_picture(picture, denoise, model=model)
        picture, values = replace(picture, rgb=clean.rgb), clean.values
        sigma = clean.sigma if clean.removed else 0.0
    tunable = coding.tunable and picture.depth == 8
    tuning = tuning_for(model, tunable, tune, focus, picture.rgb, squared).improved_by(better)
    job = drawn.open_either(coding, model, picture, values, tuning, focus)
    notes = () if lossless else _no_page(picture, progressive)
    notes += _narrow(picture, value_range) + _no_effort(picture, better is not None)
    exact = drawn.exact_of(model, picture)[0] if progressive and available(model) else None
    return Opened(job, sigma, lossless, notes, exact)


def _narrow(picture: Picture, wanted: levels.ValueRange | None) -> tuple[str, ...]:
    """What is to be said of a picture of 16 bits a sample whose values fill less, if no range of them was wanted."""
    if picture.depth == 8 or wanted is not None:
        return ()
    low, high = int(picture.rgb.min()), int(picture.rgb.max())
    bits = levels.filled_bits(high)
    if 1 < high - low < (1 << bits) // FEW:
        return (f"its values are all from {low} to {high}, C is of {bits} bits; {FILLED} makes it one of these",)
    return (f"its values fill {bits} of 16 bits, of which C is; PSNR is of all 16",) if picture.span else ()


def _is_exact(coded: Coded) -> bool:
    return isinstance(coded.file, File) and coded.file.lossless is not None


def _no_page(picture: Picture, progressive: bool) -> tuple[str, ...]:
    """What is to be said of a picture that would have been a page but for the form of file, its depth or its size."""
    if picture.pixels > drawn.LARGEST_PAGE:
        drawing = picture.depth == 8 and drawn.is_drawn(picture.rgb)
        why = f"a picture of more than {drawn.LARGEST_PAGE} pixels is no page; cut it into parts for some"
    elif picture.depth > 8 or progressive:
        from eocodec.coding.page import photographs_on

        drawing = bool(photographs_on(picture.at_depth(8)))
        why = "a progressive file is no page; leave progressive out for one"
        if picture.depth > 8:
            why = "a picture of 16 bits is no page; a depth of 8 makes it one"
    else:
        return ()
    return (f"its text and drawings are not kept exactly: {why}",) if drawing else ()


def _no_effort(picture: Picture, wanted: bool) -> tuple[str, ...]:
    """What is to be said of a picture that effort does nothing for."""
    return ("effort does nothing for pictures of 16 bits a sample",) if wanted and picture.depth > 8 else ()


def _plain(denoise: float | str | None, tune: str | None, focus: Focus | None) -> bool:
    """Whether the options of :func:`compress` are such that 16 bits a sample can be kept."""
    return denoise is None and tune != "eye" and focus is None


def _depth(depth: int | None, able: bool) -> int | None:
    """The depth to take a picture at, None for the one that loses nothing; `able`: whether 16 bits can be kept.

    Raises:
        EocodecError: 16 bits are asked for and cannot be.
    """
    if depth == 16 and not able:
        raise EocodecError(
            "16 bits a sample are kept in ordinary and lossless files of photo, without denoise, focus and tune=eye"
        )
    return depth if able else 8


def compress(
    image: ImageLike | Picture,
    rate: float | None = None,
    *,
    bpp: float | None = None,
    max_bytes: int | None = None,
    psnr: float | None = None,
    denoise: float | str | None = None,
    model: ModelLike | None = None,
    tiny: bool = False,
    resize: bool = False,
    progressive: bool = False,
    lossless: bool = False,
    tune: str | None = None,
    focus: Focus | None = None,
    depth: int | None = None,
    effort: int = 0,
    value_range: levels.ValueRange | None = None,
) -> bytes:
    """Compress a picture to `.eoc` bytes.

    Arguments:
        image: array `(H, W)` or `(H, W, 1…4)` (uint8, uint16, or float in 0 to 1), or a Pillow image.
        rate: C, latents kept, from 1 to 768 per block for `photo`, to 12288 for `face64`; default 96.
        bpp: instead: bits per pixel not to exceed.
        max_bytes: instead: bytes not to exceed; the file has at most 2 % less where its step allows, a tiny one 6 % or
            3 bytes, see `eocodec.coding.rate_control.match_size`.
        psnr: instead: PSNR to reach, dB, RGB, relative to the full scale of 8 or 16 bits; at most 0.1 dB more, see
            `eocodec.coding.rate_control.match_quality`. Pixels that are fully transparent do not count.
        denoise: store the picture without its noise: the noise level in 8-bit levels, or "auto", as in
            `eocodec.denoise`. The level is that of the picture that is coded, after `resize`, and the PSNR counts
            against the clean picture. Transparency stays as it is.
        model: a shipped model's name, a bundle's path or a loaded model; default `photo`, `face64` for tiny files.
        tiny: write the form without a header, 2 bytes of overhead; `face64` only.
        resize: cut the largest square from the middle and scale it to the size of the model, if it has one.
        progressive: write an embedded stream (`eocodec.coding.embedded`): every prefix decodes to its best picture, and
            the files of all rates are prefixes of one another, but for the last checksum.
        lossless: instead of a target: give back every value exactly, on any machine; `photo` only.
        tune: "eye" for pictures that people prefer, "psnr" for the smallest squared error; default: "eye" where model
            and form of file can, but "psnr" if `psnr` is to be reached, or if no file for the eye is as small as `bpp`
            or `max_bytes` say.
        focus: regions of interest, coded finer: `(x, y, width, height)` or `(x, y, width, height, octaves)` in pixels,
            one or a list of them, or a mask `(H, W)`, see `eocodec.coding.fineness.focused`.
        depth: bits a sample, 8 or 16. Default: 16 for pictures of 16-bit integers where model, form of file and the
            other options can keep them, else 8, of which an `EocodecWarning` tells. Transparency always has 8.
        effort: rounds, 0 to 20, in which the encoder looks for latents whose file is better (`eocodec.effort`): some
            seconds a megapixel each, for every step that a target takes to be met; ordinary files of 8 bits a sample.
        value_range: of which values of a picture of 16 bits `rate` counts, and within which it is coded: "bits", from 0
            to the greatest that needs no more bits than its values do (the default: those of a 12-bit sensor are 0 to
            4095); "filled", from the least to the greatest of them; "full", all of 16 bits; or two values, `(low,
            high)`. PSNR is of all 16 bits whatever it is.

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
        tune=tune,
        focus=focus,
        depth=depth,
        effort=effort,
        value_range=value_range,
    ).data


def _verify(job: Job, coded: Coded, data: bytes) -> None:
    """Decode the bytes of a file and compare with what the encoder expects of them.

    Raises:
        EocodecError: they differ.
    """
    decoded = decode_file(data, job.model)
    alpha = job.picture.alpha
    kept = decoded.alpha is None if alpha is None else np.array_equal(decoded.alpha, alpha)  # type: ignore[arg-type]
    if not (kept and decoded.complete and np.array_equal(decoded.rgb, job.expected(coded.file))):
        raise EocodecError("the file does not decode to what was encoded; this is a fault of the program")


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


def decode_file(
    data: bytes,
    model: Models = None,
    *,
    salvage: bool = False,
    max_pixels: int | None = None,
    texture: float = 0.0,
    depth: int | None = None,
) -> Decoded:
    """Decode `.eoc` bytes, or a prefix of them, with what is known about their state.

    Arguments:
        data: the file.
        model: bundle, or library of bundles, to use; default: the shipped one that the file names.
        salvage: decode what comes before the first damaged segment instead of raising.
        max_pixels: refuse larger pictures.
        texture: see :func:`decompress`.
        depth: bits a sample, 8 or 16; default: those of the file. In 8 bits, values that need 12 of 16 or fewer are
            taken as of so many.

    Raises:
        EocodecError: `texture` is out of range.
        FormatError: not an `.eoc` file, damaged, too large, or its model is not at hand.
    """
    check_number("texture", texture)
    check_limits(max_pixels=max_pixels)
    if not 0 <= texture <= 1:
        raise EocodecError(f"texture must be from 0 to 1, not {texture:g}")
    if depth not in (None, 8, 16):
        raise EocodecError(f"a picture has 8 or 16 bits a sample, not {depth}")
    file = format.from_bytes(file_bytes(data), salvage)
    if not isinstance(file, Tiny):
        _limit(file.header.width, file.header.height, max_pixels)
    loaded = library_of(model).of(file)
    coding = coding_of(file, loaded.any_manifest)
    if isinstance(file, Tiny):
        _limit(loaded.flat.size, loaded.flat.size, max_pixels)
        return _at_depth(Decoded(coding.decode(loaded, file), None, file.grey, True, False, 1), depth)
    header = file.header
    alpha = None if file.alpha is None else transparency.unpack(file.alpha, header.width, header.height)
    rgb = coding.decode(loaded, file, texture)
    state = file.complete, file.damaged, len(file.segments)
    return _at_depth(Decoded(rgb, alpha, header.grey, *state, _white(file, rgb)), depth)


def _white(file: File, rgb: Bytes) -> int:
    """The value that is white in 8 bits: of 16, what a range in the file or the values of an exact one say."""
    if rgb.itemsize == 1:
        return 255
    exact = int(rgb.max()) if file.lossless is not None else levels.TOP
    return levels.white_of_bits(exact if file.header.span is None else file.header.span[1])


def _at_depth(decoded: Decoded, depth: int | None) -> Decoded:
    """A decoded picture at 8 or 16 bits, or as it is."""
    if depth == 16 and decoded.rgb.itemsize == 1:
        return replace(decoded, rgb=decoded.rgb.astype(np.uint16) * np.uint16(257))
    return replace(decoded, rgb=decoded.eight_bit()) if depth == 8 else decoded


def _limit(width: int, height: int, max_pixels: int | None) -> None:
    if max_pixels is not None and not width * height <= max_pixels:  # nor is anything within a limit that is no number
        raise LimitError(f"the file holds {width}x{height} pixels, more than the limit of {max_pixels}")


def decompress(
    data: bytes,
    model: Models = None,
    *,
    max_pixels: int | None = None,
    texture: float = 0.0,
    depth: int | None = None,
) -> npt.NDArray[Any]:
    """Decode `.eoc` bytes (or a prefix) to `(H, W, 3)`, `(H, W, 4)` if the file holds transparency.

    The result is uint8, or uint16 where the file keeps 16 bits a sample.

    Arguments:
        data: the file.
        model: bundle, or library of bundles, to use; default: the shipped one that the file names.
        max_pixels: refuse larger pictures, before anything is decoded: for untrusted files.
        texture: how much texture is drawn where the file has none, 0 to 1: rougher, more natural areas at low rates, a
            larger squared error. Ordinary files only; the same on every machine.
        depth: bits a sample, 8 or 16; default: those of the file.

    Raises:
        FormatError: not an `.eoc` file, damaged, or its model is not at hand.
        LimitError: the picture has more pixels than `max_pixels`.
    """
    decoded = decode_file(data, model, max_pixels=max_pixels, texture=texture, depth=depth)
    if decoded.alpha is not None:
        whole = decoded.alpha.astype(decoded.rgb.dtype) * decoded.rgb.dtype.type(257 if decoded.rgb.itemsize > 1 else 1)
        return np.dstack([decoded.rgb, whole])
    return decoded.rgb


def truncate(
    data: bytes,
    *,
    rate: float | None = None,
    latents: float | None = None,
    max_bytes: int | None = None,
    model: Models = None,
) -> bytes:
    """Cut a file to a lower rate; nothing is coded again.

    Arguments:
        data: the file.
        rate: of a progressive file: what :func:`compress` gives at this C, up to that of the file. Other files, whose
            steps are finer, hold no such thing.
        latents: of an ordinary file: whole segments that lie within the first latents of every block, which keep their
            fine step; of a page: those of all its photographs.
        max_bytes: keep as many whole segments as fit, of a progressive file as many bytes. Where none fits, one colour
            is left, of which an `EocodecWarning` tells, see :func:`eocodec.coding.forms.blank_pictures`.
        model: bundle, or library of bundles; only the rate of a progressive file needs its model to be found. Default:
            the shipped ones.

    Raises:
        EocodecError: not exactly one target, out of range, not for this form of file, or no cut is as small as asked.
        FormatError: not an `.eoc` file, or damaged; a rate needs a model that is not at hand.
    """
    cut = truncate_file(data, rate=rate, latents=latents, max_bytes=max_bytes, model=model)
    for note in cut.notes:
        warnings.warn(f"the file: {note}", EocodecWarning, stacklevel=2)
    return cut.data


def truncate_file(
    data: bytes,
    *,
    rate: float | None = None,
    latents: float | None = None,
    max_bytes: int | None = None,
    model: Models = None,
) -> Truncated:
    """Cut a file to a lower rate and tell what is left; see :func:`truncate` for arguments and errors."""
    data = file_bytes(data)
    check_numbers(rate=rate, latents=latents)
    check_limits(max_bytes=max_bytes)
    if sum(target is not None for target in (rate, latents, max_bytes)) != 1:
        raise EocodecError("give one of rate, latents and bytes")
    if max_bytes is not None:
        Target(None, None, max_bytes, None).check()
        max_bytes = whole_bytes(max_bytes)
    file = format.from_bytes(data)
    cut = coding_of(file).cut(file, library_of(model), rate=rate, latents=latents, max_bytes=max_bytes)
    return truncated(file, cut)


def truncated(file: AnyFile, cut: AnyFile) -> Truncated:
    """What a cut of a file is, and what is to be said of it: no latents are left, or bytes that nothing verifies."""
    blank = blank_pictures(cut)
    lost = blank if blank > blank_pictures(file) else 0
    page = isinstance(cut, File) and cut.header.page
    notes = cut_remarks(lost, page, unverified(file, cut))
    return Truncated(format.to_bytes(cut), blank, tuple(notes))


if not TYPE_CHECKING:  # type checkers are not to take every name for granted
    __getattr__ = moved_names(__name__)

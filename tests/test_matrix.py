"""What goes in and what comes out: modes, depths, profiles, orientation, transparency, file types, sizes, metadata.

docs/FIDELITY.md states the promises; each stands here as a test. References are Pillow, LittleCMS or arithmetic, never
`eocodec.image`. Lossless files show what the codec is given, to the last bit; ordinary ones must keep the rest.
"""

import functools
import io
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from eocodec_cli import cli
from paths import SAMPLES
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

import eocodec
from eocodec import codec
from eocodec.errors import EocodecError, ImageError
from eocodec.image import Picture, as_picture, read_picture, to_pillow
from eocodec.metrics import psnr
from eocodec.writing import encode_picture

pytestmark = pytest.mark.slow

Array = npt.NDArray[np.generic]
SRGB = ImageCms.createProfile("sRGB")
RATE = 300
EXACT_TYPES = ("PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM")  # as they are saved here
OPTIONS: dict[str, dict[str, object]] = {"WEBP": {"lossless": True, "exact": True}, "JPEG": {"quality": 95}}


# Pictures and files


@functools.cache
def _photo(height: int = 31, width: int = 33) -> npt.NDArray[np.uint8]:
    chelsea = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))
    tiled = np.tile(chelsea, (1 + (height + 100) // 300, 1 + (width + 200) // 451, 1))
    return np.ascontiguousarray(tiled[100 : 100 + height, 200 : 200 + width])


@functools.cache
def _partial(height: int = 31, width: int = 33) -> npt.NDArray[np.uint8]:
    """Alpha with opaque, transparent and half transparent places."""
    ramp = np.linspace(-60, 315, height * width).reshape(height, width)
    return np.clip(ramp, 0, 255).astype(np.uint8)


def _source(mode: str) -> Image.Image:
    """The photo in a mode; `P+key` has a transparent index, `P+alpha` alpha by index."""
    photo = Image.fromarray(_photo())
    grey = np.asarray(photo.convert("L"))
    if mode in ("RGBA", "LA"):
        photo.putalpha(Image.fromarray(_partial()))
        return photo.convert(mode)
    if mode.startswith("P"):
        image = photo.quantize(48, dither=Image.Dither.NONE)
        if mode == "P+key":
            image.info["transparency"] = int(np.asarray(image)[3, 3])
        elif mode == "P+alpha":
            image.info["transparency"] = bytes(range(10, 250, 5))
        elif mode == "PA":
            image.putalpha(Image.fromarray(_partial()))
        return image
    if mode == "LAB":
        lab = ImageCms.profileToProfile(photo, SRGB, ImageCms.createProfile("LAB"), outputMode="LAB")
        assert lab is not None
        del lab.info["icc_profile"]
        return lab
    if mode.startswith("I;16"):
        return Image.fromarray(grey.astype(">u2" if mode.endswith("B") else "<u2") * 257)
    if mode in ("I", "F"):
        return Image.fromarray(grey.astype(np.int32) if mode == "I" else grey.astype(np.float32) / 255)
    return photo.convert(mode)


def _saved(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    out = io.BytesIO()
    if "transparency" in image.info:
        options["transparency"] = image.info["transparency"]
    image.save(out, kind, **(OPTIONS.get(kind, {}) | options))
    out.seek(0)
    return out


def _shown(image: Image.Image) -> tuple[Array, Array | None]:
    """Colours and alpha of a picture as Pillow has them."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return np.repeat(grey[..., None], 3, 2), None
    if image.mode in ("I", "F"):
        grey = np.asarray(image) if image.mode == "I" else np.rint(np.asarray(image) * 255)
        return np.repeat(grey[..., None], 3, 2), None
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3], rgba[..., 3]
    return np.asarray(image.convert("RGB")), None


def _png(samples: Array, depth: int, *chunks: tuple[bytes, bytes], palette: bool = False) -> io.BytesIO:
    """A PNG of any depth; samples `(H, W)` or `(H, W, 2…4)`."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8)
    else:
        bits = rows.astype(np.uint8)[..., None] >> np.arange(depth - 1, -1, -1) & 1
        packed = np.packbits(bits.reshape(height, -1), axis=1)
    colour = 3 if palette else {1: 0, 2: 4, 3: 2, 4: 6}[1 if samples.ndim == 2 else samples.shape[2]]
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(np.pad(packed, ((0, 0), (1, 0))).tobytes())
    out = [b"\x89PNG\r\n\x1a\n"]
    for name, content in ((b"IHDR", head), *chunks, (b"IDAT", data), (b"IEND", b"")):
        out.append(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))
    return io.BytesIO(b"".join(out))


def _chunks(png: bytes) -> set[bytes]:
    names, at = set(), 8
    while at < len(png):
        names.add(png[at + 4 : at + 8])
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return names


def _tiff(
    size: tuple[int, int], strips: list[bytes], bits: list[int], photometric: int, **more: list[int]
) -> io.BytesIO:
    """A little-endian TIFF; `more`: planar, extra, kind (of samples), compression, orientation."""
    width, height = size
    names = {"planar": 284, "extra": 338, "kind": 339, "compression": 259, "orientation": 274}
    entries = {256: [width], 257: [height], 258: bits, 259: [1], 262: [photometric], 277: [len(bits)], 278: [height]}
    entries |= {names[name]: values for name, values in more.items()} | {279: [len(s) for s in strips]}
    start = 8 + 2 + 12 * (len(entries) + 1) + 4 + 8 * 16  # 16 values of 8 bytes beside the directory are enough
    entries[273] = [start + sum(map(len, strips[:k])) for k in range(len(strips))]
    directory, beside = b"", b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, beside = struct.pack("<I", 8 + 2 + 12 * len(entries) + 4 + len(beside)), beside + packed
        directory += struct.pack("<HHI", tag, 4, len(values)) + packed
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + b"\0\0\0\0" + beside
    return io.BytesIO(head.ljust(start, b"\0") + b"".join(strips))


def _round_trip(picture: Picture, rate: float | None = None) -> codec.Decoded:
    """What comes back from an `.eoc` of a picture, which is lossless without a rate.

    Equal pictures are coded once: here it counts which picture a file becomes, and many become the same.
    """
    arrays = [
        None if a is None else (a.dtype.str, a.shape, a.tobytes()) for a in (picture.rgb, picture.alpha, picture.wide)
    ]
    key = (*arrays, picture.grey, picture.deep, picture.exact, rate)
    if key not in _CODED:
        how = {"lossless": True} if rate is None else {"rate": rate}
        _CODED[key] = codec.decode_file(eocodec.compress(picture, **how))
    return _CODED[key]


_CODED: dict[tuple[object, ...], codec.Decoded] = {}


def _exactly(file: io.BytesIO) -> codec.Decoded:
    """What comes back from a lossless `.eoc` of a picture file."""
    file.seek(0)
    return _round_trip(read_picture(file))


def _nearly(file: io.BytesIO) -> codec.Decoded:
    file.seek(0)
    return _round_trip(read_picture(file), RATE)


def _same(got: Array | None, want: Array | None) -> bool:
    return got is want is None or (got is not None and want is not None and np.array_equal(got, want))


def _visible_psnr(a: Array, b: Array, alpha: Array | None) -> float:
    """PSNR where something is to be seen; infinite if nothing is."""
    if alpha is None:
        return psnr(a, b)
    seen = alpha > 0
    return psnr(a[seen], b[seen]) if seen.any() else float("inf")


# Modes and file types

MODES = {
    "PNG": ["1", "L", "LA", "P", "P+key", "P+alpha", "RGB", "RGBA", "I;16"],
    "TIFF": ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"],
    "JPEG": ["1", "L", "RGB", "RGBX", "CMYK", "YCbCr"],
    "WEBP": ["L", "LA", "P", "P+alpha", "RGB", "RGBA"],
    "AVIF": ["L", "LA", "P", "RGB", "RGBA"],
    "GIF": ["L", "P", "P+key"],
    "BMP": ["1", "L", "P", "RGB"],
    "PPM": ["1", "L", "RGB", "I;16", "F"],
}
CASES = [pytest.param(kind, mode, id=f"{kind}-{mode}") for kind, modes in MODES.items() for mode in modes]
GREY = ("1", "L", "LA", "I;16", "I", "F")


def _reference(kind: str, mode: str, file: io.BytesIO) -> tuple[Array, Array | None]:
    """From before the file was written where its type is lossless, from Pillow's reading of it elsewhere."""
    return _shown(_source(mode) if kind in EXACT_TYPES else Image.open(io.BytesIO(file.getvalue())))


@pytest.mark.parametrize("kind, mode", CASES)
def test_every_mode_of_every_file_type_comes_back_exactly(kind: str, mode: str) -> None:
    file = _saved(_source(mode), kind)
    rgb, alpha = _reference(kind, mode, file)
    got = _exactly(file)
    assert np.array_equal(got.rgb, rgb) and _same(got.alpha, alpha)
    assert (alpha is not None) == (mode in ("LA", "PA", "RGBA", "P+key", "P+alpha"))
    assert got.grey == (mode in GREY)  # also where the type has colours with equal channels only
    if mode in GREY:
        assert (got.rgb == got.rgb[..., :1]).all()


@pytest.mark.parametrize("kind, mode", CASES)
def test_ordinary_files_keep_shape_alpha_and_grey_and_are_close(kind: str, mode: str) -> None:
    file = _saved(_source(mode), kind)
    rgb, alpha = _reference(kind, mode, file)
    got = _nearly(file)
    assert got.rgb.shape == rgb.shape and _same(got.alpha, alpha)
    if got.grey:
        assert (got.rgb == got.rgb[..., :1]).all()
    assert _visible_psnr(rgb.astype(np.uint8), got.rgb, alpha) > 40


MEMORY = ["1", "L", "LA", "P", "P+key", "P+alpha", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]


@pytest.mark.parametrize("mode", [*MEMORY, "I;16", "I;16B", "I", "F"])
def test_images_in_memory_of_every_mode_come_back_exactly(mode: str) -> None:
    got = codec.decode_file(eocodec.compress(_source(mode), lossless=True))
    rgb, alpha = _shown(_source(mode))
    assert np.array_equal(got.rgb, rgb) and _same(got.alpha, alpha)


def test_premultiplied_colours_are_divided_by_their_alpha() -> None:
    alpha = np.full((2, 3), 128, np.uint8)
    for mode, colours in (("La", _photo()[:2, :3, :1]), ("RGBa", _photo()[:2, :3])):
        stored = np.dstack([colours // 2, alpha])
        picture = as_picture(Image.frombytes(mode, (3, 2), stored.tobytes()))
        assert _same(picture.alpha, alpha)
        assert np.abs(picture.rgb[..., : colours.shape[2]].astype(int) - colours).max() <= 2
    stored = np.dstack([_photo()[:2, :3] // 2, alpha])
    picture = read_picture(_tiff((3, 2), [stored.tobytes()], [8] * 4, 2, extra=[1]))
    assert _same(picture.alpha, alpha) and np.abs(picture.rgb.astype(int) - _photo()[:2, :3]).max() <= 2


SUFFIXES = {
    ".png": ("L", "LA", "RGB", "RGBA"),
    ".tiff": ("L", "LA", "RGB", "RGBA"),
    ".webp": ("RGB", "RGBA", "RGB", "RGBA"),
    ".avif": ("RGB", "RGBA", "RGB", "RGBA"),
    ".jpg": ("L", "L", "RGB", "RGB"),
    ".ppm": ("L", "L", "RGB", "RGB"),
    ".bmp": ("L", "L", "RGB", "RGB"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_decoded_pictures_are_written_in_the_mode_that_went_in(suffix: str) -> None:
    for mode, expected in zip(("L", "LA", "RGB", "RGBA"), SUFFIXES[suffix], strict=True):
        got = _round_trip(as_picture(_source(mode)))
        file = encode_picture(to_pillow(got.rgb, got.alpha, got.grey), suffix)
        with Image.open(io.BytesIO(file)) as back:
            rgb, alpha = _shown(back)
            assert back.mode == expected, mode
        want, want_alpha = _shown(_source(mode))
        assert (alpha is not None) == ("A" in expected)
        if suffix not in (".jpg", ".avif"):
            assert np.array_equal(rgb, want) and _same(alpha, want_alpha if "A" in expected else None)
        assert psnr(want.astype(np.uint8), rgb.astype(np.uint8)) > 35


# Sizes

SIZES = [(1, 1), (17, 1), (3, 17), (3, 4097), (4097, 3), (31, 33)]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
def test_odd_sizes_come_back(size: tuple[int, int], mode: str) -> None:
    picture = np.dstack([_photo(*size), _partial(*size)])[
        ..., {"L": [0], "LA": [0, 3], "RGB": [0, 1, 2]}.get(mode, [0, 1, 2, 3])
    ]
    colours = np.repeat(picture[..., :1], 3, 2) if "L" in mode else picture[..., :3]
    alpha = picture[..., -1] if "A" in mode else None
    near = codec.decode_file(eocodec.compress(picture, RATE))
    assert near.rgb.shape == colours.shape and _same(near.alpha, alpha) and near.grey == ("L" in mode)
    assert _visible_psnr(colours, near.rgb, alpha) > 40
    if max(size) < 100 or mode in ("LA", "RGB"):  # long ones take half a second
        exact = codec.decode_file(eocodec.compress(picture, lossless=True))
        assert np.array_equal(exact.rgb, colours) and _same(exact.alpha, alpha)


# Depth


def _deep(height: int = 9, width: int = 11, channels: int = 0) -> npt.NDArray[np.uint16]:
    values = np.random.default_rng(3).integers(0, 65536, (height, width, max(channels, 1)))
    values[0, :6] = np.array([0, 128, 129, 65406, 65407, 65535])[:, None]
    return (values if channels else values[..., 0]).astype(np.uint16)


def _sixteen_bit_files() -> dict[str, io.BytesIO]:
    deep = _deep()
    swapped = Image.frombytes("I;16B", (11, 9), deep.astype(">u2").tobytes())
    return {
        "PNG": _png(deep, 16),
        "TIFF": _tiff((11, 9), [deep.astype("<u2").tobytes()], [16], 1),
        "TIFF-deflate": _tiff((11, 9), [zlib.compress(deep.astype("<u2").tobytes())], [16], 1, compression=[8]),
        "TIFF-white-is-zero": _tiff((11, 9), [(65535 - deep).astype("<u2").tobytes()], [16], 0),
        "TIFF-big-endian": _saved(swapped, "TIFF"),
        "PGM": io.BytesIO(b"P5\n11 9\n65535\n" + deep.astype(">u2").tobytes()),
    }


@pytest.mark.parametrize("name", _sixteen_bit_files())
def test_sixteen_bit_grey_is_rounded_and_stays_grey(name: str) -> None:
    picture = read_picture(_sixteen_bit_files()[name])
    assert picture.grey and picture.deep and picture.alpha is None
    assert np.array_equal(picture.rgb[..., 0], np.rint(_deep() / 257))
    with pytest.raises(EocodecError, match="more bits a sample"):
        eocodec.compress(picture, lossless=True, depth=8)
    assert psnr(picture.rgb, eocodec.decompress(eocodec.compress(picture, 768, depth=8))) > 30
    kept = eocodec.decompress(eocodec.compress(picture, lossless=True))
    assert kept.dtype == np.uint16 and np.array_equal(kept[..., 0], _deep())


@pytest.mark.parametrize("channels", [2, 3, 4], ids=["LA", "RGB", "RGBA"])
def test_sixteen_bit_colour_keeps_its_upper_eight_bits(channels: int) -> None:
    deep = _deep(channels=channels)
    picture = read_picture(_png(deep, 16))
    upper = (deep >> 8).astype(np.uint8)
    assert picture.deep and picture.grey == (channels == 2)
    assert np.array_equal(picture.rgb, np.repeat(upper[..., :1], 3, 2) if channels == 2 else upper[..., :3])
    assert _same(picture.alpha, upper[..., -1] if channels != 3 else None)
    assert np.abs(picture.rgb[..., 0] - deep[..., 0] / 257).max() < 1
    with pytest.raises(EocodecError, match="more bits a sample"):
        eocodec.compress(picture, lossless=True, depth=8)
    if channels != 3:
        with pytest.raises(EocodecError, match="transparency has more bits"):
            eocodec.compress(picture, lossless=True)
        deep[..., -1] = deep[..., -1] // 257 * 257
        picture = read_picture(_png(deep, 16))
    whole = codec.decode_file(eocodec.compress(picture, lossless=True))
    assert np.array_equal(whole.rgb, np.repeat(deep[..., :1], 3, 2) if channels == 2 else deep[..., :3])
    assert _same(whole.alpha, picture.alpha)
    got = codec.decode_file(eocodec.compress(picture, RATE))
    assert got.rgb.shape == picture.rgb.shape and _same(got.alpha, picture.alpha)


def test_deep_arrays_are_rounded_in_all_channels() -> None:
    for channels in (1, 2, 3, 4):
        deep = _deep(channels=channels)
        picture = as_picture(deep)
        want = np.rint(deep / 257)
        assert np.array_equal(picture.rgb[..., 0], want[..., 0]) and picture.deep
        assert _same(picture.alpha, want[..., -1] if channels in (2, 4) else None)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_shallow_grey_and_palettes_come_back_exactly(depth: int) -> None:
    values = np.random.default_rng(depth).integers(0, 1 << depth, (7, 13))
    got = _exactly(_png(values, depth))
    assert got.grey and np.array_equal(got.rgb[..., 0], values * (255 // ((1 << depth) - 1)))
    colours = np.random.default_rng(0).integers(0, 256, (1 << depth, 3), np.uint8)
    got = _exactly(_png(values, depth, (b"PLTE", colours.tobytes()), palette=True))
    assert not got.grey and np.array_equal(got.rgb, colours[values])


def test_other_depths_are_scaled_to_eight_bits() -> None:
    twelve = np.array([[0, 4095, 2048, 100]])
    bits = twelve[..., None] >> np.arange(11, -1, -1) & 1
    picture = read_picture(_tiff((4, 1), [np.packbits(bits).tobytes()], [12], 1))
    assert np.array_equal(picture.rgb[..., 0], np.rint(twelve / 4095 * 255)) and picture.deep
    for top in (15, 1023):
        values = np.arange(0, top + 1, top // 15).astype(np.uint8 if top < 256 else ">u2")
        ppm = b"P5\n%d 1\n%d\n" % (len(values), top) + values.tobytes()
        picture = read_picture(io.BytesIO(ppm))
        assert np.abs(picture.rgb[0, :, 0] - values.astype(float) / top * 255).max() <= 0.51


@pytest.mark.parametrize("inverted", [False, True], ids=["black-is-zero", "white-is-zero"])
@pytest.mark.parametrize("top", [1, 255, 65535])
def test_floating_point_grey_is_scaled_by_its_range(top: int, inverted: bool) -> None:
    levels = np.linspace(0, 255, 24).round().reshape(4, 6)
    values = (levels / 255 * top).astype("<f4")
    file = _tiff((6, 4), [values.tobytes()], [32], 1 - inverted, kind=[3])
    picture = read_picture(file)
    assert picture.grey and not picture.deep
    assert np.array_equal(picture.rgb[..., 0], 255 - levels if inverted else levels)
    file = _tiff((6, 4), [values.tobytes()], [32], 1 - inverted, kind=[3], orientation=[6])
    assert np.array_equal(read_picture(file).rgb, _turned(picture.rgb, 6))
    values[0, 0] += top / 1000
    file = _tiff((6, 4), [values.tobytes()], [32], 1 - inverted, kind=[3])
    assert read_picture(file).deep


@pytest.mark.parametrize(
    "kind, values, words",
    [
        (3, np.array([0, np.nan], "<f4"), "not finite"),
        (3, np.array([-1, 1], "<f4"), "outside 0 to 65535"),
        (1, np.array([0, 1 << 31], "<u4"), "outside 0 to 65535"),
        (2, np.array([-1, 9], "<i4"), "outside 0 to 65535"),
    ],
    ids=["nan", "negative-float", "32-bit", "negative"],
)
def test_values_without_a_known_range_are_refused_in_words(kind: int, values: Array, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        read_picture(_tiff((2, 1), [values.tobytes()], [32], 1, kind=[kind]))


# Colour profiles


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(65536 * v)) for v in values)


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _profile(space: bytes, kind: bytes, name: str, tags: dict[str, bytes], connection: bytes = b"XYZ ") -> bytes:
    """An ICC profile, version 2.4; docs: ICC.1:2001-04."""
    text = name.encode()
    tags = {"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(79), **tags}
    tags["wtpt"] = _xyz(0.9642, 1, 0.8249)
    start, table, body = 132 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        table += tag.encode() + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02400000, kind, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(0.9642, 1, 0.8249) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * value))


SRGB_CURVE = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# Columns: XYZ (D50) of red, green, blue.
PRIMARIES = {
    "srgb": ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
    "p3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
    "adobe": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
}


def _rgb_profile(primaries: str, curve: bytes, name: str) -> bytes:
    columns = zip(("rXYZ", "gXYZ", "bXYZ"), PRIMARIES[primaries], strict=True)
    curves = dict.fromkeys(("rTRC", "gTRC", "bTRC"), curve)
    return _profile(b"RGB ", b"mntr", name, {tag: _xyz(*values) for tag, values in columns} | curves)


def _cmyk_profile() -> bytes:
    """Four inks by a table of the 16 corners."""
    grid = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(16, 4)
    c, m, y, k = grid.T
    light = 255 * (1 - 0.3 * c) * (1 - 0.4 * m) * (1 - 0.1 * y) * (1 - k)
    corners = np.stack([light, 128 + (70 * m - 60 * c) * (1 - k), 128 + (80 * y - 40 * c) * (1 - k)], 1)
    identity = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table += identity * 4 + corners.round().clip(0, 255).astype(np.uint8).tobytes() + identity * 3
    return _profile(b"CMYK", b"prtr", "four inks", {"A2B0": table}, b"Lab ")


PROFILES = {
    "srgb": ImageCms.ImageCmsProfile(SRGB).tobytes(),
    "srgb-by-another-name": _rgb_profile("srgb", SRGB_CURVE, "c2"),
    "display-p3": _rgb_profile("p3", SRGB_CURVE, "Display P3"),
    "adobe-rgb": _rgb_profile("adobe", _gamma(563 / 256), "Adobe RGB (1998)"),
    "linear-srgb": _rgb_profile("srgb", _gamma(1), "sRGB built-in, linear"),
    "grey-gamma-1.8": _profile(b"GRAY", b"mntr", "grey", {"kTRC": _gamma(1.8)}),
    "grey-linear": _profile(b"GRAY", b"mntr", "grey", {"kTRC": _gamma(1)}),
    "cmyk": _cmyk_profile(),
    "broken": b"not a profile at all",
    "cut": _rgb_profile("p3", SRGB_CURVE, "Display P3")[:200],
}
WIDE = ("display-p3", "adobe-rgb", "linear-srgb")


def _by_lcms(image: Image.Image, profile: str) -> Array:
    source = ImageCms.ImageCmsProfile(io.BytesIO(PROFILES[profile]))
    converted = ImageCms.profileToProfile(image, source, SRGB, outputMode="RGB")
    assert converted is not None
    return np.asarray(converted)


def _to_levels(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _by_hand(rgb: Array, profile: str) -> Array:
    values = rgb / 255.0
    primaries = {"display-p3": "p3", "adobe-rgb": "adobe", "linear-srgb": "srgb"}[profile]
    if profile == "display-p3":
        values = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    elif profile == "adobe-rgb":
        values = values ** (563 / 256)
    wide, srgb = (np.array(PRIMARIES[name]).T for name in (primaries, "srgb"))
    return _to_levels(values @ (np.linalg.inv(srgb) @ wide).T)


@pytest.mark.parametrize("profile", WIDE)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_wide_and_linear_colours_become_srgb(kind: str, profile: str) -> None:
    photo = _photo()
    file = _saved(Image.fromarray(photo), kind, icc_profile=PROFILES[profile])
    stored = Image.open(io.BytesIO(file.getvalue())).convert("RGB")
    got = _exactly(file)
    assert np.abs(got.rgb.astype(int) - _by_lcms(stored, profile)).max() <= 1
    assert np.abs(got.rgb - _by_hand(np.asarray(stored), profile)).max() <= 2
    assert np.abs(got.rgb.astype(int) - np.asarray(stored)).max() > 5
    assert psnr(got.rgb, _nearly(file).rgb) > 35


@pytest.mark.parametrize("profile", ["srgb", "srgb-by-another-name", "broken", "cut", "cmyk", "grey-linear"])
def test_srgb_by_any_name_and_profiles_that_do_not_fit_change_nothing(profile: str) -> None:
    for mode in ("RGB", "RGBA", "P+alpha"):
        got = _exactly(_saved(_source(mode), "PNG", icc_profile=PROFILES[profile]))
        rgb, alpha = _shown(_source(mode))
        assert np.array_equal(got.rgb, rgb) and _same(got.alpha, alpha)


@pytest.mark.parametrize("profile", ["srgb", "display-p3", "broken", "cmyk"])
def test_grey_with_a_profile_of_colours_stays_as_it_is(profile: str) -> None:
    for mode in ("1", "L", "LA", "I;16"):
        got = _exactly(_saved(_source(mode), "PNG", icc_profile=PROFILES[profile]))
        rgb, alpha = _shown(_source(mode))
        assert got.grey and np.array_equal(got.rgb, rgb) and _same(got.alpha, alpha)


GREY_WITH_PROFILES = [("PNG", m) for m in ("L", "LA", "I;16")] + [("TIFF", m) for m in ("L", "I;16")] + [("JPEG", "L")]


@pytest.mark.parametrize("gamma", [1.0, 1.8])
@pytest.mark.parametrize("kind, mode", GREY_WITH_PROFILES)
def test_grey_profiles_are_converted_and_grey_stays_grey(kind: str, mode: str, gamma: float) -> None:
    profile = PROFILES["grey-linear" if gamma == 1 else "grey-gamma-1.8"]
    file = _saved(_source(mode), kind, icc_profile=profile)
    stored, alpha = _shown(Image.open(io.BytesIO(file.getvalue())))
    got = _exactly(file)
    want = _to_levels((stored[..., 0] / 255.0) ** gamma)
    assert got.grey and _same(got.alpha, alpha)
    assert np.abs(got.rgb[..., 0] - want).max() <= 0.6
    assert np.abs(got.rgb[..., 0].astype(int) - stored[..., 0]).max() > 5


@pytest.mark.parametrize("mode", ["RGBA", "P", "P+key", "P+alpha"])
def test_profiles_leave_transparency_alone(mode: str) -> None:
    got = _exactly(_saved(_source(mode), "PNG", icc_profile=PROFILES["display-p3"]))
    rgb, alpha = _shown(_source(mode))
    assert _same(got.alpha, alpha)
    assert np.array_equal(got.rgb, _by_lcms(Image.fromarray(rgb.astype(np.uint8)), "display-p3"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_its_profile_or_as_four_ideal_inks(kind: str) -> None:
    inks = np.dstack([255 - _photo(), np.full((31, 33), 40, np.uint8)])
    image = Image.fromarray(inks, "CMYK")
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    plain, file = _saved(image, kind, **options), _saved(image, kind, icc_profile=PROFILES["cmyk"], **options)
    stored = Image.open(io.BytesIO(file.getvalue()))
    assert np.abs(np.asarray(stored).astype(int) - inks).max() <= 6  # Adobe's inverted inks are turned back
    ideal = (255.0 - inks[..., :3]) * (255 - 40) / 255
    assert np.abs(_exactly(plain).rgb - ideal).max() <= 8
    got = _exactly(file).rgb
    assert np.array_equal(got, _by_lcms(stored, "cmyk"))
    assert np.abs(got - ideal).max() > 20


def test_colour_that_is_told_otherwise_than_by_a_profile_is_not_converted() -> None:
    chunks = {
        b"gAMA": struct.pack(">I", 100000),
        b"cHRM": struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600),
        b"cICP": bytes([9, 16, 0, 1]),  # BT.2100 PQ
    }
    for chunk in chunks.items():
        assert np.array_equal(read_picture(_png(_photo(), 8, chunk)).rgb, _photo()), chunk
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2  # Adobe RGB, as some cameras tell
    assert np.array_equal(read_picture(_saved(Image.fromarray(_photo()), "PNG", exif=exif)).rgb, _photo())


# Orientation


def _turned(a: Array, orientation: int) -> Array:
    """By the table of the EXIF specification: where row 0 and column 0 of the stored picture are to be seen."""
    return {
        1: lambda: a,  # top, left
        2: lambda: a[:, ::-1],  # top, right
        3: lambda: a[::-1, ::-1],  # bottom, right
        4: lambda: a[::-1],  # bottom, left
        5: lambda: a.swapaxes(0, 1),  # left, top
        6: lambda: np.rot90(a, -1),  # right, top
        7: lambda: a[::-1, ::-1].swapaxes(0, 1),  # right, bottom
        8: lambda: np.rot90(a),  # left, bottom
    }[orientation]()


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_to_the_pixel(kind: str, orientation: int) -> None:
    photo = Image.fromarray(_photo(24, 40))
    upright = np.asarray(Image.open(_saved(photo, kind)).convert("RGB"))
    got = _exactly(_saved(photo, kind, exif=_exif(orientation)))
    assert np.array_equal(got.rgb, _turned(upright, orientation))


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("mode", [*MEMORY, "I;16", "I;16B", "I", "F"])
def test_orientation_is_applied_to_every_mode_and_its_alpha(mode: str, orientation: int) -> None:
    image = _source(mode)
    image.info["exif"] = _exif(orientation)
    picture = as_picture(image)
    rgb, alpha = _shown(_source(mode))
    assert np.array_equal(picture.rgb, _turned(rgb, orientation))
    assert _same(picture.alpha, None if alpha is None else _turned(alpha, orientation))
    assert image.size == (33, 31) and image.info["exif"] == _exif(orientation)  # the caller's image is as it was


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK", "I;16"])
def test_orientation_is_applied_to_tiff_files_on_disk(mode: str, tmp_path: Path) -> None:
    """Pillow would map some of these into memory and mix up their rows and columns."""
    for orientation in range(1, 9):
        path = tmp_path / f"{orientation}.tiff"
        path.write_bytes(_saved(_source(mode), "TIFF", exif=_exif(orientation)).getvalue())
        rgb, alpha = _shown(_source(mode))
        picture = read_picture(path)
        assert np.array_equal(picture.rgb, _turned(rgb, orientation))
        assert _same(picture.alpha, None if alpha is None else _turned(alpha, orientation))


def test_orientation_in_xmp_and_in_tiff_tags_is_applied_once() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    got = read_picture(_saved(Image.fromarray(_photo()), "JPEG", xmp=xmp))
    assert got.rgb.shape == (33, 31, 3)
    for orientation in range(1, 9):
        tiff = _tiff((33, 31), [_photo().tobytes()], [8] * 3, 2, orientation=[orientation])
        assert np.array_equal(read_picture(tiff).rgb, _turned(_photo(), orientation))


BROKEN_EXIF = {
    "no-tiff": b"Exif\0\0garbage",
    "offset-beyond": b"Exif\0\0II*\0\xff\xff\xff\xff",
    "cut": b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01",
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("exif", BROKEN_EXIF)
def test_broken_exif_does_not_lose_the_picture(kind: str, exif: str, recwarn: pytest.WarningsRecorder) -> None:
    photo = Image.fromarray(_photo())
    plain = read_picture(_saved(photo, kind))
    assert np.array_equal(read_picture(_saved(photo, kind, exif=BROKEN_EXIF[exif])).rgb, plain.rgb)
    assert not recwarn.list


# Transparency


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("level", [0, 1, 127, 255, None], ids=["none-shown", "one", "half", "opaque", "mixed"])
def test_alpha_is_exact_in_both_kinds_of_file(kind: str, level: int | None) -> None:
    image = Image.fromarray(_photo())
    image.putalpha(Image.fromarray(_partial() if level is None else np.full((31, 33), level, np.uint8)))
    file = _saved(image, kind)
    stored = _shown(Image.open(io.BytesIO(file.getvalue())))[1]
    if kind != "AVIF" and (kind, level) != ("WEBP", 255):  # WebP's writer drops alpha that hides nothing
        assert _same(stored, np.asarray(image)[..., 3])
    for got in (_exactly(file), _nearly(file)):
        assert _same(got.alpha, stored)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_colour_keys_are_alpha_at_every_depth(depth: int) -> None:
    values = np.random.default_rng(depth).integers(0, 1 << depth, (8, 9))
    key = int(values[2, 3])
    picture = read_picture(_png(values, depth, (b"tRNS", struct.pack(">H", key))))
    assert picture.grey and _same(picture.alpha, np.where(values == key, 0, 255))
    assert 0 < (values == key).sum() < 72
    got = codec.decode_file(eocodec.compress(picture, RATE))
    assert _same(got.alpha, picture.alpha)


@pytest.mark.parametrize("depth", [8, 16])
def test_colour_keys_are_alpha(depth: int) -> None:
    values = np.random.default_rng(depth).integers(0, 1 << depth, (8, 9, 3))
    values[5, :4] = values[2, 3]
    values[6, 0] = [
        *values[2, 3, :2],
        (int(values[2, 3, 2]) + 512) % (1 << depth) if depth == 16 else values[2, 3, 2] ^ 1,
    ]
    picture = read_picture(_png(values, depth, (b"tRNS", struct.pack(">3H", *values[2, 3].tolist()))))
    assert not picture.grey and _same(picture.alpha, np.where((values == values[2, 3]).all(2), 0, 255))
    assert (picture.alpha == 0).sum() == 5


def test_a_palette_with_alpha_of_its_own_is_transparent() -> None:
    image = Image.frombytes("P", (4, 1), bytes(range(4)))
    image.putpalette(bytes([255, 0, 0, 0, 0, 255, 0, 128, 0, 0, 255, 255, 9, 8, 7, 200]), "RGBA")
    picture = as_picture(image)
    assert picture.alpha is not None and picture.alpha.tolist() == [[0, 128, 255, 200]]
    assert picture.rgb.tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]]]


# TIFF's ways to lay out samples


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "deflate"])
def test_planes_of_tiff_files_are_put_together_or_refused(packed: bool) -> None:
    def planes(samples: Array, bits: int) -> io.BytesIO:
        strips = [np.ascontiguousarray(samples[..., k]).tobytes() for k in range(3)]
        strips = [zlib.compress(s) for s in strips] if packed else strips
        return _tiff((33, 31), strips, [bits] * 3, 2, planar=[2], compression=[8 if packed else 1])

    assert np.array_equal(_exactly(planes(_photo(), 8)).rgb, _photo())
    deep = planes(_photo().astype("<u2") * 257, 16)
    if packed:
        picture = read_picture(deep)
        assert picture.deep and np.array_equal(picture.rgb, _photo())
    else:
        with pytest.raises(ImageError, match="separate planes"):  # Pillow would give half a picture of noise
            read_picture(deep)


def test_samples_beyond_colour_and_alpha_are_left_out() -> None:
    for photometric, samples, extra in ((2, _photo(), [0]), (5, np.dstack([_photo(), _partial() // 3]), [0])):
        image = Image.fromarray(samples, "CMYK") if photometric == 5 else Image.fromarray(samples)
        strip = np.dstack([samples, np.full((31, 33), 99, np.uint8)]).tobytes()
        got = _exactly(_tiff((33, 31), [strip], [8] * (samples.shape[2] + 1), photometric, extra=extra))
        assert got.alpha is None and np.array_equal(got.rgb, _shown(image)[0])


# Frames

FRAMES = {"GIF": {}, "WEBP": {"lossless": True}, "PNG": {}, "TIFF": {}, "AVIF": {}, "MPO": {"quality": 95}}


@pytest.mark.parametrize("kind", FRAMES)
def test_only_the_first_frame_is_kept(kind: str) -> None:
    frames = [Image.new("RGB", (16, 9), colour) for colour in ("red", "lime", "blue")]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], **FRAMES[kind])
    with Image.open(out) as opened:
        assert getattr(opened, "n_frames", 1) == 3
        got = _exactly(out)
        assert np.abs(got.rgb.astype(int) - [255, 0, 0]).max() <= 2
        opened.seek(1)  # a program may choose
        assert np.abs(as_picture(opened).rgb.astype(int) - [0, 255, 0]).max() <= 2


# Metadata

SECRETS = (b"SECRETMAKER", b"SECRETXMP", b"SECRETTEXT", b"SECRETNAME")


def _with_metadata(kind: str) -> io.BytesIO:
    exif = Image.Exif()
    exif[0x010F] = "SECRETMAKER"
    exif.get_ifd(0x8825)[29] = "2024:01:01"
    options: dict[str, object] = {"exif": exif.tobytes(), "icc_profile": _rgb_profile("p3", SRGB_CURVE, "SECRETNAME")}
    if kind != "PNG":
        options["xmp"] = b"<x:xmpmeta>SECRETXMP</x:xmpmeta>"
    if kind == "PNG":
        text = PngInfo()
        text.add_text("Comment", "SECRETTEXT")
        text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta>SECRETXMP</x:xmpmeta>")
        options |= {"pnginfo": text, "dpi": (300, 300), "compress_level": 0}
    if kind == "JPEG":
        options |= {"comment": b"SECRETTEXT", "dpi": (300, 300)}
    if kind == "TIFF":
        options["description"] = "SECRETTEXT"
    return _saved(Image.fromarray(_photo()), kind, **options)


def _found(data: bytes, secrets: Iterable[bytes]) -> list[bytes]:
    return [secret for secret in secrets if secret in data]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_no_metadata_gets_into_files_or_out_of_them(kind: str) -> None:
    source = _with_metadata(kind)
    assert len(_found(source.getvalue(), SECRETS)) >= 2
    picture = read_picture(source)
    for options in ({}, {"progressive": True}, {"lossless": True}):
        data = eocodec.compress(picture, **options)
        assert not _found(data, SECRETS)
        decoded = codec.decode_file(data)
        image = to_pillow(decoded.rgb, decoded.alpha, decoded.grey)
        png = encode_picture(image, ".png")
        assert _chunks(png) == {b"IHDR", b"IDAT", b"IEND"}
        for suffix in (".jpg", ".webp", ".tiff", ".avif"):
            with Image.open(io.BytesIO(encode_picture(image, suffix))) as back:
                assert not {"exif", "icc_profile", "xmp", "comment", "photoshop"} & set(back.info), suffix
                assert 0x010F not in back.getexif()


def test_the_command_keeps_the_same_promises(tmp_path: Path) -> None:
    """Rotated, wide, with alpha and broken metadata: nothing of it shows in the PNG that comes back, nor on stderr."""
    exif = _exif(6)
    sources = {
        "turned.tiff": _saved(_source("RGBA"), "TIFF", exif=exif, icc_profile=PROFILES["display-p3"]),
        "broken.png": _saved(_source("LA"), "PNG", exif=BROKEN_EXIF["no-tiff"], icc_profile=PROFILES["broken"]),
    }
    for name, file in sources.items():
        source, packed, back = (tmp_path / n for n in (name, f"{name}.eoc", f"{name}-back.png"))
        source.write_bytes(file.getvalue())
        for arguments in (["compress", "--lossless", source, "-o", packed], ["decompress", packed, "-o", back]):
            done = CliRunner().invoke(cli, [str(a) for a in arguments])
            assert done.exit_code == 0 and "arning" not in done.output, done.output
        assert _chunks(back.read_bytes()) == {b"IHDR", b"IDAT", b"IEND"}
    rgb, alpha = _shown(_source("RGBA"))
    with Image.open(tmp_path / "turned.tiff-back.png") as image:
        assert image.mode == "RGBA"
        got = np.asarray(image)
    assert np.array_equal(got[..., :3], _turned(_by_lcms(Image.fromarray(rgb.astype(np.uint8)), "display-p3"), 6))
    assert alpha is not None and np.array_equal(got[..., 3], _turned(alpha, 6))
    with Image.open(tmp_path / "broken.png-back.png") as image:
        assert image.mode == "LA" and np.array_equal(np.asarray(image), np.asarray(_source("LA")))

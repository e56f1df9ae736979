"""TIFF files of floating-point colours are read as those of floating-point grey are, by the rules for their range."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from paths import Runner
from PIL import Image, ImageCms

import eocodec
from eocodec import wide
from eocodec.errors import ImageError, LimitError, UnknownTypeError
from eocodec.image import as_picture, read_picture

Floats = npt.NDArray[np.floating[Any]]

ORIENTATION, FURTHER, PROFILE = 274, 338, 34675
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.fixture
def values() -> Floats:
    """Colours of a picture that is wider than high, 0 to 1."""
    return np.random.default_rng(7).random((20, 30, 3)).astype(np.float32)


def _tiff(
    values: Floats,
    more: dict[int, tuple[str, list[int]]] | None = None,
    order: str = "<",
    deflated: bool = False,
    planes: bool = False,
    numbers: int = 3,
    pages: int = 1,
) -> bytes:
    """A TIFF file of samples `(H, W, C)`; `more` are further tags, each with its type and its numbers."""
    height, width, samples = values.shape
    ordered = values.astype(values.dtype.newbyteorder(order))  # type: ignore[call-overload]
    parts = [ordered[..., k].tobytes() for k in range(samples)] if planes else [ordered.tobytes()]
    parts = [zlib.compress(part) for part in parts] if deflated else parts
    places = np.cumsum([8, *map(len, parts)]).tolist()
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("H", [width]),
        257: ("H", [height]),
        258: ("H", [8 * values.itemsize] * samples),
        259: ("H", [8 if deflated else 1]),
        262: ("H", [2]),
        273: ("I", places[:-1]),
        277: ("H", [samples]),
        278: ("H", [height]),
        279: ("I", [len(part) for part in parts]),
        284: ("H", [2 if planes else 1]),
        339: ("H", [numbers] * samples),
        **(more or {}),
    }
    content = b"".join(parts) + b"\0" * (places[-1] & 1)
    first = 8 + len(content)
    for page in range(pages):
        at = 8 + len(content)
        entries, further = b"", b""
        for tag, (kind, listed) in sorted(tags.items()):
            packed = struct.pack(f"{order}{len(listed)}{kind}", *listed)
            if len(packed) > 4:
                place = at + 6 + 12 * len(tags) + len(further)
                further += packed + b"\0" * (len(packed) & 1)
                packed = struct.pack(f"{order}I", place)
            number = {"H": 3, "I": 4, "B": 7}[kind]
            entries += struct.pack(f"{order}HHI", tag, number, len(listed)) + packed.ljust(4, b"\0")
        end = at + 6 + len(entries) + len(further)
        following = struct.pack(f"{order}I", end if page + 1 < pages else 0)
        content += struct.pack(f"{order}H", len(tags)) + entries + following + further
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", first) + content


def _levels(values: Floats, white: int) -> npt.NDArray[np.float64]:
    return np.asarray(values, np.float64) * white


@pytest.mark.parametrize("options", [{}, {"order": ">"}, {"deflated": True}], ids=str)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("top", [1, 255, 65535])
def test_floating_point_colours_are_scaled_by_their_range(
    top: int, kind: type[np.floating[Any]], options: dict[str, Any], values: Floats
) -> None:
    pytest.importorskip("cv2")
    values[0, 0] = 1
    data = _tiff((values * np.float64(top)).astype(kind), **options)
    picture = read_picture(io.BytesIO(data))
    assert picture.notes == () and picture.deep and picture.keeps == 8 and not picture.grey and picture.alpha is None
    assert np.abs(picture.rgb - _levels(values, 255)).max() <= 0.51
    assert np.abs(as_picture(picture, 16).rgb - _levels(values, 65535)).max() <= 1.01


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_floating_point_colours_are_turned_to_the_pixel(orientation: int, order: str, values: Floats) -> None:
    pytest.importorskip("cv2")
    whole = np.floor(values * 255)
    picture = read_picture(io.BytesIO(_tiff(whole, {ORIENTATION: ("H", [orientation])}, order)))
    assert np.array_equal(picture.rgb, UPRIGHT[orientation](whole)) and not picture.deep


def test_transparency_of_floating_point_colours_is_kept_apart(values: Floats) -> None:
    pytest.importorskip("cv2")
    alpha = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30, 1)
    for further, premultiplied in ((2, values), (1, values * alpha)):
        data = _tiff(np.concatenate([premultiplied, alpha], 2), {FURTHER: ("H", [further])})
        picture = read_picture(io.BytesIO(data))
        shown = alpha[..., 0] > 0
        assert picture.alpha is not None and np.abs(picture.alpha - alpha[..., 0] * 255.0).max() <= 0.51
        assert np.abs(picture.rgb - _levels(values, 255))[shown].max() <= 0.51 and picture.notes == ()
    picture = read_picture(io.BytesIO(_tiff(np.concatenate([values, alpha], 2), {FURTHER: ("H", [0])})))
    assert picture.alpha is None and np.abs(picture.rgb - _levels(values, 255)).max() <= 0.51


def test_floating_point_colours_of_an_unknown_range_are_told(values: Floats) -> None:
    pytest.importorskip("cv2")
    (note,) = read_picture(io.BytesIO(_tiff(values * 4))).notes
    assert note.startswith(f"its floating-point values reach {(values * 4).max():g} and are taken as levels of 255")
    values[3, 5, 1] = 1.25
    picture = read_picture(io.BytesIO(_tiff(values)))
    assert picture.notes == ("its values reach 1.25; those above 1 are shown as white",) and picture.rgb[3, 5, 1] == 255


def test_equal_channels_of_floating_point_colours_are_grey(values: Floats) -> None:
    pytest.importorskip("cv2")
    picture = read_picture(io.BytesIO(_tiff(np.repeat(values[..., :1], 3, 2))))
    assert picture.grey and np.abs(picture.rgb - _levels(values[..., :1], 255)).max() <= 0.51


def test_floating_point_colours_with_a_profile_become_srgb(values: Floats) -> None:
    pytest.importorskip("cv2")
    swapped = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red, blue = swapped.index(b"rXYZ"), swapped.index(b"bXYZ")
    swapped = swapped[:red] + b"bXYZ" + swapped[red + 4 : blue] + b"rXYZ" + swapped[blue + 4 :]
    levels = Image.fromarray(np.floor(values * 255 + 0.5).astype(np.uint8))
    expected = np.asarray(
        ImageCms.profileToProfile(levels, ImageCms.ImageCmsProfile(io.BytesIO(swapped)), ImageCms.createProfile("sRGB"))
    )
    picture = read_picture(io.BytesIO(_tiff(values, {PROFILE: ("B", list(swapped))})))
    assert np.array_equal(picture.rgb, expected) and not np.array_equal(picture.rgb, np.asarray(levels))
    with pytest.raises(ImageError, match="only 8 of its bits"):
        as_picture(picture, 16)


def test_floating_point_colours_that_cannot_be_read_are_refused_in_a_sentence(
    values: Floats, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2")
    data, short = _tiff(values), _tiff(values, {279: ("I", [100]), 273: ("I", [1 << 20])})
    for bad, sentence in (
        (_tiff(-values), "outside 0 to 65535"),
        (_tiff(values * np.float32("nan")), "not finite"),
        (short, "floating-point colours are damaged"),
        (_tiff(values.repeat(2, 2)[..., :5]), "5 samples a pixel, floating-point numbers of 32 bits"),
        (_tiff(values, planes=True), "3 samples a pixel, floating-point numbers of 32 bits"),
        (_tiff(values.astype(np.float16)), "floating-point numbers of 16 bits"),
    ):
        with pytest.raises((ImageError, UnknownTypeError), match=sentence):
            read_picture(io.BytesIO(bad))
    with pytest.raises(LimitError, match="30x20 pixels is more than the limit of 599"):
        read_picture(io.BytesIO(data), max_pixels=599)
    with pytest.raises(UnknownTypeError, match="cannot be read"):
        read_picture(io.BytesIO(data), formats=("PNG",))
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(wide, "_opencv", lambda: None)
    with pytest.raises(ImageError, match=r"eocodec\[deep\]"):
        read_picture(io.BytesIO(data))


def test_of_several_pages_of_floating_point_colours_the_first_is_read(values: Floats) -> None:
    pytest.importorskip("cv2")
    data = _tiff(values, pages=3)
    picture = read_picture(io.BytesIO(data))
    assert picture.frames == 3 and picture.notes == ("only frame 0 of its 3 is read",)
    for frame, sentence in ((1, "only frame 0 can be read"), (3, "there is no frame 3; the file has 3")):
        with pytest.raises(ImageError, match=sentence):
            read_picture(io.BytesIO(data), frame=frame)


def test_a_file_of_floating_point_colours_is_compressed(values: Floats, tmp_path: Path, call: Runner) -> None:
    pytest.importorskip("cv2")
    source, made = tmp_path / "scene.tif", tmp_path / "scene.eoc"
    source.write_bytes(_tiff(values))
    assert call("compress", "--depth", "16", "--psnr", "60", str(source), "-o", str(made)).returncode == 0
    got = eocodec.decompress(made.read_bytes())
    assert got.dtype == np.uint16 and np.abs(got - _levels(values, 65535)).mean() < 100
    refused = call("compress", "--lossless", str(source), "-o", str(tmp_path / "exact.eoc"))
    assert refused.returncode == 1 and b"more bits a sample" in refused.stderr

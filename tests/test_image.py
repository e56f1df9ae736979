"""Pictures in: every mode and size users have, and clear words for what is not a picture."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from eocodec import image
from eocodec.errors import ImageError, LimitError
from eocodec.format import MAX_PIXELS
from eocodec.headers import read_header
from eocodec.image import as_picture, atomic_write, read_picture, to_pillow
from eocodec.levels import few_levels, scaled, white_level
from eocodec.remarks import type_remarks
from eocodec.writing import encode_picture, keeps_alpha


def _saved(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    out = io.BytesIO()
    image.save(out, kind, **options)
    out.seek(0)
    return out


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "PPM"])
def test_common_file_types_are_read(kind: str, chelsea: np.ndarray) -> None:
    got = read_picture(_saved(Image.fromarray(chelsea), kind))
    assert got.rgb.shape == chelsea.shape and got.rgb.dtype == np.uint8
    assert np.abs(got.rgb.astype(int) - chelsea).mean() < 5


def test_orientation_is_applied() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to view
    got = read_picture(_saved(Image.fromarray(pixels), "PNG", exif=exif))
    assert got.rgb.shape == (6, 4, 3) and got.rgb[0, 3].tolist() == [255] * 3


def test_sixteen_bits_are_rounded_not_cut() -> None:
    values = np.array([[0, 128, 129, 257, 65535, 65406]], np.uint16)
    got = read_picture(_saved(Image.fromarray(values), "PNG"))
    assert got.grey and got.rgb[0, :, 0].tolist() == [0, 0, 1, 1, 255, 254]
    assert as_picture(values).rgb[0, :, 0].tolist() == [0, 0, 1, 1, 255, 254]


def test_palette_with_transparency_becomes_rgba(chelsea: np.ndarray) -> None:
    palette = Image.fromarray(chelsea[:32, :32]).convert("P")
    got = read_picture(_saved(palette, "PNG", transparency=3))
    assert got.alpha is not None and set(np.unique(got.alpha)) <= {0, 255}


def test_grey_bilevel_cmyk_and_alpha(chelsea: np.ndarray) -> None:
    image = Image.fromarray(chelsea[:40, :50])
    assert read_picture(_saved(image.convert("L"), "PNG")).grey
    assert read_picture(_saved(image.convert("1"), "PNG")).grey
    grey_alpha = read_picture(_saved(image.convert("LA"), "PNG"))
    assert grey_alpha.grey and grey_alpha.alpha is not None
    cmyk = read_picture(_saved(image.convert("CMYK"), "JPEG", quality=98))
    assert np.abs(cmyk.rgb.astype(int) - chelsea[:40, :50]).mean() < 6
    rgba = image.convert("RGBA")
    rgba.putalpha(7)
    assert (read_picture(_saved(rgba, "PNG")).alpha == 7).all()


def _swapped_primaries(profile: bytes) -> bytes:
    """The profile with the colours of red and green in each other's place."""
    count = int.from_bytes(profile[128:132], "big")
    tags = {profile[at : at + 4]: at for at in range(132, 132 + 12 * count, 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    data = bytearray(profile)
    data[red + 4 : red + 12], data[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(data)


def test_profiles_are_converted_to_srgb() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.full((8, 8, 3), (200, 30, 90), np.uint8)
    kept = read_picture(_saved(Image.fromarray(pixels), "PNG", icc_profile=srgb))
    assert (kept.rgb == pixels).all()
    converted = read_picture(_saved(Image.fromarray(pixels), "PNG", icc_profile=_swapped_primaries(srgb)))
    assert np.abs(converted.rgb.astype(int) - (30, 200, 90)).max() <= 1
    broken = read_picture(_saved(Image.fromarray(pixels), "PNG", icc_profile=b"not a profile at all"))
    assert (broken.rgb == pixels).all()


def test_what_is_not_a_picture_is_refused_in_one_sentence(tmp_path: Path) -> None:
    text = tmp_path / "a.png"
    text.write_text("hello")
    cut = tmp_path / "cut.png"
    cut.write_bytes(_saved(Image.fromarray(np.zeros((64, 64, 3), np.uint8)), "PNG").getvalue()[:60])
    for path in (text, cut, tmp_path / "missing.png", tmp_path):
        with pytest.raises(ImageError) as caught:
            read_picture(path)
        assert path.name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.full((4, 4, 3), 1.5),
        np.full((4, 4, 3), np.nan),
    ],
)
def test_bad_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ImageError):
        as_picture(bad)


def test_pillow_images_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    closed = Image.new("RGB", (4, 4))
    closed.close()
    path = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    for unreadable in (closed, Image.open(path)):
        with pytest.raises(ImageError, match="cannot be read"):
            as_picture(unreadable)


def test_arrays_become_eight_bit_colour_with_alpha_apart() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for array in (levels, levels / 255.0, levels.astype(np.uint16) * 257, levels[..., None]):
        got = as_picture(array)
        assert got.grey and got.alpha is None and not got.deep
        assert np.array_equal(got.rgb, np.repeat(levels[..., None], 3, 2))
    assert as_picture(levels / 256.0).deep and as_picture(levels > 9).rgb.max() == 255
    with_alpha = as_picture(np.dstack([levels, levels.T]))
    assert with_alpha.grey and np.array_equal(with_alpha.alpha, levels.T) and with_alpha.rgb.shape == (16, 16, 3)
    colour = np.dstack([levels, levels.T, levels, 255 - levels])
    assert np.array_equal(as_picture(colour).rgb, colour[..., :3]) and not as_picture(colour).grey
    assert np.array_equal(as_picture(colour).alpha, colour[..., 3])


def test_limits_of_size_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "MAX_PIXELS", 100)
    monkeypatch.setattr(image, "MAX_SIDE", 60)
    for height, width in ((10, 10), (1, 60), (60, 1)):
        assert as_picture(np.zeros((height, width, 3), np.uint8)).rgb.shape == (height, width, 3)
        assert as_picture(Image.new("RGB", (width, height))).rgb.shape == (height, width, 3)
    for height, width in ((10, 11), (1, 61), (61, 1)):
        for picture in (np.zeros((height, width, 3), np.uint8), Image.new("RGB", (width, height))):
            with pytest.raises(LimitError, match=f"{width}x{height} pixels is more than the format allows"):
                as_picture(picture)


@pytest.mark.parametrize("value", [-1.0, 65536.0, 1e9])
def test_values_out_of_range_are_refused_by_the_name_of_their_file(value: float, tmp_path: Path) -> None:
    values = np.full((4, 5), value, np.float32)
    values[0, 0] = 3
    Image.fromarray(values).save(tmp_path / "wild.tiff")
    with pytest.raises(ImageError, match=r"wild\.tiff: .*(negative|outside|from 0)"):
        read_picture(tmp_path / "wild.tiff")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "x.eoc"
    target.write_bytes(b"old")
    with pytest.raises(ImageError, match="cannot be written"):
        atomic_write(tmp_path / "missing" / "x.eoc", b"new")
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["x.eoc"]


def test_pictures_are_written_losslessly_as_png_and_webp(chelsea: np.ndarray) -> None:
    alpha = np.arange(300 * 451, dtype=np.uint32).reshape(300, 451).astype(np.uint8)
    for suffix in (".png", ".webp", ".tiff"):
        data = encode_picture(to_pillow(chelsea, alpha), suffix)
        got = read_picture(io.BytesIO(data))
        assert (got.rgb == chelsea).all() and (got.alpha == alpha).all()
    with pytest.raises(ImageError, match=r"use \.png"):
        encode_picture(to_pillow(chelsea), ".xyz")


def test_the_limit_of_pixels_outlasts_the_first_of_two_readers_and_is_restored_after_the_last() -> None:
    before = Image.MAX_IMAGE_PIXELS
    first, second = image.pillow_settings(False), image.pillow_settings(False)
    with second:
        with first:
            assert before != MAX_PIXELS == Image.MAX_IMAGE_PIXELS
        assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS
    assert before == Image.MAX_IMAGE_PIXELS
    first, second = image.pillow_settings(False), image.pillow_settings(False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # not the order of a stack: readers are threads
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS
    second.__exit__(None, None, None)
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_look_at_a_file_has_the_limit_of_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "a.jpg"
    Image.new("L", (40, 30)).save(path, quality=50)
    seen = read_header(path)
    assert seen is not None and (seen.width, seen.height, seen.tables[0][0]) == (40, 30, 16)
    assert read_header(io.BytesIO(b"no picture")) is None


def test_photographs_are_deflated_the_quick_way_and_drawn_pictures_the_small_one(chelsea: np.ndarray) -> None:
    """A pattern without runs, which repeats, is what the quick way would make several times larger."""

    def usual(rgb: np.ndarray) -> int:
        out = io.BytesIO()
        Image.fromarray(rgb).save(out, "PNG")
        return len(out.getvalue())

    tile = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    drawn = np.full((240, 320, 3), 255, np.uint8)
    drawn[40:200:8, 30:290] = 0
    cases = {"photograph": chelsea, "pattern": np.tile(tile, (30, 20, 1)), "drawn": drawn, "low": chelsea[:5]}
    sizes = {name: (len(encode_picture(to_pillow(rgb), ".png")), usual(rgb)) for name, rgb in cases.items()}
    assert sizes["photograph"][0] != sizes["photograph"][1]
    assert all(made <= 1.04 * before for made, before in sizes.values()), sizes
    assert sizes["pattern"][0] == sizes["pattern"][1] and sizes["drawn"][0] == sizes["drawn"][1]
    for rgb in cases.values():
        assert np.array_equal(read_picture(io.BytesIO(encode_picture(to_pillow(rgb), ".png"))).rgb, rgb)


@pytest.mark.parametrize(("high", "said"), [(0, 0), (1, 1), (4095, 1), (4096, 0), (65535, 0)])
def test_levels_that_are_lost_are_told_up_to_twelve_bits(high: int, said: int) -> None:
    assert len(few_levels(np.array([[0, high]], np.uint16))) == said


def test_white_of_twelve_bits_is_black_where_zero_is_white() -> None:
    colours, lossy, notes, words = scaled(np.array([[0, 4095]], np.uint16), twelve=True, inverted=True)
    assert colours.tolist() == [[255, 0]] and words.tolist() == [[4095, 0]] and not lossy and notes == ()
    assert scaled(np.array([[0, 65535]], np.uint16), inverted=True)[3].tolist() == [[65535, 0]]


def test_a_few_fractions_do_not_make_levels_a_range_up_to_one() -> None:
    whole = np.repeat([0.0, 1.0, 0.5, 200.0], [500, 400, 95, 5])
    assert white_level(whole, 200.0) == (255, ())
    mostly = np.repeat([0.25, 1.0, 0.5, 200.0], [500, 400, 95, 5])
    top, (note,) = white_level(mostly, 200.0)
    assert top == 1 and "200" in note


@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("suffix", [".dib", ".gif", ".pcx", ".mpo", ".bmp", ".jpg", ".ppm", ".png", ".tga", ".webp"])
def test_types_that_lose_transparency_are_known(suffix: str, grey: bool) -> None:
    rgb = np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4, 3, 2)
    alpha = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    with Image.open(io.BytesIO(encode_picture(to_pillow(rgb, alpha, grey), suffix))) as image:
        back = np.asarray(image.convert("RGBA"))[..., 3]
    assert keeps_alpha(suffix) == np.array_equal(back, alpha)


@pytest.mark.parametrize("suffix", [".qoi", ".sgi", ".rgb"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_types_that_know_no_grey_hold_grey_pictures_as_coloured_ones(mode: str, suffix: str) -> None:
    image = Image.linear_gradient("L").resize((32, 32)).convert(mode)
    read = Image.open(io.BytesIO(encode_picture(image, suffix)))
    assert (np.asarray(read.convert("RGBA")) == np.asarray(image.convert("RGBA"))).all()


def test_only_gif_files_of_more_than_256_colours_are_said_to_lose_some() -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    few, many = ramp.copy(), np.concatenate([ramp, ramp + np.array([1, 0, 0], np.uint8)])
    for suffix, colours, said in ((".gif", few, 0), (".gif", many, 1), (".png", many, 0)):
        assert len(type_remarks(suffix, alpha=False, image=to_pillow(colours))) == said

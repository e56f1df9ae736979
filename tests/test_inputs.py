"""Pictures as they come: levels, frames, hidden colours and small damage, none of it lost without a word."""

import io
import json
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES, Runner
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

import eocodec
from eocodec import codec
from eocodec.damage import mended
from eocodec.errors import CutOffError, EocodecError, EocodecWarning, ImageError, UnknownTypeError
from eocodec.image import as_picture, read_picture
from eocodec.matte import spread


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.open(SAMPLES / "coffee.png").convert("RGB").resize((150, 100))


def _file(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2))))


@pytest.mark.parametrize(("top", "bits"), [(1700, 11), (4095, 12), (900, 10), (200, 8)])
def test_16_bit_files_that_use_few_bits_keep_their_levels(photo: Image.Image, top: int, bits: int) -> None:
    grey = np.asarray(photo.convert("L"), np.float64) / 255
    for kind in ("PNG", "TIFF"):
        picture = read_picture(io.BytesIO(_file(Image.fromarray((grey * top).astype(np.uint16)), kind)))
        assert len(np.unique(picture.rgb)) > 64 and picture.deep is (bits > 8)
        assert f"{bits} of 16 bits" in picture.notes[0]
        assert np.abs(picture.rgb[..., 0] - grey * top * 255 / (2**bits - 1)).max() <= 1.5


def test_16_bit_files_that_use_their_range_are_as_ever(photo: Image.Image) -> None:
    values = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    picture = read_picture(io.BytesIO(_file(Image.fromarray(values), "PNG")))
    assert picture.notes == () and (picture.rgb[..., 0] == values // 257).all()


def test_one_value_above_white_does_not_darken_a_floating_point_picture(photo: Image.Image) -> None:
    values = np.asarray(photo.convert("L"), np.float32) / 255.01
    values[3, 5] = 1.004
    picture = read_picture(io.BytesIO(_file(Image.fromarray(values), "TIFF")))
    assert np.abs(picture.rgb[..., 0] - np.clip(values, 0, 1) * 255).max() <= 0.51 and "1.004" in picture.notes[0]
    whole = np.asarray(photo.convert("L"), np.float32)  # 8-bit values as floating-point numbers
    picture = read_picture(io.BytesIO(_file(Image.fromarray(whole), "TIFF")))
    assert (picture.rgb[..., 0] == whole).all() and picture.notes == ()


@pytest.mark.parametrize("high", [1.5, 4, 15])
def test_floating_point_pictures_of_an_unknown_range_are_told(photo: Image.Image, high: float) -> None:
    values = np.asarray(photo.convert("L"), np.float32) / 255 * high
    picture = read_picture(io.BytesIO(_file(Image.fromarray(values), "TIFF")))
    assert len(picture.notes) == 1 and f"reach {values.max():g} and are taken as levels of 255" in picture.notes[0]
    bright = read_picture(io.BytesIO(_file(Image.fromarray(values * (200 / high) + np.float32(0.25)), "TIFF")))
    assert bright.notes == () and bright.rgb.max() > 100


@pytest.mark.parametrize("channels", [3, 4])
def test_tiff_files_that_cannot_be_read_are_told_by_their_samples(channels: int) -> None:
    cv2 = pytest.importorskip("cv2")
    data = cv2.imencode(".tif", np.zeros((20, 30, channels), np.int32))[1].tobytes()
    with pytest.raises(UnknownTypeError, match=rf"\({channels} samples a pixel, signed integers of 32 bits\)"):
        read_picture(io.BytesIO(data))
    with pytest.raises(UnknownTypeError, match="not a picture in a format that can be read"):
        read_picture(io.BytesIO(data[:9]))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_files_of_16_bits_that_hold_8_are_pictures_of_8(photo: Image.Image, kind: str) -> None:
    cv2 = pytest.importorskip("cv2")
    levels = np.asarray(photo)
    for more in (0, 1):
        words = levels.astype(np.uint16) * 257
        words[3, 4, 1] ^= more
        data = cv2.imencode(f".{kind.lower()}", words[..., ::-1])[1].tobytes()
        picture = read_picture(io.BytesIO(data))
        assert (picture.rgb == levels).all() and picture.keeps == (16 if more else 8) and picture.deep is bool(more)
        assert (as_picture(picture, depth=None).rgb == (words if more else levels)).all()


def test_arrays_are_taken_in_either_byte_order(photo: Image.Image) -> None:
    words = np.asarray(photo).astype(np.uint16) * 200
    for kind in ("<", ">"):
        assert (as_picture(words.astype(f"{kind}u2"), depth=None).rgb == words).all()
        assert (as_picture((words / 65535).astype(f"{kind}f4"), depth=16).rgb == words).all()


@pytest.mark.filterwarnings("error")
def test_white_in_half_floats_is_white() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float16).reshape(16, 16)
    for depth, white in ((8, 255), (16, 65535)):
        picture = as_picture(ramp, depth=depth)
        assert np.abs(picture.rgb[..., 0] - ramp.astype(float) * white).max() <= 0.51


def test_arrays_that_lose_nearly_all_levels_are_warned_of(photo: Image.Image) -> None:
    values = np.asarray(photo.convert("L")).astype(np.uint16) * 6
    with pytest.warns(EocodecWarning, match="levels"):
        as_picture(values)


FRAMES = ["tif", "gif", "webp", "png"]


@pytest.mark.parametrize("suffix", FRAMES)
def test_other_frames_are_told_and_can_be_asked_for(call: Runner, tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (40, 30), c) for c in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    done = call("compress", "--lossless", "--json", f"a.{suffix}")
    report = json.loads(done.stdout)
    assert report["frames"] == 3 and "frame 0 of its 3" in report["warnings"][0]
    assert done.stderr.decode().count("\n") == 1 and "frame 0 of its 3" in done.stderr.decode()
    third = read_picture(tmp_path / f"a.{suffix}", frame=2)
    assert np.abs(third.rgb.reshape(-1, 3).mean(0) - (0, 0, 255)).max() < 3
    refused = call("compress", "--frame", 3, f"a.{suffix}", "-f")
    assert refused.returncode == 1 and b"there is no frame 3" in refused.stderr


def test_an_eoc_file_has_one_frame(call: Runner, tmp_path: Path) -> None:
    (tmp_path / "a.eoc").write_bytes(eocodec.compress(np.zeros((8, 9, 3), np.uint8), 20))
    for command, result in (("compress", "b.eoc"), ("denoise", "b.png")):
        refused = call(command, "--frame", 3, "a.eoc", "-o", result)
        assert refused.returncode == 1 and refused.stderr.count(b"\n") == 1
        assert b"a.eoc: there is no frame 3; an .eoc file has one" in refused.stderr


def test_what_the_system_says_of_a_file_is_not_taken_for_damage(call: Runner, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("b.png")
    for name, said in (
        ("a.png/", b"Not a directory"),
        ("a.png/c.png", b"Not a directory"),
        ("b.png", b"symbolic link"),
    ):
        refused = call("compress", name)
        assert refused.returncode == 1 and refused.stderr.count(b"\n") == 1
        assert b"cannot be read (" in refused.stderr and said in refused.stderr and b"damaged" not in refused.stderr


def test_one_frame_is_nothing_to_speak_of(call: Runner) -> None:
    done = call("compress", "--json", "--no-measure", SAMPLES / "chelsea.png", "-o", "a.eoc")
    assert done.stderr == b"" and json.loads(done.stdout)["warnings"] == []


def _cut_out(picture: np.ndarray, visible: float, hidden: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """A picture of which only a disc can be seen, and its transparency, which is soft."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    radius = np.hypot(y - picture.shape[0] / 2, x - picture.shape[1] / 2)
    alpha = np.clip((visible - radius) * 40, 0, 255).astype(np.uint8)
    return np.dstack([np.where(alpha[..., None] > 0, picture, hidden), alpha]), alpha


def _seen(a: np.ndarray, b: np.ndarray, alpha: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.square(a[alpha > 0][:, :3].astype(float) - b[alpha > 0][:, :3]).mean())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"tune": "eye"}, {"progressive": True}])
def test_a_psnr_is_that_of_what_can_be_seen(options: dict[str, str], coffee: np.ndarray) -> None:
    rgba, alpha = _cut_out(coffee[100:228, 200:360], 44)
    for target in (36.0, 40.0):
        done = codec.compress_picture(rgba, psnr=target, measure=True, verify=True, **options)  # type: ignore[arg-type]
        seen = _seen(rgba, eocodec.decompress(done.data), alpha)
        assert done.psnr == pytest.approx(seen, abs=1e-6) and target <= seen <= target + 0.1
    done = codec.compress_picture(rgba, 60, measure=True, **options)  # type: ignore[arg-type]
    assert done.psnr == pytest.approx(_seen(rgba, eocodec.decompress(done.data), alpha), abs=1e-6)


@pytest.mark.slow
def test_what_is_hidden_does_not_matter_to_a_psnr(coffee: np.ndarray) -> None:
    picture = coffee[100:164, 200:280]
    one, other = (_cut_out(picture, 22, hidden)[0] for hidden in (7, 200))
    assert eocodec.compress(one, psnr=36) == eocodec.compress(other, psnr=36)
    unseen = np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)])
    done = codec.compress_picture(unseen, psnr=60, measure=True)
    assert done.psnr == float("inf") and len(done.data) < 200


@pytest.mark.slow
def test_files_that_grow_and_transparency_that_takes_the_bytes_are_told(call: Runner, tmp_path: Path) -> None:
    Image.open(SAMPLES / "coffee.png").convert("RGB").crop((90, 90, 330, 270)).save(tmp_path / "a.jpg", quality=20)
    done = call("compress", "a.jpg", "--json", "--no-measure", "--rate", 300)
    report = json.loads(done.stdout)
    assert report["bytes"] > report["bytes_in"] == (tmp_path / "a.jpg").stat().st_size
    assert b"larger than the input" in done.stderr
    noise = np.random.default_rng(0).integers(1, 255, (90, 120), np.uint8)
    picture = Image.open(SAMPLES / "coffee.png").convert("RGB").resize((120, 90))
    picture.putalpha(Image.fromarray(noise))
    picture.save(tmp_path / "b.png")
    done = call("compress", "b.png", "--json", "--no-measure")
    report = json.loads(done.stdout)
    assert report["alpha_bytes"] > 90 * 120 * 0.9 and b"transparency takes" in done.stderr


def test_equal_channels_are_grey_in_and_out() -> None:
    grey = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("L"))[:80, :120]
    rgb = np.repeat(grey[..., None], 3, 2)
    for rate in (12, 96):
        data = eocodec.compress(rgb, rate)
        assert data == eocodec.compress(grey, rate)
        decoded = eocodec.decompress(data)
        assert (decoded == decoded[..., :1]).all()
    rgb = rgb.copy()
    rgb[40, 60, 2] ^= 1
    assert as_picture(rgb).grey is False and read_picture(io.BytesIO(_file(Image.fromarray(rgb), "PNG"))).grey is False


@pytest.mark.slow
def test_hidden_colours_cost_nothing_and_show_nowhere() -> None:
    c = np.asarray(Image.open(SAMPLES / "coffee.png").convert("RGB"))[:60, :90]
    y, x = np.mgrid[:60, :90]
    alpha = np.where(np.hypot(y - 30, x - 45) < 23, 255, 0).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, c.shape, np.uint8)
    files = [
        eocodec.compress(np.dstack([np.where(alpha[..., None] > 0, c, hidden), alpha]))
        for hidden in (np.zeros_like(c), noise)
    ]
    assert files[0] == files[1]
    logo = np.dstack([np.where(alpha[..., None] > 0, 255, 0).repeat(3, 2), alpha]).astype(np.uint8)
    decoded = eocodec.decompress(eocodec.compress(logo, 24))
    assert decoded[alpha > 0][:, :3].min() >= 250
    exact = eocodec.decompress(eocodec.compress(np.dstack([noise, alpha]), lossless=True))
    assert (exact[..., :3] == noise).all()


def test_hidden_pixels_continue_the_visible_ones() -> None:
    rgb = np.zeros((33, 47, 3), np.uint8)
    alpha = np.zeros((33, 47), np.uint8)
    rgb[:, :20], alpha[:, :20] = (200, 100, 50), 255
    assert (spread(rgb, alpha) == (200, 100, 50)).all()
    assert (spread(rgb, np.zeros_like(alpha)) == 0).all()


def _chunk(kind: bytes, body: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def test_a_wrong_checksum_beside_the_picture_does_not_lose_it(photo: Image.Image) -> None:
    png = _file(photo, "PNG")
    for kind in (b"tEXt", b"tIME", b"prVt"):
        picture = read_picture(io.BytesIO(png[:33] + _chunk(kind, b"hello\0you", 1) + png[33:]))
        assert (picture.rgb == np.asarray(photo)).all() and "wrong checksum" in picture.notes[0]
    with pytest.raises(ImageError):  # not where the picture itself is
        read_picture(io.BytesIO(png[:33] + _chunk(b"PLTX", b"", 1) + png[33:]))


def test_png_files_with_large_metadata_are_read(photo: Image.Image) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * (30 << 20), zip=True)
    assert (read_picture(io.BytesIO(_file(photo, "PNG", pnginfo=text))).rgb == np.asarray(photo)).all()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(2 << 20)
    profile = len(profile).to_bytes(4, "big") + profile[4:]
    assert (read_picture(io.BytesIO(_file(photo, "PNG", icc_profile=profile))).rgb == np.asarray(photo)).all()


def test_a_jpeg_without_its_last_bytes_is_read_and_told(photo: Image.Image) -> None:
    jpeg = _file(photo, "JPEG", quality=90)
    whole = read_picture(io.BytesIO(jpeg)).rgb
    for missing in (1, 2, 10):
        picture = read_picture(io.BytesIO(jpeg[:-missing]))
        assert len(picture.notes) == 1 and (picture.rgb[:-32] == whole[:-32]).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_files_that_are_cut_off_are_read_only_when_asked_for(
    call: Runner, tmp_path: Path, photo: Image.Image, kind: str
) -> None:
    data = _file(photo, kind)
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(CutOffError):
        read_picture(tmp_path / "cut")
    picture = read_picture(tmp_path / "cut", lenient=True)
    assert _psnr(picture.rgb[:30], read_picture(io.BytesIO(data)).rgb[:30]) > 50
    refused = call("compress", "cut")
    assert refused.returncode == 1 and b"--lenient" in refused.stderr
    assert call("compress", "--lenient", "cut").returncode == 0 and (tmp_path / "cut.eoc").exists()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "BMP"])
def test_lenient_reading_says_that_something_is_missing(photo: Image.Image, kind: str) -> None:
    data = _file(photo, kind)
    for part in (len(data) // 2, len(data) - 300):
        assert any("it is cut off" in n for n in read_picture(io.BytesIO(data[:part]), lenient=True).notes)
    assert read_picture(io.BytesIO(data), lenient=True).notes == read_picture(io.BytesIO(data)).notes == ()


def test_lenient_reading_says_what_is_said_without_it(photo: Image.Image) -> None:
    png = _file(photo, "PNG")
    for data in (_file(photo, "JPEG")[:-300], png[:33] + _chunk(b"gAMA", b"1234", 1) + png[33:]):
        strict, lenient = (read_picture(io.BytesIO(data), lenient=option) for option in (False, True))
        assert len(strict.notes) == 1 and strict.notes == lenient.notes
    damaged = bytearray(png)
    damaged[len(png) // 2] ^= 0xFF
    assert any("it is damaged" in n for n in read_picture(io.BytesIO(damaged), lenient=True).notes)


def test_lenient_reading_decodes_intact_pictures_once(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, open_image = [], Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: calls.append(a) or open_image(*a, **k))
    read_picture(io.BytesIO(_file(photo, "PNG")), lenient=True)
    assert len(calls) == 1


def test_the_commands_say_what_lenient_reading_could_not_read(call: Runner, tmp_path: Path, photo: Image.Image) -> None:
    data = _file(photo, "PNG")
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    for command in (["compress", "--lossless"], ["denoise", "--sigma", "5", "-o", "out.png"]):
        done = call(*command, "--lenient", "cut.png", "--json")
        assert done.returncode == 0 and b"it is cut off" in done.stdout, command


def test_lenient_reading_does_not_reach_other_threads(photo: Image.Image) -> None:
    cut = _file(photo, "PNG")[:-9000]
    seen = []

    def read(lenient: bool) -> None:
        for _ in range(20):
            try:
                read_picture(io.BytesIO(cut), lenient=lenient)
                seen.append((lenient, True))
            except ImageError:
                seen.append((lenient, False))

    threads = [threading.Thread(target=read, args=(k % 2 == 0,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert set(seen) == {(True, True), (False, False)} and not ImageFile.LOAD_TRUNCATED_IMAGES


def test_only_files_that_can_be_mended_are() -> None:
    assert mended(b"GIF89a", True) is None and mended(b"\x89PNG\r\n\x1a\n", True) is None
    assert mended(b"\xff\xd8\xff\xd9", True) is None


def test_what_is_no_picture_is_named_by_its_type() -> None:
    with pytest.raises(ImageError, match="a picture of type NoneType is not supported"):
        eocodec.compress(None)  # type: ignore[arg-type]


WRONG = ["a.png", Path("a.png"), b"bytes", bytearray(3), memoryview(b"abc"), None, 3, [[1, 2], [3]], {"a": 1}, object()]


@pytest.mark.parametrize("value", WRONG, ids=lambda v: type(v).__name__)
def test_what_is_no_picture_is_a_sentence(value: object) -> None:
    for function in (eocodec.compress, eocodec.denoise):
        with pytest.raises(eocodec.EocodecError):
            function(value)


@pytest.mark.parametrize("value", ["a.eoc", Path("a.eoc"), None, 3, [1], np.zeros(3)], ids=lambda v: type(v).__name__)
def test_what_is_no_file_is_a_sentence(value: object) -> None:
    for function in (eocodec.decompress, lambda v: eocodec.truncate(v, max_bytes=100)):
        with pytest.raises(eocodec.EocodecError, match="bytes"):
            function(value)


def test_all_kinds_of_bytes_are_files() -> None:
    data = eocodec.compress(np.full((20, 30, 3), 90, np.uint8), 40)
    for kind in (bytearray, memoryview):
        assert (eocodec.decompress(kind(data)) == eocodec.decompress(data)).all()
        assert eocodec.truncate(kind(data), max_bytes=1000) == data


@pytest.mark.parametrize("options", [{"rate": "much"}, {"bpp": "1"}, {"psnr": [3]}, {"bpp": True}, {"denoise": [2]}])
def test_targets_that_are_no_numbers_are_a_sentence(options: dict[str, object]) -> None:
    with pytest.raises(eocodec.EocodecError, match="number"):
        eocodec.compress(np.zeros((8, 8, 3), np.uint8), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"texture": "a"}, {"texture": None}, {"max_pixels": "a"}, {"max_pixels": True}])
def test_options_of_decoding_that_are_no_numbers_are_a_sentence(options: dict[str, object]) -> None:
    data = eocodec.compress(np.zeros((8, 8, 3), np.uint8), 20)
    with pytest.raises(EocodecError, match=rf"must be a number, not {type(*options.values()).__name__}"):
        eocodec.decompress(data, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"sigma": [1]}, {"sigma": None}, {"strength": "a"}, {"shifts": "1"}, {"rate": "x"}]
)
def test_levels_that_are_no_numbers_are_a_sentence(options: dict[str, object]) -> None:
    with pytest.raises(eocodec.EocodecError, match="number"):
        eocodec.denoise(np.zeros((8, 8, 3), np.uint8), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("model", "threads"), [(3, 0), (None, 0), ("photo", "a"), ("photo", -1), ("foto", 0)])
def test_what_is_no_model_is_a_sentence(model: object, threads: object) -> None:
    with pytest.raises(eocodec.EocodecError, match="did you mean photo" if model == "foto" else "model|threads"):
        eocodec.load_model(model, threads)  # type: ignore[arg-type]


def test_only_one_kind_of_chunk_is_left_out_of_a_png(photo: Image.Image) -> None:
    png = _file(photo, "PNG")
    better = mended(png[:33] + _chunk(b"tEXt", b"a\0b") + _chunk(b"gAMA", b"\0\0\xb1\x8f") + png[33:-5], False)
    assert better is not None and better.note is None
    assert better.data == png[:33] + _chunk(b"gAMA", b"\0\0\xb1\x8f") + png[33:-5]

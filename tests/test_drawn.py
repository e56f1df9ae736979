"""Text, charts, pixel art and scans are kept exactly where that takes no more bytes; photographs are coded as ever."""

import io
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paths import SAMPLES, Runner
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import eocodec
from eocodec import codec, format
from eocodec.coding import drawn, webp
from eocodec.coding.base import Coded
from eocodec.coding.drawn import Exact, is_drawn
from eocodec.coding.rate_control import Target
from eocodec.errors import FormatError
from eocodec.image import Picture
from eocodec.model.bundle import Model


def _text(width: int = 200, height: int = 90) -> np.ndarray:
    image = Image.new("RGB", (width, height), "white")
    draw, font, rng = ImageDraw.Draw(image), ImageFont.load_default(13), np.random.default_rng(0)
    for y in range(6, height - 10, 18):
        draw.text((6, y), " ".join("".join(map(chr, rng.integers(97, 123, 6))) for _ in range(6)), "black", font)
    return np.asarray(image)


def _chart() -> np.ndarray:
    image = Image.new("RGB", (200, 140), "white")
    for k in range(14):
        ImageDraw.Draw(image).line((0, k * 9, 200, 140 - k * 7), (k * 15, 90, 250 - k * 15), 2)
    return np.asarray(image)


def _pixel_art() -> np.ndarray:
    cells = np.random.default_rng(1).integers(0, 256, (14, 20, 3), np.uint8)
    return cells.repeat(7, 0).repeat(7, 1)


def _scan() -> np.ndarray:
    return np.asarray(Image.fromarray(_text()).convert("1")) * np.uint8(255)


def _slopes() -> np.ndarray:
    y, x = np.mgrid[0:90, 0:300]
    return np.dstack([x * 255 // 300, y * 255 // 90, (x + y) % 256]).astype(np.uint8)


def _dithered() -> np.ndarray:
    y, x = np.mgrid[0:80, 0:240]
    return np.repeat((x * 200 // 240 + (x + y) % 2 * 2)[..., None], 3, 2).astype(np.uint8)


KINDS = {
    "text": _text,
    "chart": _chart,
    "pixel art": _pixel_art,
    "scan": _scan,
    "slopes": _slopes,
    "dithered": _dithered,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_lossy_file_is_larger_than_the_lossless_one(kind: str, model: Model) -> None:
    picture = KINDS[kind]()
    exact = len(eocodec.compress(picture, lossless=True, model=model))
    for target in ({}, {"bpp": 8 * (exact + 20) / picture.shape[0] / picture.shape[1]}, {"psnr": 40}, {"rate": 300}):
        done = codec.compress_picture(picture, model=model, measure=True, **target)  # type: ignore[arg-type]
        assert len(done.data) <= exact + 20
        if format.parse(done.data).lossless is not None:
            decoded = eocodec.decompress(done.data, model)
            assert (decoded == (picture if picture.ndim == 3 else picture[..., None])).all() and done.psnr == np.inf


@pytest.mark.parametrize("over", (0, 2000, 40_000))
def test_a_photograph_is_kept_exactly_where_the_limit_allows_it(
    over: int, samples: dict[str, np.ndarray], model: Model
) -> None:
    picture = samples["coffee"][:144, :192]
    exact = eocodec.compress(picture, lossless=True, model=model)
    assert eocodec.compress(picture, max_bytes=len(exact) + over, model=model) == exact
    lossy = eocodec.compress(picture, max_bytes=len(exact) - 1, model=model)
    assert len(lossy) < len(exact) and format.parse(lossy).lossless is None


def test_no_lossy_file_of_a_grey_photograph_is_larger_than_the_lossless_one(
    samples: dict[str, np.ndarray], model: Model
) -> None:
    coffee = Image.fromarray(samples["coffee"]).crop((252, 152, 348, 248))
    exact = eocodec.compress(coffee.convert("L"), lossless=True, model=model)
    assert eocodec.compress(coffee.convert("L"), 768, model=model) == exact
    looked_for = Exact(Picture(np.asarray(coffee)), lambda: pytest.fail("colours are far from their exact size here"))
    assert looked_for.within(len(eocodec.compress(coffee, 600, model=model)), photo=True) is None


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 700, 3), (700, 1, 3), (2, 400, 3), (3, 17, 3)])
def test_no_lossy_file_of_a_narrow_picture_is_larger_than_the_lossless_one(
    shape: tuple[int, int, int], model: Model
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    exact = eocodec.compress(noise, lossless=True, model=model)
    assert len(eocodec.compress(noise, 300, model=model)) <= len(exact)
    assert (eocodec.decompress(eocodec.compress(noise, 300, model=model), model) == noise).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_file_is_hardly_larger_than_webp_and_comes_back(kind: str, model: Model) -> None:
    picture = KINDS[kind]()
    colours = Image.fromarray(picture).convert("RGB")
    sizes = []
    for method in (4, 6):
        out = io.BytesIO()
        colours.save(out, "WEBP", lossless=True, quality=100, method=method)
        sizes.append(len(out.getvalue()))
    data = eocodec.compress(picture, lossless=True, model=model)
    assert len(data) <= min(sizes) + 32
    assert (eocodec.decompress(data, model) == (picture if picture.ndim == 3 else picture[..., None])).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "chart", "pixel art"])
def test_targets_that_the_exact_file_meets_are_met_by_it(kind: str, model: Model) -> None:
    picture = KINDS[kind]()
    exact = eocodec.compress(picture, lossless=True, model=model)
    bpp = 8 * (len(exact) + 1) / (picture.shape[0] * picture.shape[1])
    assert eocodec.compress(picture, bpp=bpp, model=model) == exact
    assert eocodec.compress(picture, max_bytes=len(exact), model=model) == exact
    assert eocodec.compress(picture, psnr=60, model=model) == exact


@pytest.mark.slow
def test_a_target_that_the_exact_file_meets_gets_it(model: Model) -> None:
    picture = _text()
    exact = eocodec.compress(picture, lossless=True, model=model)
    assert eocodec.compress(picture, max_bytes=len(exact), model=model) == exact
    smaller = eocodec.compress(picture, max_bytes=len(exact) // 2, model=model)
    assert len(smaller) <= len(exact) // 2


def test_photographs_are_coded_as_ever(samples: dict[str, np.ndarray], model: Model) -> None:
    for picture in samples.values():
        part = picture[:128, :192]
        if not is_drawn(part):
            assert format.parse(eocodec.compress(part, 200, model=model)).lossless is None


def test_pictures_of_even_slopes_are_drawn_and_photographs_are_not(samples: dict[str, np.ndarray]) -> None:
    for size in (1, 3):  # a pixel of the small ones is some
        assert all(is_drawn(make().repeat(size, 0)[:, ::size]) for make in (_slopes, _dithered))
    smooth = np.asarray(Image.fromarray(samples["coffee"]).filter(ImageFilter.GaussianBlur(2)))
    assert not is_drawn(samples["coffee"]) and not is_drawn(samples["astronaut"]) and not is_drawn(smooth)


def test_models_without_exact_files_code_drawings_lossily(model: Model) -> None:
    files = {name: content for name, content in model.files.items() if not name.startswith("lossless/")}
    data = eocodec.compress(_text(), 40, model=Model(files, threads=1))
    assert format.parse(data).lossless is None


@pytest.mark.slow
def test_progressive_files_stay_progressive_and_say_what_a_lossless_one_takes(
    model: Model, samples: dict[str, np.ndarray]
) -> None:
    flat = np.full((64, 64, 3), (200, 30, 90), np.uint8)
    for picture in (_chart(), _pixel_art(), flat):
        done = codec.compress_picture(picture, 300, progressive=True, model=model)
        assert format.parse(done.data).header.embedded
        exact = len(eocodec.compress(picture, lossless=True, model=model))
        assert exact < len(done.data)
        told = f"its lossless file has {exact} bytes, no more than the {len(done.data)} of this progressive one"
        assert done.notes == (told,)
        assert codec.compress_picture(picture, max_bytes=exact - 1, progressive=True, model=model).notes == ()
    assert codec.compress_picture(samples["coffee"][:90, :120], 300, progressive=True, model=model).notes == ()


@pytest.mark.slow
def test_a_progressive_file_as_large_as_the_lossless_one_of_a_photograph_says_so(
    model: Model, samples: dict[str, np.ndarray]
) -> None:
    picture = samples["chelsea"][:64, :96]
    exact = len(eocodec.compress(picture, lossless=True, model=model))
    done = codec.compress_picture(picture, max_bytes=exact + 500, progressive=True, model=model)
    assert len(done.data) > exact and len(done.notes) == 1 and f"has {exact} bytes" in done.notes[0]


@pytest.mark.slow
def test_what_is_left_without_noise_is_what_a_lossless_file_is_said_of(model: Model) -> None:
    opened = codec.open_picture(Picture(_chart()), model, progressive=True)
    done = replace(opened, sigma=3.0).compressed(Target(300, None, None, None))
    assert [note.split(" has ")[0] for note in done.notes] == ["a lossless file of what it is without the noise"]


def test_the_exact_file_is_made_once_and_only_where_it_may_win() -> None:
    made = []
    header = format.Header(bytes(4), 64, 64, 1, format.LOSSLESS_STEP)
    file = format.File(header, None, (format.Segment(1, bytes(2960)),), lossless=bytes(13))
    size = len(format.to_bytes(file))
    assert 2950 < size < 3050

    def make() -> Coded:
        made.append(1)
        return Coded(file, 1)

    photo = Picture(np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB")))
    noise = Picture(np.random.default_rng(0).integers(0, 2, (128, 128, 1), np.uint8).repeat(3, 2) * 255)
    assert Exact(photo, make).within(20000) is None and Exact(noise, make).within(399) is None
    assert Exact(noise, make).within(1000) is None and not made
    exact = Exact(noise, make)
    assert exact.within(size - 1) is None and exact.within(size) is not None and len(made) == 1


def test_the_exact_size_of_a_photograph_that_repeats_itself_is_not_looked_for(
    samples: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    quick_size = drawn.webp.quick_size
    monkeypatch.setattr(drawn.webp, "quick_size", lambda rgb: rows.append(len(rgb)) or quick_size(rgb))
    soft = Image.fromarray(samples["astronaut"]).convert("L").resize((1024, 1024), Image.Resampling.BICUBIC)
    grey = np.dstack([np.asarray(soft)] * 3)
    assert is_drawn(grey)  # few levels, so that many neighbours are equal
    exact = Exact(Picture(grey, grey=True), lambda: pytest.fail("nobody wants this file"))
    assert exact.within(20_000) is None and exact.within(30_000) is None and sum(rows) == 2 * drawn.SAMPLE
    assert exact.within(quick_size(grey) // 2) is None and rows[-1] == 1024


def _bars() -> np.ndarray:
    """A screen with a line of text at its top and its bottom, and nothing in between."""
    line, screen = _text(300, 24)[9:20], np.full((2400, 300, 3), 255, np.uint8)
    screen[: len(line)] = screen[-len(line) :] = line
    return screen


def _in_the_way() -> np.ndarray:
    """A screen with lines of text at one place, which happens to be looked at."""
    screen = np.full((1600, 300, 3), 255, np.uint8)
    screen[215:305] = _text(300, 90)
    return screen


def _stripes() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (1, 170, 3), np.uint8).repeat(2, 1).repeat(4000, 0)


def _forms() -> np.ndarray:
    return np.tile(_text(300, 42)[2:], (50, 1, 1))


@pytest.mark.parametrize("make", [_bars, _in_the_way, _stripes, _forms])
def test_the_size_of_a_drawing_that_is_mostly_empty_or_repeats_its_rows_is_not_overestimated(
    make: Callable[[], np.ndarray],
) -> None:
    picture = make()
    assert is_drawn(picture)
    assert drawn._rough_estimate(picture) <= drawn.ROUGH * drawn._estimate(picture)


@pytest.mark.slow
def test_a_mostly_empty_screen_is_kept_exactly(model: Model) -> None:
    assert format.parse(eocodec.compress(_bars(), model=model)).lossless is not None


def test_the_command_says_that_a_picture_is_kept_exactly(call: Runner, tmp_path: Path) -> None:
    Image.fromarray(_text()).save(tmp_path / "page.png")
    done = call("compress", "page.png", "--json")
    report = json.loads(done.stdout)
    assert report["lossless"] is True and "kept exactly" in report["warnings"][0] and b"kept exactly" in done.stderr
    assert call("decompress", "page.eoc", "-o", "back.png").returncode == 0
    assert (np.asarray(Image.open(tmp_path / "back.png").convert("RGB")) == _text()).all()
    assert io.BytesIO((tmp_path / "page.eoc").read_bytes()).read(3) == b"EOC"


def _flagged(picture: np.ndarray, model: Model) -> bytes:
    data = eocodec.compress(picture, lossless=True, model=model)
    assert data[8] & format.FLAG_WEBP and format.parse(data).header.webp
    return data


def test_a_webp_part_is_named_by_a_flag_and_checked_before_it_is_read(model: Model) -> None:
    data = _flagged(_chart(), model)
    file = format.parse(data)
    unnamed = format.serialise(replace(file, header=replace(file.header, webp=False)))
    payload = file.segments[0].payload
    wider = payload[:2] + bytes([payload[2] ^ 1]) + payload[3:]
    broken = payload[:40] + bytes(len(payload) - 40)
    changed = [format.serialise(replace(file, segments=(format.Segment(37, p),))) for p in (wider, broken, payload[:9])]
    for wrong in (unnamed, *changed):
        with pytest.raises(FormatError, match="is damaged"):
            eocodec.decompress(wrong, model)
    cut = eocodec.truncate(data, max_bytes=len(data) - 1)
    assert cut == data[: len(cut)] and not eocodec.decompress(cut, model).any()


@pytest.mark.slow
def test_transparency_that_repeats_itself_is_a_webp_stream_where_that_is_smaller(model: Model) -> None:
    y, x = np.mgrid[:160, :200]
    disc = ((np.hypot(y - 80, x - 100) < 65) * 255).astype(np.uint8)
    colours = np.full((160, 200, 3), 90, np.uint8)
    for form in ({"rate": 20}, {"rate": 20, "progressive": True}, {"lossless": True}):
        data = eocodec.compress(np.dstack([colours, disc]), model=model, **form)  # type: ignore[arg-type]
        assert (eocodec.decompress(data, model)[..., 3] == disc).all()
        file = format.parse(data)
        assert file.header.webp and file.alpha is not None and file.alpha[0] == format.VP8L_SIGNATURE
    zstd = format.parse(eocodec.compress(np.dstack([colours, np.full_like(disc, 9)]), 20, model=model))
    assert not zstd.header.webp and zstd.alpha is not None and zstd.alpha[:1] == b"\x28"
    with pytest.raises(FormatError, match="flags do not name"):
        data = bytearray(format.serialise(file))
        data[8] &= ~format.FLAG_WEBP
        format.parse(_resealed(bytes(data)))


def _resealed(data: bytes) -> bytes:
    """The file with the checksum of its first element, transparency, made to fit a changed header."""
    at = 9
    for _ in range(2):
        at = format.read_number(data, at)[1]
    head = data[: at + 4]
    length, start = format.read_number(data, len(head) + 1)
    element = data[len(head) : start + length]
    checksum = zlib.crc32(element, zlib.crc32(b"\0", zlib.crc32(head))).to_bytes(4, "little")
    return head + element + checksum + data[start + length + 4 :]


@pytest.mark.slow
@pytest.mark.parametrize("colour", [(255, 255, 255), (128, 128, 128), (0, 0, 0), (200, 30, 30)])
def test_flat_colours_come_back_exactly_at_any_rate(colour: tuple[int, int, int], model: Model) -> None:
    picture = np.full((60, 62, 3), colour, np.uint8)
    for rate in (1, 8, 24, 96):
        data = eocodec.compress(picture, rate, model=model)
        assert len(data) < 64 and (eocodec.decompress(data, model) == picture).all()
    assert len(eocodec.compress(picture, max_bytes=48, model=model)) <= 48


@pytest.mark.slow
def test_smooth_pictures_have_no_coarse_stairs_where_finer_ones_cost_little(model: Model) -> None:
    y, x = np.mgrid[:256, :384] / 256
    sky = np.dstack([90 + 60 * y + 20 * np.sin(x * 2), 140 + 45 * y, 200 + 25 * y - 10 * x]) / 8
    picture = np.floor(sky + np.random.default_rng(0).random(sky.shape)).astype(np.uint8)
    for rate, least in ((1, 40), (4, 42)):
        done = codec.compress_picture(picture, rate, model=model, measure=True, tune="psnr")
        assert done.psnr is not None and done.psnr > least and len(done.data) < 240


def test_the_slowest_search_of_webp_is_left_out_where_noise_takes_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    stream = webp._stream
    monkeypatch.setattr(webp, "_stream", lambda s, quality, method: tried.append(method) or stream(s, quality, method))
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (60, 80), np.uint8)
    assert (webp.unpack(webp.pack(noise), 60, 80)[..., 1] == noise).all() and 6 not in tried
    webp.pack(random.integers(0, 256, (60, 80, 3), np.uint8))
    assert 6 not in tried
    ramp = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)  # smooth, as colour maps are
    assert len(webp.pack(ramp)) <= min(len(stream(ramp, 100, 4)), len(stream(ramp, 100, 5))) and 6 in tried
    tried.clear()
    webp.pack(ramp, thorough=False)
    assert tried == [4]

"""Pages: text and drawings stay exact beside photographs, which follow the rate, in fewer bytes than any other form."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SAMPLES, Runner
from PIL import Image, ImageDraw, ImageFont
from sheets import PLACES, photograph, sheet, small, text

import eocodec
from eocodec import codec, format, regions
from eocodec.coding import drawn, registry
from eocodec.coding.describe import describe
from eocodec.coding.drawn import EitherJob
from eocodec.coding.page import PageJob
from eocodec.coding.segmentation import MOST, photographs
from eocodec.coding.symbols import symbols
from eocodec.errors import EocodecError, FormatError
from eocodec.format import Header
from eocodec.image import as_picture
from eocodec.metrics import decibels, psnr, squared_error
from eocodec.model.bundle import Model
from eocodec.regions import Region


@pytest.fixture(scope="module")
def data(model: Model) -> bytes:
    return eocodec.compress(small(), 96, model=model)


@pytest.fixture(scope="module")
def file(data: bytes) -> format.File:
    return format.parse(data)


def _outside(picture: np.ndarray, places: object) -> np.ndarray:
    mask = np.ones(picture.shape[:2], bool)
    for place in places:  # type: ignore[attr-defined]
        mask[place.place] = False
    return mask


# Where photographs are


@pytest.mark.parametrize("size", [9, 13, 20, 40])
def test_photographs_are_found_to_the_pixel(size: int) -> None:
    places = {
        Region(33, 41, 150, 200): "coffee",
        Region(250, 210, 140, 171): "chelsea",
        Region(260, 20, 60, 60): "coffee",
    }
    assert photographs(sheet(450, 420, places, size)) == sorted(places)


def test_grey_pages_have_photographs_too() -> None:
    places = {Region(33, 41, 150, 200): "coffee", Region(250, 210, 140, 171): "chelsea"}
    grey = sheet(450, 420, places)[..., 1:2].repeat(3, 2)
    assert photographs(grey) == sorted(places)


def test_neighbours_with_a_gap_are_two_photographs() -> None:
    places = {Region(60, 20, 130, 160): "coffee", Region(60, 200, 130, 160): "chelsea"}
    assert photographs(sheet(300, 400, places)) == sorted(places)


def test_a_photograph_may_touch_the_edges_of_the_page() -> None:
    places = {Region(0, 0, 130, 203): "coffee", Region(171, 273, 129, 127): "chelsea"}
    assert photographs(sheet(300, 400, places)) == sorted(places)


def _labelled(name: str, label: tuple[int, int, int, int], opaque: bool = True) -> tuple[np.ndarray, Region]:
    """A page of text with a photograph, and words on that: on a label of x, y, width and height, or without one."""
    place = Region(40, 30, 190, 250)
    page = Image.fromarray(sheet(330, 320, {place: name}))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    x, y, width, height = label
    if opaque:
        draw.rectangle((x, y, x + width - 1, y + height - 1), "#f4f8ff")
    for k, line in enumerate(("the quick brown", "fox jumps over", "the lazy dog")):
        draw.text((x + 6, y + 6 + 16 * k), line, "black" if opaque else "white", font)
    return np.asarray(page), place


@pytest.mark.parametrize("name", ["coffee", "astronaut"])
def test_labels_in_corners_of_photographs_stay_exact(name: str, model: Model) -> None:
    right, bottom = 280, 230
    for x, y in ((30, 40), (right - 110, 40), (30, bottom - 60), (right - 110, bottom - 60)):
        page, place = _labelled(name, (x, y, 110, 60))
        found = photographs(page)
        rest = place.pixels - 110 * 60
        assert len(found) == 2 and 0.97 * rest <= sum(r.pixels for r in found) <= rest
        assert not any(r.overlaps(Region(y, x, 60, 110)) for r in found)
    job = codec.open_picture(as_picture(page), model).job
    assert isinstance(job, EitherJob) and isinstance(job.page, PageJob)
    data = format.to_bytes(job.page.at(model.any_manifest.step_of(96)).file)
    whole = PageJob(registry.PAGE, model, job.picture, [place], None, job.tuning)  # type: ignore[arg-type]
    assert len(data) < len(format.to_bytes(whole.at(model.any_manifest.step_of(96)).file))
    assert (eocodec.decompress(data, model)[y : y + 60, x : x + 110] == page[y : y + 60, x : x + 110]).all()


def test_text_without_paper_and_labels_in_the_middle_stay_in_the_photograph() -> None:
    for name in ("coffee", "rocket", "astronaut"):
        for label, opaque in (((36, 170, 110, 60), False), ((90, 100, 110, 60), True)):
            page, place = _labelled(name, label, opaque)
            assert photographs(page) == [place]


def _gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.dstack([x * 200 // width + 30, y * 200 // height + 30, (x + y) * 120 // (width + height) + 60]).astype(
        np.uint8
    )


def _logo() -> np.ndarray:
    image = Image.new("RGB", (1200, 900), "white")
    for k in range(0, 20, 4):
        ImageDraw.Draw(image).ellipse(
            (100 + 20 * k, 90 + 15 * k, 1000 - 25 * k, 800 - 19 * k), (12 * k, 90, 250 - 12 * k)
        )
    return np.asarray(image.resize((300, 225), Image.Resampling.LANCZOS))


NO_PAGES = {
    "text": lambda: text(400, 500),
    "small text": lambda: text(400, 500, 8),
    "large text": lambda: text(400, 500, 60),
    "grey text": lambda: text(400, 500, 12, "#888888", "#f4f4f4"),
    "logo": _logo,
    "drawn gradient": lambda: _gradient(300, 400),
    "photograph": lambda: photograph("coffee", 200, 300),
    "photograph in a frame": lambda: np.pad(photograph("coffee", 200, 300), ((30, 30), (40, 40), (0, 0))),
    "noise": lambda: np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8),
    "noise of two levels": lambda: np.random.default_rng(0).integers(0, 2, (200, 200, 1), np.uint8).repeat(3, 2) * 255,
    "one pixel": lambda: np.zeros((1, 1, 3), np.uint8),
    "a line": lambda: np.zeros((1, 500, 3), np.uint8),
}


@pytest.mark.parametrize("kind", NO_PAGES)
def test_what_is_no_page_is_left_alone(kind: str) -> None:
    assert photographs(NO_PAGES[kind]()) == []


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
def test_a_photograph_alone_is_no_page(name: str, samples: dict[str, np.ndarray]) -> None:
    assert photographs(samples[name]) == []


def test_many_photographs_are_few_rectangles_that_do_not_overlap() -> None:
    places = {Region(20 + 90 * i, 20 + 90 * j, 60, 60): "coffee" for i in range(6) for j in range(6)}
    found = photographs(sheet(600, 600, places))
    assert 1 <= len(found) <= MOST
    covered = np.zeros((600, 600), int)
    for place in found:
        covered[place.place] += 1
    assert covered.max() == 1
    assert sum(covered[place.place].all() for place in places) >= MOST


def test_places_are_found_in_little_time() -> None:
    page = np.tile(small(), (5, 4, 1))
    start = time.process_time()
    assert photographs(page)
    assert time.process_time() - start < 0.15 * page.shape[0] * page.shape[1] / 1e6


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 3), st.integers(0, 1000))
def test_rectangles_are_always_disjoint_and_inside(height: int, width: int, kind: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    page = np.full((height, width, 3), 255, np.uint8)
    for _ in range(kind):
        y, x = rng.integers(0, height), rng.integers(0, width)
        part = page[y : y + 50, x : x + 50]
        part[...] = rng.integers(0, 256, part.shape)
    page[::7] = 0
    found = photographs(page)
    element = regions.pack(found, b"") if found else b""
    assert not found or regions.unpack(element, width, height) == (found, b"")


# What is in the file


def test_all_but_the_photographs_is_exact_and_they_are_ordinary_files(
    data: bytes, file: format.File, model: Model
) -> None:
    page, decoded = small(), eocodec.decompress(data, model)
    places, _ = regions.unpack(file.page or b"", file.header.width, file.header.height)
    assert file.header.page and places == sorted(PLACES)
    outside = _outside(page, places)
    assert (decoded[outside] == page[outside]).all() and (decoded != page).any()
    for place, segment in zip(places, file.segments, strict=True):
        assert (decoded[place.place] == eocodec.decompress(segment.payload, model)).all()
        alone = eocodec.compress(page[place.place], 96, model=model)
        assert segment.payload == alone and psnr(page[place.place], decoded[place.place]) > 26


@pytest.mark.parametrize("place", [Region(10, 12, 8, 9), Region(1, 1, 8, 9), Region(31, 30, 8, 9)])
@pytest.mark.parametrize("side", ["above", "below", "left", "right"])
def test_photographs_are_filled_with_what_surrounds_them(place: Region, side: str, model: Model) -> None:
    page = np.random.default_rng(0).permutation(40 * 40 * 3).reshape(40, 40, 3).astype(np.uint8)  # no colour twice
    y, x, height, width = place.y, place.x, place.height, place.width
    around = {
        "above": (y - 1, slice(x, x + width)),
        "below": (y + height, slice(x, x + width)),
        "left": (slice(y, y + height), x - 1),
        "right": (slice(y, y + height), x + width),
    }
    page[around[side]] = (9, 200, 77)
    layer = PageJob(registry.PAGE, model, as_picture(page), [place]).exact_layer
    assert (layer[place.place] == (9, 200, 77)).all()
    outside = _outside(page, [place])
    assert (layer[outside] == page[outside]).all()


def test_symbols_are_those_of_the_layer_and_of_the_photographs(data: bytes, file: format.File, model: Model) -> None:
    bare = eocodec.decompress(_resealed(file, segments=()), model)
    parts = [symbols(segment.payload, model) for segment in file.segments]
    assert len(parts) == 2 and (symbols(data, model) == np.concatenate([bare.ravel(), *parts])).all()
    grey = eocodec.decompress(_resealed(file, segments=(), header=replace(file.header, grey=True)), model)
    assert grey.shape == bare.shape and (grey == bare[..., 1:2]).all()


def test_what_is_no_page_is_not_opened_as_one(model: Model) -> None:
    with pytest.raises(EocodecError, match="not a page"):
        registry.PAGE.open(model, as_picture(photograph("coffee", 100, 90)))
    assert registry.PAGE.open(model, as_picture(small())).places == sorted(PLACES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", [{"rate": 40}, {"rate": 96}, {"rate": 400}, {"psnr": 38}, {"rate": 96, "tune": "psnr"}]
)
def test_a_page_is_never_larger_than_what_it_replaces(target: dict[str, float], model: Model) -> None:
    page = small()
    opened = codec.open_picture(
        as_picture(page),
        model,
        squared="psnr" in target,
        tune=target.get("tune"),  # type: ignore[arg-type]
    )
    job = opened.job
    assert isinstance(job, EitherJob)
    aim = codec.Target(target.get("rate"), None, None, target.get("psnr"))
    without = EitherJob(job.coding, model, job.picture, None, job.tuning, pages=False)
    made = len(eocodec.compress(page, model=model, **target))  # type: ignore[arg-type]
    other = format.to_bytes(codec.Opened(without).coded(aim).file)
    assert made <= len(other) and not format.parse(other).header.page
    if target.get("rate") == 96:
        assert made < 0.9 * len(other)


@pytest.mark.slow
def test_sizes_and_qualities_are_met_by_the_photographs(model: Model) -> None:
    page = small()
    for bpp in (1.5, 2.5):
        done = codec.compress_picture(page, bpp=bpp, model=model)
        assert 0.95 * bpp < 8 * len(done.data) / (page.shape[0] * page.shape[1]) <= bpp
        assert format.parse(done.data).header.page
    done = codec.compress_picture(page, psnr=38, model=model, measure=True)
    assert format.parse(done.data).header.page and done.psnr is not None and done.psnr > 38.3
    whole = eocodec.decompress(done.data, model)
    error = sum(squared_error(page[p.place], whole[p.place]) for p in PLACES)
    assert 38 <= decibels(error, 3 * sum(p.pixels for p in PLACES)) < 38.2
    assert done.psnr == psnr(page, eocodec.decompress(done.data, model))


@pytest.mark.slow
def test_targets_below_the_exact_layer_get_what_they_got_without_pages(model: Model) -> None:
    page = small()
    layer = describe(eocodec.compress(page, 96, model=model))["layer"]
    data = eocodec.compress(page, max_bytes=layer // 2, model=model)
    assert len(data) <= layer // 2 and not format.parse(data).header.page


@pytest.mark.slow
def test_forms_and_options_that_exclude_pages(model: Model) -> None:
    page = small()
    for options in ({"progressive": True}, {"lossless": True}, {"depth": 16}):
        wide = page.astype(np.uint16) * 257 + 3 if "depth" in options else page
        assert not format.parse(eocodec.compress(wide, model=model, **options)).header.page  # type: ignore[arg-type]


def _window() -> np.ndarray:
    """A page with rounded transparent corners and a soft shadow, noise under what is hidden."""
    page = small()
    y, x = np.mgrid[: page.shape[0], : page.shape[1]]
    radius = 40
    dy = np.maximum(np.maximum(radius - y, y - (page.shape[0] - 1 - radius)), 0)
    dx = np.maximum(np.maximum(radius - x, x - (page.shape[1] - 1 - radius)), 0)
    alpha = np.clip((radius - np.hypot(dy, dx)) * 30, 0, 255).astype(np.uint8)
    noise = np.random.default_rng(5).integers(0, 256, page.shape)
    return np.dstack([np.where(alpha[..., None] > 0, page, noise), alpha]).astype(np.uint8)


@pytest.mark.slow
def test_pages_are_found_under_transparency(model: Model) -> None:
    rgba = _window()
    done = codec.compress_picture(rgba, model=model, measure=True, verify=True)
    file = format.parse(done.data)
    assert file.header.page and len(file.segments) == len(PLACES)
    decoded = eocodec.decompress(done.data, model)
    seen = rgba[..., 3] > 0
    places, _ = regions.unpack(file.page or b"", file.header.width, file.header.height)
    exact = _outside(rgba, places) & seen
    assert (decoded[exact] == rgba[exact]).all() and (decoded[..., 3] == rgba[..., 3]).all()
    assert done.psnr == pytest.approx(psnr(rgba[..., :3], decoded[..., :3], rgba[..., 3]))
    bare = len(eocodec.compress(rgba[..., :3], model=model))  # its noise is seen
    opaque = len(eocodec.compress(small(), model=model))
    assert len(done.data) - len(file.alpha or b"") < min(bare, opaque * 1.02)


@pytest.mark.slow
def test_regions_of_interest_go_into_the_photographs(model: Model) -> None:
    page, place = small(), min(PLACES)
    focus = (place.x + 5, place.y + 3, 40, 40)
    for tune in ("eye", "psnr"):
        data = eocodec.compress(page, 40, focus=focus, tune=tune, model=model)
        file = format.parse(data)
        assert file.header.page and describe(data)["focus"]
        parts = [format.parse(s.payload) for s in file.segments]
        inside = (5, 3, 40, 40)
        assert file.segments[0].payload == eocodec.compress(page[place.place], 40, focus=inside, tune=tune, model=model)
        assert tune == "eye" or [p.offsets is not None for p in parts] == [True, False]
    mask = np.zeros(page.shape[:2], bool)
    mask[focus[1] : focus[1] + 40, focus[0] : focus[0] + 40] = True
    assert eocodec.compress(page, 40, focus=mask, tune="psnr", model=model) == data


@pytest.mark.slow
def test_progressive_pages_are_said_to_be_none(call: Runner, tmp_path: Path) -> None:
    Image.fromarray(small()[:170, :160]).save(tmp_path / "page.png")
    done = call("compress", "page.png", "--progressive", "--rate", 20, "--json")
    row = json.loads(done.stdout)
    assert not row["page"] and "no page; leave out --progressive for one" in row["warnings"][0]
    assert b"warning: its text and drawings are not kept exactly" in done.stderr
    Image.fromarray(photograph("coffee", 60, 70)).save(tmp_path / "photo.png")
    row = json.loads(call("compress", "photo.png", "--progressive", "--rate", 20, "--json").stdout)
    assert not row["warnings"] and not row["page"]


@pytest.mark.slow
def test_pages_of_16_bits_are_said_to_be_none(call: Runner, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    words = small()[:170, :160].astype(np.uint16) * 257
    words[5, 5] ^= 1
    assert cv2.imwrite(str(tmp_path / "page.png"), words)
    row = json.loads(call("compress", "page.png", "--rate", 20, "--json").stdout)
    assert not row["page"] and row["depth"] == 16
    assert any("16 bits is no page; --depth 8 makes it one" in warning for warning in row["warnings"])
    row = json.loads(call("compress", "page.png", "--rate", 20, "--json", "--depth", 8, "-f").stdout)
    assert row["page"] and not any("no page" in warning for warning in row["warnings"])
    exact = codec.compress_picture(words, lossless=True)
    assert exact.notes == ()


def test_pages_may_be_larger_than_exact_files_up_to_a_size_that_is_said(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = small()[:170, :160]
    monkeypatch.setattr(drawn, "LARGE", page.shape[0] * page.shape[1] - 1)
    done = codec.compress_picture(page, 20, model=model)
    assert format.parse(done.data).header.page and done.notes == ()
    monkeypatch.setattr(drawn, "LARGEST_PAGE", drawn.LARGE)
    done = codec.compress_picture(page, 20, model=model)
    assert not format.parse(done.data).header.page and f"more than {drawn.LARGE} pixels is no page" in done.notes[0]
    assert codec.compress_picture(photograph("coffee", 170, 160), 20, model=model).notes == ()


@pytest.mark.slow
def test_transparency_and_grey_stay(model: Model) -> None:
    page = small()
    alpha = np.full(page.shape[:2], 255, np.uint8)
    alpha[:20] = 90
    data = eocodec.compress(np.dstack([page, alpha]), model=model)
    assert format.parse(data).header.page and (eocodec.decompress(data, model)[..., 3] == alpha).all()
    grey = codec.decode_file(eocodec.compress(page[..., 1], model=model), model)
    assert grey.grey and (grey.rgb == grey.rgb[..., :1]).all()
    half = page.copy()
    place = min(PLACES)
    half[place.place] = half[place.place][..., 1:2]  # a grey photograph on a page that has colours
    half[:3] = (200, 30, 30)
    data = eocodec.compress(half, model=model)
    parts = [format.parse(s.payload).header.grey for s in format.parse(data).segments]
    assert parts == [True, False] and (eocodec.decompress(data, model)[:3] == half[:3]).all()


@pytest.mark.slow
def test_noise_can_be_taken_out_of_a_page(model: Model) -> None:
    rng = np.random.default_rng(3)
    noisy = small().copy()
    for place in PLACES:
        part = noisy[place.place]
        part[...] = np.clip(np.rint(part + rng.normal(0, 9, part.shape)), 0, 255)
    done = codec.compress_picture(noisy, 200, denoise=9, model=model, verify=True)
    place = min(PLACES)
    kept = eocodec.decompress(done.data, model)[place.place]
    assert done.sigma == 9 and psnr(small()[place.place], kept) > psnr(small()[place.place], noisy[place.place]) + 2


# Cuts


def test_cuts_keep_the_layer_and_treat_photographs_alike(data: bytes, model: Model) -> None:
    page = small()
    outside = _outside(page, PLACES)
    qualities = []
    for size in (len(data) - 1, len(data) * 9 // 10, len(data) * 8 // 10):
        cut = eocodec.truncate(data, max_bytes=size)
        assert len(cut) <= size
        decoded = codec.decode_file(cut, model)
        assert decoded.complete and (decoded.rgb[outside] == page[outside]).all()
        qualities.append(psnr(page, decoded.rgb))
    assert qualities == sorted(qualities, reverse=True) and qualities[0] < psnr(page, eocodec.decompress(data, model))
    some = eocodec.truncate(data, latents=40)
    told = describe(some)
    assert all(r["latents"] <= 40 for r in told["regions"]) and len(some) < len(data)
    with pytest.raises(EocodecError, match="cannot be cut from a page, whose photographs have finer steps; compress"):
        eocodec.truncate(data, rate=30)
    with pytest.raises(EocodecError, match="at least 1"):
        eocodec.truncate(data, latents=0.5)
    with pytest.raises(EocodecError, match="smallest form has"):
        eocodec.truncate(data, max_bytes=99)


@pytest.mark.slow
def test_cuts_that_leave_a_photograph_without_latents_say_so(data: bytes, call: Runner, tmp_path: Path) -> None:
    (tmp_path / "page.eoc").write_bytes(data)
    told = describe(data)
    assert told["blank"] == 0 and all(s["latents"] > 40 for s in told["segments"])
    one, none = 40, told["layer"] + 120  # latents at which only the larger photograph has a segment, and bytes
    for cut, left in ((("--latents", one), 1), (("--bytes", none), 2)):
        done = call("truncate", "page.eoc", *cut, "-f", "--json")
        row = json.loads(done.stdout)
        assert row["blank"] == left and f"of {left} of its photographs" in row["warnings"][0]
        assert b"warning: no segment fits" in done.stderr and done.returncode == 0
        told = json.loads(call("info", "page.cut.eoc", "--json").stdout)
        assert told["blank"] == left == sum(not r["latents"] for r in told["regions"]) and told["complete"]
        assert b"no latents: one colour" in call("info", "page.cut.eoc").stdout
        shown = call("decompress", "page.cut.eoc", "-o", "cut.png", "-f").stdout.decode()
        assert f"(without latents: {left} flat photographs)" in shown
        decoded = np.asarray(Image.open(tmp_path / "cut.png").convert("RGB"))
        flat = [np.ptp(decoded[p.place].astype(int), axis=(0, 1)).max() < 8 for p in PLACES]
        assert sum(flat) == left
    refused = call("truncate", "page.eoc", "--latents", 1, "-f")
    assert refused.returncode == 1 and b"no segment of a photograph on the page ends within 1 latents" in refused.stderr


# Files from elsewhere


def _resealed(file: format.File, **changes: object) -> bytes:
    return format.serialise(replace(file, **changes))  # type: ignore[arg-type]


def _inner(file: format.File, part: bytes) -> bytes:
    return _resealed(file, segments=(format.Segment(1, part), *file.segments[1:]))


def _places(file: format.File, places: list[Region]) -> bytes:
    _, layer = regions.unpack(file.page or b"", file.header.width, file.header.height)
    return _resealed(file, page=regions.pack(places, layer))


def test_hostile_places_are_refused(file: format.File, model: Model) -> None:
    first, second = sorted(PLACES)
    cases = {
        "outside": [first, replace(second, x=260 - second.width + 1)],
        "overlap": [first, replace(second, y=first.y + 1, x=first.x + 1)],
        "is empty": [first, replace(second, width=0)],
        "its place": [first, replace(second, height=second.height - 1)],
        "more photographs": [first],
    }
    for sentence, places in cases.items():
        with pytest.raises(FormatError, match=sentence):
            eocodec.decompress(_places(file, places), model)
    element = file.page or b""
    for wrong in (b"", b"\0" + element[1:], bytes([regions.MOST + 1]) + element[1:], element[:5], b"\1\x81\0\1\1\1"):
        with pytest.raises(FormatError, match="places of its photographs"):
            eocodec.decompress(_resealed(file, page=wrong), model)
    with pytest.raises(FormatError, match="its WebP part"):
        eocodec.decompress(_resealed(file, page=element[:-40]), model)


@pytest.mark.slow
def test_hostile_photographs_are_refused(file: format.File, data: bytes, model: Model) -> None:
    part = format.parse(file.segments[0].payload)
    photo = small()[min(PLACES).place]
    forms = {
        "ordinary form": [data, eocodec.compress(photo, lossless=True), eocodec.compress(photo, progressive=True),
                          b"\xf8\x20abc"],
        "another model": [format.serialise(replace(part, header=replace(part.header, model=b"abcd"))),
                          eocodec.compress(np.dstack([photo, photo[..., 0]]), model=model),
                          eocodec.compress(photo.astype(np.uint16) * 256, depth=16, model=model)],
        "its place": [eocodec.compress(photo[:-1], model=model)],
        "photograph 1 cannot be read: not an .eoc file": [b"", b"noise"],
        "photograph 1 cannot be read: the file is cut off": [file.segments[0].payload[:12]],
        "checksum": [file.segments[0].payload[:-1] + bytes([file.segments[0].payload[-1] ^ 1])],
    }  # fmt: skip
    for sentence, parts in forms.items():
        for wrong in parts:
            for read in (lambda d: eocodec.decompress(d, model), describe):
                with pytest.raises(FormatError, match=sentence):
                    read(_inner(file, wrong))
    with pytest.raises(FormatError, match="the page has none"):
        eocodec.decompress(_resealed(file, header=replace(file.header, grey=True)), model)


def test_headers_of_pages_are_checked(data: bytes) -> None:
    flags = [4, 8, 16, 32, 64]
    for wrong in [data[:8] + bytes([data[8] | flag]) + data[9:] for flag in flags] + [data[:9] + b"\5" + data[10:]]:
        with pytest.raises(FormatError, match="features this program does not know"):
            format.parse(wrong)
    with pytest.raises(FormatError, match="checksum of its exact layer"):
        format.parse(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    with pytest.raises(FormatError, match="cut off before its first segment"):
        format.parse(data[:200])
    page = Header(b"abcd", 64, 64, 1, 1, page=True)
    for header in (page, replace(page, tuning=3), replace(page, embedded=True), replace(page, page=False)):
        with pytest.raises(FormatError, match="nothing of other forms"):
            format.serialise(format.File(header, None, (), page=None if header is page else b"\1"))


def test_a_layer_must_be_named_by_its_flag(file: format.File, model: Model) -> None:
    with pytest.raises(FormatError, match="flags do not name"):
        eocodec.decompress(_resealed(file, header=replace(file.header, webp=False)), model)


def test_spoilt_layers_are_pages_or_a_sentence(file: format.File, model: Model) -> None:
    rng, element = np.random.default_rng(9), file.page or b""
    bare = replace(file, segments=())
    refused = 0
    for k in range(120):
        spoilt = bytearray(element)
        for _ in range(1 + k % 3):
            spoilt[rng.integers(0, 30 if k % 2 else len(spoilt))] = rng.integers(0, 256)
        try:
            assert eocodec.decompress(_resealed(bare, page=bytes(spoilt)), model).shape == (200, 260, 3)
        except FormatError as e:
            refused += 1
            assert str(e) and "\n" not in str(e)
    assert refused > 30


def test_a_prefix_shows_the_photographs_that_are_there(file: format.File, data: bytes, model: Model) -> None:
    ends = format.segment_ends(file)
    for count, end in enumerate(ends[:-1]):
        decoded = codec.decode_file(data[: end + 9], model)
        assert not decoded.complete and decoded.segments == count
        whole = eocodec.decompress(data, model)
        for k, place in enumerate(sorted(PLACES)):
            same = (decoded.rgb[place.place] == whole[place.place]).all()
            assert same if k < count else (decoded.rgb[place.place] == decoded.rgb[place.y, place.x]).all()


# Descriptions and commands


def test_descriptions_say_where_photographs_are(data: bytes, file: format.File) -> None:
    told = describe(data)
    assert 0.5 < told["tuning"] == round(format.parse(file.segments[0].payload).header.tuning / 32, 3)
    assert told["page"] and told["model"] == "photo" and not told["lossless"] and told["complete"]
    assert [(r["y"], r["x"], r["height"], r["width"]) for r in told["regions"]] == [
        (p.y, p.x, p.height, p.width) for p in sorted(PLACES)
    ]
    assert [r["bytes"] for r in told["regions"]] == [len(s.payload) for s in file.segments]
    assert (
        told["layer"] + sum(r["bytes"] for r in told["regions"])
        < len(data)
        <= told["layer"] + 80 + sum(r["bytes"] for r in told["regions"])
    )
    missing = describe(data[: format.segment_ends(file)[1]])["regions"][1]
    assert missing["bytes"] == 0 and missing["step"] is None


@pytest.mark.slow
def test_the_command_makes_reads_and_cuts_pages(call: Runner, tmp_path: Path) -> None:
    Image.fromarray(small()).save(tmp_path / "page.png")
    report = json.loads(call("compress", "page.png", "--json").stdout)
    assert report["photographs"] == 2 and "kept as a page" in report["warnings"][0]
    told = json.loads(call("info", "page.eoc", "--json").stdout)
    assert len(told["regions"]) == 2 and told["page"]
    shown = call("info", "page.eoc").stdout.decode()
    assert "a photograph of 131x100 at (17, 23), step" in shown and "all but the photographs, exact" in shown
    assert call("truncate", "page.eoc", "--bytes", str(report["bytes"] - 500), "-o", "less.eoc").returncode == 0
    assert call("decompress", "less.eoc", "-o", "less.png").returncode == 0
    outside = _outside(small(), PLACES)
    assert (np.asarray(Image.open(tmp_path / "less.png").convert("RGB"))[outside] == small()[outside]).all()
    (tmp_path / "cut.eoc").write_bytes((tmp_path / "page.eoc").read_bytes()[: told["segments"][0]["end"] + 9])
    assert b"cut short: 1 of its photographs is whole" in call("decompress", "cut.eoc", "-o", "cut.png").stdout
    assert call("denoise", "page.eoc", "-o", "clean.png").returncode == 0


def test_pillow_opens_pages_and_says_when_they_are_cut(data: bytes, file: format.File, model: Model) -> None:
    import eocodec.pillow

    with Image.open(io.BytesIO(data)) as image:
        assert (image.size, image.mode, image.info["lossless"]) == ((260, 200), "RGB", False)
        assert np.array_equal(np.asarray(image), eocodec.decompress(data, model))
    with (
        Image.open(io.BytesIO(data[: format.segment_ends(file)[1]])) as image,
        pytest.raises(OSError, match="truncated"),
    ):
        image.load()


def test_pages_are_coded_once_for_several_targets(model: Model) -> None:
    opened = codec.open_picture(as_picture(small()), model)
    assert isinstance(opened.job, EitherJob)
    opened.job.remember()
    page = opened.job.page
    assert isinstance(page, PageJob)
    first = opened.coded(codec.Target(60, None, None, None))
    again = opened.coded(codec.Target(60, None, None, None))
    assert first.file == again.file and opened.job.page is page
    assert np.array_equal(opened.job.expected(first.file), eocodec.decompress(format.to_bytes(first.file), model))


def test_an_old_sentence_for_new_versions() -> None:
    page = np.asarray(Image.open(SAMPLES / "chelsea.png").convert("RGB"))[:40, :40]
    data = eocodec.compress(page)
    with pytest.raises(FormatError, match="format version 3; this program reads versions 1 and 2"):
        format.parse(data[:3] + b"\3" + data[4:])

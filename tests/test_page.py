"""What the page of `eocodec serve` promises, held in a real browser against the real service."""

import contextlib
import io
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import SAMPLES
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")
api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

from servers import Server, serving  # noqa: E402

import eocodec  # noqa: E402
from eocodec.codec import Compressed, compress_picture  # noqa: E402
from eocodec.lab.paths import editing  # noqa: E402
from eocodec.metrics import psnr  # noqa: E402
from eocodec.model.bundle import Model  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
KEY = "0123456789abcdef0123456789abcdef"
CHELSEA = SAMPLES / "chelsea.png"
REFUSALS = "document.addEventListener('securitypolicyviolation', e => console.error('policy', e.violatedDirective))"

Opener = Callable[..., Any]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--workers", 1) as s:
        yield s


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Opener]:
    """Open the page in a browser of its own; afterwards nothing may have gone wrong in it that is not `expected`."""
    contexts, wrong, elsewhere = [], [], []

    def opener(url: str = server.url, expected: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        contexts.append(context)
        context.set_default_timeout(120_000)  # only what a broken page takes
        page = context.new_page()
        page.add_init_script(REFUSALS)
        page.on("pageerror", lambda error: wrong.append(str(error)))

        def heard(message: Any) -> None:
            if message.type in ("error", "warning") and not (expected and re.search(expected, message.text)):
                wrong.append(message.text)

        def asked(request: Any) -> None:
            if not request.url.startswith((url, "blob:" + url, "data:")):
                elsewhere.append(request.url)

        page.on("console", heard)
        page.on("request", asked)
        page.goto(url)
        return page

    yield opener
    for context in contexts:
        context.close()
    assert not wrong and not elsewhere


@pytest.fixture
def page(visit: Opener) -> Any:
    return visit()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the cat's picture, for what does not depend on its size."""
    file: Path = tmp_path_factory.mktemp("pictures") / "cat.png"
    Image.open(CHELSEA).convert("RGB").crop((120, 60, 328, 204)).save(file)
    return file


def drawn(page: Any) -> None:
    """Wait until all that happened so far is on the screen: it is drawn with the next frame."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def becomes(page: Any, selector: str, name: str, value: str) -> None:
    """Wait until an attribute has a value; a pointer's moves are handled when the browser gets to it."""
    api.expect(page.locator(selector)).to_have_attribute(name, value, timeout=60_000)


def settle(page: Any) -> None:
    """Wait until the last change is answered and shown: nothing under way, and no dash for a number."""
    drawn(page)
    page.wait_for_function("() => document.querySelector('.side').ariaBusy !== 'true' && "
                           "![...document.querySelectorAll('.panel:not([hidden]) :is(strong, dd)')]"
                           ".some(e => e.checkVisibility() && e.textContent === '–')")  # fmt: skip


def load(page: Any, *files: Any) -> None:
    page.set_input_files("#file", *files)
    page.wait_for_selector("#view:not([hidden])")
    settle(page)


def kept(page: Any, button: str) -> tuple[str, bytes]:
    """Name and bytes of what a button downloads."""
    with page.expect_download() as event:
        page.click(button)
    return event.value.suggested_filename, Path(event.value.path()).read_bytes()


def number(page: Any, selector: str) -> float:
    found = re.match(r"[\d,.]+", page.inner_text(selector))
    assert found, f"{selector} shows {page.inner_text(selector)!r}"
    return float(found.group().replace(",", ""))


def rgb(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def shows(page: Any, expected: Compressed) -> None:
    """The page's numbers are those of the library."""
    assert number(page, "#c-bytes") == len(expected.data)
    assert number(page, "#c-bpp") == pytest.approx(expected.bits_per_pixel, rel=0.005)
    assert expected.psnr is not None
    assert number(page, "#c-psnr") == pytest.approx(expected.psnr, abs=0.006)


def cut(page: Any) -> float:
    """C at which the spectrum is cut, from where the line is drawn between the marks of 1 and of the last latent."""
    return float(
        page.evaluate("""() => {
        const svg = document.querySelector('#c-spectrum svg');
        const x = (e) => Number(e.getAttribute('x1'));
        const marks = [...svg.querySelectorAll('.axis')].map(x).sort((a, b) => a - b);
        const t = (x(svg.querySelector('.cut')) - marks[0]) / (marks.at(-1) - marks[0]);
        return 768 ** t;
    }""")
    )


def test_numbers_are_those_of_the_library(page: Any, chelsea: np.ndarray, model: Model) -> None:
    load(page, CHELSEA)
    expected = compress_picture(chelsea, 96, model=model, measure=True)
    shows(page, expected)
    assert page.inner_text("#c-share") == f"{100 * len(expected.data) / CHELSEA.stat().st_size:.1f} % of the original"
    page.fill("#c-number", "30.5")
    settle(page)
    shows(page, compress_picture(chelsea, 30.5, model=model, measure=True))


def test_arrow_keys_move_c_with_size_and_cut(page: Any, chelsea: np.ndarray, model: Model) -> None:
    load(page, CHELSEA)
    size = number(page, "#c-bytes")
    assert cut(page) == pytest.approx(96, rel=0.01)
    page.focus("#c-slider")
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    settle(page)
    rate = float(page.input_value("#c-number"))
    assert 55 < rate < 75 and number(page, "#c-bytes") < 0.8 * size
    assert cut(page) == pytest.approx(rate, rel=0.01)
    assert page.inner_text("#c-kept") == f"{rate:g} of 768 latents kept"
    shows(page, compress_picture(chelsea, rate, model=model, measure=True))
    page.keyboard.press("Home")
    settle(page)
    shows(page, compress_picture(chelsea, 1, model=model, measure=True))
    assert page.get_attribute("#c-slider", "aria-valuetext") == "C = 1 of 768"


def test_pointing_at_the_spectrum_sets_c(page: Any, small: Path) -> None:
    load(page, small)
    page.check("[name=target][value=psnr]")
    settle(page)
    box = page.locator("#c-spectrum svg").bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 80, steps=4)
    page.mouse.up()
    settle(page)
    rate = float(page.input_value("#c-number"))
    assert 2 < rate < 12 and page.is_checked("[name=target][value=rate]")
    assert cut(page) == pytest.approx(rate, rel=0.01) and number(page, "#c-rate") == rate


def test_targets_and_kinds_of_files(page: Any, small: Path) -> None:
    original = rgb(small.read_bytes())
    load(page, small)
    page.check("[name=target][value=bytes]")
    settle(page)
    page.fill("#c-number", "3000")
    settle(page)
    name, data = kept(page, "#c-save")
    assert name == "cat.eoc" and 2940 <= len(data) <= 3000
    page.check("[name=target][value=psnr]")
    page.fill("#c-number", "40")
    settle(page)
    assert 40 <= number(page, "#c-psnr") <= 40.1
    page.check("[name=target][value=bpp]")
    page.fill("#c-number", "0.5")
    page.check("#c-progressive")
    settle(page)
    _, data = kept(page, "#c-save")
    assert data == eocodec.compress(original, bpp=0.5, progressive=True)
    page.check("#c-lossless")
    settle(page)
    assert page.inner_text("#c-psnr") == "exact" and page.is_disabled("#c-slider")
    _, data = kept(page, "#c-save")
    np.testing.assert_array_equal(eocodec.decompress(data), original)


def test_downloads_are_what_is_shown(page: Any, tmp_path: Path) -> None:
    noisy = tmp_path / "night out.v2.jpg"
    Image.open(CHELSEA).convert("RGB").resize((200, 133)).save(noisy, quality=80)
    load(page, noisy)
    page.select_option("#c-denoise", "level")
    page.fill("#c-level", "12")
    settle(page)
    name, data = kept(page, "#c-save")
    assert name == "night out.v2.eoc" and len(data) == number(page, "#c-bytes")
    assert "12.0" in page.inner_text("#c-note")
    assert data == eocodec.compress(Image.open(noisy), denoise=12)
    name, png = kept(page, "#c-png")
    assert name == "night out.v2-eocodec.png"
    np.testing.assert_array_equal(rgb(png), eocodec.decompress(data))


def test_what_a_result_does_not_keep_is_said(page: Any, tmp_path: Path) -> None:
    moving = tmp_path / "moving.png"
    frames = [Image.effect_noise((96, 64), sigma) for sigma in (20, 60)]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    load(page, moving)
    page.check("#c-lossless")
    settle(page)
    note = page.inner_text("#c-note")
    assert "frame" in note and note.endswith(".")
    page.click("#tab-denoise")
    settle(page)
    assert "frame" in page.inner_text("#d-note")
    page.click("#tab-compress")
    load(page, CHELSEA)
    settle(page)
    assert page.is_hidden("#c-note")


def test_pictures_can_be_dropped_and_pasted(page: Any) -> None:
    give = """async ([type, name]) => {
        const canvas = new OffscreenCanvas(90, 60);
        canvas.getContext('2d').fillRect(10, 10, 40, 40);
        const files = new DataTransfer();
        files.items.add(new File([await canvas.convertToBlob()], name, {type: 'image/png'}));
        const options = {clipboardData: files, dataTransfer: files, bubbles: true, cancelable: true};
        const event = type === 'paste' ? new ClipboardEvent(type, options) : new DragEvent(type, options);
        return document.body.dispatchEvent(event);
    }"""
    assert page.evaluate(give, ["dragover", "a.png"]) is False and page.is_visible("#dropping")
    assert page.evaluate(give, ["drop", "dropped.png"]) is False and not page.is_visible("#dropping")
    page.wait_for_function("() => document.querySelector('#name').textContent.startsWith('dropped.png · 90×60')")
    settle(page)
    size = number(page, "#c-bytes")
    assert size > 20
    page.evaluate(give, ["paste", "image.png"])
    page.wait_for_function("() => document.querySelector('#name').textContent.startsWith('pasted.png')")
    settle(page)
    assert number(page, "#c-bytes") == size


def test_divider_moves_by_keyboard_and_pointer(page: Any, small: Path) -> None:
    load(page, small)
    divider = page.locator(".divider")

    def position() -> tuple[float, int]:
        box, view = divider.bounding_box(), page.locator("#view").bounding_box()
        share = (box["x"] + box["width"] / 2 - view["x"]) / view["width"]
        return share, int(divider.get_attribute("aria-valuenow"))

    divider.focus()
    for key, expected in (("ArrowLeft", 49), ("ArrowRight", 50), ("PageUp", 60), ("End", 100), ("ArrowRight", 100),
                          ("Home", 0), ("PageUp", 10), ("Shift+ArrowRight", 15)):  # fmt: skip
        page.keyboard.press(key)
        becomes(page, ".divider", "aria-valuenow", str(expected))
        share, value = position()
        assert value == expected and share == pytest.approx(expected / 100, abs=0.002)
    box, view = divider.bounding_box(), page.locator("#view").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, view["y"] + 200)
    page.mouse.down()
    page.mouse.move(view["x"] + 0.75 * view["width"], view["y"] + 230, steps=5)
    page.mouse.up()
    becomes(page, ".divider", "aria-valuenow", "75")
    share, value = position()
    assert value == 75 and share == pytest.approx(0.75, abs=0.005)
    assert divider.get_attribute("aria-valuetext") == "75 % Original, 25 % eocodec"
    assert "75" in page.evaluate("getComputedStyle(document.querySelector('.layer.right')).clipPath")


def test_zoom_shows_the_pixels_of_both_sides_in_step(visit: Opener, chelsea: np.ndarray) -> None:
    page = visit(expected="willReadFrequently")  # it is the test that reads
    load(page, CHELSEA)
    _, png = kept(page, "#c-png")
    decoded = rgb(png)
    middle = """(side) => {
        const canvas = document.querySelectorAll('.layer canvas')[side];
        const [x, y] = [canvas.width >> 1, canvas.height >> 1];
        return [...canvas.getContext('2d').getImageData(x, y, 64, 64).data].filter((_, i) => i % 4 < 3);
    }"""

    def shown(side: int) -> np.ndarray:
        return np.array(page.evaluate(middle, side)).reshape(64, 64, 3)

    def found(picture: np.ndarray, part: np.ndarray) -> list[tuple[int, int]]:
        windows = np.lib.stride_tricks.sliding_window_view(picture, part.shape)[:, :, 0]
        return [(int(y), int(x)) for y, x in np.argwhere((windows == part).all((2, 3, 4)))]

    for scale in (1, 2, 4):
        page.check(f"[name=zoom][value='{scale}']")
        drawn(page)
        left, right = shown(0), shown(1)
        # Of the offsets at which every scale-th pixel is a pixel of the picture, each must show the same place twice.
        for dy, dx in ((0, 0), (scale - 1, scale - 1)):
            places = found(chelsea, left[dy::scale, dx::scale][:12, :12])
            assert len(places) == 1, f"at {scale}:1 the original's pixels are not shown as they are"
            y, x = places[0]
            np.testing.assert_array_equal(right[dy::scale, dx::scale][:12, :12], decoded[y : y + 12, x : x + 12])
    before = shown(0)
    page.focus(".surface")
    page.keyboard.press("ArrowRight")
    drawn(page)
    assert (shown(0) != before).any()
    page.keyboard.press("0")
    assert page.is_checked("[name=zoom][value=fit]")


def test_denoising_brings_a_noisy_picture_nearer_to_the_clean_one(page: Any, small: Path) -> None:
    load(page, small)
    page.click("#tab-denoise")
    settle(page)
    page.fill("#d-noise-number", "25")
    settle(page)
    page.wait_for_selector("#d-measured:not([hidden])")
    before, after = number(page, "#d-before"), number(page, "#d-after")
    assert before == pytest.approx(20 * math.log10(255 / 25), abs=0.6) and after > before + 8
    assert float(page.inner_text("#d-sigma").split("=")[1]) == pytest.approx(25, abs=3)
    name, png = kept(page, "#d-save")
    assert name == "cat-clean.png" and psnr(rgb(png), rgb(small.read_bytes())) == pytest.approx(after, abs=0.01)
    page.fill("#d-seed", "7")
    settle(page)
    assert kept(page, "#d-save")[1] != png
    page.fill("#d-strength-number", "0")
    settle(page)
    assert number(page, "#d-after") == pytest.approx(before, abs=0.1)
    page.check("[name=level][value=set]")
    page.fill("#d-level-number", "25")
    page.fill("#d-strength-number", "1")
    page.select_option("#d-method", "drop")
    settle(page)
    assert "drop" in page.inner_text("#d-how") and number(page, "#d-after") > before + 6


def test_eoc_files_are_shown_with_their_facts(page: Any, small: Path) -> None:
    data = eocodec.compress(rgb(small.read_bytes()), rate=200, progressive=True)
    load(page, {"name": "cat.eoc", "mimeType": "", "buffer": data})
    assert number(page, "#f-size") == pytest.approx(len(data) / 1000, rel=0.01)
    facts = page.inner_text("#f-fields")
    assert "208×144" in facts and "photo" in facts and "whole" in facts
    assert not page.is_visible(".divider") and not page.is_visible("#tab-compress")
    name, png = kept(page, "#f-save")
    assert name == "cat.png"
    np.testing.assert_array_equal(rgb(png), eocodec.decompress(data))
    page.focus("#f-slider")
    for _ in range(3):
        page.keyboard.press("PageDown")
    settle(page)
    part = int(page.inner_text("#f-bytes").split(" of ")[0].replace(",", ""))
    assert part < len(data) / 3 and "cut off" in page.inner_text("#f-fields")
    np.testing.assert_array_equal(rgb(kept(page, "#f-save")[1]), eocodec.decompress(data[:part]))
    page.click("#f-use")
    page.wait_for_selector("#panel-compress:not([hidden])")
    settle(page)
    assert number(page, "#c-bytes") > 0


def test_faces_change_by_sliders_and_towards_another(page: Any, small: Path) -> None:
    face = np.asarray(Image.open(SAMPLES / "faces" / "astronaut.png").convert("RGB"))
    data = eocodec.compress(face, 400, model="face64")
    load(page, {"name": "cat.eoc", "mimeType": "", "buffer": eocodec.compress(rgb(small.read_bytes()), 20)})
    assert not page.is_visible("#f-paths")
    load(page, {"name": "face.eoc", "mimeType": "", "buffer": data})
    assert page.is_visible("#f-paths") and not page.is_visible("#f-share-row") and page.is_disabled("#f-edited")
    paths, model = editing.load_paths("face64"), eocodec.load_model("face64")
    assert page.locator("#f-steps label").all_inner_texts() == [n.capitalize() for n in paths.manifest.names]
    page.get_by_label("Light", exact=True).focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    settle(page)
    wanted = editing.edit(eocodec.decompress(data), {"light": 1.0}, paths, model)
    assert page.is_visible(".divider") and "+1" in page.inner_text("#f-steps")
    name, file = kept(page, "#f-edited")
    assert name == "face-changed.eoc" and file == eocodec.compress(wanted, model="face64", max_bytes=len(data))
    other = eocodec.compress(face[:, ::-1].copy(), 400, model="face64")
    page.set_input_files("#f-other", {"name": "b.eoc", "mimeType": "", "buffer": other})
    settle(page)
    assert "50 %" in page.inner_text("#f-share-row")
    (between,) = editing.blend(wanted, eocodec.decompress(other), [0.5], model)
    assert kept(page, "#f-edited")[1] == eocodec.compress(between, model="face64", max_bytes=len(data))
    page.click("#f-reset")
    settle(page)
    assert not page.is_visible(".divider") and page.is_disabled("#f-edited")


def test_face64_is_offered_for_its_size_only(page: Any, small: Path) -> None:
    load(page, small)
    assert page.locator("#c-model option[value=face64]").is_disabled()
    load(page, SAMPLES / "faces" / "astronaut.png")
    page.select_option("#c-model", "face64")
    settle(page)
    assert number(page, "#c-bytes") < 200 and "faces" in page.inner_text("#c-model-hint")
    assert page.is_disabled("#c-lossless") and "12288" in page.inner_text("#c-kept")


def test_pictures_that_the_browser_cannot_read_are_shown_by_the_server(page: Any, tmp_path: Path) -> None:
    Image.open(CHELSEA).convert("RGB").crop((100, 50, 260, 150)).save(tmp_path / "scan.tiff")
    load(page, tmp_path / "scan.tiff")
    assert page.inner_text("#name").startswith("scan.tiff · 160×100") and number(page, "#c-psnr") > 30


def test_errors_are_the_servers_sentence(visit: Opener, small: Path) -> None:
    page = visit(expected="status of 415")
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture" * 30})
    page.wait_for_selector("#notice:not([hidden])")
    sentence = page.inner_text("#notice-text")
    assert "not a picture" in sentence and sentence.endswith(".") and "{" not in sentence
    assert page.text_content("#alarm") == sentence
    load(page, small)
    assert not page.is_visible("#notice") and number(page, "#c-bytes") > 0


def await_request(page: Any, held: list[Any]) -> None:
    """Wait until a request is held; its handler runs while the page is waited for."""
    for _ in range(3000):
        if held:
            return
        page.wait_for_timeout(20)
    raise AssertionError("what is waited for is not asked")


def test_late_answers_are_never_shown(page: Any, small: Path, model: Model) -> None:
    load(page, small)
    original = rgb(small.read_bytes())
    held: list[Any] = []
    page.route(re.compile(r"rate=11\b"), lambda route: held.append(route))
    page.fill("#c-number", "11")
    await_request(page, held)
    assert len(held) == 1
    page.fill("#c-number", "22")
    settle(page)
    expected = compress_picture(original, 22, model=model, measure=True)
    shows(page, expected)
    late = compress_picture(original, 11, model=model)
    with contextlib.suppress(api.Error):  # the request was given up
        held[0].fulfill(body=late.data, headers={"X-Eocodec-Rate": "11", "X-Eocodec-Bpp": "1", "X-Eocodec-Psnr": "1"})
    page.wait_for_timeout(300)
    shows(page, expected)
    assert kept(page, "#c-save")[1] == expected.data


def test_busy_servers_are_asked_again(visit: Opener, small: Path) -> None:
    page = visit(expected="status of 503")
    asked = []

    def busy(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) <= 2:
            route.fulfill(status=503, headers={"Retry-After": "1"}, json={"detail": "the service is busy"})
        else:
            route.continue_()

    page.route("**/v1/open", busy)
    page.set_input_files("#file", small)
    page.wait_for_selector("#notice.quiet:not([hidden])")
    assert "trying again" in page.inner_text("#notice-text")
    settle(page)
    assert len(asked) == 3 and not page.is_visible("#notice") and number(page, "#c-bytes") > 0


def test_keys_are_asked_for_and_large_pictures_refused_in_words(visit: Opener, small: Path) -> None:
    with serving("--workers", 1, "--max-body", 0.3, env={"EOCODEC_API_KEYS": KEY}) as strict:
        page = visit(strict.url, expected="status of (401|413)|ERR_CONNECTION_RESET")
        page.set_input_files("#file", small)
        page.wait_for_selector("#key-dialog[open]")
        page.keyboard.type("not the key")
        page.keyboard.press("Enter")
        page.wait_for_function("() => document.querySelector('#key-hint').textContent.includes('not accept')")
        page.fill("#key", KEY)
        page.click("#key-form button[value=ok]")
        page.wait_for_selector("#panel-compress:not([hidden])")
        settle(page)
        assert number(page, "#c-bytes") > 0
        assert page.evaluate("sessionStorage.getItem('eocodec-key')") == KEY
        assert KEY not in page.evaluate("JSON.stringify({...localStorage})"), "a key is kept beyond its tab"
        page.set_input_files("#file", SAMPLES / "coffee.png")
        page.wait_for_selector("#notice:not([hidden])")
        sentence = page.inner_text("#notice-text")
        assert sentence.endswith("Scale it down and try again.")
        assert page.inner_text("#c-size") == "–"
        page.select_option("#scale", "0.25")  # the way out that the page offers
        settle(page)
        assert not page.is_visible("#notice")
        assert eocodec.decompress(kept(page, "#c-save")[1]).shape == (100, 150, 3)


def test_everything_works_by_keyboard(page: Any) -> None:
    def press(key: str, times: int = 1) -> None:
        for _ in range(times):
            page.keyboard.press(key)

    def focused() -> str:
        return str(page.evaluate("document.activeElement.id || document.activeElement.className"))

    press("Tab", 2)
    assert focused() == "sample"
    press("Enter")
    page.wait_for_selector("#panel-compress:not([hidden])")
    settle(page)
    assert focused() == "tab-compress"
    order = []
    for _ in range(11):
        press("Tab")
        order.append(focused() or page.evaluate("document.activeElement.name"))
    view, panel = ["surface", "divider", "zoom"], ["c-save", "c-png", "c-rival", "target", "c-number", "c-slider"]
    assert order == ["scale", "open", *view, *panel]
    assert re.fullmatch(r"[\d.]+ kB, [\d.]+ bits per pixel, [\d.]+ decibels\.", page.text_content("#spoken"))
    page.focus("#tab-compress")
    press("ArrowRight")
    assert focused() == "tab-denoise" and page.get_attribute("#tab-denoise", "aria-selected") == "true"
    assert page.get_attribute("#tab-compress", "tabindex") == "-1" and page.is_visible("#panel-denoise")
    settle(page)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    nameless = page.evaluate("""[...document.querySelectorAll('input, select, button, [role=slider]')].filter((e) =>
        !(e.labels?.length || e.ariaLabel || e.getAttribute('aria-labelledby') || e.textContent.trim())).length""")
    assert nameless == 0


CONTRAST = """() => {
    const parse = (c) => c.match(/[\\d.]+/g).map(Number);
    const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const behind = (e) => {
        for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length === 3 || c[3] > 0.8) return c;
        }
        throw new Error('no background');
    };
    const found = [];
    for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!own || !e.checkVisibility() || e.closest('.hidden, noscript, [disabled], option')) continue;
        const style = getComputedStyle(e);
        const ink = parse(e instanceof SVGElement ? style.fill : style.color);
        const [a, b] = [luminance(ink), luminance(behind(e))].sort((x, y) => y - x);
        found.push([(a + 0.05) / (b + 0.05), e.id || e.className || e.tagName, e.textContent.trim()]);
    }
    return found;
}"""


def test_both_themes_can_be_read(visit: Opener, small: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        found = page.evaluate(CONTRAST)
        load(page, small)
        found += page.evaluate(CONTRAST)
        page.click("#tab-denoise")
        settle(page)
        found += page.evaluate(CONTRAST)
        assert len(found) > 60
        poor = [f for f in found if f[0] < 4.5]
        assert not poor
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_phones_need_no_scrolling_sideways(visit: Opener) -> None:
    page = visit(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, device_scale_factor=2)

    def fits() -> None:
        width = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
        beyond = page.evaluate("""[...document.querySelectorAll('main *, header *')].filter((e) => e.checkVisibility()
            && !e.closest('.layer, .divider, .hidden, svg') && e.getBoundingClientRect().right > 390.5).length""")
        assert width <= 390 and beyond == 0

    fits()
    load(page, CHELSEA)
    fits()
    view = page.locator("#view").bounding_box()
    assert view["y"] < 120 and view["height"] > 300
    touch = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.5), ("touchMove", 0.4), ("touchMove", 0.2), ("touchEnd", None)):
        at = [] if share is None else [{"x": share * 390, "y": view["y"] + view["height"] / 2}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    becomes(page, ".divider", "aria-valuenow", "20")
    for selector in ("#tab-compress", "#tab-denoise", "#c-save", "#open", "label:has([name=target])", "#c-number"):
        for control in page.locator(selector).all():
            assert control.bounding_box()["height"] >= 38
    page.evaluate("scrollTo(0, 600)")
    drawn(page)
    assert page.locator("#view").bounding_box()["y"] == pytest.approx(0, abs=1)  # the picture stays
    page.evaluate("scrollTo(0, 0)")
    page.tap("#tab-denoise")
    settle(page)
    fits()


def test_still_pages_for_those_who_want_them(visit: Opener) -> None:
    moving = "[...document.styleSheets].length && getComputedStyle(document.querySelector('#busy'), '::before')"
    for preference, expected in (("no-preference", "along"), ("reduce", "none")):
        page = visit(reduced_motion=preference)
        page.evaluate("document.querySelector('#busy').hidden = false")
        assert page.evaluate(f"({moving}).animationName") == expected


def test_the_page_names_no_other_site_and_parses() -> None:
    folder = Path(eocodec.__file__).parent / "service" / "page"
    node = shutil.which("node")
    for file in folder.iterdir():
        if file.suffix not in (".js", ".css", ".html"):
            continue
        text = file.read_text("utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), file.name
        if node and file.suffix == ".js":
            subprocess.run([node, "--check", "--input-type=module"], input=text, text=True, check=True)

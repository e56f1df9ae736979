"""The page's slider and what it compares with: answers at once, other codecs, settings kept."""

# ruff: noqa: F811  (fixtures of the page's other tests)

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

from paths import SAMPLES
from test_page import CHELSEA, CHROMIUM, Opener, browser, load, number, page, server, settle, shows, small, visit  # noqa: F401

from eocodec.codec import compress_picture
from eocodec.image import read_picture
from eocodec.model.bundle import Model

COFFEE = SAMPLES / "coffee.png"  # larger than what is there as soon as a preview

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]


def test_a_moved_slider_shows_a_preview_and_no_number_that_is_not_its_own(page: Any, model: Model) -> None:
    asked: Counter[str] = Counter()
    page.on("request", lambda r: asked.update([f"{r.method} {r.url.partition('?')[0].rpartition('/')[2]}"]))
    load(page, COFFEE)
    seen = page.evaluate("""() => {
        const slider = document.querySelector('#c-slider');
        const chip = document.querySelectorAll('.chip')[1];
        [window.labels, window.sizes] = [[], []];
        const size = document.querySelector('#c-size');
        new MutationObserver(() => sizes.push(size.textContent)).observe(size, {childList: true});
        new MutationObserver(() => labels.push(chip.textContent)).observe(chip, {childList: true});
        slider.value = 600;
        slider.dispatchEvent(new Event('input'));
        return ['size', 'bytes', 'bpp', 'psnr', 'rate'].map((id) => document.querySelector(`#c-${id}`).textContent);
    }""")
    assert seen == ["–"] * 5
    settle(page)
    labels = page.evaluate("() => window.labels")
    sizes = page.evaluate("() => window.sizes")
    assert sizes[1].startswith("≈ ") and not sizes[-1].startswith("≈"), sizes
    psnr = page.inner_text("#c-psnr")
    assert psnr.endswith(" dB") and "≈" not in psnr
    assert labels[0] == "eocodec · coarse preview" and labels[-1].startswith("eocodec · ") and "kB" in labels[-1]
    rate = float(page.input_value("#c-number"))
    shows(page, compress_picture(read_picture(COFFEE), rate, model=model, measure=True))
    assert asked["POST open"] == 1, "the picture goes up once"
    assert asked["POST compress"] == asked["POST decompress"] == 0


def test_another_codec_stands_beside_it_with_scores(page: Any, small: Path) -> None:
    load(page, small)
    page.select_option("#c-rival", "webp")
    page.wait_for_selector("#c-scores:not([hidden])")
    settle(page)
    assert page.inner_text(".layer.left .chip").startswith("WebP · ")
    rows = page.locator("#c-scores dd").all_inner_texts()
    assert len(rows) == 2 and all("dB · " in row for row in rows)
    page.select_option("#c-rival", "")
    settle(page)
    assert page.inner_text(".layer.left .chip").startswith("Original") and page.is_hidden("#c-scores")


def test_settings_can_be_undone_copied_and_are_kept(visit: Opener, small: Path) -> None:
    page = visit(expected="422")
    load(page, small)
    assert page.is_disabled("#c-undo")
    page.check("[name=target][value=psnr]")
    page.fill("#c-number", "38")
    settle(page)
    page.wait_for_function("() => !document.querySelector('#c-undo').disabled")
    page.click("#c-command")
    page.wait_for_selector("#notice:not([hidden])")
    assert "eocodec compress cat.png -o cat.eoc --psnr 38" in page.inner_text("#notice-text")
    page.click("#c-url")
    page.wait_for_function(
        "() => /v1.compress.model=photo&psnr=38$/.test(document.querySelector('#notice-text').textContent)"
    )
    page.fill("#c-number", "90")
    page.wait_for_selector("#c-reach:not([hidden])")
    assert "out of reach" in page.inner_text("#c-reach")
    page.click("#c-undo")
    settle(page)
    assert page.input_value("#c-number") == "38" and number(page, "#c-psnr") >= 38 and page.is_hidden("#c-reach")
    page.reload()
    load(page, small)
    assert page.is_checked("[name=target][value=psnr]") and page.input_value("#c-number") == "38"


def test_of_several_files_any_can_be_chosen(page: Any, small: Path) -> None:
    load(page, [small, CHELSEA])
    assert page.is_visible("#files") and page.inner_text("#name").startswith("cat.png")
    page.select_option("#files", "1")
    page.wait_for_function("() => document.querySelector('#name').textContent.startsWith('chelsea.png')")
    settle(page)
    assert number(page, "#c-bytes") > 5000


def test_what_comes_by_itself_is_in_no_list(page: Any, small: Path, tmp_path: Path) -> None:
    paste = """async () => {
        const canvas = new OffscreenCanvas(90, 60);
        canvas.getContext('2d').fillRect(10, 10, 40, 40);
        const files = new DataTransfer();
        files.items.add(new File([await canvas.convertToBlob()], 'image.png', {type: 'image/png'}));
        const options = {clipboardData: files, bubbles: true, cancelable: true};
        document.body.dispatchEvent(new ClipboardEvent('paste', options));
    }"""
    file = tmp_path / "cat.eoc"
    file.write_bytes(compress_picture(read_picture(small), 96).data)
    click = "id => document.getElementById(id).click()"
    for first, name, give in (
        (small, "pasted.png", lambda: page.evaluate(paste)),
        (small, "coffee.webp", lambda: page.evaluate(click, "sample")),
        (file, "cat.png", lambda: page.evaluate(click, "f-use")),
    ):
        load(page, [first, CHELSEA])
        assert page.is_visible("#files")
        give()
        page.wait_for_function("n => document.querySelector('#name').textContent.startsWith(n)", arg=name)
        assert page.is_hidden("#files"), name
        settle(page)

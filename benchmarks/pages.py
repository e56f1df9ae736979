"""Text with photographs: bytes of a page, of what is written without pages and of WebP lossless; what both lose.

In: the photographs in samples/, around which text is drawn with Pillow's own font. Out: pages.json. `photographs` is
the PSNR over the photographs' pixels, `rest` that over all others; null where these are exact. Seconds are those of the
processor.

    python benchmarks/pages.py [--out benchmarks/pages.json]
"""

import argparse
import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from eocodec import codec, format
from eocodec.coding import registry, segmentation
from eocodec.coding.drawn import EitherJob
from eocodec.coding.rate_control import Target
from eocodec.image import as_picture, to_pillow
from eocodec.metrics import decibels, squared_error
from eocodec.model.library import load_model

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
HERE = Path(__file__).parent
WORDS = (HERE.parent / "docs" / "METHOD.md").read_text().replace("|", " ").replace("*", "").split()
TARGETS: dict[str, dict[str, Any]] = {"C = 96": {"rate": 96}, "38 dB": {"psnr": 38}}


def sample(name: str, width: int, height: int) -> Image.Image:
    """A photograph of samples/, scaled to fill a rectangle."""
    image = Image.open(HERE.parent / "samples" / f"{name}.png").convert("RGB")
    scale = max(width / image.width, height / image.height)
    image = image.resize((math.ceil(image.width * scale), math.ceil(image.height * scale)), Image.Resampling.LANCZOS)
    return image.crop((0, 0, width, height))


class Sheet:
    """A page that remembers where its photographs are."""

    def __init__(self, width: int, height: int, colour: str) -> None:
        self.image = Image.new("RGB", (width, height), colour)
        self.draw = ImageDraw.Draw(self.image)
        self.photographs = np.zeros((height, width), np.bool_)
        self._word = 0

    def photograph(self, name: str, x: int, y: int, width: int, height: int) -> None:
        """Put a photograph down."""
        self.image.paste(sample(name, width, height), (x, y))
        self.photographs[y : y + height, x : x + width] = True

    def text(self, x: int, y: int, width: int, height: int, size: int, colour: str = "black") -> None:
        """Fill a rectangle with lines of text."""
        font = ImageFont.load_default(size)
        for top in range(y, y + height - size, size * 3 // 2):
            line = WORDS[self._word % len(WORDS)]
            self._word += 1
            while self.draw.textlength(longer := f"{line} {WORDS[self._word % len(WORDS)]}", font) < width:
                line = longer
                self._word += 1
            self.draw.text((x, top), line, colour, font)

    def picture(self) -> Bytes:
        """Its pixels."""
        return np.asarray(self.image)


def magazine() -> Sheet:
    """A sheet of A4 at 100 dots an inch: a headline, two columns, two photographs that text flows around."""
    s = Sheet(826, 1169, "white")
    s.text(53, 40, 720, 90, 43)
    s.photograph("coffee", 53, 126, 720, 373)
    s.text(53, 513, 346, 600, 14)
    s.text(427, 513, 346, 280, 14)
    s.photograph("astronaut", 429, 805, 341, 266)
    s.text(427, 1083, 346, 40, 11, "dimgray")
    return s


def screen() -> Sheet:
    """A window with a bar, a list with small pictures, and a photograph."""
    s = Sheet(1280, 800, "#f3f3f5")
    for y in range(40):
        s.draw.line((0, y, 1280, y), (70 + y, 90 + y, 130 + y))
    s.text(20, 8, 500, 40, 18, "white")
    s.draw.rectangle((0, 40, 300, 800), "white", "#d0d0d6")
    for k, name in enumerate(("chelsea", "astronaut", "rocket", "coffee") * 2):
        s.photograph(name, 12, 56 + 90 * k, 56, 56)
        s.text(80, 56 + 90 * k, 205, 56, 14)
    s.draw.rounded_rectangle((330, 60, 1250, 780), 12, "white", "#d0d0d6")
    s.photograph("rocket", 360, 90, 601, 433)
    s.text(985, 90, 245, 430, 14)
    s.text(360, 545, 860, 180, 15)
    for k in range(4):
        s.draw.rounded_rectangle((360 + 140 * k, 735, 480 + 140 * k, 765), 6, "#2f6fde")
        s.text(375 + 140 * k, 741, 90, 20, 13, "white")
    return s


def slide() -> Sheet:
    """A dark slide: title, points, a chart, a photograph."""
    s = Sheet(1280, 720, "#10243e")
    s.text(64, 48, 1120, 80, 45, "white")
    for k in range(4):
        s.draw.ellipse((67, 175 + 64 * k, 80, 188 + 64 * k), "#f0a030")
        s.text(96, 166 + 64 * k, 512, 48, 24, "#dfe8f2")
    for k, height in enumerate((32, 72, 104, 144, 176, 208)):
        s.draw.rectangle((80 + 88 * k, 672 - height, 144 + 88 * k, 672), "#4c8dd0")
    s.photograph("chelsea", 696, 168, 520, 347)
    s.text(696, 528, 520, 48, 14, "#9fb4cc")
    return s


PAGES: dict[str, Callable[[], Sheet]] = {"magazine": magazine, "screen": screen, "slide": slide}


def quality(picture: Bytes, decoded: Bytes, where: Bools) -> float | None:
    """PSNR in dB over some pixels; None if they are the same."""
    found = decibels(squared_error(picture[where], decoded[where]), int(3 * where.sum()), 255)
    return None if math.isinf(found) else round(found, 2)


def webp_size(picture: Bytes) -> int:
    """Bytes of the page as a WebP lossless file."""
    out = io.BytesIO()
    to_pillow(picture).save(out, "WEBP", lossless=True, quality=100, method=6)
    return len(out.getvalue())


def measure(name: str) -> dict[str, Any]:
    """Everything about one page."""
    sheet, model = PAGES[name](), load_model("photo")
    rgb = sheet.picture()
    started = time.process_time()
    regions = segmentation.photographs(rgb)
    seconds = time.process_time() - started
    row: dict[str, Any] = {
        "page": name,
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "photographs": round(float(sheet.photographs.mean()), 3),
        "regions": [[r.x, r.y, r.width, r.height] for r in regions],
        "seconds_per_megapixel": round(1e6 * seconds / (rgb.shape[0] * rgb.shape[1]), 3),
        "webp_lossless": webp_size(rgb),
        "targets": {},
    }
    for label, target in TARGETS.items():
        aim = Target(**{"rate": None, "bpp": None, "max_bytes": None, "psnr": None, **target})
        job = codec.open_picture(as_picture(rgb), model, squared="psnr" in target).job
        assert isinstance(job, EitherJob)
        found = {}
        for kind, pages in (("with pages", True), ("without", False)):
            tried = EitherJob(job.coding, model, job.picture, None, job.tuning, pages)
            started = time.process_time()
            file = codec.Opened(tried).coded(aim).file
            seconds = time.process_time() - started
            decoded = registry.coding_of(file).decode(model, file)
            found[kind] = {
                "form": type(registry.coding_of(file)).__name__.lower(),
                "seconds": round(seconds, 2),
                "bytes": len(format.to_bytes(file)),
                "photographs": quality(rgb, decoded, sheet.photographs),
                "rest": quality(rgb, decoded, ~sheet.photographs),
            }
        row["targets"][label] = found
    return row


def main() -> None:
    """Measure all pages; the file is written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "pages.json")
    out = parser.parse_args().out
    rows: list[dict[str, Any]] = []
    for name in PAGES:
        rows.append(measure(name))
        out.write_text(json.dumps({"model": load_model("photo").id.hex(), "pages": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

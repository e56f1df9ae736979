"""Pages for tests: text, with photographs of samples/ in places that are known."""

from functools import cache

import numpy as np
import numpy.typing as npt
from paths import SAMPLES
from PIL import Image, ImageDraw, ImageFont

from eocodec.regions import Region

Bytes = npt.NDArray[np.uint8]


@cache
def photograph(name: str, height: int, width: int) -> Bytes:
    """The middle of a photograph, scaled down by half."""
    image = Image.open(SAMPLES / f"{name}.png").convert("RGB")
    half = np.asarray(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))
    top, left = (half.shape[0] - height) // 2, (half.shape[1] - width) // 2
    return half[top : top + height, left : left + width]


def text(height: int, width: int, size: int = 13, ink: str = "black", paper: str = "white") -> Bytes:
    """A page that is full of text."""
    image = Image.new("RGB", (width, height), paper)
    draw, font, rng = ImageDraw.Draw(image), ImageFont.load_default(size), np.random.default_rng(0)
    for y in range(4, height - size, size * 3 // 2):
        line = " ".join("".join(map(chr, rng.integers(97, 123, rng.integers(2, 9)))) for _ in range(width // 20))
        draw.text((6, y), line, ink, font)
    return np.array(image)


def sheet(height: int, width: int, places: dict[Region, str], size: int = 13, margin: int = 6) -> Bytes:
    """Text that leaves a margin around photographs."""
    page = text(height, width, size)
    for place, name in places.items():
        page[max(place.y - margin, 0) : place.y + place.height + margin,
             max(place.x - margin, 0) : place.x + place.width + margin] = 255  # fmt: skip
        page[place.place] = photograph(name, place.height, place.width)
    return page


PLACES = {Region(23, 17, 100, 131): "coffee", Region(135, 190, 36, 44): "chelsea"}


@cache
def small() -> Bytes:
    """A page with two photographs, `(200, 260, 3)`."""
    return sheet(200, 260, PLACES)

"""What compressing and decoding give besides bytes and arrays.

In: what the facade has found. Out: small frozen dataclasses.
"""

from dataclasses import dataclass

from eocodec.image import Bytes, rounded

__all__ = ["Compressed", "Decoded", "Truncated"]


@dataclass(frozen=True)
class Compressed:
    """A compressed picture and what it took.

    Arguments:
        data: the file.
        rate: C, latents kept per block.
        bits_per_pixel: file size in bits over pixels.
        psnr: of the decoded picture to the one that was coded, RGB, dB relative to full scale, over the pixels that
            are not fully transparent; None if it was not asked for.
        size: height and width that were coded.
        tries: steps that were tried to meet the target.
        sigma: level of the noise that was removed first, 8-bit levels; None if none was to be removed.
        tune: what the steps follow, "eye" or "psnr".
        depth: bits a sample, 8 or 16.
        notes: sentences, without a subject, on what the form of file could not do for the picture.
    """

    data: bytes
    rate: float
    bits_per_pixel: float
    psnr: float | None
    size: tuple[int, int]
    tries: int = 1
    sigma: float | None = None
    tune: str = "psnr"
    depth: int = 8
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """A decoded picture: `rgb (H, W, 3)` uint8 or uint16, `alpha (H, W)` uint8 or None, and how much could be used.

    `segments` counts the intact segments; an incomplete file without any gives a picture of one colour. `white` is the
    value of the file that is 255 in 8 bits: 65535 of 16 bits a sample, or that of 12 or fewer that the values need.
    """

    rgb: Bytes
    alpha: Bytes | None
    grey: bool
    complete: bool
    damaged: bool
    segments: int
    white: int = 255

    def eight_bit(self) -> Bytes:
        """The colours `(H, W, 3)` in 8 bits."""
        return rounded(self.rgb, self.white)


@dataclass(frozen=True)
class Truncated:
    """A file that was cut.

    Arguments:
        data: what is left.
        blank: pictures in it that are of one colour for lack of latents, see `eocodec.coding.forms.blank_pictures`.
        notes: sentences, without a subject, on what the cut lost.
    """

    data: bytes
    blank: int = 0
    notes: tuple[str, ...] = ()

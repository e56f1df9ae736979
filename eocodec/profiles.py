"""Colour profiles: values of pictures brought to sRGB, at 8 bits.

In: a Pillow image with the profile of its file. Out: an image in RGB.
"""

import io
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from PIL import ImageCms

__all__ = ["to_srgb"]

Bytes = npt.NDArray[np.uint8]

SRGB_TOLERANCE = 2  # levels; a profile that moves no colour further than this is sRGB's


def to_srgb(image: Image.Image) -> Image.Image:
    """A picture in RGB, its values brought to sRGB if it has a profile that says otherwise."""
    profile = image.info.get("icc_profile")
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if profile:
        from PIL import ImageCms  # takes its time

        with suppress(ImageCms.PyCMSError, OSError, ValueError):  # a broken profile must not lose the picture
            image = _converted(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _converted(image: Image.Image, profile: "ImageCms.ImageCmsProfile") -> Image.Image:
    """A picture's values in sRGB; those it has if the profile is sRGB's, whatever it is called."""
    from PIL import ImageCms  # takes its time

    srgb = ImageCms.createProfile("sRGB")
    ramp = np.arange(256, dtype=np.uint8)
    if image.mode == "L":  # by a table: LittleCMS's fast way with grey is up to ten levels off where it is dark
        exact = ImageCms.buildTransform(profile, srgb, "L", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)
        table = np.asarray(exact.apply(Image.fromarray(ramp[None])))[0, :, 1]
        return image if _close(table, ramp) else image.point(table.tolist())
    if image.mode == "RGB":
        cube = np.stack(np.meshgrid(ramp[::51], ramp[::51], ramp[::51]), -1).reshape(1, -1, 3)
        probe = np.concatenate([np.repeat(ramp[None, :, None], 3, 2), cube], 1)
        colorimetric = ImageCms.Intent.RELATIVE_COLORIMETRIC
        measured = ImageCms.buildTransform(profile, srgb, "RGB", "RGB", colorimetric).apply(Image.fromarray(probe))
        if _close(np.asarray(measured), probe):
            return image
    return ImageCms.buildTransform(profile, srgb, image.mode, "RGB").apply(image)


def _close(a: Bytes, b: Bytes) -> bool:
    return int(np.abs(a.astype(np.int32) - b).max()) <= SRGB_TOLERANCE

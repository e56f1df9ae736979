"""The exceptions of eocodec: one family, each message a sentence that a user can act on."""

__all__ = [
    "CutOffError",
    "EocodecError",
    "EocodecWarning",
    "FormatError",
    "ImageError",
    "LimitError",
    "ModelError",
    "OutOfMemoryError",
    "UnknownTypeError",
]


class EocodecError(Exception):
    """Base of all errors that eocodec raises on purpose."""


class FormatError(EocodecError):
    """A file is not a valid `.eoc` file: wrong magic, truncated, damaged or beyond the limits."""


class ImageError(EocodecError):
    """A picture cannot be read, or its size or type is not supported."""


class CutOffError(ImageError):
    """A picture file lacks more of its end than is read without being asked for."""


class ModelError(EocodecError):
    """A model bundle is missing, damaged or not the one a file was made with."""


class UnknownTypeError(ImageError, FormatError):
    """Something is neither a picture nor an `.eoc` file that can be read, whatever its state."""


class LimitError(ImageError, FormatError):
    """A picture has more pixels than the caller allows."""


class OutOfMemoryError(LimitError):
    """The memory of this process does not suffice for a picture."""


class EocodecWarning(UserWarning):
    """A picture is not what its file or array seems to be meant for, and was read all the same."""

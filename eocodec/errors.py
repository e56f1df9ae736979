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
    "counted",
    "reason",
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
    """A picture is not what its file or array seems to be meant for, and was read all the same; or a subject of the lab
    has fewer latents than wanted."""


def counted(number: int, unit: str) -> str:
    """A number with its unit, to stand in a sentence.

    Example:
        >>> counted(1, "byte"), counted(20, "byte")
        ('1 byte', '20 bytes')
    """
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def reason(e: BaseException) -> str:
    """What an exception says, in one line and without the names of files, to stand in a sentence."""
    if isinstance(e, EocodecError):
        return str(e)
    if isinstance(e, MemoryError):
        return "not enough memory"
    if isinstance(e, FileNotFoundError):
        return "it does not exist"
    if isinstance(e, OSError) and e.strerror:
        return e.strerror
    lines = str(e).strip().splitlines()
    return f"{type(e).__name__}: {lines[0]}" if lines else type(e).__name__

"""The pictures that commands read: picture files, `.eoc` files, standard input; and what is to be said of them.

In: a job's source. Out: a picture with the bytes it was read from, and warnings. Also the options that all share.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from eocodec.errors import CutOffError, EocodecError
from eocodec_cli import files
from eocodec_cli.shown import warn

if TYPE_CHECKING:
    from eocodec.image import Bytes, Picture
    from eocodec.model.bundle import Model

__all__ = [
    "EOC",
    "Source",
    "face",
    "frame_option",
    "is_other_name",
    "is_picture_name",
    "lenient_option",
    "mask",
    "misnamed",
    "read",
    "shortfall",
]

EOC = ".eoc"

frame_option = click.option(
    "--frame", type=click.IntRange(min=0), default=0, metavar="N", help="Of several frames or pages the N-th, from 0."
)
lenient_option = click.option("--lenient", is_flag=True, help="Read what is there of pictures that are cut off.")


@dataclass(frozen=True)
class Source:
    """A picture and the size of its file in bytes."""

    picture: "Picture"
    size: int


def is_picture_name(name: str) -> bool:
    """Whether a file of a folder is a picture, by the end of its name; `.eoc` files are none."""
    from eocodec.kinds import SUFFIXES

    return Path(name).suffix.lower() in SUFFIXES


def is_other_name(name: str) -> bool:
    """Whether a file to be written is of any kind of pictures but `.eoc`, by the end of its name."""
    from eocodec.kinds import kind_of

    suffix = Path(name).suffix.lower()
    return suffix != EOC and kind_of(suffix) is not None


def misnamed(target: str) -> list[str]:
    """What is to be said of an `.eoc` file that gets the name of a picture of another kind."""
    return ["written as an .eoc file, whatever the name of the output says"] if is_other_name(target) else []


def read(job: files.Job, frame: int = 0, lenient: bool = False, model: "Model | None" = None) -> Source:
    """Read a picture file or decode an `.eoc` file.

    Arguments:
        job: names the source.
        frame, lenient: see :func:`eocodec.image.read_picture`.
        model: for `.eoc` files, if it is the one that they name.

    Raises:
        EocodecError: it cannot be read.
    """
    from eocodec.image import read_picture

    name = "standard input" if job.source == files.PIPE else job.source
    try:
        if job.source != files.PIPE and not files.is_stream(job.source) and not _holds_eoc(Path(job.source)):
            picture = read_picture(job.source, frame=frame, lenient=lenient)
            return Source(picture, Path(job.source).stat().st_size)
        data = files.read_bytes(job.source)
        if data.startswith(_magic()):
            if frame:
                raise EocodecError(f"{name}: there is no frame {frame}; an .eoc file has one, counted from 0")
            return Source(_decoded(data, model), len(data))
        return Source(read_picture(io.BytesIO(data), name, frame=frame, lenient=lenient), len(data))
    except CutOffError as e:
        raise EocodecError(f"{e}; --lenient reads what is there") from None


def mask(name: str) -> "Bytes":
    """The grey values `(H, W)` of a mask.

    Raises:
        EocodecError: it cannot be read.
    """
    from eocodec.image import read_picture

    return read_picture(name).rgb[..., 1]


def _magic() -> bytes:
    from eocodec.format import MAGIC

    return MAGIC


def _holds_eoc(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_magic())) == _magic()
    except OSError:
        return False  # the reader says why


def _decoded(data: bytes, model: "Model | None") -> "Picture":
    from eocodec.codec import decode_file
    from eocodec.coding.forms import blank_pictures
    from eocodec.format import parse
    from eocodec.image import Picture
    from eocodec.remarks import file_remarks

    file = parse(data)
    fits = model is not None and file.header.model == model.id
    decoded = decode_file(data, model if fits else None)
    lacking = shortfall(decoded.complete, decoded.damaged, decoded.segments, file.header.page, blank_pictures(file))
    return Picture(
        decoded.rgb, decoded.alpha, decoded.grey, notes=(*file_remarks(file), *([lacking] if lacking else []))
    )


def shortfall(complete: bool, damaged: bool, segments: int, page: bool, blank: int) -> str:
    """What is to be said of how much of an `.eoc` file there is to decode; empty where it is all.

    Arguments:
        complete, damaged, segments: as of :class:`eocodec.results.Decoded`.
        page: whether the file is one.
        blank: pictures without latents, see :func:`eocodec.coding.forms.blank_pictures`.
    """
    if page and not complete:
        why, verb = "damaged" if damaged else "cut short", "is" if segments == 1 else "are"
        return f"{why}: {segments} of its photographs {verb} whole"
    if not complete and not segments:
        return f"{'damaged within' if damaged else 'cut short before the end of'} its first segment: a flat picture"
    if complete and blank:
        return f"without latents: {f'{blank} flat photographs' if page else 'a flat picture'}"
    if damaged:
        return "damaged: decoded up to the damage"
    return "" if complete else "cut short: decoded at a lower rate"


def face(data: bytes, model: "Model", source: str) -> "Bytes":
    """The picture `(S, S, 3)` of a file of a model for pictures of one size; what it lacks is said on standard error.

    Raises:
        EocodecError: it is no file of this model, or holds transparency.
    """
    from eocodec.codec import decode_file
    from eocodec.coding.forms import blank_pictures
    from eocodec.format import from_bytes

    found = decode_file(data, model)
    if found.alpha is not None:
        raise EocodecError("it has transparency, which is not among its latents")
    lacking = shortfall(found.complete, found.damaged, found.segments, False, blank_pictures(from_bytes(data)))
    if lacking:
        warn(source, lacking)
    return found.rgb

"""The bundles at hand as they lie on disk, and what they say of themselves: nothing is loaded or run.

In: the id that a file carries. Out: paths, and name plates. What a bundle claims is proven only when it is loaded
(`eocodec.model.library`); here it only names a model to people.
"""

import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from eocodec.errors import ModelError
from eocodec.model import objects

__all__ = [
    "FOLDER_VARIABLE",
    "SHIPPED",
    "Plate",
    "check_name",
    "check_new_name",
    "claimed_id",
    "earlier_models",
    "installed_models",
    "is_shipped",
    "peek_id",
    "plate_of",
    "shipped_models",
    "user_folder",
    "user_models",
]

SHIPPED = Path(__file__).parent.parent / "models"
MANIFEST = "manifest.json"
FOLDER_VARIABLE = "EOCODEC_MODELS"
MAX_MANIFEST = 16 << 20  # bytes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Plate:
    """What a bundle says of itself: its name, and the edge in pixels of the pictures that it is for, None for any."""

    name: str
    edge: int | None


def check_name(name: str) -> None:
    """See that a model can be installed under a name.

    Raises:
        ModelError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ModelError(
            f"{name!r} is no name for a model, which is a letter or digit and then up to 63 of these, dots, dashes and "
            "underscores"
        )


def check_new_name(name: str) -> None:
    """See that a model that is about to be made can be installed under a name.

    Raises:
        ModelError: it cannot, or a model that comes with eocodec has it.
    """
    check_name(name)
    if name in shipped_models():
        raise ModelError(f"a model called {name} comes with eocodec; give the new one another name")


def shipped_models() -> dict[str, Path]:
    """Names and paths of the models that come with the package."""
    return {p.stem: p for p in sorted(SHIPPED.glob("*.eocm"))}


def user_folder() -> Path:
    """The folder of the user's own models: `EOCODEC_MODELS` if that is set, else where the system keeps such data."""
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return Path(given)
    from platformdirs import user_data_path  # takes its time

    return user_data_path("eocodec", appauthor=False) / "models"


def user_models() -> dict[str, Path]:
    """Names and paths of the user's own models; a name that is a shipped model's means that one, and is left out."""
    found = {p.stem: p for p in sorted(user_folder().glob("*.eocm"))}
    return {name: path for name, path in found.items() if name not in shipped_models()}


def installed_models() -> dict[str, Path]:
    """Names and paths of the shipped models and, after them, of the user's own."""
    return {**shipped_models(), **user_models()}


def earlier_models() -> list[Path]:
    """Paths of the decoders of models that came with earlier releases: files made with them stay readable."""
    return sorted((SHIPPED / "earlier").glob("*.eocm"))


def is_shipped(path: Path) -> bool:
    """Whether a bundle came with the package, and is to be trusted as much as its code is."""
    return path.resolve().is_relative_to(SHIPPED.resolve())


def claimed_id(archive: zipfile.ZipFile) -> bytes:
    """The id that an open bundle claims to have, or empty."""
    try:
        return bytes.fromhex(archive.comment.decode("ascii"))
    except ValueError:
        return b""


def peek_id(path: Path) -> bytes:
    """The id that a bundle claims to have, or empty; loading shows whether it is so."""
    try:
        with zipfile.ZipFile(path) as archive:
            return claimed_id(archive)
    except (OSError, zipfile.BadZipFile):
        return b""


def plate_of(identity: bytes) -> Plate | None:
    """The plate of the shipped bundle that claims this id, or None."""
    for path in (*shipped_models().values(), *earlier_models()):
        try:
            with zipfile.ZipFile(path) as archive:
                if claimed_id(archive)[: len(identity)] != identity:
                    continue
                if archive.getinfo(MANIFEST).file_size > MAX_MANIFEST:
                    continue
                manifest = objects.read_object(archive.read(MANIFEST))
                return Plate(str(manifest["name"]), manifest.get("size"))
        except (OSError, KeyError, ValueError, AttributeError, zipfile.BadZipFile):
            continue
    return None

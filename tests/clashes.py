"""Command lines of the decoders under samples/ that would write over what they read, or write one file twice."""

import os
import shutil
from pathlib import Path

from paths import VECTORS, bundle_of

# Where the picture goes, where the integers go if anywhere, and what the refusal says.
CLASHES = {
    "input": ("in.eoc", None, "in.eoc is the input itself"),
    "input, spelled otherwise": ("./in.eoc", None, "in.eoc is the input itself"),
    "link to the input": ("link.eoc", None, "link.eoc is the input itself"),
    "hard link to the input": ("hard.eoc", None, "hard.eoc is the input itself"),
    "bundle": ("model.eocm", None, "model.eocm is the bundle itself"),
    "symbols over the input": ("new.png", "in.eoc", "in.eoc is the input itself"),
    "symbols over a link to the bundle": ("new.png", "link.eocm", "link.eocm is the bundle itself"),
    "symbols over the new picture": ("new.png", "./new.png", "new.png is what the picture is written to"),
    "symbols over the old picture": ("old.png", "old.png", "old.png is what the picture is written to"),
}


def clash(case: str, folder: Path) -> tuple[list[str], str]:
    """The arguments of a case, whose files are then in the folder, and what the refusal says."""
    model, source = folder / "model.eocm", folder / "in.eoc"
    shutil.copy(bundle_of("small.eocm"), model)
    shutil.copy(VECTORS / "small.eoc", source)
    (folder / "old.png").write_bytes(b"old")
    (folder / "link.eoc").symlink_to(source)
    (folder / "link.eocm").symlink_to(model)
    (folder / "hard.eoc").hardlink_to(source)
    picture, integers, said = CLASHES[case]
    arguments = [str(model), str(source), os.path.join(folder, picture)]
    return arguments + (["--symbols", os.path.join(folder, integers)] if integers else []), said


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def linked(folder: Path) -> tuple[Path, Path]:
    """A link to a picture, and the picture."""
    link, picture = folder / "link.png", folder / "picture.png"
    picture.write_bytes(b"old")
    link.symlink_to(picture)
    return link, picture

"""The part of a bundle that codes grey pictures alone: a transform and entropy nets of its own, with one colour axis.

In: the files of a whole bundle. Out: those of the model inside it, as if they were a bundle. They lie in the folder
`grey/` under the names that they have in every bundle; `grey/manifest.json` holds what differs from the whole one's, so
that C, the steps that go with it and the name are the same. What is not there either way is the whole bundle's.
"""

import json
from collections.abc import Iterator, Mapping

from eocodec.errors import ModelError
from eocodec.model import objects

__all__ = ["FOLDER", "GreyFiles", "can_encode", "has_grey"]

FOLDER = "grey/"
MANIFEST = "manifest.json"
SHARED = ("compand.bin", "encoder.json")  # of the whole bundle where the folder has none


def has_grey(files: Mapping[str, bytes]) -> bool:
    """Whether a bundle has such a part."""
    return FOLDER + MANIFEST in files


def can_encode(files: Mapping[str, bytes]) -> bool:
    """Whether a bundle's part can also encode."""
    return has_grey(files) and f"{FOLDER}encoder.onnx" in files


class GreyFiles(Mapping[str, bytes]):
    """Files of the model for grey pictures in a bundle.

    Arguments:
        whole: the bundle's files.
    """

    def __init__(self, whole: Mapping[str, bytes]) -> None:
        self.whole = whole

    def __getitem__(self, name: str) -> bytes:
        if name == MANIFEST:
            return self._manifest()
        own = FOLDER + name
        return self.whole[name if name in SHARED and own not in self.whole else own]

    def __contains__(self, name: object) -> bool:
        return f"{FOLDER}{name}" in self.whole or (name in SHARED and name in self.whole)

    def __iter__(self) -> Iterator[str]:
        own = [n.removeprefix(FOLDER) for n in self.whole if n.startswith(FOLDER)]
        return iter([*own, *(n for n in SHARED if n in self.whole and n not in own)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _manifest(self) -> bytes:
        try:
            both = [objects.read_object(self.whole[name]) for name in (MANIFEST, FOLDER + MANIFEST)]
        except (ValueError, TypeError) as e:
            raise ModelError(f"the model bundle lacks or spoils its manifest ({e})") from None
        return json.dumps({**both[0], **both[1]}, separators=(",", ":"), sort_keys=True).encode()

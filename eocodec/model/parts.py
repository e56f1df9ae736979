"""The parts of a bundle, each with a hash of its own, so that a bundle can be had without those it can do without.

In: the files of a bundle. Out: the list of its parts, its id, the files without some of them. The id is a hash of the
list of what decoding needs, not of the files themselves: a bundle that lacks some is the same model to a file. What no
decoder needs stands beside: better nets for denoising do not make a new model. docs/FORMAT.md, "Parts".
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from eocodec.errors import ModelError
from eocodec.model import objects

__all__ = [
    "BESIDE_PARTS",
    "LIST",
    "OPTIONAL",
    "Listed",
    "check",
    "entries",
    "identity",
    "is_beside",
    "is_listed",
    "listed",
    "strip",
    "verify",
]

Listed = dict[str, Any]

LIST = "parts.json"
ENCODER = ("encoder.onnx", "encoder.json", "grey/encoder.onnx", "grey/encoder.json")
BESIDE = ("denoise/", *ENCODER)  # what no decoder needs
OPTIONAL = {
    "encoder": ENCODER,
    "denoising": ("denoise/",),
    "embedded": ("embedded/", "progressive.bin"),
    "lossless": ("lossless/",),
    "grey": ("grey/",),
}
"""What a bundle can be without, and the files of it: names, and folders with a slash at their end."""
BESIDE_PARTS = ("encoder", "denoising")
"""Of these the ones that no decoder needs."""
ANCESTORS = {
    "ba6e0980bd42ebfc17190da20b1e138fb0528c5ee51cbbba310c59a08e70178b": (
        "26cc94c0a96a772cb349dacacae13926043a63b49bbfff6929a775e6f18c6a36"
    ),
    "03e904950c432b339ba6bc8e8255cda6a035373e91167504c1a854f1a44ce709": (
        "5f2b99a22f894e653d293ae8afc0baa7711a14d9e28e54c83335e3ff52c4c90a"
    ),
}
"""Ids of shipped bundles that had no list, by the SHA-256 that their list would have."""


def is_beside(name: str) -> bool:
    """Whether a file is one that no decoder needs."""
    return name.startswith(BESIDE)


def listed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a whole bundle and the list of them."""
    rest = {n: [len(c), hashlib.sha256(c).hexdigest()] for n, c in sorted(files.items()) if n != LIST}
    groups = {
        "decoding": {n: v for n, v in rest.items() if not is_beside(n)},
        "beside": {n: v for n, v in rest.items() if is_beside(n)},
    }
    return {**files, LIST: json.dumps(groups, indent=1).encode()}


def identity(content: bytes) -> bytes:
    """The full id that a list of parts stands for.

    Raises:
        ModelError: it is not one.
    """
    text = "".join(f"{name} {size} {digest}\n" for name, (size, digest) in sorted(_read(content)["decoding"].items()))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return bytes.fromhex(ANCESTORS.get(digest, digest))


def entries(content: bytes) -> Listed:
    """Size and SHA-256 of every file on a list of parts, by name.

    Raises:
        ModelError: it is not a list.
    """
    groups = _read(content)
    return {**groups["beside"], **groups["decoding"]}


def verify(files: Mapping[str, bytes], contents: bool = True) -> None:
    """See that every file of a bundle with a list is on it and, unless told otherwise, has the content it stands for.

    Raises:
        ModelError: one is not, or has not.
    """
    known = entries(files[LIST])
    for name in files:
        if name not in known and name != LIST:
            raise ModelError(f"the model bundle is damaged: {name} is not on its list of parts")
        if contents and name != LIST:
            check(name, files[name], known)


def is_listed(name: str, content: bytes, known: Listed) -> bool:
    """Whether a file is what a list says."""
    return bool(known.get(name) == [len(content), hashlib.sha256(content).hexdigest()])


def check(name: str, content: bytes, known: Listed) -> None:
    """See that a file is what a list says.

    Raises:
        ModelError: it is not.
    """
    if not is_listed(name, content, known):
        raise ModelError(f"the model bundle is damaged: {name} is not what its list of parts says")


def strip(files: Mapping[str, bytes], without: Iterable[str]) -> dict[str, bytes]:
    """The files of a bundle without some of its parts; files made with it stay readable, for its id is the same.

    Arguments:
        files: of a bundle.
        without: keys of :data:`OPTIONAL`.

    Raises:
        ModelError: the bundle has no list of parts and is not one of those whose list is known.
    """
    given = dict(files) if LIST in files else listed(files)
    if LIST not in files and identity(given[LIST]).hex() not in ANCESTORS.values():
        raise ModelError("this bundle has no list of parts, so that its id is that of all its files; export it again")
    left = tuple(place for part in without for place in OPTIONAL[part])
    return {n: c for n, c in given.items() if not n.startswith(left)} if left else given


def _read(content: bytes) -> dict[str, dict[str, Any]]:
    """The groups of a list, checked.

    Raises:
        ModelError: it is not one.
    """
    try:
        groups = objects.read_object(content)
        fits = set(groups) == {"decoding", "beside"}
        for name, (size, digest) in [entry for group in groups.values() for entry in group.items()]:
            fits = (
                fits and "\n" not in name and " " not in name and type(size) is int and len(bytes.fromhex(digest)) == 32
            )
            fits = fits and digest == digest.lower()
    except (ValueError, TypeError, AttributeError) as e:
        raise ModelError(f"the model bundle's list of parts cannot be read ({e})") from None
    if not fits or set(groups["decoding"]) & set(groups["beside"]) or LIST in groups["decoding"]:
        raise ModelError("the model bundle's list of parts is inconsistent")
    return groups  # type: ignore[no-any-return]

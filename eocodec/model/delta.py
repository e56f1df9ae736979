"""Delta bundles: what differs from another bundle, which they name by its full id.

In: the files of two bundles, or of a delta and its base. Out: the delta's files, or the whole bundle's. A delta is a
`.eocm` like any other but for its entry `delta.json`:

    {"format": 2, "base": ID, "dropped": [NAMES]}

ID is the base's full id in 64 hexadecimal digits. An entry `differences/NAME` holds what the bytes of the file NAME
differ by from the base's, modulo 256: weights that training has moved by a few units pack better so. Format 1 has none.
A delta has the id of the bundle it stands for, so files name both alike; and its manifest, so that one sees what it is
without its base.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eocodec.errors import ModelError
from eocodec.model import parts
from eocodec.model.bundle import bundle_id, write_bundle
from eocodec.model.shelf import MANIFEST

__all__ = ["DELTA", "base_of", "composed", "difference", "write_delta"]

DELTA = "delta.json"
PLAIN, FORMAT = 1, 2
ID_DIGITS = 64


DIFFERENCES = "differences/"
WHOLE = (MANIFEST, parts.LIST)  # read before the base is known


def difference(base: Mapping[str, bytes], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a delta: the manifest, what `base` lacks or has otherwise, and which of the base's are dropped.

    Example:
        >>> delta = difference({"a": b"1", "b": b"2", "c": b"3"}, {"a": b"1", "b": b"4"})
        >>> sorted(delta), json.loads(delta["delta.json"])["dropped"]
        (['b', 'delta.json'], ['c'])
        >>> composed(delta, {"a": b"1", "b": b"2", "c": b"3"})
        {'a': b'1', 'b': b'4'}
    """
    changed = {name: content for name, content in files.items() if name == MANIFEST or base.get(name) != content}
    packed = {n: _minus(c, base[n]) for n, c in changed.items() if n not in WHOLE and len(base.get(n, b"")) == len(c)}
    packed = {n: c for n, c in packed.items() if len(zlib.compress(c)) < len(zlib.compress(changed[n]))}
    note = {
        "format": FORMAT if packed else PLAIN,
        "base": bundle_id(dict(base)).hex(),
        "dropped": sorted(base.keys() - files.keys()),
    }
    return {
        **{n: c for n, c in changed.items() if n not in packed},
        **{DIFFERENCES + n: c for n, c in packed.items()},
        DELTA: json.dumps(note, separators=(",", ":"), sort_keys=True).encode(),
    }


def base_of(files: Mapping[str, bytes]) -> bytes | None:
    """Full id of the bundle that a delta needs; None for a whole bundle.

    Raises:
        ModelError: the note of the base is damaged, or of another version.
    """
    return _note(files)[0] if DELTA in files else None


def composed(delta: Mapping[str, bytes], base: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of the whole bundle that a delta stands for.

    Raises:
        ModelError: `base` is not the bundle that the delta names, or lacks what the delta drops.
    """
    identity, dropped = _note(delta)
    if bundle_id(dict(base)) != identity:
        raise ModelError(f"the model bundle is a delta of model {identity.hex()[:8]}, not of the one given as its base")
    if not dropped <= base.keys():
        raise ModelError("the delta bundle drops what its base does not have")
    files = {name: content for name, content in base.items() if name not in dropped}
    files |= {n: c for n, c in delta.items() if n != DELTA and not n.startswith(DIFFERENCES)}
    for entry in (n for n in delta if n.startswith(DIFFERENCES)):
        name = entry.removeprefix(DIFFERENCES)
        if len(base.get(name, b"")) != len(delta[entry]):
            raise ModelError(f"the delta bundle's difference from {name} does not fit its base")
        files[name] = _plus(delta[entry], base[name])
        if parts.LIST in files:
            parts.check(name, files[name], parts.entries(files[parts.LIST]))
    return files


def _minus(content: bytes, base: bytes) -> bytes:
    return (np.frombuffer(content, np.uint8) - np.frombuffer(base, np.uint8)).tobytes()


def _plus(difference: bytes, base: bytes) -> bytes:
    return (np.frombuffer(difference, np.uint8) + np.frombuffer(base, np.uint8)).tobytes()


def write_delta(path: Path, base: Mapping[str, bytes], files: Mapping[str, bytes]) -> bytes:
    """Write what differs from `base` as a delta bundle; returns the full id of the bundle that it stands for.

    Raises:
        OSError: it cannot be written.
    """
    return write_bundle(path, difference(base, files), bundle_id(dict(files)))


def _note(files: Mapping[str, bytes]) -> tuple[bytes, set[str]]:
    try:
        note = json.loads(files[DELTA])
        if note["format"] not in (PLAIN, FORMAT):
            raise ModelError("the delta bundle has another format version than this program reads")
        base, dropped = note["base"], note["dropped"]
        if not isinstance(base, str) or len(base) != ID_DIGITS or not isinstance(dropped, list):
            raise ValueError("no id")
        if not all(isinstance(name, str) for name in dropped):
            raise ValueError("no names")
        return bytes.fromhex(base), set(dropped)
    except (KeyError, ValueError, TypeError) as e:
        raise ModelError(f"the delta bundle's note of its base is damaged ({e})") from None

"""Delta bundles: what differs from another bundle, which they name by its full id.

In: the files of two bundles, or of a delta and its base. Out: the delta's files, or the whole bundle's. A delta is a
`.eocm` like any other but for its entry `delta.json`:

    {"format": 2, "base": ID, "dropped": [NAMES], "changes": [[NAME, LENGTH, DIFFERENCE], …], "dictionary": [NAMES]}

ID is the base's full id in 64 hexadecimal digits. `changes.zst` is one zstd frame of the contents of the files under
"changes", one behind the other, since encoder and decoder have many weights in common; its dictionary is the raw
content of the base's files under "dictionary" (none if it is missing), for weights that are elsewhere there. Where
DIFFERENCE is true it has what the bytes differ by from the base's file, which is as long, modulo 256: weights that
training has moved by a few units pack better so. In format 1 there is no such frame; all that changed are entries of
their own.
A delta has the id of the bundle it stands for, so files name both alike; and its manifest, so that one sees what it is
without its base.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

from eocodec.errors import ModelError
from eocodec.model import objects, parts
from eocodec.model.bundle import bundle_id, write_bundle
from eocodec.model.shelf import MANIFEST

__all__ = ["DELTA", "base_of", "composed", "difference", "write_delta"]

DELTA = "delta.json"
CHANGES = "changes.zst"
PLAIN, FORMAT = 1, 2
ID_DIGITS = 64
SHARED = ("decoder.onnx",)  # holds all float weights that files depend on
APART = (MANIFEST, parts.LIST)  # entries of their own, to be read before the base is known
WINDOW = 27  # log2 of the bytes that the frame may refer back to
LARGEST = 256 << 20  # bytes of all changes


def difference(base: Mapping[str, bytes], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a delta: the manifest, what `base` lacks or has otherwise, and which of the base's are dropped.

    Example:
        >>> delta = difference({"a": b"1", "b": b"2", "c": b"3"}, {"a": b"1", "b": b"4"})
        >>> sorted(delta), json.loads(delta["delta.json"])["dropped"]
        (['changes.zst', 'delta.json'], ['c'])
        >>> composed(delta, {"a": b"1", "b": b"2", "c": b"3"})
        {'a': b'1', 'b': b'4'}
    """
    changed = {n: c for n, c in sorted(files.items()) if n not in APART and base.get(n) != c}
    moved = {n: _minus(c, base[n]) for n, c in changed.items() if len(base.get(n, b"")) == len(c)}
    moved = {n: c for n, c in moved.items() if len(_packed(c, 9)) < len(_packed(changed[n], 9))}
    dictionary = [n for n in SHARED if n in changed and n in base]
    note = {
        "format": FORMAT,
        "base": bundle_id(dict(base)).hex(),
        "dropped": sorted(base.keys() - files.keys()),
        "changes": [[n, len(c), n in moved] for n, c in changed.items()],
        "dictionary": dictionary,
    }
    return {
        **{n: files[n] for n in APART if n in files},
        CHANGES: _packed(
            b"".join(moved.get(n, c) for n, c in changed.items()), zstandard.MAX_COMPRESSION_LEVEL, base, dictionary
        ),
        DELTA: json.dumps(note, separators=(",", ":"), sort_keys=True).encode(),
    }


def base_of(files: Mapping[str, bytes]) -> bytes | None:
    """Full id of the bundle that a delta needs; None for a whole bundle.

    Raises:
        ModelError: the note of the base is damaged, or of another version.
    """
    return _note(files).base if DELTA in files else None


def composed(delta: Mapping[str, bytes], base: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of the whole bundle that a delta stands for.

    What no decoder needs (`eocodec.model.parts`) has no part in the base's id: where the base has other nets for
    denoising by now, or none, than the delta was made with, the bundle is without those.

    Raises:
        ModelError: `base` is not the bundle that the delta names, or lacks what the delta drops.
    """
    note = _note(delta)
    if bundle_id(dict(base)) != note.base:
        name = note.base.hex()[:8]
        raise ModelError(f"the model bundle is a delta of model {name}, not of the one given as its base")
    if not base.keys() >= set(note.dictionary):
        raise ModelError("the delta bundle needs a file that its base does not have: was something stripped from it?")
    if not {name for name in note.dropped if not parts.is_beside(name)} <= base.keys():
        raise ModelError("the delta bundle drops what its base does not have")
    files = {name: content for name, content in base.items() if name not in note.dropped}
    files |= {name: content for name, content in delta.items() if name not in (DELTA, CHANGES)}
    listed = parts.entries(files[parts.LIST]) if parts.LIST in files else None
    if listed is not None:
        files = {n: c for n, c in files.items() if not parts.is_beside(n) or parts.is_listed(n, c, listed)}
    for name, content, moved in _changes(note, delta.get(CHANGES, b""), base):
        fits = not moved or len(base.get(name, b"")) == len(content)
        whole = _plus(content, base[name]) if moved and fits else content
        if listed is not None and parts.is_beside(name) and not (fits and parts.is_listed(name, whole, listed)):
            continue
        if not fits:
            raise ModelError(f"the delta bundle's difference from {name} does not fit its base")
        files[name] = whole
        if listed is not None:
            parts.check(name, whole, listed)
    return files


def write_delta(path: Path, base: Mapping[str, bytes], files: Mapping[str, bytes]) -> bytes:
    """Write what differs from `base` as a delta bundle; returns the full id of the bundle that it stands for.

    Raises:
        OSError: it cannot be written.
    """
    return write_bundle(path, difference(base, files), bundle_id(dict(files)))


@dataclass(frozen=True)
class _Note:
    """What `delta.json` says; changes are names, lengths, and whether they are differences."""

    base: bytes
    dropped: frozenset[str]
    changes: tuple[tuple[str, int, bool], ...]
    dictionary: tuple[str, ...]


def _note(files: Mapping[str, bytes]) -> _Note:
    try:
        note = objects.read_object(files[DELTA])
        if note["format"] not in (PLAIN, FORMAT):
            raise ModelError("the delta bundle has another format version than this program reads")
        base, dropped, changes = note["base"], note["dropped"], note.get("changes", [])
        dictionary = note.get("dictionary", [])
        if not isinstance(base, str) or len(base) != ID_DIGITS or not isinstance(dropped, list):
            raise ValueError("no id")
        if not isinstance(dictionary, list) or not all(isinstance(name, str) for name in [*dropped, *dictionary]):
            raise ValueError("no names")
        for name, length, moved in changes:
            if not (isinstance(name, str) and type(length) is int and isinstance(moved, bool) and length >= 0):
                raise ValueError("no changes")
        moved = tuple((n, k, m) for n, k, m in changes)
        return _Note(bytes.fromhex(base), frozenset(dropped), moved, tuple(dictionary))
    except (KeyError, ValueError, TypeError) as e:
        raise ModelError(f"the delta bundle's note of its base is damaged ({e})") from None


def _changes(note: _Note, frame: bytes, base: Mapping[str, bytes]) -> Iterator[tuple[str, bytes, bool]]:
    """Names and contents that the frame holds, and whether these are differences."""
    if not note.changes:
        return
    total = sum(length for _, length, _ in note.changes)
    if total > LARGEST or len({name for name, _, _ in note.changes}) != len(note.changes):
        raise ModelError("the delta bundle changes more than allowed")
    try:
        unpacking = zstandard.ZstdDecompressor(
            dict_data=_dictionary(base, note.dictionary), max_window_size=1 << WINDOW
        )
        with unpacking.stream_reader(frame) as reader:
            content = reader.read(total + 1)
    except (zstandard.ZstdError, MemoryError) as e:
        raise ModelError(f"the delta bundle's changes are damaged ({e})") from None
    if len(content) != total:
        raise ModelError("the delta bundle's changes are not as long as its note says")
    start = 0
    for name, length, moved in note.changes:
        yield name, content[start : start + length], moved
        start += length


def _packed(content: bytes, level: int, base: Mapping[str, bytes] | None = None, names: Sequence[str] = ()) -> bytes:
    how = zstandard.ZstdCompressionParameters.from_level(level, window_log=WINDOW, enable_ldm=bool(names))
    return zstandard.ZstdCompressor(dict_data=_dictionary(base or {}, names), compression_params=how).compress(content)


def _dictionary(base: Mapping[str, bytes], names: Sequence[str]) -> zstandard.ZstdCompressionDict | None:
    if not names:
        return None
    return zstandard.ZstdCompressionDict(b"".join(base[n] for n in names), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _minus(content: bytes, base: bytes) -> bytes:
    return (np.frombuffer(content, np.uint8) - np.frombuffer(base, np.uint8)).tobytes()


def _plus(difference: bytes, base: bytes) -> bytes:
    return (np.frombuffer(difference, np.uint8) + np.frombuffer(base, np.uint8)).tobytes()

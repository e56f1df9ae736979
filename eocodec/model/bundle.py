"""A model bundle (`.eocm`): ONNX graphs, entropy tables and a manifest in one zip file, named by its content hash.

In: a path, or a bundle's files. Out: files, or a :class:`Model`. A bundle is data, never code: it is checked (names,
sizes, hash, numbers) before any graph is opened.
"""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from eocodec.cached import cached_property
from eocodec.errors import ModelError
from eocodec.files import atomic_file
from eocodec.model import parts
from eocodec.model.encoding import EncoderSettings
from eocodec.model.grey import GreyFiles, can_encode, has_grey
from eocodec.model.manifest import FlatManifest, Manifest, PhotoManifest, read_manifest
from eocodec.model.runtime import USUAL, Runtime, is_exact
from eocodec.model.shelf import claimed_id, peek_id

__all__ = ["Entries", "Model", "bundle_id", "open_bundle", "peek_id", "read_bundle", "write_bundle"]

T = TypeVar("T")

MAX_ENTRY = 64 << 20
MAX_ENTRIES = 256
MAX_BUNDLE = 256 << 20  # bytes of all entries
MAX_TABLES = 256
TABLE_TOTAL = 1 << 24

Integers = npt.NDArray[np.int64]


def bundle_id(files: Mapping[str, bytes]) -> bytes:
    """The id of a bundle: that of its list of parts (`eocodec.model.parts`).

    Bundles older than that have no list. Theirs is SHA-256 over the sorted names and contents of their files, but for
    those that only denoise.
    """
    if parts.LIST in files:
        return parts.identity(files[parts.LIST])
    digest = hashlib.sha256()
    for name in sorted(n for n in files if not n.startswith("denoise/")):
        content = files[name]
        digest.update(len(name).to_bytes(4, "little") + name.encode() + len(content).to_bytes(8, "little") + content)
    return digest.digest()


def write_bundle(path: Path, files: dict[str, bytes], identity: bytes | None = None, *, new: bool = False) -> bytes:
    """Write a bundle (reproducible bytes), all or nothing, and return its full id.

    Arguments:
        path: of the `.eocm` file.
        files: its entries.
        identity: the full id that it claims to have, where that is not its own content's (`eocodec.model.delta`).
        new: replace no file.

    Raises:
        ModelError: its entries are too many or too large for readers.
        FileExistsError: there is a file, and the bundle is to be `new`.
        OSError: it cannot be written.
    """
    _check_sizes(path, [len(content) for content in files.values()])
    identity = identity or bundle_id(files)
    with (
        atomic_file(path, new=new) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        archive.comment = identity.hex().encode()  # to find a model without reading it; checked when loaded
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    return identity


def _check_sizes(path: Path, sizes: Sequence[int]) -> None:
    """Refuse a bundle whose entries, of so many bytes each, are more or larger than readers allow.

    Raises:
        ModelError: they are.
    """
    if len(sizes) > MAX_ENTRIES or max(sizes, default=0) > MAX_ENTRY or sum(sizes) > MAX_BUNDLE:
        raise ModelError(f"{path}: the model bundle is larger than allowed")


class Entries(Mapping[str, bytes]):
    """Files of a bundle, each unpacked when it is first asked for; the bundle itself is in memory from the start.

    Sizes and names are checked at once, before anything is unpacked; an entry's checksum when it is unpacked, and its
    hash where the bundle has a list of parts.

    Arguments:
        path: of the bundle.

    Raises:
        ModelError: missing, not a bundle, or with entries that are too many or too large; asking for an entry that is
            damaged raises it, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._told():
            self._archive = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
        entries = self._archive.infolist()
        _check_sizes(path, [e.file_size for e in entries])
        self._entries = {e.filename: e for e in entries}
        if len(self._entries) != len(entries):
            raise ModelError(f"{path}: the model bundle repeats a name")
        self._unpacked: dict[str, bytes] = {}

    @property
    def claimed(self) -> bytes:
        """The id that the bundle claims to have (:func:`write_bundle` notes it), or empty."""
        return claimed_id(self._archive)

    def __getitem__(self, name: str) -> bytes:
        if name not in self._unpacked:
            entry = self._entries[name]
            with self._told():
                content = self._archive.read(entry)
            if name != parts.LIST and name in self._listed:  # names that are not are no model's business
                parts.check(name, content, self._listed)
            self._unpacked[name] = content
        return self._unpacked[name]

    @cached_property
    def _listed(self) -> parts.Listed:
        return parts.entries(self[parts.LIST]) if parts.LIST in self else {}

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of reading as errors of eocodec's own."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise ModelError(f"{self.path}: no such model bundle") from None
        except (OSError, zipfile.BadZipFile) as e:
            raise ModelError(f"{self.path}: not a model bundle ({e})") from None
        except Exception as e:  # zipfile lets zlib's and its own errors of many kinds through
            raise ModelError(f"{self.path}: the model bundle is damaged ({e})") from None


def open_bundle(path: Path) -> Entries:
    """Files of a bundle, unpacked as they are asked for, see :class:`Entries`.

    Raises:
        ModelError: missing, not a bundle, or with entries that are too many or too large.
    """
    return Entries(path)


def read_bundle(path: Path) -> dict[str, bytes]:
    """Files of a bundle, all of them unpacked, with every size checked before.

    Raises:
        ModelError: missing, not a bundle, damaged, or with entries that are too many or too large.
    """
    return dict(Entries(path))


class Model:
    """A loaded bundle.

    Arguments:
        files: the bundle's files, see :func:`open_bundle`. All that the id stands for are read at once, to find it,
            unless there is a list of parts.
        threads: threads to work with; 0 is one per core.
        optimisation: graph optimisation level, see :class:`eocodec.model.runtime.Runtime`; symbols do not depend on it.
        device: where the transform runs: "cpu", "cuda", or "auto" for CUDA where it works and the CPU elsewhere. The
            entropy model always runs on the CPU.
        trusted: whether its graphs are known to be harmless, see :class:`eocodec.model.runtime.Runtime`.

    Raises:
        EocodecError: there is no such device, or CUDA does not work.
        ModelError: the files are not a valid bundle.
    """

    axes, other_axes = 3, "a model of one colour axis is a part of another's bundle, and this bundle is nothing else"

    def __init__(
        self,
        files: Mapping[str, bytes],
        threads: int = 0,
        optimisation: str = USUAL,
        device: str = "auto",
        trusted: bool = False,
    ) -> None:
        self.runtime = Runtime(files, threads, optimisation, device, trusted)
        if parts.LIST in files:
            parts.verify(files, contents=not isinstance(files, Entries))
        self.files = files
        self.full_id = self._identity()
        self.any_manifest: Manifest = read_manifest(files)
        try:
            self.tables = _unpack_tables(np.frombuffer(files["tables.bin"], "<u4"))
            self.compand_table = np.frombuffer(files["compand.bin"], np.uint8)
            if len(self.compand_table) < 2 or len(self.any_manifest.shift) != len(self.tables):
                raise ModelError("the model bundle's tables are inconsistent")
            self.any_manifest.check(len(self.tables))
        except (KeyError, TypeError, ValueError) as e:
            raise ModelError(f"the model bundle lacks or spoils its manifest ({e})") from None
        if isinstance(self.any_manifest, PhotoManifest) and self.any_manifest.axes != self.axes:
            raise ModelError(self.other_axes)
        self._derived: dict[Callable[[Model], Any], Any] = {}
        self.installed = ""
        if self.runtime.must:
            self.settle()  # what was asked for by name must not fail only in the middle of the work

    def _identity(self) -> bytes:
        return bundle_id(self.files)

    @cached_property
    def grey(self) -> "Model | None":
        """The model for grey pictures alone in the bundle, see `eocodec.model.grey`; None: there is none.

        Raises:
            ModelError: it is damaged.
        """
        return GreyModel(self) if has_grey(self.files) else None

    def of_axes(self, axes: int) -> "Model":
        """The model whose files have so many colour axes: this one, or that for grey pictures in its bundle.

        Raises:
            ModelError: the bundle has none.
        """
        if self.manifest.axes == axes:
            return self
        if self.grey is None or self.grey.manifest.axes != axes:
            raise ModelError(
                f"this bundle of the model {self.name} lacks its part for grey pictures, which the file needs; "
                "the whole bundle has it"
            )
        return self.grey

    def for_picture(self, grey: bool) -> "Model":
        """The model that encodes a picture, grey or not: this one, or that for grey pictures in its bundle."""
        return self.of_axes(1) if grey and self.manifest.axes > 1 and can_encode(self.files) else self

    @cached_property
    def constants(self) -> dict[str, npt.NDArray[np.float32]]:
        """What the encoder and the decoder graph take besides their input."""
        return self.any_manifest.constants(self.files)

    @property
    def manifest(self) -> PhotoManifest:
        """The manifest of a model for pictures of any size.

        Raises:
            ModelError: this model is for pictures of one size.
        """
        if isinstance(self.any_manifest, PhotoManifest):
            return self.any_manifest
        raise ModelError(f"the model {self.name} cannot do this; it only codes pictures of {self.size} pixels")

    @cached_property
    def encoding(self) -> EncoderSettings:
        """How to encode with a model for pictures of any size.

        Raises:
            ModelError: this model is for pictures of one size, or its settings are damaged.
        """
        return EncoderSettings.of(self.files, self.manifest)

    @property
    def flat(self) -> FlatManifest:
        """The manifest of a model for pictures of one size, whose latents are one vector.

        Raises:
            ModelError: this model is for pictures of any size.
        """
        if isinstance(self.any_manifest, FlatManifest):
            return self.any_manifest
        raise ModelError(f"the model {self.name} cannot do this; it is for pictures of any size")

    @property
    def kind(self) -> str:
        """The kind of model, as the manifest names it: for people; what it can do, its manifest answers."""
        return self.any_manifest.kind

    @property
    def size(self) -> str | None:
        """Width and height that the model is for, such as "64x64", or None for any."""
        edge = self.any_manifest.edge
        return None if edge is None else f"{edge}x{edge}"

    @property
    def id(self) -> bytes:
        """The four bytes that files carry."""
        return self.full_id[:4]

    @property
    def name(self) -> str:
        """The model's name: that under which it is installed, or its manifest's."""
        return self.installed or self.any_manifest.name

    @property
    def block(self) -> int:
        """The largest C: latents of a block, 3 · 4**levels, or of the whole picture for models of one size."""
        return self.any_manifest.block

    @property
    def multiple(self) -> int:
        """Pictures are padded to multiples of this many pixels."""
        return int(2 ** (self.manifest.levels + 1))

    @property
    def denoising_methods(self) -> tuple[str, ...]:
        """How the model can denoise, best first."""
        return self.any_manifest.denoising_methods(self.files)

    @property
    def device(self) -> str:
        """Where the transform runs, "cpu" or "cuda"; "auto" as long as nothing has run."""
        return self.runtime.device

    @property
    def share(self) -> int:
        """How many threads may work at a picture at the same time."""
        return self.runtime.share

    def settle(self) -> str:
        """Where the transform runs: "cuda" or "cpu". Opens a session to find out, so that later ones need not."""
        self.runtime.open("decoder")
        return self.runtime.device

    def run(self, graph: str, inputs: dict[str, npt.NDArray[Any]], one_of_many: bool = False) -> list[npt.NDArray[Any]]:
        """Run one graph of the bundle; outputs in the graph's order. A flat model's rotation is passed along.

        Arguments:
            graph: its name.
            inputs: what it takes, by name.
            one_of_many: see :meth:`eocodec.model.runtime.Runtime.run`.

        Raises:
            ModelError: the graph is missing or does not fit its inputs.
        """
        return self.runtime.run(graph, inputs if is_exact(graph) else {**inputs, **self.constants}, one_of_many)

    def derived(self, make: Callable[["Model"], T]) -> T:
        """What `make` gives for this model, made once: tables of the bundle in the form that a coder needs.

        Raises:
            ModelError: as `make` does; then nothing is kept.
        """
        if make not in self._derived:
            self._derived[make] = make(self)
        return self._derived[make]  # type: ignore[no-any-return]


class GreyModel(Model):
    """The model for grey pictures alone in a bundle: files name the whole one, and say that they are for this one.

    Arguments:
        whole: the bundle's model.

    Raises:
        ModelError: its files do not make a model of one colour axis.
    """

    axes, other_axes = 1, "the model bundle's part for grey pictures has colours"

    def __init__(self, whole: Model) -> None:
        self.whole = whole
        given = whole.runtime
        super().__init__(GreyFiles(whole.files), given.threads, given.optimisation, given.device, given.trusted)
        if not isinstance(self.any_manifest, PhotoManifest):
            raise ModelError("the model bundle's part for grey pictures is for pictures of one size")

    def _identity(self) -> bytes:
        return self.whole.full_id


def _unpack_tables(words: npt.NDArray[np.uint32]) -> list[Integers]:
    """Frequency tables f(0), f(1), …, f(R): count, then for each its length and values.

    f(0) + 2 Σ f(m) = `TABLE_TOTAL`.
    """
    tables, at = [], 1
    count = int(words[0]) if len(words) else 0
    if not 1 <= count <= MAX_TABLES:
        raise ModelError("the model bundle's entropy tables are damaged")
    for _ in range(count):
        n = int(words[at]) if at < len(words) else 0
        table = words[at + 1 : at + 1 + n].astype(np.int64)
        if n < 2 or len(table) != n or table.min() < 1 or table[0] + 2 * table[1:].sum() != TABLE_TOTAL:
            raise ModelError("the model bundle's entropy tables are damaged")
        tables.append(table)
        at += 1 + n
    return tables

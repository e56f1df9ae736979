"""Corpora: every picture below a folder becomes an `.eoc` file below another one; killed runs go on (extra `batch`).

In: a folder, a glob or an fsspec URL, and :class:`Settings`. Out: NAME.eoc for every picture NAME, and
`manifest.parquet` with a :class:`Row` for each. docs/BATCH.md says what is promised.

    Batch ── sources not done yet ──> engine ── Source ──> Work, in some process ── Row ──> Batch ──> Manifest

Importing this module does not import NumPy, so that a worker process can say beforehand how many threads that takes.
"""

import contextlib
import functools
import hashlib
import io
import json
import math
import multiprocessing
import os
import re
import signal
import stat
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eocodec.errors import EocodecError

if TYPE_CHECKING:
    from eocodec.model.bundle import Model

__all__ = ["SUFFIXES", "Batch", "Engine", "Row", "Settings", "Source", "Store", "Totals", "Work", "local", "pictures"]

# What is a picture in a folder; the same wherever the program runs, whichever readers Pillow has there.
SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("apng", "avif", "bmp", "dib", "gif", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm"),
        *("ppm", "qoi", "tga", "tif", "tiff", "webp"),
    )
)
MANIFEST = "manifest.parquet"
PARTS = ".eocodec-batch"  # folder of the rows of a run that has not ended
PARTIAL = f"{PARTS}/partial"  # folder of files that are being written
PART_NAME, PARTIAL_NAME = r"part-(\d+)\.parquet", r"[0-9a-f]{32}"
PART_ROWS, PART_SECONDS, PART_PAUSE = 100, 10.0, 1.0  # a part has that many rows or seconds; seconds between two parts
AHEAD = 2  # sources that a worker process has: the one in work and the next
WILDCARDS = "*?["  # make a path a glob
ERRORS_SHOWN = 5
LOST = "its worker process was killed at every attempt; is there not enough memory?"
ATOMIC_PUT = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "oci", "oss", "tos"}  # protocols
VERSIONS = ("mtime", "ETag", "etag", "md5Hash", "crc32c", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class Settings:
    """How every picture is coded; see `eocodec.compress`.

    Arguments:
        rate, bpp, psnr, lossless, progressive, denoise: as there.
        model: a shipped model's name, or a bundle's path, which every worker must see.
        device: where the transform runs, see `eocodec.load_model`.
        measure: decode, too, for the PSNR.
        max_pixels: larger pictures fail.
    """

    rate: float | None = None
    bpp: float | None = None
    psnr: float | None = None
    lossless: bool = False
    progressive: bool = False
    denoise: float | str | None = None
    model: str = "photo"
    device: str = "auto"
    measure: bool = True
    max_pixels: int | None = None

    def loaded(self) -> "Model":
        """The model, on one thread.

        Raises:
            EocodecError: no such model or device, or a rate that it does not have.
        """
        from eocodec.model.library import load_model

        model = load_model(self.model, 1, device=self.device)
        if self.rate is not None and not 1 <= self.rate <= model.block:
            raise EocodecError(f"the rate must be from 1 to {model.block} latents, not {self.rate:g}")
        return model

    def described(self) -> str:
        """What the files depend on, such as "rate=96 model=26cc94c0"; files of equal descriptions are the same."""
        from eocodec.codec import DEFAULT_RATE

        model = self.loaded()
        targets: dict[str, object] = {"rate": self.rate, "bpp": self.bpp, "psnr": self.psnr}
        if not self.lossless and all(value is None for value in targets.values()):
            targets["rate"] = DEFAULT_RATE
        words = [f"{name}={value:.12g}" for name, value in targets.items() if value is not None]
        words += [name for name in ("lossless", "progressive") if getattr(self, name)]
        if self.denoise is not None:
            words.append(f"denoise={self.denoise}")
        # The id leaves the denoising nets out.
        return " ".join([*words, f"model={(model.id if self.denoise is None else model.full_id).hex()}"])


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to be coded: its name relative to the corpus, and what tells this version of it from another one."""

    name: str
    stamp: str


@dataclass(frozen=True)
class Row:
    """One row of the manifest: what became of a source.

    Arguments:
        source, output: names relative to the corpus and to the results.
        status: "done" or "failed"; a failed source has no output, or that of an earlier version of it.
        settings: digest of :meth:`Settings.described`.
        model: id of the model, as in the file's header.
        stamp: version of the source, see :class:`Source`.
        error: what went wrong.
        width, height: pixels.
        bytes_in, bytes_out: sizes of source and output.
        bpp: bits per pixel of the output.
        psnr: dB; None if it was not measured, and for lossless files.
        seconds: from opening the source to having written the output.
        rate: C, latents kept per block.
    """

    source: str
    output: str
    status: str
    settings: str
    model: str
    stamp: str
    error: str | None = None
    width: int | None = None
    height: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    bpp: float | None = None
    psnr: float | None = None
    seconds: float | None = None
    rate: float | None = None


Engine = Callable[["Work", Sequence[Source]], Iterator[Row]]
"""What works at sources: gives the row of each, in any order."""


def _reason(e: BaseException) -> str:
    """What to tell of an exception, without names."""
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


@dataclass(frozen=True)
class Store:
    """A folder on this machine or elsewhere; files in it are read and written whole.

    Arguments:
        url: absolute path, or an fsspec URL such as s3://bucket/folder.
        root: the folder in the filesystem's own terms.
    """

    url: str
    root: str

    @staticmethod
    def at(url: str, root: str | None = None) -> "Store":
        """The store of a path, relative or not, or a URL; or of another folder of that filesystem.

        Raises:
            EocodecError: unknown protocol, or the package for it is missing.
        """
        filesystem, path = _filesystem(url)
        root = path if root is None else root
        if _is_local(filesystem):
            return Store(root, root)
        return Store(url if "::" in url else filesystem.unstrip_protocol(root), root)

    @functools.cached_property
    def filesystem(self) -> Any:
        """The fsspec filesystem."""
        return _filesystem(self.url)[0]

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of the operating system."""
        return _is_local(self.filesystem)

    @property
    def is_private(self) -> bool:
        """Whether other processes cannot see it."""
        return "memory" in _protocols(self.filesystem)

    def path(self, name: str) -> str:
        """The filesystem's path of a file."""
        return f"{self.root.rstrip('/')}/{name}" if self.root else name

    def where(self, name: str) -> str:
        """How a message names a file."""
        return f"{self.url.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """Content of a file."""
        content: bytes = self.filesystem.cat_file(self.path(name))
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, so that its name stands for all of the new content or still for what it was.

        A put of an object store is like that. Elsewhere a file gets its name when it is whole.
        """
        if self.is_local:
            self._write_here(Path(self.path(name)), content)
        elif _protocols(self.filesystem) & ATOMIC_PUT:
            self.filesystem.pipe_file(self.path(name), content)
        else:
            partial, final = self.path(f"{PARTIAL}/{uuid.uuid4().hex}"), self.path(name)
            for folder in {partial.rpartition("/")[0], final.rpartition("/")[0]}:
                self.filesystem.makedirs(folder, exist_ok=True)
            self.filesystem.pipe_file(partial, content)
            if self.filesystem.exists(final):  # some cannot rename onto a file
                self.filesystem.rm_file(final)
            self.filesystem.mv(partial, final)

    def _write_here(self, final: Path, content: bytes) -> None:
        partial = Path(self.path(PARTIAL), uuid.uuid4().hex)
        for folder in (partial.parent, final.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as f:
                f.write(content)
                f.flush()
                os.fsync(f.fileno())
            partial.replace(final)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and sizes in bytes of the files in a folder, which need not be there."""
        try:
            found = self.filesystem.ls(self.path(folder) if folder else self.root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {f["name"].rstrip("/").rpartition("/")[2]: f["size"] for f in found if f["type"] != "directory"}

    def clear(self, folder: str, own: str) -> None:
        """Remove the files of a folder whose names match, and the folder if nothing else is in it."""
        for name in self.sizes(folder):
            if re.fullmatch(own, name):
                self.filesystem.rm_file(self.path(f"{folder}/{name}"))
        with contextlib.suppress(OSError, NotImplementedError):  # not empty, not there, or no folders in this store
            if not self.filesystem.ls(self.path(folder), detail=False):
                self.filesystem.rmdir(self.path(folder))


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as e:
        raise EocodecError(f"batches need {e.name}; install it with: pip install 'eocodec[batch]'") from None
    try:
        filesystem, path = url_to_fs(url)
    except Exception as e:  # each filesystem has exceptions of its own
        raise EocodecError(f"{url}: cannot be opened ({_reason(e)})") from None
    return filesystem, path


def _protocols(filesystem: Any) -> set[str]:
    names = filesystem.protocol
    return {names} if isinstance(names, str) else set(names)


def _is_local(filesystem: Any) -> bool:
    return "file" in _protocols(filesystem)


def pictures(url: str) -> tuple[Store, list[Source]]:
    """The corpus at a URL: the folder that names are relative to, and its pictures, sorted by name.

    Arguments:
        url: a folder, searched recursively for :data:`SUFFIXES`; or a glob (`*`, `?`, `[…]`, `**`), whose files are
            taken whatever their suffix, and whose folders are searched.

    Raises:
        EocodecError: there is none.
    """
    filesystem, path = _filesystem(url)
    root, found = path, None
    try:
        if filesystem.isdir(path):
            found = _below(filesystem, path)
        elif any(c in path for c in WILDCARDS):
            while any(c in root for c in WILDCARDS):
                root = root.rpartition("/")[0]
            found = {}
            for name, entry in filesystem.glob(path, detail=True).items():
                found |= _below(filesystem, name) if entry["type"] == "directory" else {name: entry}
            if _is_local(filesystem):  # which takes links to folders for files
                found = {name: _entry(name) for name in found if not os.path.isdir(name)}
    except Exception as e:  # each filesystem has exceptions of its own
        raise EocodecError(f"{url}: cannot be listed ({_reason(e)})") from None
    if not found:
        raise EocodecError(f"{url}: {'there is no such folder' if found is None else 'there are no pictures'}")
    names = {_writable(path.removeprefix(root).removeprefix("/")): entry for path, entry in found.items()}
    return Store.at(url, root), [Source(name, _stamp(entry)) for name, entry in sorted(names.items())]


def _below(filesystem: Any, folder: str) -> dict[str, dict[str, Any]]:
    """Paths of the pictures below a folder, with what is known of them. Links to files are followed, not to folders."""
    if _is_local(filesystem):
        names = (os.path.join(at, name) for at, _, files in os.walk(folder, onerror=_refuse) for name in files)
        return {name: _entry(name) for name in names if _is_picture(name)}
    return {name: entry for name, entry in filesystem.find(folder, detail=True).items() if _is_picture(name)}


def _refuse(e: OSError) -> None:
    raise e


def _entry(path: str) -> dict[str, Any]:
    """What fsspec tells of a file, with nanoseconds, of the file that a link leads to."""
    try:
        found = os.stat(path)
    except OSError:
        return {"size": None, "mtime": None}  # reading it will tell why
    return {"size": found.st_size, "mtime": found.st_mtime_ns if stat.S_ISREG(found.st_mode) else None}


def _is_picture(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _stamp(entry: dict[str, Any]) -> str:
    version = next((entry[key] for key in VERSIONS if entry.get(key) is not None), "")
    return f"{entry.get('size')} {version}".strip()


def _writable(name: str) -> str:
    """A name as UTF-8 can have it; others are not found when they are read."""
    return name.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Work:
    """What is done with every source, in whatever process: call it to have the output written and to get its row."""

    corpus: Store
    results: Store
    settings: Settings
    digest: str
    model: str

    def __call__(self, source: Source) -> Row:
        """Read, code and write; what goes wrong is in the row."""
        start = time.perf_counter()
        row = self.row(source)
        try:
            row = self._coded(row)
        except Exception as e:  # nothing in one picture may end the run
            reason = _reason(e).removeprefix(f"{source.name}: ")
            row = replace(row, error=reason)
        return replace(row, seconds=round(time.perf_counter() - start, 4))

    def row(self, source: Source, error: str | None = None) -> Row:
        """The row of a source that has failed."""
        output = f"{source.name}.eoc"
        return Row(source.name, output, "failed", self.digest, self.model, source.stamp, error)

    def _coded(self, row: Row) -> Row:
        from eocodec.codec import compress_picture
        from eocodec.image import read_picture

        if any(part in ("", ".", "..") for part in row.source.split("/")):
            raise EocodecError("there can be no file of that name in a folder")
        if row.source.split("/")[0] == PARTS:
            raise EocodecError(f"the folder {PARTS} is for what a batch notes")
        if self.corpus.is_local and not stat.S_ISREG(os.stat(self.corpus.path(row.source)).st_mode):
            raise EocodecError("is not a regular file")
        content = self.corpus.read(row.source)
        if self.settings.max_pixels is not None:
            _check_pixels(content, self.settings.max_pixels)
        s = self.settings
        done = compress_picture(
            read_picture(io.BytesIO(content), row.source),
            s.rate,
            bpp=s.bpp,
            psnr=s.psnr,
            denoise=s.denoise,
            model=s.loaded(),
            lossless=s.lossless,
            progressive=s.progressive,
            measure=s.measure,
        )
        self.results.write(row.output, done.data)
        return replace(
            row,
            status="done",
            width=done.size[1],
            height=done.size[0],
            bytes_in=len(content),
            bytes_out=len(done.data),
            bpp=round(done.bits_per_pixel, 5),
            psnr=None if done.psnr is None or math.isinf(done.psnr) else round(done.psnr, 3),
            rate=round(done.rate, 3),
        )


def _check_pixels(content: bytes, limit: int) -> None:
    """Refuse a large picture by its header, before it is decoded."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
        except Image.DecompressionBombError as e:
            raise EocodecError(str(e)) from None
        except Exception:  # `read_picture` says it better
            return
    if width * height > limit:
        raise EocodecError(f"{width}x{height} pixels are more than the limit of {limit}")


class Manifest:
    """The rows of all runs: `manifest.parquet`, and part files while a run has not ended; of a source the last counts.

    Arguments:
        store: where it is kept.

    `settings` says what digests stand for, `corpora` where the sources were; both are kept with the rows.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.settings: dict[str, str] = {}
        self.corpora: set[str] = set()
        self._rows: list[Row] = []
        self._flushed = time.monotonic()
        self._last = 0  # number of the newest part

    def table(self) -> Any:
        """An Arrow table with the last row of every source, sorted by source; `corpora` become those of the files.

        Raises:
            EocodecError: something there is not a manifest.
        """
        import pyarrow as pa

        tables, merged = [_schema().empty_table()], 0
        self.corpora = set()
        if MANIFEST in self.store.sizes(""):
            rows, merged = self._read(MANIFEST)
            tables.append(rows)
        parts = self._parts()
        tables += [self._read(name)[0] for number, name in sorted(parts.items()) if number > merged]
        self._last = max(self._last, merged, *parts)
        table = pa.concat_tables(tables).append_column("at", pa.array(range(sum(map(len, tables))), pa.int64()))
        last = table.group_by("source").aggregate([("at", "max")]).column("at_max")
        return table.take(last).drop_columns("at").sort_by("source")

    def _parts(self) -> dict[int, str]:
        """Names of the part files by their numbers; later rows have higher numbers."""
        found = (re.fullmatch(PART_NAME, name) for name in self.store.sizes(PARTS))
        return {int(part[1]): f"{PARTS}/{part[0]}" for part in found if part}

    def _read(self, name: str) -> tuple[Any, int]:
        """The rows of a file, and the number of the newest part that is in it."""
        import pyarrow.parquet as pq

        try:
            found = pq.read_table(io.BytesIO(self.store.read(name)))
            notes = json.loads((found.schema.metadata or {})[b"eocodec"])
            self.settings |= notes["settings"]
            self.corpora |= set(notes["corpora"])
            return found.select(_schema().names).cast(_schema()), notes["merged"]
        except Exception as e:  # Arrow's, the filesystem's, or something is missing
            raise EocodecError(f"{self.store.where(name)}: not a manifest of eocodec ({_reason(e)})") from None

    def add(self, row: Row) -> None:
        """Append a row; it is kept from the next part file on."""
        self._rows.append(row)
        waited = time.monotonic() - self._flushed
        if waited >= PART_SECONDS or (len(self._rows) >= PART_ROWS and waited >= PART_PAUSE):
            self.flush()

    def flush(self) -> None:
        """Write the rows that are not kept yet as a part file."""
        import pyarrow as pa

        if self._rows:
            rows = pa.Table.from_pylist([asdict(row) for row in self._rows], _schema())
            self._write(f"{PARTS}/part-{self._last + 1:08}.parquet", rows, 0)
            self._rows, self._last = [], self._last + 1
        self._flushed = time.monotonic()

    def merge(self) -> None:
        """Make one file of all parts."""
        self.flush()
        corpora, table = self.corpora, self.table()
        if self._parts() or self.corpora != corpora:
            self.corpora = corpora
            self._write(MANIFEST, table, self._last)
        self.store.clear(PARTIAL, PARTIAL_NAME)
        self.store.clear(PARTS, PART_NAME)

    def _write(self, name: str, table: Any, merged: int) -> None:
        import pyarrow.parquet as pq

        notes = {"settings": self.settings, "corpora": sorted(self.corpora), "merged": merged}
        out = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"eocodec": json.dumps(notes)}), out, compression="zstd")
        try:
            self.store.write(name, out.getvalue())
        except Exception as e:  # each filesystem has exceptions of its own
            raise EocodecError(f"{self.store.where(name)}: cannot be written ({_reason(e)})") from None


def _schema() -> Any:
    """Arrow's types of the fields of :class:`Row`."""
    import pyarrow as pa

    kinds = {
        **dict.fromkeys(("width", "height", "bytes_in", "bytes_out"), pa.int64()),
        **dict.fromkeys(("bpp", "psnr", "seconds", "rate"), pa.float64()),
    }
    return pa.schema([(f.name, kinds.get(f.name, pa.string())) for f in fields(Row)])


@dataclass
class Totals:
    """Sums over sources, those that were done before included.

    Arguments:
        files: sources of the corpus.
        before: those of them that were done before this run.
        failed: those that failed, in this run or before.
        bytes_in, bytes_out: of those that are done.
        errors: sources and errors of the first that failed.
    """

    files: int = 0
    done: int = 0
    before: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    _bpp: float = 0.0
    _psnr: float = 0.0
    _measured: int = 0

    def add(self, row: Row) -> None:
        """Count a row."""
        if row.status != "done":
            self.failed += 1
            if len(self.errors) < ERRORS_SHOWN:
                self.errors.append((row.source, row.error or "failed"))
            return
        self.done += 1
        self.bytes_in += row.bytes_in or 0
        self.bytes_out += row.bytes_out or 0
        self._bpp += row.bpp or 0.0
        if row.psnr is not None:
            self._psnr += row.psnr
            self._measured += 1

    @property
    def bpp(self) -> float | None:
        """Mean over the files of bits per pixel."""
        return self._bpp / self.done if self.done else None

    @property
    def psnr(self) -> float | None:
        """Mean over the measured files, dB."""
        return self._psnr / self._measured if self._measured else None


class Batch:
    """A run over a corpus; a context manager, within which no other process works at the same results folder.

    Arguments:
        corpus: folder, glob or URL, see :func:`pictures`.
        results: folder or URL.
        settings: how to code.
        force: go on where the results were made with other settings, or of another corpus, and make them again.
        retry_failed: try what failed before once more.

    Raises:
        EocodecError: nothing to do, or the results are another batch's.

    Example:
        >>> import eocodec.data
        >>> with Batch(eocodec.data.__path__[0], "memory://doc", Settings(rate=8)) as run:
        ...     rows = list(run.run(local()))
        >>> rows[0].output, rows[0].width, run.totals.failed
        ('chelsea.png.eoc', 451, 0)
    """

    def __init__(
        self, corpus: str, results: str, settings: Settings, *, force: bool = False, retry_failed: bool = False
    ) -> None:
        try:
            import pyarrow  # noqa: F401  (fails here, with a clear message, where the extra is missing)
        except ImportError as e:
            raise EocodecError(f"batches need {e.name}; install it with: pip install 'eocodec[batch]'") from None
        if settings.model.endswith(".eocm"):
            settings = replace(settings, model=os.path.abspath(settings.model))
        self._text = settings.described()
        digest = hashlib.sha256(self._text.encode()).hexdigest()[:16]
        source, self.sources = pictures(corpus)
        self.work = Work(source, Store.at(results), settings, digest, settings.loaded().id.hex())
        self.totals = Totals(len(self.sources))
        self.force, self.retry_failed = force, retry_failed
        self._lock: int | None = None

    def __enter__(self) -> "Batch":
        """Find out what there is to do."""
        results = self.work.results
        try:
            self._lock = _locked(results)
            results.filesystem.invalidate_cache()
            results.clear(PARTIAL, PARTIAL_NAME)
            self.manifest = Manifest(results)
            self.pending = self._plan(self.manifest.table())
        except EocodecError:
            self.__exit__()
            raise
        except Exception as e:  # each filesystem has exceptions of its own
            self.__exit__()
            raise EocodecError(f"{results.url}: cannot be used ({_reason(e)})") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _plan(self, table: Any) -> list[Source]:
        """The sources that are to be worked at; the others are counted."""
        import pyarrow.compute as pc

        made = table.filter(pc.equal(table["status"], "done"))
        others = [
            self.manifest.settings.get(d, d) for d in made["settings"].unique().to_pylist() if d != self.work.digest
        ]
        elsewhere = sorted(self.manifest.corpora - {self.work.corpus.url})
        where = self.work.results.url
        if others and not self.force:
            raise EocodecError(f"{where} holds files made with {others[0]}; use --force to make them again")
        if elsewhere and len(made) and not self.force:
            raise EocodecError(f"{where} holds files of {elsewhere[0]}; if that is what has moved, use --force")
        self.manifest.settings[self.work.digest] = self._text
        self.manifest.corpora = {self.work.corpus.url}
        waiting = {source.name: source for source in self.sources}
        sizes = functools.lru_cache(maxsize=64)(self.work.results.sizes)
        for chunk in table.to_batches(max_chunksize=10_000):
            for entry in chunk.to_pylist():
                row = Row(**entry)
                source = waiting.get(row.source)
                if source is None or (source.stamp, self.work.digest) != (row.stamp, row.settings):
                    continue
                folder, _, name = row.output.rpartition("/")
                if row.status == "done":
                    finished = sizes(folder).get(name) == row.bytes_out
                    self.totals.before += finished
                else:
                    finished = not self.retry_failed
                if finished:
                    self.totals.add(row)
                    del waiting[row.source]
        return list(waiting.values())

    def run(self, engine: Engine) -> Iterator[Row]:
        """Work at what is to be done; gives the rows as they come, and keeps them in the manifest."""
        waiting = {source.name for source in self.pending}
        try:
            for row in engine(self.work, self.pending) if self.pending else ():
                if row.source in waiting:
                    waiting.remove(row.source)
                    self.manifest.add(row)
                    self.totals.add(row)
                    yield row
        finally:
            self.manifest.flush()
        self.manifest.merge()


def _locked(store: Store) -> int | None:
    """Make the results' folder this process's own, until the descriptor is closed; folders elsewhere cannot be."""
    if not store.is_local:
        return None
    Path(store.path("")).mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    handle = os.open(store.path(""), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise EocodecError(f"{store.url}: another batch is at work there") from None
    except OSError:  # a filesystem without locks
        os.close(handle)
        return None
    return handle


def local(workers: int = 1) -> Engine:
    """An engine of processes on this machine, one thread each.

    The source that a process is killed at (out of memory, a signal) is tried once more when all others are done, alone.

    Arguments:
        workers: how many.
    """

    def engine(work: Work, sources: Sequence[Source]) -> Iterator[Row]:
        if work.corpus.is_private or work.results.is_private:
            yield from map(work, sources)
            return
        again = []
        for source, row in _worked(work, sources, workers):
            if row is None:
                again.append(source)
            else:
                yield row
        for source, row in _worked(work, again, 1):
            yield row or work.row(source, LOST)

    return engine


class _Process:
    """A worker process. It has a pipe of its own: when it is killed no lock remains held, and what it had is known.

    `given` are the sources that it has, the one in work first.
    """

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()
        self.given: deque[Source] = deque()
        self.started = False

    def give(self, queue: deque[Source], most: int) -> None:
        """Give it sources until it has `most`."""
        while queue and len(self.given) < most:
            self.given.append(queue.popleft())
            try:
                self.pipe.send(self.given[-1])
            except OSError:  # it has ended; the pipe will tell
                return

    def end(self) -> None:
        """Kill it."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _worked(work: Work, sources: Sequence[Source], count: int) -> Iterator[tuple[Source, Row | None]]:
    """Sources with their rows, as they are done by `count` processes; None for one whose process was killed."""
    queue = deque(sources)
    pool: dict[Any, _Process] = {}
    stillborn = 0  # processes in a row that ended before they began
    try:
        while True:
            had = sum(len(w.given) for w in pool.values())
            if not queue and not had:
                return
            while queue and len(pool) < min(count, len(queue) + had):
                worker = _Process(work)
                pool[worker.pipe] = worker
            for worker in pool.values():
                if worker.started:
                    worker.give(queue, AHEAD if len(queue) > count else 1)
            for pipe in wait([pipe for pipe, w in pool.items() if w.given or not w.started]):
                worker = pool[pipe]
                try:
                    row: Row | None = worker.pipe.recv()
                except (EOFError, OSError):
                    del pool[pipe]
                    worker.end()
                    stillborn = 0 if worker.started else stillborn + 1
                    if stillborn > 3:
                        code = worker.process.exitcode
                        raise EocodecError(f"worker processes end before they begin (exit code {code})") from None
                    if worker.given:
                        queue.extendleft(reversed(list(worker.given)[1:]))
                        yield worker.given[0], None
                    continue
                worker.started = True
                if row is not None:
                    yield worker.given.popleft(), row
    finally:
        for worker in pool.values():
            worker.end()


def _serve(pipe: "Connection[Row | None, Source]", work: Work) -> None:
    """A worker process: says None when it is ready, then takes sources and gives rows until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work.settings.loaded()
        pipe.send(None)
        while True:
            source = pipe.recv()
            pipe.send(work(source))
    except (EOFError, OSError):
        return


def _end_with_parent() -> None:
    """End this process when the one that started it does, so that it does not work on beside a run that goes on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

"""A run over a corpus: what there is to do, and what has become of it.

In: a corpus, a folder for results, :class:`Settings`, an engine that works. Out: rows, as they are made, and totals.
"""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eocodec.batch.corpus import Source, pictures
from eocodec.batch.manifest import Manifest
from eocodec.batch.work import LOST, PARTIAL, Engine, Row, Settings, Work
from eocodec.errors import EocodecError, reason
from eocodec.files import lock_folder
from eocodec.storage import PARTIAL_NAME, Store

__all__ = ["Batch", "Totals"]

ERRORS_SHOWN = 5


@dataclass
class Totals:
    """Sums over sources, those that were done before included.

    Arguments:
        files: sources of the corpus, and folders in it that cannot be listed.
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
        force: go on where the results were made with other settings, or of another corpus, and make them again; replace
            files that no batch has made.
        retry_failed: try what failed before once more.

    Within it, `pending` are the sources that are to be worked at. `refused` are the rows of folders that cannot be
    listed, and of sources whose outputs would replace files that no batch has made; every run looks at those again.

    Raises:
        EocodecError: nothing to do, or the results are another batch's.

    Example:
        >>> import eocodec.data
        >>> from eocodec.batch.local import local
        >>> with Batch(eocodec.data.__path__[0], "memory://doc", Settings(rate=8)) as run:
        ...     rows = list(run.run(local()))
        >>> rows[0].output, rows[0].width, run.totals.failed
        ('chelsea.png.eoc', 451, 0)
    """

    def __init__(
        self, corpus: str, results: str, settings: Settings, *, force: bool = False, retry_failed: bool = False
    ) -> None:
        try:
            import fsspec  # noqa: F401  (fails here, with a clear message, where the extra is missing)
            import pyarrow  # noqa: F401
        except ImportError as e:
            raise EocodecError(f"batches need {e.name}; install it with: pip install 'eocodec[batch]'") from None
        if settings.model.endswith(".eocm"):
            settings = replace(settings, model=os.path.abspath(settings.model))
        self._text = settings.described()
        digest = hashlib.sha256(self._text.encode()).hexdigest()[:16]
        source, self.sources, self._unlisted = pictures(corpus)
        self.work = Work(source, Store.at(results, PARTIAL), settings, digest, settings.loaded().id.hex())
        self.totals = Totals(len(self.sources) + len(self._unlisted))
        self.force, self.retry_failed = force, retry_failed
        self._sizes = functools.lru_cache(maxsize=64)(self._listed)
        self._folder = functools.lru_cache(maxsize=64)(self._resolved)
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
            raise EocodecError(f"{results.url}: cannot be used ({reason(e)})") from None
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
        for chunk in table.to_batches(max_chunksize=10_000):
            for entry in chunk.to_pylist():
                row = Row(**entry)
                source = waiting.get(row.source)
                if source is not None and row.bytes_out:
                    source = waiting[row.source] = replace(source, made=row.bytes_out)
                if source is None or (source.stamp, self.work.digest) != (row.stamp, row.settings):
                    continue
                if row.status == "done":
                    folder, _, name = self.work.place(row.output).rpartition("/")
                    finished = self._sizes(folder).get(name) == row.bytes_out
                    self.totals.before += finished
                else:
                    finished = not self.retry_failed
                if finished:
                    self.totals.add(row)
                    del waiting[row.source]
        self._begun = self.manifest.begun()
        self.refused = list(self._refused(list(waiting.values())))
        for row in self.refused:
            waiting.pop(row.source, None)
        self._begun |= {self.work.output(name) for name, source in waiting.items() if not source.made}
        return list(waiting.values())

    def _refused(self, waiting: Sequence[Source]) -> Iterator[Row]:
        """Rows of the folders that cannot be listed, and of the sources whose outputs must not be written."""
        for name, why in self._unlisted.items():
            yield replace(self.work.row(Source(name, ""), why), output="")
        outputs = [self.work.output(source.name) for source in waiting]
        places = [self.work.place(output).rpartition("/") for output in outputs]
        without_links = [(self._folder(folder), name) for folder, _, name in places]
        times = Counter(without_links)
        for source, output, place, (folder, _, name) in zip(waiting, outputs, without_links, places, strict=True):
            fault = None
            if times[place] > 1:
                fault = f"several sources would be written to {output}"
            elif not (self.force or source.made or output in self._begun) and name in self._sizes(folder):
                fault = f"{output} exists, and no batch has made it; use --force to overwrite it"
            if fault is not None:
                yield self.work.row(replace(source, stamp=""), fault)

    def _resolved(self, folder: str) -> str:
        """The path of a folder of the results, whatever links lead to it."""
        path = self.work.results.path(folder)
        return os.path.realpath(path) if self.work.results.is_local else path

    def _written(self, output: str) -> int | None:
        """Size of what a process that was killed has written, if it came to that."""
        there = self.work.results.state(self.work.place(output))
        return None if there is None else there.size

    def _listed(self, folder: str) -> dict[str, int]:
        """Names and sizes of the files in a folder of the results; none where it may not be read, as writing says."""
        try:
            return self.work.results.sizes(folder)
        except PermissionError:
            return {}

    def run(self, engine: Engine) -> Iterator[Row]:
        """Work at what is to be done; gives the rows as they come, and keeps them in the manifest."""
        waiting = {source.name for source in self.pending}
        try:
            for row in self.refused:
                self.manifest.add(row)
                self.totals.add(row)
                yield row
            if self._begun and self.pending:
                self.manifest.begin(self._begun)
            for row in engine(self.work, self.pending) if self.pending else ():
                if row.source in waiting:
                    waiting.remove(row.source)
                    if row.error == LOST:
                        row = replace(row, bytes_out=self._written(row.output))
                    self.manifest.add(row)
                    self.totals.add(row)
                    yield row
        finally:
            self.manifest.flush()
        self.manifest.merge(self._unlisted)


def _locked(store: Store) -> int | None:
    """Make the results' folder this process's own, until the descriptor is closed; folders elsewhere cannot be."""
    if not store.is_local:
        return None
    Path(store.path("")).mkdir(parents=True, exist_ok=True)
    try:
        return lock_folder(store.path(""))
    except BlockingIOError:
        raise EocodecError(f"{store.url}: another batch is at work there") from None

"""The rows of all runs over a corpus.

In: a :class:`Row` for every source, as they are made. Out: `manifest.parquet`; while a run lasts, part files and names
of what it may write.
"""

import io
import json
import re
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, fields
from typing import Any

from eocodec.batch.work import PARTIAL, PARTS, Row
from eocodec.errors import EocodecError, reason
from eocodec.storage import PARTIAL_NAME, Store

__all__ = ["MANIFEST", "Manifest"]

MANIFEST = "manifest.parquet"
BEGUN = "begun.json"
PART_NAME = r"part-(\d+)\.parquet"
LATER = ("notes",)  # columns that manifests of earlier versions lack
PART_ROWS, PART_SECONDS, PART_PAUSE = 100, 10.0, 1.0  # a part has that many rows or seconds; seconds between two parts


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
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            found = pq.read_table(io.BytesIO(self.store.read(name)))
            notes = json.loads((found.schema.metadata or {})[b"eocodec"])
            self.settings |= notes["settings"]
            self.corpora |= set(notes["corpora"])
            for name in LATER:
                if name not in found.column_names:
                    found = found.append_column(name, pa.nulls(len(found), pa.string()))
            return found.select(_schema().names).cast(_schema()), notes["merged"]
        except Exception as e:  # Arrow's, the filesystem's, or something is missing
            raise EocodecError(f"{self.store.where(name)}: not a manifest of eocodec ({reason(e)})") from None

    def begun(self) -> set[str]:
        """Outputs that a run which has not ended may have written, whether a row tells of them or not.

        Raises:
            EocodecError: what should name them does not.
        """
        name = f"{PARTS}/{BEGUN}"
        if BEGUN not in self.store.sizes(PARTS):
            return set()
        try:
            return set(json.loads(self.store.read(name)))
        except Exception as e:  # of JSON or the filesystem
            raise EocodecError(f"{self.store.where(name)}: not a list of eocodec ({reason(e)})") from None

    def begin(self, outputs: Iterable[str]) -> None:
        """Keep, until the run ends, which outputs it may write.

        Raises:
            EocodecError: that cannot be written.
        """
        self._put(f"{PARTS}/{BEGUN}", json.dumps(sorted(outputs)).encode())

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

    def merge(self, unlisted: Collection[str] = ()) -> None:
        """Make one file of all parts.

        Arguments:
            unlisted: folders that cannot be listed; of others, which can be listed by now, no row is kept.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        self.flush()
        corpora, table = self.corpora, self.table()
        known = pc.is_in(table["source"], pa.array(list(unlisted), pa.string()))
        kept = table.filter(pc.or_(pc.not_equal(table["output"], ""), known))
        if self._parts() or self.corpora != corpora or len(kept) != len(table):
            self.corpora = corpora
            self._write(MANIFEST, kept, self._last)
        self.store.clear(PARTIAL, PARTIAL_NAME)
        self.store.clear(PARTS, rf"{PART_NAME}|{re.escape(BEGUN)}")

    def _write(self, name: str, table: Any, merged: int) -> None:
        import pyarrow.parquet as pq

        notes = {"settings": self.settings, "corpora": sorted(self.corpora), "merged": merged}
        out = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"eocodec": json.dumps(notes)}), out, compression="zstd")
        self._put(name, out.getvalue())

    def _put(self, name: str, content: bytes) -> None:
        try:
            self.store.write(name, content)
        except Exception as e:  # each filesystem has exceptions of its own
            raise EocodecError(f"{self.store.where(name)}: cannot be written ({reason(e)})") from None


def _schema() -> Any:
    """Arrow's types of the fields of :class:`Row`."""
    import pyarrow as pa

    kinds = {
        **dict.fromkeys(("width", "height", "bytes_in", "bytes_out"), pa.int64()),
        **dict.fromkeys(("bpp", "psnr", "seconds", "rate"), pa.float64()),
    }
    return pa.schema([(f.name, kinds.get(f.name, pa.string())) for f in fields(Row)])

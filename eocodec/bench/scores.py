"""Values of measures for many pictures: in parallel, and kept by content, since some take seconds a picture.

In: measures, pairs of pictures. Out: a value for every measure and pair. What is kept is found again by the pictures'
bytes and the measure's version, so it stays right whatever made the pictures.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from eocodec.bench.measures import MEASURES, Measure
from eocodec.bench.pictures import Bytes
from eocodec.errors import EocodecError
from eocodec.workers import Crew

__all__ = ["Cache", "Scorer", "cache_folder"]

Pair = tuple[Bytes, Bytes]


def cache_folder() -> Path:
    """The user's folder for what can be computed again."""
    from platformdirs import user_cache_path

    return user_cache_path("eocodec")


class Cache:
    """Numbers by keys, in one SQLite file that several processes may use.

    Arguments:
        path: of the file, made if it is missing; None: only in memory.

    Raises:
        EocodecError: it cannot be opened, or is something else.
    """

    def __init__(self, path: Path | None) -> None:
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(":memory:" if path is None else path, timeout=60, isolation_level=None)
            self._file.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, value REAL) WITHOUT ROWID")
        except (OSError, sqlite3.Error) as e:
            raise EocodecError(f"{path}: cannot be used to keep scores ({e})") from None

    def get(self, key: str) -> float | None:
        """A number, if it is known."""
        row = self._file.execute("SELECT value FROM scores WHERE key = ?", (key,)).fetchone()
        return None if row is None else float(row[0])

    def put(self, key: str, value: float) -> None:
        """Keep a number."""
        with contextlib.suppress(sqlite3.Error):  # a full disk costs time, not the run
            self._file.execute("INSERT OR REPLACE INTO scores VALUES (?, ?)", (key, value))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Scorer:
    """Measures pictures; a context manager, at whose end its processes are gone.

    Arguments:
        measures: which.
        jobs: pictures at a time; with 1 they are measured in this process.
        cache: what is known already; None: nothing is kept.
    """

    def __init__(self, measures: Sequence[Measure], jobs: int = 1, cache: Cache | None = None) -> None:
        self.measures, self.jobs, self.cache = measures, jobs, cache
        self._crew = Crew(jobs) if jobs > 1 else None

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if self._crew is not None:
            self._crew.__exit__(kind, e, trace)

    def __call__(self, pairs: Sequence[Pair]) -> list[dict[str, float | None]]:
        """Values by the measures' names for every pair (original, picture)."""
        results: list[dict[str, float | None]] = [{} for _ in pairs]
        missing: list[tuple[int, Measure, str]] = []
        for number, pair in enumerate(pairs):
            digest = _digest(pair) if self.cache is not None else ""
            for measure in self.measures:
                if measure.identity is None:
                    results[number][measure.name] = measure(*pair)
                    continue
                key = f"{measure.identity()} {digest}"
                found = self.cache.get(key) if self.cache is not None else None
                if found is None:
                    missing.append((number, measure, key))
                else:
                    results[number][measure.name] = found
        calls = [(measure.name, *pairs[number]) for number, measure, _ in missing]
        for (number, measure, key), value in zip(missing, self._values(calls), strict=True):
            results[number][measure.name] = value
            if value is not None and self.cache is not None:
                self.cache.put(key, value)
        return [{m.name: found[m.name] for m in self.measures} for found in results]

    def _values(self, calls: list[tuple[str, Bytes, Bytes]]) -> list[float | None]:
        if self._crew is None or len(calls) < 2:
            return [_value(*call) for call in calls]
        return self._crew.map(_value, calls)


def _value(name: str, original: Bytes, picture: Bytes) -> float | None:
    """In a worker process: one measure of one pair."""
    return MEASURES[name](original, picture)


def _digest(pair: Pair) -> str:
    found = hashlib.sha256()
    for picture in pair:
        found.update(repr((picture.shape, picture.dtype.str)).encode())
        found.update(picture.tobytes())
    return found.hexdigest()

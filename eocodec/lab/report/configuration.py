"""Reports as files: what is compared, on what, in how many runs.

out = "report"            # folder for the results, relative to the file
seeds = 3                 # runs of every subject that is trained
top = 16                  # latents that are measured

[data]
set = "fa15"

[[subject]]
kind = "vae"
method = "bfVAE"
latents = 8
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eocodec.errors import EocodecError
from eocodec.lab.subjects.plans import Plan, plan_of

__all__ = ["Report", "load_report"]

KEYS = ("out", "seeds", "top", "data", "subject")


@dataclass(frozen=True)
class Report:
    """A report's file.

    Arguments:
        out: folder for the results.
        seeds: runs of every subject that depends on the seed.
        top: latents that are measured, at most.
        data: the table of the set, see `eocodec.lab.data.library.load_set`.
        folder: of the file.
        plans: the subjects; their titles differ.
    """

    out: Path
    seeds: int
    top: int
    data: dict[str, Any]
    folder: Path
    plans: tuple[Plan, ...]

    @property
    def runs(self) -> list[tuple[Plan, int]]:
        """Every subject with every seed; those that do not depend on it once."""
        return [(plan, seed) for plan in self.plans for seed in range(self.seeds if plan.seeded else 1)]


def load_report(path: Path, out: Path | None = None) -> Report:
    """Read and check a report's file.

    Arguments:
        path: of the file.
        out: folder for the results instead of the file's.

    Raises:
        EocodecError: it cannot be read, or an entry is missing, unknown or wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise EocodecError(f"{path} cannot be read as TOML: {e}") from None
    for key in values:
        if key not in KEYS:
            raise EocodecError(f"{path} has an unknown entry {key}; known are: {', '.join(KEYS)}")
    for key in ("data", "subject"):
        if not values.get(key):
            raise EocodecError(f"{path} lacks [{key}]")
    if not isinstance(values["data"], dict) or not isinstance(values["subject"], list):
        raise EocodecError(f"{path}: [data] is one table, and every subject a table [[subject]]")
    numbers = {"seeds": values.get("seeds", 3), "top": values.get("top", 16)}
    for key, value in numbers.items():
        if type(value) is not int or not 1 <= value <= 64:
            raise EocodecError(f"{key} must be from 1 to 64, not {value!r}")
    plans = tuple(plan_of(entry) for entry in values["subject"])
    titles = [plan.title for plan in plans]
    for title in titles:
        if titles.count(title) > 1:
            raise EocodecError(f"two subjects are called {title}; give them a name each")
    folder = path.resolve().parent
    return Report(out or folder / str(values.get("out", "report")), **numbers, data=values["data"], folder=folder,
                  plans=plans)  # fmt: skip

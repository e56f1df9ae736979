"""Corpora: every picture below a folder becomes an `.eoc` file below another one; killed runs go on (extra `batch`).

In: a folder, a glob or an fsspec URL, and :class:`Settings`. Out: NAME.eoc for every picture NAME, and
`manifest.parquet` with a :class:`Row` for each. docs/BATCH.md says what is promised.

    Batch ── sources not done yet ──> engine ── Source ──> Work, in some process ── Row ──> Batch ──> Manifest
    run.py     corpus.py        local.py, ray.py           work.py                           manifest.py

Importing this package does not import NumPy, so that a worker process can say beforehand how many threads that takes.
"""

from eocodec.batch.corpus import Source, pictures
from eocodec.batch.local import local
from eocodec.batch.manifest import MANIFEST, Manifest
from eocodec.batch.run import Batch, Totals
from eocodec.batch.work import Engine, Row, Settings, Work
from eocodec.kinds import SUFFIXES
from eocodec.storage import Store

__all__ = [
    "MANIFEST",
    "SUFFIXES",
    "Batch",
    "Engine",
    "Manifest",
    "Row",
    "Settings",
    "Source",
    "Store",
    "Totals",
    "Work",
    "local",
    "pictures",
]

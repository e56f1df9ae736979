"""What is done with every picture of a corpus, in whatever process.

In: a :class:`Source`. Out: its output, written, and its :class:`Row`, also where something goes wrong with it.
"""

import io
import math
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from eocodec.batch.corpus import Source, as_name
from eocodec.errors import EocodecError, reason
from eocodec.storage import Store

if TYPE_CHECKING:
    from eocodec.model.bundle import Model

__all__ = ["LOST", "PARTIAL", "PARTS", "Engine", "Row", "Settings", "Work"]

PARTS = ".eocodec-batch"  # folder, in the results, of what is kept of a run that has not ended
PARTIAL = f"{PARTS}/partial"  # folder of files that are being written
LOST = "its worker process was killed at every attempt; is there not enough memory?"


@dataclass(frozen=True)
class Settings:
    """How every picture is coded; see `eocodec.compress`.

    Arguments:
        rate, bpp, psnr, lossless, progressive, denoise: as there.
        model: a shipped model's name, or a bundle's path, which every worker must see.
        device: where the transform runs, see `eocodec.load_model`.
        measure: decode, too, for the PSNR.
        max_pixels: larger pictures fail.
        effort: as `eocodec.compress` has it.
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
    effort: int = 0

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
        from eocodec.codec import default_rate

        model = self.loaded()
        targets: dict[str, object] = {"rate": self.rate, "bpp": self.bpp, "psnr": self.psnr}
        if not self.lossless and all(value is None for value in targets.values()):
            targets["rate"] = default_rate(model)
        words = [f"{name}={value:.12g}" for name, value in targets.items() if value is not None]
        words += [name for name in ("lossless", "progressive") if getattr(self, name)]
        if self.effort:
            words.append(f"effort={self.effort}")
        if self.denoise is not None:
            words.append(f"denoise={self.denoise}")
        # The id leaves the denoising nets out.
        return " ".join([*words, f"model={(model.id if self.denoise is None else model.full_id).hex()}"])


@dataclass(frozen=True)
class Row:
    """One row of the manifest: what became of a source.

    Arguments:
        source, output: names relative to the corpus and to the results, see :func:`eocodec.batch.corpus.as_text`; of
            a folder that cannot be listed, its name and nothing.
        status: "done" or "failed"; a failed source has no output, or that of an earlier version of it.
        settings: digest of :meth:`Settings.described`.
        model: id of the model, as in the file's header.
        stamp: version of the source, see :class:`Source`; empty where it was not looked at.
        error: what went wrong.
        width, height: pixels.
        bytes_in, bytes_out: sizes of source and output; where it failed, of the output of an earlier version.
        bpp: bits per pixel of the output.
        psnr: dB; None if it was not measured, and for lossless files.
        seconds: from opening the source to having written the output.
        rate: C, latents kept per block.
        notes: sentences on what the output does not keep, or keeps in another way than one may think; None: nothing.
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
    notes: str | None = None


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
            row = replace(row, error=reason(e).removeprefix(f"{source.name}: "))
        return replace(row, seconds=round(time.perf_counter() - start, 4))

    def row(self, source: Source, error: str | None = None) -> Row:
        """The row of a source that has failed."""
        output, made = self.output(source.name), source.made or None
        return Row(source.name, output, "failed", self.digest, self.model, source.stamp, error, bytes_out=made)

    def output(self, source: str) -> str:
        """The name of a source's output, by its own."""
        return f"{source}.eoc"

    def place(self, output: str) -> str:
        """The name of an output in the store of the results, which may have no others than UTF-8 can have."""
        return as_name(output) if self.results.is_local else output

    def _coded(self, row: Row) -> Row:
        from eocodec.codec import compress_picture
        from eocodec.image import read_picture
        from eocodec.remarks import remarks

        if any(part in ("", ".", "..") for part in row.source.split("/")):
            raise EocodecError("there can be no file of that name in a folder")
        if row.source.split("/")[0] == PARTS:
            raise EocodecError(f"the folder {PARTS} is for what a batch notes")
        name, place = as_name(row.source), self.place(row.output)
        if self.corpus.is_local:
            found = os.stat(self.corpus.path(name))
            if not stat.S_ISREG(found.st_mode):
                raise EocodecError("is not a regular file")
            if self.results.is_local and _is_at(self.results.path(place), found):
                raise EocodecError(f"{row.output} is the source itself")
        content = self.corpus.read(name)
        if self.settings.max_pixels is not None:
            _check_pixels(content, self.settings.max_pixels)
        s = self.settings
        picture = read_picture(io.BytesIO(content), row.source)
        done = compress_picture(
            picture,
            s.rate,
            bpp=s.bpp,
            psnr=s.psnr,
            denoise=s.denoise,
            model=s.loaded(),
            lossless=s.lossless,
            progressive=s.progressive,
            effort=s.effort,
            measure=s.measure,
        )
        said = remarks(picture, done, len(content), exact=s.lossless, limited=s.bpp is not None)
        self.results.write(place, done.data)
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
            notes="; ".join(said) or None,
        )


def _is_at(path: str, file: os.stat_result) -> bool:
    """Whether a path leads to a file."""
    try:
        return os.path.samestat(os.stat(path), file)
    except OSError:
        return False


def _check_pixels(content: bytes, limit: int) -> None:
    """Refuse a large picture by its header, before it is decoded."""
    from eocodec.headers import read_header

    seen = read_header(io.BytesIO(content))
    if seen is not None and seen.width * seen.height > limit:  # of what cannot be read `read_picture` says why
        raise EocodecError(f"{seen.width}x{seen.height} pixels are more than the limit of {limit}")


Engine = Callable[["Work", Sequence[Source]], Iterator[Row]]
"""What works at sources: gives the row of each, in any order."""

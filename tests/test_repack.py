"""Bundles packed again: fewer bytes, the same to every reader."""

import io
import random
import zipfile
import zlib
from pathlib import Path

import pytest
from paths import VECTORS

from eocodec.model.bundle import read_bundle

zopfli = pytest.importorskip("zopfli.zlib")

from eocodec_export.repack import main, repacked  # noqa: E402

pytestmark = pytest.mark.slow  # zopfli takes its time


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zopfli looks once, which is enough for what stays the same."""
    monkeypatch.setattr("eocodec_export.repack.ITERATIONS", 1)


def _archive(comment: bytes, kinds: dict[str, int]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.comment = comment
        for name, kind in kinds.items():
            info = zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0))
            info.compress_type = kind
            noise = random.Random(name)
            archive.writestr(info, bytes(noise.choices(b"aaaabbcd", k=40_000)) * 2)  # repeats further than 32 kB
    return file.getvalue()


def test_entries_of_all_kinds_stay_and_shrink() -> None:
    kinds = {
        "a": zipfile.ZIP_STORED,
        "b": zipfile.ZIP_DEFLATED,
        "denoise/c": zipfile.ZIP_DEFLATED,
        "d": zipfile.ZIP_LZMA,
    }
    before = _archive(b"what it is", kinds)
    after = repacked(before)
    assert len(after) < len(before)
    old, new = (zipfile.ZipFile(io.BytesIO(content)) for content in (before, after))
    assert new.testzip() is None and new.comment == b"what it is"
    for a, b in zip(old.infolist(), new.infolist(), strict=True):
        kind = zipfile.ZIP_LZMA if a.filename.startswith("denoise/") else a.compress_type
        assert (a.filename, a.date_time, a.CRC, a.external_attr) == (b.filename, b.date_time, b.CRC, b.external_attr)
        assert b.compress_type == kind
        assert old.read(a) == new.read(b) and b.compress_size <= a.compress_size
    assert repacked(after) == after


def test_a_bundle_keeps_its_files_and_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = VECTORS / "small.eocm"
    path = tmp_path / "small.eocm"
    path.write_bytes(source.read_bytes())
    main([str(path)])
    assert read_bundle(path) == read_bundle(source)
    with zipfile.ZipFile(path) as new, zipfile.ZipFile(source) as old:
        assert new.comment == old.comment and new.namelist() == old.namelist()
    assert path.stat().st_size <= source.stat().st_size
    assert f"-> {path.stat().st_size} bytes" in capsys.readouterr().out


def test_a_damaged_archive_is_not_repacked() -> None:
    before = bytearray(_archive(b"", {"a": zipfile.ZIP_DEFLATED}))
    before[60] ^= 1
    with pytest.raises((zipfile.BadZipFile, zlib.error)):
        repacked(bytes(before))

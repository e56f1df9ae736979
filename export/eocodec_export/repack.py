"""Pack bundles again, smaller: deflated by zopfli, which looks longer for the shortest stream, or by LZMA.

    python -m eocodec_export.repack BUNDLE...

In: bundles (`.eocm`), which are replaced. Out: their sizes before and after. Entries, their order, the ids and what
every reader sees stay. Zopfli takes a thirtieth to a twelfth of the bytes off, in half a minute for every ten megabytes
of content; LZMA a seventh, but the decoders in other languages do not read it: it is for entries that they leave out.
"""

import argparse
import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import zopfli.zlib

from eocodec.errors import EocodecError
from eocodec.files import atomic_write
from eocodec_export.commands import ending

__all__ = ["repacked"]

RARE = "denoise/"  # entries that no decoder reads
ITERATIONS = 2  # five times as many gain another thousandth
HEADER, ADLER = 2, 4  # bytes that zlib's format has around a raw stream
LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")


def repacked(content: bytes) -> bytes:
    """The bytes of a zip archive with the same entries, none of which takes more bytes than before.

    Raises:
        zipfile.BadZipFile: it is none, or damaged.
        zlib.error: an entry cannot be inflated.
    """
    body, directory = bytearray(), bytearray()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [_smallest(archive, entry, content) for entry in archive.infolist()]
        for entry, packed in entries:
            name = entry.filename.encode()
            year, month, day, hour, minute, second = entry.date_time
            when = (hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day)
            sizes = (entry.CRC, len(packed), entry.file_size, len(name))
            common = (entry.extract_version, entry.flag_bits, entry.compress_type, *when, *sizes)
            made_by = entry.create_system << 8 | entry.create_version
            directory += CENTRAL.pack(b"PK\1\2", made_by, *common, 0, 0, 0, 0, entry.external_attr, len(body)) + name
            body += LOCAL.pack(b"PK\3\4", *common, 0) + name + packed
        comment = archive.comment
    count = len(entries)
    end = END.pack(b"PK\5\6", 0, 0, count, count, len(directory), len(body), len(comment))
    return bytes(body + directory + end + comment)


def _smallest(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    """An entry and its packed bytes, as they are or better."""
    packed = _raw(entry, content)
    unpacked = archive.read(entry)  # checked, too
    if entry.filename.startswith(RARE):
        file = io.BytesIO()
        info = zipfile.ZipInfo(entry.filename, entry.date_time)
        info.compress_type, info.external_attr = zipfile.ZIP_LZMA, entry.external_attr
        with zipfile.ZipFile(file, "w") as one:
            one.writestr(info, unpacked)
        found = _raw(info, file.getvalue())
        return min((entry, packed), (info, found), key=lambda pair: len(pair[1]))
    if entry.compress_type == zipfile.ZIP_DEFLATED:
        deflated: bytes = zopfli.zlib.compress(unpacked, numiterations=ITERATIONS)[HEADER:-ADLER]
        packed = min(packed, deflated, key=len)
    return entry, packed


def _raw(entry: zipfile.ZipInfo, content: bytes) -> bytes:
    """The packed bytes of an archive's entry."""
    start = entry.header_offset + LOCAL.size + sum(LOCAL.unpack_from(content, entry.header_offset)[-2:])
    return content[start : start + entry.compress_size]


@ending
def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    for path in parser.parse_args(arguments).bundles:
        before = path.read_bytes()
        try:
            after = repacked(before)
        except (zipfile.BadZipFile, zlib.error):
            raise EocodecError(f"{path} is no bundle, or is damaged") from None
        atomic_write(path, after)
        print(f"{path}: {len(before)} -> {len(after)} bytes")


if __name__ == "__main__":
    main()

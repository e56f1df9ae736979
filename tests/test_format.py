"""The file format: what is written is read; what is damaged is refused; a prefix is a file."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eocodec import format
from eocodec.errors import FormatError, UnknownTypeError
from eocodec.format import File, Header, Segment

headers = st.builds(
    Header,
    model=st.binary(min_size=4, max_size=4),
    width=st.integers(1, 1 << 14),
    height=st.integers(1, 1 << 14),
    rate=st.integers(0, 65535),
    step=st.integers(0, 65535),
    grey=st.booleans(),
)
files = st.builds(
    File,
    header=headers,
    alpha=st.none() | st.binary(max_size=40),
    segments=st.lists(st.builds(Segment, st.integers(1, 300), st.binary(max_size=60)), max_size=5).map(tuple),
)


@given(files)
def test_what_is_written_is_read(file: File) -> None:
    assert format.parse(format.serialise(file)) == file


@given(files, st.data())
@settings(max_examples=200)
def test_every_prefix_is_a_lower_rate_file_or_a_clear_error(file: File, data: st.DataObject) -> None:
    raw = format.serialise(file)
    n = data.draw(st.integers(0, len(raw) - 1))
    start = format.segment_ends(file)[0]
    if n < start:
        with pytest.raises(FormatError):
            format.parse(raw[:n])
    else:
        got = format.parse(raw[:n])
        assert got.header == file.header and got.segments == file.segments[: len(got.segments)]
        assert got.complete == (n in format.segment_ends(file))


@given(files, st.data())
@settings(max_examples=300)
def test_a_flipped_bit_never_passes_as_the_same_picture(file: File, data: st.DataObject) -> None:
    raw = bytearray(format.serialise(file))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    try:
        got = format.parse(bytes(raw))
    except FormatError:
        return
    # A flip in a length makes the file look cut short; what was accepted must be intact. Without any segment nothing
    # is checked, and nothing but the header is known.
    assert got.segments == file.segments[: len(got.segments)]
    assert not got.segments or got.header == file.header


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_noise_is_refused_with_a_format_error(raw: bytes) -> None:
    if raw[:3] != b"EOC"[: len(raw)] or not raw:
        with pytest.raises(UnknownTypeError, match=r"not an \.eoc file"):
            format.parse(raw)
    try:
        got = format.parse(b"EOC\x01" + raw)
    except FormatError as e:
        assert str(e) and "\n" not in str(e)
        return
    # What was accepted is really there: written again it is the beginning of what was read.
    assert 0 < got.header.width <= format.MAX_SIDE and got.header.width * got.header.height <= format.MAX_PIXELS
    if not got.header.embedded:
        assert (b"EOC\x01" + raw).startswith(format.serialise(got))


@given(headers, st.binary(max_size=200))
@settings(max_examples=200)
def test_noise_after_a_header_is_no_segment(header: Header, noise: bytes) -> None:
    """Without the checksum nothing passes: not as a segment, not as transparency, not as a whole lossless file."""
    for file in (File(header, None, ()), File(header, b"alpha", ())):
        raw = format.serialise(file)
        try:
            got = format.parse(raw + noise)
        except FormatError:
            got = format.parse(raw + noise, salvage=True)
            assert got.damaged or not noise
        assert got.segments == () and got.header == header and got.alpha == file.alpha
        assert got.complete == (not noise)


def _header(**changes: object) -> bytes:
    h = Header(b"abcd", 64, 64, 6144, 40000)
    return format.serialise(File(replace(h, **changes), None, ()))


def test_limits_are_named() -> None:
    with pytest.raises(FormatError, match="beyond the format's limits"):
        _header(width=1 << 21)
    forged = b"EOC\x01abcd\x00" + b"\xff\xff\xff\x7f" * 2 + b"\0\0\0\0"
    with pytest.raises(FormatError, match="beyond the format's limits"):
        format.parse(forged)
    with pytest.raises(FormatError, match="version 9"):
        format.parse(b"EOC\x09" + _header()[4:])
    with pytest.raises(FormatError, match="features"):
        format.parse(_header()[:8] + b"\x80" + _header()[9:])
    with pytest.raises(FormatError, match=r"not an \.eoc file"):
        format.parse(b"\x89PNG\r\n\x1a\n")


def test_salvage_keeps_what_comes_before_the_damage() -> None:
    file = File(Header(b"abcd", 64, 64, 1, 1), None, tuple(Segment(1, bytes([k]) * 30) for k in range(1, 5)))
    raw = bytearray(format.serialise(file))
    raw[format.segment_ends(file)[2] + 12] ^= 0xFF
    with pytest.raises(FormatError, match="segment 3"):
        format.parse(bytes(raw))
    got = format.parse(bytes(raw), salvage=True)
    assert got.damaged and got.segments == file.segments[:2]


def test_segments_cannot_be_spliced_from_another_file() -> None:
    a = File(Header(b"abcd", 64, 64, 1, 1), None, (Segment(1, b"x" * 20), Segment(2, b"y" * 20)))
    b = replace(a, header=replace(a.header, width=65))
    head, other = format.segment_ends(a), format.serialise(b)
    with pytest.raises(FormatError, match="checksum"):
        format.parse(format.serialise(a)[: head[1]] + other[head[1] :])

"""The file format: what is written is read; what is damaged is refused; a prefix is a file."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import VECTORS

from eocodec import format
from eocodec.errors import FormatError, UnknownTypeError
from eocodec.format import File, Header, Segment
from eocodec.pieces import LENGTH

headers = st.builds(
    Header,
    model=st.binary(min_size=4, max_size=4),
    width=st.integers(1, 1 << 14),
    height=st.integers(1, 1 << 14),
    rate=st.integers(0, 65535),
    step=st.integers(0, 65535),
    grey=st.booleans(),
    webp=st.booleans(),
)
segments = st.lists(st.builds(Segment, st.integers(1, 300), st.binary(max_size=60)), max_size=5).map(tuple)
WEBP = bytes([format.VP8L_SIGNATURE])
webp_streams = st.binary(max_size=40).map(lambda rest: WEBP + rest)
alphas = st.none() | st.binary(max_size=40) | webp_streams
ordinary = st.builds(File, header=headers, alpha=alphas, segments=segments).map(
    # The header says that transparency may be a WebP stream wherever it begins like one.
    lambda file: replace(file, header=replace(file.header, webp=file.header.webp or (file.alpha or b"")[:1] == WEBP))
)
lossless = st.builds(
    lambda file, parameters, rest: replace(
        file,
        header=replace(file.header, step=format.LOSSLESS_STEP),
        lossless=parameters,
        segments=(Segment(format.LOSSLESS_UNITS, b"all"), *rest),
    ),
    ordinary,
    st.binary(min_size=1, max_size=60),
    segments,
)
embedded = st.builds(
    lambda file, payload: replace(
        file, header=replace(file.header, rate=0, step=0, embedded=True), segments=(Segment(1, payload),)
    ),
    ordinary,
    st.integers(1, 3 * LENGTH).flatmap(lambda n: st.binary(min_size=1, max_size=9).map(lambda b: (b * n)[:n])),
)
files = ordinary | lossless | embedded


def _ends(file: File) -> list[int]:
    """Lengths of the complete files that are prefixes of a file."""
    ends = format.segment_ends(file)
    return ends if file.lossless is None else ends[1:]  # its first segment holds all units


@given(files)
def test_what_is_written_is_read(file: File) -> None:
    assert format.parse(format.serialise(file)) == file


@pytest.mark.parametrize(("alpha", "said"), [(None, False), (b"", False), (b"\x28" + WEBP, False), (WEBP + b"x", True)])
def test_the_header_says_where_transparency_may_be_a_webp_stream(alpha: bytes | None, said: bool) -> None:
    header = Header(b"none", 8, 8, 0, 0)
    assert format.parse(format.serialise(File(header, alpha, ()))).header == replace(header, webp=said)


@given(files, st.data())
@settings(max_examples=200)
def test_every_prefix_is_a_lower_rate_file_or_a_clear_error(file: File, data: st.DataObject) -> None:
    raw = format.serialise(file)
    n = data.draw(st.integers(0, len(raw) - 1))
    start = format.segment_ends(file)[0]
    if n < start:
        with pytest.raises(FormatError):
            format.parse(raw[:n])
        return
    got = format.parse(raw[:n])
    assert (got.header, got.alpha, got.lossless) == (file.header, file.alpha, file.lossless)
    if file.header.embedded:  # an end without its checksum is part of the stream, as long as a piece may be
        found = b"".join(s.payload for s in got.segments)
        whole = file.segments[0].payload
        whole_pieces, rest = divmod(n - start, LENGTH + 4)
        kept = whole_pieces * LENGTH + min(rest, LENGTH)
        assert len(found) == min(kept, len(whole) + 3) or found == whole
        assert found[: len(whole)] == whole[: len(found)]
        assert got.complete == (n == start or (rest == 0 and whole_pieces > 0))
        return
    assert got.segments == file.segments[: len(got.segments)]
    assert got.complete == (n in _ends(file) or got.trailing > 0)
    if got.trailing:
        all_units = format.LOSSLESS_UNITS if file.lossless is not None else format.ORDINARY_UNITS[file.header.axes]
        assert sum(s.units for s in got.segments) == all_units


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
    if file.header.embedded or got.header.embedded:
        assert not got.complete or not got.segments or got == file
        return
    assert got.segments == file.segments[: len(got.segments)]
    if got.segments:
        assert (got.header, got.alpha, got.lossless) == (file.header, file.alpha, file.lossless)


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


def test_limits_are_exact() -> None:
    for width, height in ((1 << 14, 1 << 14), (1 << 20, 1 << 8), (1, 1)):
        assert format.parse(_header(width=width, height=height)).header.width == width
    for width, height in ((1 << 14, (1 << 14) + 1), ((1 << 20) + 1, 1), (1, (1 << 20) + 1), (0, 1), (1, 0)):
        with pytest.raises(FormatError, match="beyond the format's limits"):
            _header(width=width, height=height)
    assert format.is_tiny(b"\xf8" + bytes(32767)) and not format.is_tiny(b"\xf8" + bytes(32768))
    assert [format.is_tiny(bytes([tag, 0])) for tag in (0xF7, 0xF8, 0xFD, 0xFE)] == [False, True, True, False]


def test_steps_are_powers_of_two_in_eight_bit_levels() -> None:
    for step, delta in ((32768, 1), (32768 + 2048, 2), (32768 - 2048, 0.5), (32768 + 1024, 2**0.5), (47104, 128)):
        assert Header(b"abcd", 1, 1, 0, step).delta * 255 == pytest.approx(delta)
    for step in range(256):
        file = format.Tiny(1, step, False, b"")
        assert file.delta * 255 == pytest.approx(2 ** (1.5 + step / 32))
        assert file.delta == Header(b"abcd", 1, 1, 0, file.step_code).delta
        assert format.tiny_step(file.delta) == step
    assert format.tiny_step(1e-6) == 0 and format.tiny_step(1.0) == 208 and format.tiny_step(1e6) == 255


def test_forms_exclude_one_another() -> None:
    header = Header(b"abcd", 64, 64, 0, format.LOSSLESS_STEP)
    good = format.serialise(File(header, None, (), lossless=b"parameters"))
    assert format.parse(good).lossless == b"parameters" and not format.parse(good).complete
    assert format.serialise(format.parse(good)) == good and good[8] == format.FLAG_LOSSLESS
    spoilt = bytearray(good)
    spoilt[-1] ^= 1
    with pytest.raises(FormatError, match="checksum of its lossless parameters"):
        format.parse(bytes(spoilt))
    for wrong in (
        File(replace(header, step=32767), None, (), lossless=b"parameters"),
        File(replace(header, embedded=True), None, (), lossless=b"parameters"),
        File(header, None, (), lossless=bytes(format.MAX_LOSSLESS + 1)),
    ):
        with pytest.raises(FormatError, match="lossless parameters cannot be read"):
            format.parse(format.serialise(wrong))
    assert format.parse(format.serialise(File(header, None, (), lossless=bytes(format.MAX_LOSSLESS)))).lossless
    for rate, step in ((1, 0), (0, 1)):
        with pytest.raises(FormatError, match="has no rate"):
            format.parse(format.serialise(File(Header(b"abcd", 9, 9, rate, step, embedded=True), None, ())))


@given(st.integers(1, 5 * LENGTH))
def test_room_and_size_of_embedded_streams_agree(length: int) -> None:
    file = File(Header(b"abcd", 64, 64, 0, 0, embedded=True), None, ())
    whole = format.serialise(replace(file, segments=(Segment(1, bytes(length)),)))
    assert format.embedded_size(file, length) == len(whole)
    assert format.embedded_room(file, len(whole)) == length
    assert format.embedded_room(file, len(whole) - 1) < length


def test_limits_are_named() -> None:
    with pytest.raises(FormatError, match="beyond the format's limits"):
        _header(width=1 << 21)
    forged = b"EOC\x01abcd\x00" + b"\xff\xff\xff\x7f" * 2 + b"\0\0\0\0"
    with pytest.raises(FormatError, match="beyond the format's limits"):
        format.parse(forged)
    with pytest.raises(FormatError, match="version 9"):
        format.parse(b"EOC\x09" + _header()[4:])
    with pytest.raises(FormatError, match="luma alone in a file that has colours"):
        format.parse(_header()[:8] + b"\x40" + _header()[9:])
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


def test_salvage_of_an_embedded_stream_keeps_the_pieces_before_the_damage() -> None:
    payload = bytes(range(256)) * (3 * LENGTH // 256)
    file = File(Header(b"abcd", 64, 64, 0, 0, embedded=True), None, (Segment(1, payload),))
    raw = bytearray(format.serialise(file))
    raw[-LENGTH - 100] ^= 1  # in the second of three pieces
    with pytest.raises(FormatError, match="checksum of piece 2"):
        format.parse(bytes(raw))
    got = format.parse(bytes(raw), salvage=True)
    assert got.damaged and not got.complete and got.segments == (Segment(1, payload[:LENGTH]),)


def test_segments_cannot_be_spliced_from_another_file() -> None:
    a = File(Header(b"abcd", 64, 64, 1, 1), None, (Segment(1, b"x" * 20), Segment(2, b"y" * 20)))
    b = replace(a, header=replace(a.header, width=65))
    head, other = format.segment_ends(a), format.serialise(b)
    with pytest.raises(FormatError, match="checksum"):
        format.parse(format.serialise(a)[: head[1]] + other[head[1] :])


WHOLE = (
    "axis",
    "axis-page",
    "deep",
    "exact",
    "lossless",
    "lossless-deep",
    "noise",
    "segments",
    "small-page",
    "embedded",
)


@pytest.mark.parametrize("name", WHOLE)
def test_what_follows_a_file_that_is_known_to_be_whole_is_no_part_of_it(name: str) -> None:
    data = (VECTORS / f"{name}.eoc").read_bytes()
    file = format.parse(data)
    for behind in (b"\n", bytes(range(100)), b"\x01\x00" + bytes(80), data):
        found = format.parse(data + behind)
        assert found == replace(file, trailing=len(behind)) and found.complete
        assert format.serialise(found) == data
    damaged = bytearray(data)
    damaged[-6] ^= 1
    if name != "embedded":  # whose last piece may be one that is not all there yet
        with pytest.raises(FormatError, match="checksum"):
            format.parse(bytes(damaged) + b"\n" * 40)

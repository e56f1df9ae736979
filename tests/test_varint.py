"""Numbers of seven bits a byte: round trip, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eocodec import format, varint
from eocodec.errors import FormatError


@settings(deadline=None)
@given(st.integers(0, 2**35 - 1), st.binary(max_size=3), st.binary(max_size=3))
def test_every_number_comes_back_wherever_it_stands(number: int, before: bytes, after: bytes) -> None:
    written = varint.write(number)
    data = before + written + after
    assert varint.read(data, len(before)) == (number, len(before) + len(written))
    assert varint.read(memoryview(data), len(before)) == format.read_number(data, len(before))
    assert len(written) == max(1, -(-number.bit_length() // 7))


@settings(deadline=None)
@given(st.integers(0, 2**35 - 1))
def test_no_prefix_is_a_number(number: int) -> None:
    written = varint.write(number)
    for length in range(len(written)):
        with pytest.raises(varint.Truncated):
            varint.read(written[:length])


def test_long_and_padded_numbers_are_refused_or_allowed_on_request() -> None:
    with pytest.raises(varint.Overlong):
        varint.read(varint.write(2**35))
    assert varint.read(varint.write(2**35), longest=6) == (2**35, 6)
    with pytest.raises(varint.Padded):
        varint.read(b"\x81\0")
    assert varint.read(b"\x81\0", padded=True) == (1, 2)
    with pytest.raises(FormatError, match="longer than five bytes"):
        format.read_number(b"\xff" * 6)
    with pytest.raises(FormatError, match="not in its shortest form"):
        format.read_number(b"\x80\0")

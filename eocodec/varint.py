"""Numbers in bytes of seven bits, the lowest first; all but the last have the top bit set (LEB128).

In: a number, or bytes. Out: bytes, or the number and where it ends. What is wrong with bytes is for the caller to say.
"""

__all__ = ["Overlong", "Padded", "Truncated", "VarintError", "read", "write"]


class VarintError(ValueError):
    """The bytes are not such a number."""


class Truncated(VarintError):
    """The bytes end inside the number."""


class Overlong(VarintError):
    """The number has more bytes than it may have."""


class Padded(VarintError):
    """The number is not in its shortest form: its last byte is zero."""


def write(number: int) -> bytes:
    """The shortest form of a number ≥ 0.

    Example:
        >>> write(300)
        b'\\xac\\x02'
    """
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read(data: "bytes | memoryview", at: int = 0, longest: int = 5, padded: bool = False) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends.

    Arguments:
        data: the bytes.
        at: where the number begins.
        longest: bytes that it may have.
        padded: accept numbers that are not in their shortest form.

    Raises:
        Truncated, Overlong, Padded: see there.

    Example:
        >>> read(b"\\xac\\x02")
        (300, 2)
    """
    value = 0
    for k in range(longest):
        if at + k >= len(data):
            raise Truncated
        byte = data[at + k]
        value |= (byte & 0x7F) << 7 * k
        if byte < 0x80:
            if k and byte == 0 and not padded:
                raise Padded
            return value, at + k + 1
    raise Overlong

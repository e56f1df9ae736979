"""Names and messages as they may go to a terminal.

In: text that may hold anything a file name can. Out: text without control characters.
"""

import unicodedata

__all__ = ["printable"]

# Categories of Unicode that move the cursor, change directions, or stand for bytes that are not UTF-8.
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    r"""The text with control characters, direction marks and undecodable bytes as escapes such as \x1b.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in HIDDEN else c for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte of a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")

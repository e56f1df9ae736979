"""Names and messages as they may go to a terminal.

In: text that may hold anything a file name can, and sentences of the library. Out: text without control characters, and
sentences that name options where the library names its arguments.
"""

import unicodedata

import click

__all__ = ["printable", "warn", "with_options"]

# Categories of Unicode that move the cursor, change directions, or stand for bytes that are not UTF-8.
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
OPTIONS = {
    "as compress does with resize": "which --resize does",
    "compress the picture again to fewer bytes": "compress the picture again with --bytes",
    "leave progressive out": "leave out --progressive",
    "a depth of 8 makes": "--depth 8 makes",
    "a depth of 8 holds": "--depth 8 holds",
    "leave the depth out (Pillow's save always has it, eocodec.compress has not)": "leave out --depth 8",
    "value_range='filled'": "--range filled",
    "tune='psnr'": "--tune psnr",
    "a sigma that is given": "--sigma S",
}
"""What the library says, and what a command says in its place."""


def printable(text: str) -> str:
    r"""The text with control characters, direction marks and undecodable bytes as escapes such as \x1b.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in HIDDEN else c for c in text)


def warn(source: str, sentence: str) -> None:
    """Say on standard error what is worth a word about an input that is used all the same."""
    click.echo(printable(f"eocodec: {source}: warning: {sentence}"), err=True)


def with_options(message: str) -> str:
    """A sentence of the library with the options of the commands in it.

    Example:
        >>> with_options("crop and scale the picture first, as compress does with resize")
        'crop and scale the picture first, which --resize does'
    """
    for argument, option in OPTIONS.items():
        message = message.replace(argument, option)
    return message


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte of a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")

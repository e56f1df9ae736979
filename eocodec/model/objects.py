"""JSON that bundles hold, which may come from anyone.

In: bytes. Out: an object whose numbers and names are short enough for whatever is done with them.
"""

import json
from typing import Any

__all__ = ["read_object"]

MOST_DIGITS = 18
LONGEST_NAME = 100  # characters


def read_object(content: bytes) -> dict[str, Any]:
    """A JSON object of a bundle, which may come from anyone.

    Raises:
        ValueError: it is none, nested too deeply, or has numbers or names that are too long.
    """

    def integer(digits: str) -> int:
        if len(digits) > MOST_DIGITS:
            raise ValueError("a number has too many digits")
        return int(digits)

    try:
        found = json.loads(content, parse_int=integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    if any(len(name) > LONGEST_NAME for name in found):
        raise ValueError("a name is too long")
    return found

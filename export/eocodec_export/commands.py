"""How the commands of this package end: one sentence and exit code 1 for what a user can mend.

In: the function that a module's command is. Out: the same, without tracebacks for wrong files, models and pictures.
"""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

from eocodec.errors import EocodecError

__all__ = ["ending"]

P = ParamSpec("P")


def ending(main: Callable[P, None]) -> Callable[P, None]:
    """A command that ends with a sentence on standard error where it raises an :class:`EocodecError` or `OSError`.

    Example:
        >>> @ending
        ... def main() -> None:
        ...     raise EocodecError("the bundle is missing")
        >>> main()
        Traceback (most recent call last):
        SystemExit: 1
    """

    @functools.wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except EocodecError as e:
            sentence = str(e)
        except OSError as e:
            if not e.strerror:
                raise
            sentence = f"{e.filename}: {e.strerror}" if e.filename else e.strerror
        else:
            return
        print(sentence, file=sys.stderr)
        sys.exit(1)

    return command

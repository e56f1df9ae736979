"""Properties that are worked out once for each object, when they are first asked for, without a lock.

In: a method. Out: a property of its value, which can be set and deleted. `functools.cached_property` of Python 3.11
holds one lock for all objects of a class while it works, so that threads wait for one another's pictures, and a process
that is forked meanwhile waits for ever. From Python 3.12 on it has none.
"""

import sys

__all__ = ["cached_property"]

if sys.version_info >= (3, 12):
    from functools import cached_property
else:
    from collections.abc import Callable
    from typing import Any, Generic, TypeVar, overload

    T = TypeVar("T")

    class cached_property(Generic[T]):  # as it is called where it comes from
        """See :class:`functools.cached_property`; threads that ask at once may work it out twice."""

        def __init__(self, make: Callable[[Any], T]) -> None:
            self._make, self.__doc__ = make, make.__doc__

        def __set_name__(self, owner: type[Any], name: str) -> None:
            self._name = name

        @overload
        def __get__(self, instance: None, owner: type[Any] | None = None) -> "cached_property[T]": ...

        @overload
        def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...

        def __get__(self, instance: object | None, owner: type[Any] | None = None) -> "cached_property[T] | T":
            if instance is None:
                return self
            return vars(instance).setdefault(self._name, self._make(instance))  # type: ignore[no-any-return]

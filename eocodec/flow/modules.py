"""Lists and dictionaries of modules that know the type of their members.

At run time they are torch's own, with the same names of parameters; what is added is for the type checker, for which a
member of `torch.nn.ModuleList` is any module at all.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from torch import nn

__all__ = ["ModuleDict", "ModuleList"]

M = TypeVar("M", bound=nn.Module)


class ModuleList(nn.ModuleList, Generic[M]):
    """A `torch.nn.ModuleList` of modules of one type.

    Example:
        >>> layers = ModuleList(nn.Linear(2, 2) for _ in range(3))
        >>> layers[-1].out_features, list(layers.state_dict())[0]
        (2, '0.weight')
    """

    if TYPE_CHECKING:

        def __init__(self, modules: Iterable[M] | None = None) -> None: ...
        @overload
        def __getitem__(self, index: slice) -> "ModuleList[M]": ...
        @overload
        def __getitem__(self, index: int) -> M: ...
        def __getitem__(self, index: int | slice) -> "M | ModuleList[M]": ...
        def __iter__(self) -> Iterator[M]: ...
        def __reversed__(self) -> Iterator[M]: ...


class ModuleDict(nn.ModuleDict, Generic[M]):
    """A `torch.nn.ModuleDict` of modules of one type.

    Example:
        >>> layers: ModuleDict[nn.Linear] = ModuleDict()
        >>> layers["a"] = nn.Linear(2, 3)
        >>> layers["a"].out_features, list(layers.state_dict())[0]
        (3, 'a.weight')
    """

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> M: ...
        def __setitem__(self, key: str, module: M) -> None: ...  # type: ignore[override]

"""The models at hand: found by name, path, id or the number of tiny files, and loaded once.

In: a name ("photo"), a path, a loaded model, or what a file says of its model. Out: a `eocodec.model.bundle.Model`.
"""

import difflib
import functools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from eocodec.arguments import check_model
from eocodec.errors import FormatError, ModelError
from eocodec.format import AnyFile, Tiny
from eocodec.model.bundle import Model, open_bundle
from eocodec.model.runtime import USUAL
from eocodec.model.shelf import earlier_models, peek_id, shipped_models

__all__ = ["DEFAULT", "Library", "ModelLike", "Models", "library_of", "load_model", "shipped_models"]

DEFAULT = "photo"

ModelLike = str | Path | Model


_loading = threading.Lock()


@functools.lru_cache(maxsize=8)
def _load(path: Path, stamp: int, threads: int, optimisation: str, device: str) -> Model:
    files = open_bundle(path)
    model = Model(files, threads, optimisation, device)
    if files.claimed not in (b"", model.full_id):
        raise ModelError(f"{path}: the model bundle does not have the content that its id stands for")
    return model


def load_model(
    model: ModelLike = DEFAULT,
    threads: int = 0,
    optimisation: str = USUAL,
    device: str = "auto",
) -> Model:
    """Load a model by name ("photo") or path; repeated calls share the loaded model.

    Arguments:
        model: name, path, or a loaded model, which is returned as it is.
        threads, optimisation, device: see :class:`Model`.

    Raises:
        EocodecError: there is no such device, or CUDA was asked for and does not work.
        ModelError: unknown name, or not a valid bundle.
    """
    if isinstance(model, Model):
        return model
    check_model(model, threads)
    path = Path(model)
    if path.suffix != ".eocm":
        shipped = shipped_models()
        if str(model) not in shipped:
            known = ", ".join(shipped) or "none"
            meant = "".join(f"; did you mean {n}?" for n in difflib.get_close_matches(str(model), shipped, 1))
            raise ModelError(f"no model is called {model}; known are: {known} (or the path of an .eocm file){meant}")
        path = shipped[str(model)]
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        raise ModelError(f"{path}: no such model bundle") from None
    with _loading:  # threads that ask at the same time are to share the model, too
        return _load(path.resolve(), stamp, threads, optimisation, device)


class Library:
    """The models that files may have been made with: some that are given, and the shipped ones.

    Arguments:
        models: names, paths or loaded models; they come before the shipped ones.
        threads, device: of models that are loaded here, see `eocodec.model.bundle.Model`.
        shipped: whether the shipped models count, too.

    Raises:
        EocodecError, ModelError: a given model cannot be loaded.
    """

    def __init__(
        self, models: Iterable[ModelLike] = (), threads: int = 0, device: str = "auto", shipped: bool = True
    ) -> None:
        self.threads, self.device, self.shipped = threads, device, shipped
        self.models = tuple(self.load(m) for m in models)

    def load(self, model: ModelLike) -> Model:
        """The model of this name or path, with the library's threads and device; see :func:`load_model`."""
        return load_model(model, self.threads, device=self.device)

    def find(self, identity: bytes) -> Model | None:
        """The model with this id, as files carry it, or None."""
        for model in self.models:
            if model.id == identity:
                return model
        paths = [*shipped_models().values(), *earlier_models()] if self.shipped else []
        for path in paths:
            if peek_id(path)[: len(identity)] == identity:  # loading shows whether the bundle has that id
                return self.load(path)
        return None

    def of_id(self, identity: bytes) -> Model:
        """The model with this id.

        Raises:
            ModelError, FormatError: there is none.
        """
        found = self.find(identity)
        if found is not None:
            return found
        if len(self.models) == 1 and not self.shipped:
            (only,) = self.models
            raise FormatError(f"the file was made with model {identity.hex()}, not with {only.name} ({only.id.hex()})")
        raise FormatError(
            f"the file needs model {identity.hex()}, which is not installed; give its bundle as the model"
        )

    def of_number(self, number: int) -> Model:
        """The model with this number in tiny files.

        Raises:
            ModelError, FormatError: there is none.
        """
        for model in self._all():
            if model.any_manifest.tiny_number == number:
                return model
        raise FormatError(
            f"the tiny file needs model number {number}, which is not {'installed' if self.shipped else 'it'}"
        )

    def of(self, file: AnyFile) -> Model:
        """The model that a file was made with.

        Raises:
            ModelError, FormatError: there is none.
        """
        return self.of_number(file.number) if isinstance(file, Tiny) else self.of_id(file.header.model)

    def _shipped(self) -> Iterator[tuple[str, Path]]:
        yield from shipped_models().items() if self.shipped else ()

    def _all(self) -> Iterator[Model]:
        yield from self.models
        for name, _ in self._shipped():
            yield self.load(name)


Models = ModelLike | Library | None


def library_of(models: Models, threads: int = 0, device: str = "auto") -> Library:
    """The library that an argument `model` stands for: None for the shipped models, one model for nothing but it."""
    if isinstance(models, Library):
        return models
    return Library(() if models is None else (models,), threads, device, shipped=models is None)

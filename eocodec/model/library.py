"""The models at hand: found by name, path, id or the number of tiny files, and loaded once.

In: a name ("photo"), a path, a loaded model, or what a file says of its model. Out: a `eocodec.model.bundle.Model`.
Besides the models that come with the package there are those of the user's folder, which `eocodec models add` fills.
"""

import difflib
import functools
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from eocodec.arguments import check_model
from eocodec.errors import FormatError, ModelError
from eocodec.format import AnyFile, Tiny
from eocodec.model.bundle import Model, bundle_id, open_bundle
from eocodec.model.delta import base_of, composed
from eocodec.model.runtime import USUAL
from eocodec.model.shelf import (
    FOLDER_VARIABLE,
    earlier_models,
    installed_models,
    is_shipped,
    peek_id,
    shipped_models,
    user_folder,
    user_models,
)

__all__ = [
    "DEFAULT",
    "FOLDER_VARIABLE",
    "Library",
    "ModelLike",
    "Models",
    "bundle_files",
    "bundle_path",
    "installed_models",
    "library_of",
    "load_model",
    "shipped_models",
    "user_folder",
    "user_models",
]

DEFAULT = "photo"
DEEPEST = 8  # deltas of deltas

ModelLike = str | Path | Model


def bundle_path(model: str | Path) -> Path:
    """Where the bundle of this name or path is.

    Raises:
        ModelError: no installed model has that name.
    """
    path = Path(model)
    if path.suffix == ".eocm":
        return path
    shipped = shipped_models()
    if str(model) in shipped:  # without a look at the user's folder
        return shipped[str(model)]
    installed = installed_models()
    if str(model) not in installed:
        known = ", ".join(installed) or "none"
        meant = "".join(f"; did you mean {n}?" for n in difflib.get_close_matches(str(model), installed, 1))
        raise ModelError(f"no model is called {model}; known are: {known} (or the path of an .eocm file){meant}")
    return installed[str(model)]


def bundle_files(path: Path) -> Mapping[str, bytes]:
    """Files of a bundle, unpacked as they are asked for.

    A delta is completed from its base, an installed model or one that lies beside it.

    Raises:
        ModelError: no bundle, the base is missing, or the content is not what its id stands for.
    """
    return _completed(path, DEEPEST)


def _completed(path: Path, deepest: int) -> Mapping[str, bytes]:
    files = open_bundle(path)
    base = base_of(files)
    if base is None:
        return files
    found = _with_id(base, path)
    if found is None or deepest == 0:
        raise ModelError(
            f"{path}: this bundle is a delta of model {base.hex()[:8]}, which is not installed; "
            "put that model's bundle beside it, or install it with: eocodec models add FILE"
        )
    whole = composed(files, _completed(found, deepest - 1))
    if peek_id(path) != bundle_id(whole):
        raise ModelError(f"{path}: the model bundle does not have the content that its id stands for")
    return whole


def _with_id(identity: bytes, delta: Path) -> Path | None:
    """The bundle with this full id among the installed ones and those beside a delta."""
    beside = (p for p in sorted(delta.parent.glob("*.eocm")) if not p.samefile(delta))
    known = (*installed_models().values(), *earlier_models(), *beside)
    return next((p for p in known if peek_id(p) == identity and p != delta), None)


_loading = threading.Lock()


def _unlock() -> None:
    """Begin anew in a forked process: a thread that was loading a model is not there to go on."""
    global _loading
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


@functools.lru_cache(maxsize=8)
def _load(path: Path, stamp: int, threads: int, optimisation: str, device: str) -> Model:
    shipped = is_shipped(path)
    model = Model(bundle_files(path), threads, optimisation, device, trusted=shipped)
    if peek_id(path) not in (b"", model.full_id):
        raise ModelError(f"{path}: the model bundle does not have the content that its id stands for")
    if not shipped and path.parent == user_folder().resolve():
        model.installed = path.stem
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
    path = bundle_path(model)
    try:
        stamp = path.stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{path}: no such model bundle") from None
    except OSError as e:
        raise ModelError(f"{path}: cannot be read ({e.strerror})") from None
    with _loading:  # threads that ask at the same time are to share the model, too
        return _load(path.resolve(), stamp, int(threads), optimisation, device)


class Library:
    """The models that files may have been made with: some that are given, the shipped ones, and the user's own.

    Arguments:
        models: names, paths or loaded models; they come before the installed ones.
        threads, device: of models that are loaded here, see `eocodec.model.bundle.Model`.
        shipped: whether the installed models, shipped and the user's own, count, too.

    Raises:
        EocodecError, ModelError: a given model cannot be loaded.
    """

    def __init__(
        self,
        models: Iterable[ModelLike] = (),
        threads: int = 0,
        device: str = "auto",
        shipped: bool = True,
        earlier: bool | None = None,
    ) -> None:
        self.threads, self.device, self.shipped = threads, device, shipped
        self.earlier = shipped if earlier is None else earlier
        self.models = tuple(self.load(m) for m in models)

    def load(self, model: ModelLike) -> Model:
        """The model of this name or path, with the library's threads and device; see :func:`load_model`."""
        return load_model(model, self.threads, device=self.device)

    def find(self, identity: bytes) -> Model | None:
        """The model with this id, as files carry it, or None."""
        for model in self.models:
            if model.id == identity:
                return model
        for path in self._paths():
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
            f"the file needs model {identity.hex()}, which is not installed; give its bundle as the model, or install "
            "it with: eocodec models add FILE"
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

    def _paths(self) -> Iterator[Path]:
        if self.shipped:
            yield from shipped_models().values()
            yield from user_models().values()  # whose folder is looked for only if no shipped one is meant
        if self.earlier:
            yield from earlier_models()

    def _installed(self) -> Iterator[tuple[str, Path]]:
        if self.shipped:
            yield from shipped_models().items()
            yield from user_models().items()

    def _all(self) -> Iterator[Model]:
        yield from self.models
        for name, _ in self._installed():
            yield self.load(name)


Models = ModelLike | Library | None


def library_of(models: Models, threads: int = 0, device: str = "auto") -> Library:
    """The library that an argument `model` stands for: None for the shipped models, one model for nothing but it."""
    if isinstance(models, Library):
        return models
    return Library(() if models is None else (models,), threads, device, shipped=models is None)

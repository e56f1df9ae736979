"""Pictures changed along named paths in their latents, and pictures between two others.

In: 8-bit pictures of the size of a model such as `face64`, a paths file (`.eocp`). Out: 8-bit pictures. Paths are data:
a zip with `manifest.json` and for each path an ONNX graph of its potential's gradient, of which only arithmetic is
allowed; nothing here needs torch.

A graph takes `latents (B, d)`, the first d latents in coding order, standardised, and `step (B, T)`, weights of the
times 1 … T; it gives `displacement (B, d)`. One step of a path is one unit of its amount.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec.codec import compress
from eocodec.coding.base import greyed
from eocodec.errors import EocodecError, ModelError
from eocodec.format import is_tiny
from eocodec.image import is_grey
from eocodec.model import objects
from eocodec.model.bundle import Model, read_bundle, write_bundle
from eocodec.model.graphs import check_graph
from eocodec.model.library import load_model
from eocodec.model.manifest import FLOW_ONLY
from eocodec.model.shelf import SHIPPED
from eocodec.model.transform import analyse_vector, synthesise_vectors, to_levels

__all__ = [
    "LARGEST",
    "PathManifest",
    "Paths",
    "blend",
    "edit",
    "encoded_anew",
    "load_paths",
    "morph",
    "shipped_paths",
    "write_paths",
]

LARGEST = 5.0  # amount of a path
FORMAT = 1

Bytes = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PathManifest:
    """What a paths file says of itself.

    Arguments:
        model: id of the model's bundle, hexadecimal.
        names: of the paths.
        order: places of the latents that move, `(d,)`.
        mean, scale: that standardise them, `(d,)`.
        steps: T, times at which the paths were learnt.
    """

    model: str
    names: list[str]
    order: list[int]
    mean: list[float]
    scale: list[float]
    steps: int


class Paths:
    """Named paths for one model.

    Arguments:
        files: of a paths file.

    Raises:
        ModelError: they do not fit together, or a graph holds more than arithmetic.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        try:
            raw = objects.read_object(files["manifest.json"])
            if raw.pop("format") != FORMAT:
                raise ModelError("the paths file has another format version than this program reads")
            self.manifest = PathManifest(**raw)
        except (KeyError, ValueError, TypeError, AttributeError) as e:
            raise ModelError(f"the paths file lacks or spoils its manifest ({e})") from None
        m = self.manifest
        try:
            numbers = [*m.mean, *m.scale]
            fits = len(m.order) == len(m.mean) == len(m.scale) > 0 and 1 <= m.steps <= 64
            fits = fits and all(type(k) is int and k >= 0 for k in m.order) and len(set(m.order)) == len(m.order)
            fits = fits and all(math.isfinite(v) and abs(v) < 1e6 for v in numbers) and min(m.scale) > 0
            fits = fits and bool(m.names) and all(type(n) is str and f"{n}.onnx" in files for n in m.names)
        except TypeError:
            fits = False
        if not fits:
            raise ModelError("the paths file's manifest is inconsistent")
        self._graphs = {name: files[f"{name}.onnx"] for name in m.names}
        for content in self._graphs.values():
            check_graph(content)
        self._sessions: dict[str, Any] = {}

    def displacement(self, name: str, latents: Float32, moment: Float32) -> Float32:
        """What a step of the path adds to standardised latents `(B, d)` at the times weighed by `step (B, T)`.

        Raises:
            ModelError: the graph does not fit.
        """
        import onnxruntime

        if name not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            try:
                self._sessions[name] = onnxruntime.InferenceSession(
                    self._graphs[name], options, providers=["CPUExecutionProvider"]
                )
            except Exception as e:  # onnxruntime's own exception classes are not exported
                raise ModelError(f"the graph of the path {name} cannot be opened: {str(e).splitlines()[0]}") from None
        try:
            (out,) = self._sessions[name].run(None, {"latents": latents, "step": moment})
        except Exception as e:
            raise ModelError(f"the graph of the path {name} failed: {str(e).splitlines()[0]}") from None
        if out.shape != latents.shape or not np.isfinite(out).all():
            raise ModelError(f"the graph of the path {name} gives something else than a displacement")
        return np.asarray(out, np.float32)

    def move(self, name: str, latents: Float32, amount: float) -> Float32:
        """Standardised latents `(B, d)` after `amount` steps of a path, backwards if it is negative.

        Raises:
            EocodecError: there is no such path, or the amount is beyond `LARGEST`.
        """
        m = self.manifest
        if name not in m.names:
            raise EocodecError(f"no path is called {name}; known are: {', '.join(m.names)}")
        if not abs(amount) <= LARGEST:
            raise EocodecError(f"a path takes amounts from {-LARGEST:g} to {LARGEST:g}, not {amount:g}")
        count = math.ceil(abs(amount))
        for k in range(count):
            moment = np.zeros((len(latents), m.steps), np.float32)
            moment[:, min(k, m.steps - 1)] = 1.0
            latents = latents + np.float32(amount / count) * self.displacement(name, latents, moment)
        return latents


def write_paths(path: Path, manifest: PathManifest, graphs: dict[str, bytes]) -> None:
    """Write a paths file, reproducible bytes; `graphs` has one for each name."""
    text = json.dumps({"format": FORMAT, **asdict(manifest)})
    write_bundle(path, {"manifest.json": text.encode(), **{f"{n}.onnx": g for n, g in graphs.items()}})


def load_paths(source: str | Path) -> Paths:
    """The paths shipped with a model, by its name, or a paths file.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    path = Path(source)
    if path.suffix != ".eocp":
        path = SHIPPED / f"{source}.eocp"
        if not path.exists():
            raise ModelError(f"no paths are shipped with the model {source}; give the path of an .eocp file")
    return Paths(read_bundle(path))


def shipped_paths(model: Model) -> Paths | None:
    """The paths that are shipped with a model, if there are any."""
    try:
        paths = load_paths(model.name)
    except ModelError:
        return None
    return paths if paths.manifest.model == model.id.hex() else None


def check_picture(model: Model, picture: Bytes) -> None:
    """See that a model can take a picture.

    Raises:
        EocodecError: it has another size, or transparency.
    """
    size = model.flat.size
    if picture.shape != (size, size, 3):
        raise EocodecError(f"{model.name} takes pictures of {size}x{size} pixels without transparency")


def _encoded(model: Model, picture: Bytes) -> Float32:
    check_picture(model, picture)
    return analyse_vector(model, picture)[None]


def _decoded(model: Model, latents: Float32) -> Bytes:
    return to_levels(synthesise_vectors(model, latents, FLOW_ONLY))


def edit(picture: Bytes, amounts: dict[str, float], paths: Paths, model: str | Path | Model = "face64") -> Bytes:
    """A picture `(S, S, 3)` moved along paths, one after another; latents beyond those that move stay as they are.

    Where nothing moves the picture stays as it is. A grey picture stays grey unless the paths change its colours more
    than its brightness.

    Arguments:
        picture: 8-bit levels.
        amounts: steps of each path, by name.
        paths: of this model.
        model: name, path or loaded.

    Raises:
        EocodecError: a path is unknown, an amount too large, or the picture has another size.
        ModelError: the paths are those of another model.
    """
    loaded = load_model(model)
    m = paths.manifest
    if m.model != loaded.id.hex():
        raise ModelError(f"the paths are not those of this {loaded.name}, but of the model {m.model}")
    latents = _encoded(loaded, picture)
    if max(m.order) >= latents.shape[1]:
        raise ModelError("the paths move latents that the model does not have")
    mean, scale = np.array(m.mean, np.float32), np.array(m.scale, np.float32)
    start = z = (latents[:, m.order] - mean) / scale
    for name, amount in amounts.items():
        z = paths.move(name, z, amount)
    if np.array_equal(z, start):
        return picture.copy()
    latents[:, m.order] += (z - start) * scale
    result = _decoded(loaded, latents)[0]
    if is_grey(picture):  # light is not to tint it, but a tint may
        grey = greyed(result.copy(), True).astype(np.float64)
        if np.square(result - grey).sum() <= np.square(grey - picture).sum():
            return greyed(result.copy(), True)
    return result


def encoded_anew(after: Bytes, before: Bytes, data: bytes, model: Model, size: int | None = None) -> bytes:
    """The file of a changed picture, of the form of the file that it was decoded from; that itself if nothing changed.

    Arguments:
        after, before: `(S, S, 3)`, 8-bit levels.
        data: the file that `before` was decoded from.
        model: that the file is of.
        size: bytes that the file may have; default: as many as `data` has.

    Raises:
        EocodecError: no file is as small.
    """
    if size is None and np.array_equal(after, before):
        return data
    return compress(after, model=model, max_bytes=size or len(data), tiny=is_tiny(data))


def morph(first: Bytes, last: Bytes, count: int, model: str | Path | Model = "face64") -> Bytes:
    """Pictures `(count, S, S, 3)` on the straight line between the latents of two, both included.

    Arguments:
        first, last: `(S, S, 3)`, 8-bit levels.
        count: at least 2.
        model: name, path or loaded.

    Raises:
        EocodecError: the count is too small, or a picture has another size.
    """
    if count < 2:
        raise EocodecError(f"a morph has two pictures or more, not {count}")
    return blend(first, last, np.linspace(0, 1, count), model)


def blend(first: Bytes, last: Bytes, shares: npt.ArrayLike, model: str | Path | Model = "face64") -> Bytes:
    """Pictures `(N, S, S, 3)` on the straight line between the latents of two; grey if both are.

    Arguments:
        first, last: `(S, S, 3)`, 8-bit levels.
        shares: of `last`, `(N,)`, 0 to 1.
        model: name, path or loaded.

    Raises:
        EocodecError: a picture has another size.
    """
    loaded = load_model(model)
    a, b = _encoded(loaded, first), _encoded(loaded, last)
    share = np.asarray(shares, np.float32)[:, None]
    pictures = _decoded(loaded, (1 - share) * a + share * b)
    return greyed(pictures.copy(), True) if is_grey(first) and is_grey(last) else pictures

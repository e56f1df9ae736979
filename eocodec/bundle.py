"""A model bundle (`.eocm`): ONNX graphs, entropy tables and a manifest in one zip file, named by its content hash.

In: a shipped model's name or a path. Out: :class:`Model`, which opens ONNX Runtime sessions when they are first used.
A bundle is data, never code: it is checked (names, sizes, hash) before any graph is opened.
"""

import contextlib
import difflib
import functools
import hashlib
import io
import json
import math
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eocodec import runtime
from eocodec.arguments import check_model
from eocodec.errors import EocodecError, ModelError
from eocodec.files import atomic_file
from eocodec.graphs import check_graph

__all__ = [
    "DEVICES",
    "FlatManifest",
    "Manifest",
    "Model",
    "bundle_id",
    "load_model",
    "pack_basis",
    "peek_id",
    "shipped_models",
    "unpack_basis",
    "write_bundle",
]

FORMAT = 1
INTEGER = ("entropy/", "embedded/", "lossless/")  # folders of exact graphs, which always run on the CPU
DENOISING = "denoise/"  # folder of graphs that no file depends on
SHIPPED = Path(__file__).parent / "models"
DEFAULT = "photo"
DEVICES = ("auto", "cuda", "cpu")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# Without TF32, whose ten bits show in the picture; searching for the best kernels would start anew for every size.
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
MAX_ENTRY = 64 << 20
MAX_ENTRIES = 128
MAX_BUNDLE = 256 << 20  # bytes of all entries
MAX_EDGE = 128  # pixels, of the pictures of a flat model
MAX_LATENTS = 3 * MAX_EDGE**2
REFLECTIONS = 128  # of a block that is applied at once
PRECISE = 64  # reflections of a rotation that are kept in 16 bits
# Up to which reflection the rounding is how coarse, in root mean squares: chosen so that face64 stays below 12 MB.
COARSENESS = ((64, 0.03), (256, 0.15), (512, 0.25), (1 << 30, 0.4))

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Manifest:
    """What a decoder must know besides the graphs. Bands are `[LL, details L, …, details 1]`, channels as in the flow.

    Arguments:
        name, licence, card: for people.
        levels: wavelet levels L.
        gain: per band and channel; the step is Δ · exp(gain), which is Δ in the picture.
        entropy: explained entropy H of every band and channel in nats (pictures in 0 to 1).
        order: `(band, channel)` by falling H.
        water: Δ = water · sqrt(12 θ(C)).
        dead_zone: weight of the rate in rounding, squared steps per bit.
        low_index: table index of low-pass residuals by colour, pass and activity class.
        shift: centroids, steps towards zero, by table index and magnitude 1, 2, ≥ 3, in 1/256.
        denoise: `gain`, standard deviation that unit white noise has in every band and channel; `step` and `noise`,
            Δ and assumed noise of the shrinkage in units of σ; `estimate`, what the raw level estimate is divided by.
        refine_from: step in 8-bit levels from which on the decoder's refinement helps; below it is told a step of zero.
    """

    name: str
    licence: str
    card: str
    levels: int
    gain: list[list[float]]
    entropy: list[list[float]]
    order: list[tuple[int, int]]
    water: float
    dead_zone: float
    low_index: list[list[list[int]]]
    shift: list[list[int]]
    denoise: dict[str, Any]
    refine_from: float


@dataclass(frozen=True)
class FlatManifest:
    """The manifest of a model whose latents are one vector, such as `face64`. Lists have an entry for every latent.

    Arguments:
        name, licence, card: for people.
        size: edge S of its pictures in pixels; there are D = 3 S² latents.
        blocks: ends of the coding blocks; the last one is the size of the core.
        gain: the step is Δ · exp(gain).
        entropy: explained entropy H in nats (pictures in 0 to 1).
        scale: table index at Δ = 1 level without context, in 1/2048.
        rest_step: code of the largest step (as in a header) at which the latents beyond the core are coded. Where they
            are not, the decoder's refinement stands in for them.
        water: Δ = water · sqrt(12 θ(C)).
        dead_zone: weight of the rate in rounding, squared steps per bit.
        shift: as in :class:`Manifest`.
        tiny: number that stands for the model in tiny files, 1 to 3; 0: it has none.
        noise: standard deviation that unit white noise has in a latent.
        drop: pairs of a noise level in 8-bit levels, rising, and the C that is best to denoise with, as measured.
    """

    name: str
    licence: str
    card: str
    size: int
    blocks: list[int]
    gain: list[float]
    entropy: list[float]
    scale: list[int]
    rest_step: int
    water: float
    dead_zone: float
    shift: list[list[int]]
    tiny: int
    noise: list[float]
    drop: list[tuple[float, float]]


def bundle_id(files: dict[str, bytes]) -> bytes:
    """SHA-256 over the sorted names and contents of a bundle's files, but for those that only denoise.

    Files of a model thus stay readable when it gets better nets for denoising.
    """
    digest = hashlib.sha256()
    for name in sorted(n for n in files if not n.startswith(DENOISING)):
        content = files[name]
        digest.update(len(name).to_bytes(4, "little") + name.encode() + len(content).to_bytes(8, "little") + content)
    return digest.digest()


def write_bundle(path: Path, files: dict[str, bytes]) -> bytes:
    """Write a bundle (reproducible bytes), all or nothing, and return its full id.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.comment = bundle_id(files).hex().encode()  # to find a model without reading it; checked when loaded
        for name in sorted(files):
            info = zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])
    return bundle_id(files)


def read_bundle(path: Path) -> dict[str, bytes]:
    """Files of a bundle, with every size checked before it is unpacked.

    Raises:
        ModelError: missing, not a bundle, or with entries that are too many or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            sizes = [e.file_size for e in entries]
            if len(sizes) > MAX_ENTRIES or max(sizes, default=0) > MAX_ENTRY or sum(sizes) > MAX_BUNDLE:
                raise ModelError(f"{path}: the model bundle is larger than allowed")
            if len({e.filename for e in entries}) != len(entries):
                raise ModelError(f"{path}: the model bundle repeats a name")
            return {e.filename: archive.read(e) for e in entries}
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model bundle") from None
    except ModelError:
        raise
    except (OSError, zipfile.BadZipFile) as e:
        raise ModelError(f"{path}: not a model bundle ({e})") from None
    except Exception as e:  # zipfile lets zlib's and its own errors of many kinds through
        raise ModelError(f"{path}: the model bundle is damaged ({e})") from None


class Model:
    """A loaded bundle.

    Arguments:
        files: the bundle's files, see :func:`read_bundle`.
        threads: threads of ONNX Runtime; 0 is one per core.
        optimisation: graph optimisation level, "off", "basic" or "all"; symbols do not depend on it.
        device: where the transform runs: "cpu", "cuda", or "auto" for CUDA where it works and the CPU elsewhere. The
            entropy model always runs on the CPU.

    Raises:
        EocodecError: there is no such device, or CUDA does not work.
        ModelError: the files are not a valid bundle.
    """

    def __init__(
        self,
        files: dict[str, bytes],
        threads: int = 0,
        optimisation: str = "all",
        device: str = "auto",
    ) -> None:
        if device not in DEVICES:
            raise EocodecError(f"the device must be one of {', '.join(DEVICES)}, not {device}")
        self.files = files
        self.full_id = bundle_id(files)
        self.threads, self.optimisation, self.device = threads, optimisation, device
        self._must = device == "cuda"
        self._sessions: dict[str, Any] = {}
        self._lock = threading.Lock()
        try:
            raw = json.loads(files["manifest.json"])
            if raw.pop("format") != FORMAT:
                raise ModelError("the model bundle has another format version than this program reads")
            self.kind = str(raw.pop("kind", "photo"))
            self.any_manifest: Manifest | FlatManifest
            if self.kind == "flat":
                self.any_manifest = FlatManifest(**raw)
                self._latents = _basis_sizes(files["basis.bin"])[0]
            elif self.kind == "photo":
                raw["order"] = [(int(b), int(c)) for b, c in raw["order"]]
                self.any_manifest = Manifest(**raw)
            else:
                raise ModelError(f"the model bundle is of a kind that this program does not know: {self.kind[:40]}")
            offsets = np.frombuffer(files["tables.bin"], "<u4")
            self.compand_table = np.frombuffer(files["compand.bin"], np.uint8)
        except (KeyError, ValueError, TypeError, AttributeError) as e:
            raise ModelError(f"the model bundle lacks or spoils its manifest ({e})") from None
        self.tables = _unpack_tables(offsets)
        self._check()
        if self._must:
            self.settle()  # what was asked for by name must not fail only in the middle of the work

    def _check(self) -> None:
        if len(self.compand_table) < 2 or len(self.any_manifest.shift) != len(self.tables):
            raise ModelError("the model bundle's tables are inconsistent")
        if isinstance(self.any_manifest, FlatManifest):
            self._check_flat(self.any_manifest)
            return
        m = self.manifest
        bands = 1 + m.levels
        shapes = [len(m.gain), len(m.entropy)]
        if not 1 <= m.levels <= 8 or shapes != [bands] * 2:
            raise ModelError("the model bundle's manifest is inconsistent")
        try:
            indices = [v for colour in m.low_index for kind in colour for v in kind]
            shifts = [v for row in m.shift for v in row]
            numbers = [
                m.water,
                m.dead_zone,
                m.refine_from,
                *(v for part in (m.gain, m.entropy) for b in part for v in b),
            ]
            integers = all(type(v) is int for v in indices + shifts)
            fits = integers and 0 <= min(indices) <= max(indices) < len(self.tables) and max(map(abs, shifts)) <= 4096
            fits = fits and all(math.isfinite(v) and abs(v) < 1e4 for v in numbers)
        except (TypeError, ValueError) as e:
            raise ModelError(f"the model bundle's manifest is inconsistent ({e})") from None
        if not fits:
            raise ModelError("the model bundle's manifest holds numbers that are out of range")

    def _check_flat(self, m: FlatManifest) -> None:
        dims = 3 * m.size**2
        lengths = [len(m.gain), len(m.entropy), len(m.scale), len(m.noise)]
        rising = m.blocks == sorted(set(m.blocks)) and m.blocks and m.blocks[0] > 0
        consistent = lengths == [dims] * 4 and self._latents == dims and rising and m.blocks[-1] <= dims
        levels = [float(level) for level, _ in m.drop]
        known = bool(levels) and levels[0] > 0 and levels == sorted(levels) and all(1 <= c <= dims for _, c in m.drop)
        if not (8 <= m.size <= MAX_EDGE and consistent and known and m.water > 0 and 0 <= m.tiny <= 3):
            raise ModelError("the model bundle's manifest is inconsistent")

    @functools.cached_property
    def constants(self) -> dict[str, npt.NDArray[np.float32]]:
        """What the encoder and the decoder graph take besides their input: see :func:`unpack_basis`."""
        return unpack_basis(self.files["basis.bin"]) if self.kind == "flat" else {}

    @property
    def manifest(self) -> Manifest:
        """The manifest of a model for pictures of any size.

        Raises:
            ModelError: this model is for pictures of one size.
        """
        if isinstance(self.any_manifest, Manifest):
            return self.any_manifest
        raise ModelError(f"the model {self.name} cannot do this; it only codes pictures of {self.size} pixels")

    @property
    def flat(self) -> FlatManifest:
        """The manifest of a model for pictures of one size, whose latents are one vector.

        Raises:
            ModelError: this model is for pictures of any size.
        """
        if isinstance(self.any_manifest, FlatManifest):
            return self.any_manifest
        raise ModelError(f"the model {self.name} cannot do this; it is for pictures of any size")

    @property
    def size(self) -> str | None:
        """Width and height that the model is for, such as "64x64", or None for any."""
        m = self.any_manifest
        return f"{m.size}x{m.size}" if isinstance(m, FlatManifest) else None

    @property
    def id(self) -> bytes:
        """The four bytes that files carry."""
        return self.full_id[:4]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.any_manifest.name

    @property
    def block(self) -> int:
        """The largest C: latents of a block, 3 · 4**levels, or of the whole picture for models of one size."""
        if isinstance(self.any_manifest, FlatManifest):
            return len(self.any_manifest.gain)
        return 3 * 4**self.manifest.levels

    @property
    def multiple(self) -> int:
        """Pictures are padded to multiples of this many pixels."""
        return int(2 ** (self.manifest.levels + 1))

    def settle(self) -> str:
        """Where the transform runs: "cuda" or "cpu". Opens a session to find out, so that later ones need not."""
        self._open("decoder")
        return self.device

    def run(self, graph: str, inputs: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run one graph of the bundle; outputs in the graph's order. A flat model's rotation is passed along.

        Raises:
            ModelError: the graph is missing or does not fit its inputs.
        """
        session = self._sessions.get(graph) or self._open(graph)
        if not graph.startswith(INTEGER):
            inputs = {**inputs, **self.constants}
        try:
            return list(session.run(None, inputs))
        except Exception as e:  # onnxruntime's own exception classes are not exported
            raise runtime.failure(f"the model's graph {graph} failed", e) from e

    def _open(self, graph: str) -> Any:
        with self._lock:
            if graph not in self._sessions:
                try:
                    content = self.files[f"{graph}.onnx"]
                except KeyError:
                    raise ModelError(f"the model bundle lacks the graph {graph}") from None
                try:
                    check_graph(content)
                except ModelError as e:
                    raise ModelError(f"the model's graph {graph} cannot be opened: {e}") from None
                exact = graph.startswith(INTEGER)
                session = None
                if self.device != "cpu" and not exact:
                    session = self._open_on_cuda(content)
                    self.device = "cpu" if session is None else "cuda"
                if session is None:
                    try:
                        session = _session(content, self._options(exact), [CPU])
                    except Exception as e:  # onnxruntime's own exception classes are not exported
                        raise runtime.failure(f"the model's graph {graph} cannot be opened", e) from e
                self._sessions[graph] = session
            return self._sessions[graph]

    def _open_on_cuda(self, content: bytes) -> Any | None:
        """A session that runs on CUDA, or None if there can be none.

        Raises:
            EocodecError: there can be none, but CUDA was asked for.
        """
        ort = runtime.onnxruntime()
        reason = runtime.without_cuda()
        if CUDA in ort.get_available_providers():
            _preload()
            reason = "onnxruntime cannot open a session on it; are the driver, CUDA and cuDNN installed?"
            try:
                session = _session(content, self._options(exact=False), [(CUDA, CUDA_OPTIONS), CPU])
                if CUDA in session.get_providers():  # onnxruntime goes on without a provider that fails
                    return session
            except Exception as e:  # onnxruntime's own exception classes are not exported
                reason = _first_line(e)
        if self._must:
            raise EocodecError(f"CUDA does not work here: {reason}")
        return None

    def _options(self, exact: bool) -> Any:
        """Options of a session for an entropy graph (`exact`), or another one."""
        ort = runtime.onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = runtime.FATAL
        runtime.share_threads(options, self.threads)
        options.enable_mem_pattern = False
        # Without an arena each tile's buffers are mapped anew; thirty arenas for the small nets would add up.
        options.enable_cpu_mem_arena = not exact
        levels = ort.GraphOptimizationLevel
        options.graph_optimization_level = {
            "off": levels.ORT_DISABLE_ALL,
            "basic": levels.ORT_ENABLE_BASIC,
            "all": levels.ORT_ENABLE_ALL,
        }[self.optimisation]
        return options


@functools.cache
def _preload() -> None:
    """Let onnxruntime (from 1.21 on) find CUDA where pip has put it."""
    ort = runtime.onnxruntime()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints, and standard output may be the result
        getattr(ort, "preload_dlls", lambda: None)()


def _session(content: bytes, options: Any, providers: list[Any]) -> Any:
    return runtime.onnxruntime().InferenceSession(content, options, providers=providers)


def _first_line(e: Exception) -> str:
    return str(e).splitlines()[0]


def _unpack_tables(words: npt.NDArray[np.uint32]) -> list[Integers]:
    """Frequency tables f(0), f(1), …, f(R): count, then for each its length and values; f(0) + 2 Σ f(m) = 2**24."""
    tables, at = [], 1
    count = int(words[0]) if len(words) else 0
    if not 1 <= count <= 256:
        raise ModelError("the model bundle's entropy tables are damaged")
    for _ in range(count):
        n = int(words[at]) if at < len(words) else 0
        table = words[at + 1 : at + 1 + n].astype(np.int64)
        if n < 2 or len(table) != n or table.min() < 1 or table[0] + 2 * table[1:].sum() != 1 << 24:
            raise ModelError("the model bundle's entropy tables are damaged")
        tables.append(table)
        at += 1 + n
    return tables


def pack_basis(vectors: npt.NDArray[np.float32], signs: npt.NDArray[np.float32]) -> bytes:
    """Reflections `(D, K)` of a rotation, rounded, with the signs `(D,)`.

    Whatever they are rounded to, a product of reflections is exactly orthogonal. The k-th entry of the k-th reflection
    is far larger than the others and kept apart; the others are multiples of a fraction of their root mean square
    (:data:`COARSENESS`). Layout, little-endian: D, K as uint32; K scales and K entries as float32; D signs as int8; the
    first :data:`PRECISE` reflections as int16, the others as int8, one after another.
    """
    dims, rank = vectors.shape
    place = np.arange(rank)
    others = vectors.copy()
    others[place, place] = 0
    coarse = np.select([place < end for end, _ in COARSENESS], [step for _, step in COARSENESS])
    scales = np.maximum(coarse * np.sqrt((others.astype(np.float64) ** 2).mean(0)), 1e-30).astype("<f4")
    limit = np.where(place < PRECISE, 32767, 127)
    integers = np.clip(np.rint(others / scales), -limit, limit)
    return b"".join(
        [
            np.array([dims, rank], "<u4").tobytes(),
            scales.tobytes(),
            vectors[place, place].astype("<f4").tobytes(),
            signs.astype("<i1").tobytes(),
            np.ascontiguousarray(integers[:, :PRECISE].T).astype("<i2").tobytes(),
            np.ascontiguousarray(integers[:, PRECISE:].T).astype("<i1").tobytes(),
        ]
    )


def _basis_sizes(content: bytes) -> tuple[int, int, npt.NDArray[np.int64]]:
    """D, K and the ends of the parts of a packed basis."""
    dims, rank = (int(n) for n in np.frombuffer(content[:8], "<u4")) if len(content) >= 8 else (0, 0)
    precise = min(rank, PRECISE)
    ends = np.cumsum([8, 4 * rank, 4 * rank, dims, 2 * dims * precise, dims * (rank - precise)])
    if not 1 <= rank <= dims <= MAX_LATENTS or ends[-1] != len(content):
        raise ModelError("the model bundle's rotation is damaged")
    return dims, rank, ends


def unpack_basis(content: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """What the graphs of a flat model take besides pictures or latents: a rotation as blocks of reflections.

    `reflections` V `(n, R, D)`, `middles` T `(n, R, R)` and `signs` `(D,)` of y = signs · x Q_1 … Q_n (x a row),
    Q_b = I − V_bᵀ T_b V_b, T_b⁻¹ = triu(V_b V_bᵀ, 1) + diag(V_b V_bᵀ) / 2: the compact WY form of R Householder
    reflections. Zero rows fill the last block.

    Raises:
        ModelError: the content does not fit together.
    """
    dims, rank, ends = _basis_sizes(content)
    precise = min(rank, PRECISE)
    scales = np.frombuffer(content[ends[0] : ends[1]], "<f4")
    large = np.frombuffer(content[ends[1] : ends[2]], "<f4")
    signs = np.frombuffer(content[ends[2] : ends[3]], "<i1").astype(np.float32)
    fine = np.frombuffer(content[ends[3] : ends[4]], "<i2").reshape(precise, dims)
    coarse = np.frombuffer(content[ends[4] : ends[5]], "<i1").reshape(rank - precise, dims)
    blocks = -(-rank // REFLECTIONS)
    rows = np.zeros((blocks * REFLECTIONS, dims), np.float32)
    rows[:precise], rows[precise:rank] = fine, coarse
    rows[:rank] *= scales[:, None]
    rows[np.arange(rank), np.arange(rank)] = large
    reflections = rows.reshape(blocks, REFLECTIONS, dims)
    gram = np.einsum("nrd,nsd->nrs", reflections, reflections, optimize=True).astype(np.float64)
    diagonal = np.einsum("nrr->nr", gram)
    if not (np.isfinite(scales).all() and np.isfinite(large).all() and diagonal.ravel()[:rank].min() > 0):
        raise ModelError("the model bundle's rotation is damaged")
    halves = np.where(diagonal > 0, diagonal / 2, 1.0)
    middles = np.linalg.inv(np.triu(gram, 1) + halves[:, :, None] * np.eye(REFLECTIONS)).astype(np.float32)
    return {"reflections": reflections, "middles": middles, "signs": signs}


def peek_id(path: Path) -> bytes:
    """The id that a bundle claims to have (:func:`write_bundle` notes it), or empty; loading shows whether it is so."""
    try:
        with zipfile.ZipFile(path) as archive:
            return bytes.fromhex(archive.comment.decode("ascii"))
    except (OSError, zipfile.BadZipFile, ValueError):
        return b""


def shipped_models() -> dict[str, Path]:
    """Names and paths of the models that come with the package."""
    return {p.stem: p for p in sorted(SHIPPED.glob("*.eocm"))}


_loading = threading.Lock()


@functools.lru_cache(maxsize=8)
def _load(path: Path, stamp: int, threads: int, optimisation: str, device: str) -> Model:
    model = Model(read_bundle(path), threads, optimisation, device)
    if peek_id(path) not in (b"", model.full_id):
        raise ModelError(f"{path}: the model bundle does not have the content that its id stands for")
    return model


def load_model(
    model: "str | Path | Model" = DEFAULT,
    threads: int = 0,
    optimisation: str = "all",
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

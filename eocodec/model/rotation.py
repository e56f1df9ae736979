"""The rotation of a flat model, as reflections whose product is exactly orthogonal, whatever they are rounded to.

In: reflections, or their packed bytes. Out: bytes, or the matrices that the encoder and the decoder graph take.
"""

import numpy as np
import numpy.typing as npt

from eocodec.errors import ModelError

__all__ = ["dimensions", "pack_basis", "unpack_basis"]

MAX_LATENTS = 3 * 128**2
REFLECTIONS = 128  # of a block that is applied at once
PRECISE = 64  # reflections of a rotation that are kept in 16 bits
# Up to which reflection the rounding is how coarse, in root mean squares: chosen so that face64 stays below 12 MB.
COARSENESS = ((64, 0.03), (256, 0.15), (512, 0.25), (1 << 30, 0.4))


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


def dimensions(content: bytes) -> tuple[int, int, npt.NDArray[np.int64]]:
    """D, K and the ends of the parts of a packed rotation.

    Raises:
        ModelError: the content does not fit together.
    """
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
    dims, rank, ends = dimensions(content)
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

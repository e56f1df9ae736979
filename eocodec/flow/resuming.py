"""Whether a checkpoint can be gone on from with a configuration, and what of the run is another one then.

In: what a checkpoint holds, and the configuration. Out: sentences, or an error that names what differs.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eocodec.errors import EocodecError
from eocodec.flow.pictures import Picture

if TYPE_CHECKING:
    from eocodec.flow.configuration import TrainingConfig

__all__ = ["changes", "digest_of", "settings_of"]

KEPT = ("seed", "hold_out", "hold_out_by", "optimiser", "stream")  # with others, it is no longer the same run
SETTINGS = ("batch", "crop", "rescale", "turns", "grey", "jitter", "average", "epsilon")
SHOWN = ("crop", "grey")  # on which the pictures of a stream depend, too


def settings_of(config: "TrainingConfig") -> dict[str, Any]:
    """What a checkpoint records of the configuration besides the model, `seed` and the hold-out; plain values."""
    return {key: getattr(config, key) for key in SETTINGS}


def digest_of(pictures: Sequence[Picture] | Picture) -> str:
    """Changes with the pictures `(H, W, 3)` of a stream and with their order."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(repr(picture.shape).encode())
        digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()


def changes(path: Path, raw: dict[str, Any], config: "TrainingConfig", pictures: str) -> list[str]:
    """Sentences about what differs from before in a run that is resumed; what older checkpoints lack is not compared.

    Arguments:
        path: of the checkpoint.
        raw: what it holds.
        config: of the run from now on.
        pictures: their digest, see :func:`digest_of`.

    Raises:
        EocodecError: the configuration is that of another run.
    """
    other = _differing({**raw, **_from_states(raw)}, config, KEPT)
    if other:
        raise EocodecError(
            f"{path} belongs to a run with {other}; resume it with what it began with, or begin a new run with --start"
        )
    sentences = []
    other = _differing(raw.get("settings", {}), config, SETTINGS)
    if other:
        sentences.append(
            f"{path} was written with {other}; the new values hold, and the curve is another one from here on"
        )
    if raw.get("pictures", pictures) != pictures and not _differing(raw["settings"], config, SHOWN):
        sentences.append(
            f"{path} was written by a run with other pictures to train on; the curve is no longer the same, and those "
            "held out before may be trained on now"
        )
    return sentences


def _from_states(raw: dict[str, Any]) -> dict[str, str]:
    """Which optimiser and which stream left their states; checkpoints do not name them."""
    soap = "shampoo_beta" in raw["optimiser"]["param_groups"][0]
    return {"optimiser": "soap" if soap else "adam", "stream": "aligned" if "drawn" in raw["stream"] else "crops"}


def _differing(have: dict[str, Any], config: "TrainingConfig", keys: Sequence[str]) -> str:
    want = {key: getattr(config, key) for key in keys}
    return ", ".join(f"{k} = {have[k]!r} and not {v!r}" for k, v in want.items() if have.get(k, v) != v)

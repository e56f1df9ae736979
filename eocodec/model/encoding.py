"""How an encoder makes use of a model: what was measured to be best, and what no decoder has to know.

In: the files of a bundle and its manifest. Out: :class:`EncoderSettings`. They stand in `encoder.json`, beside what
decoding needs, so that better settings do not make another model. Bundles without that file have the manifest's.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from eocodec.errors import ModelError
from eocodec.format import MAX_TUNING
from eocodec.model import objects
from eocodec.model.manifest import PhotoManifest

__all__ = ["SETTINGS", "EncoderSettings"]

SETTINGS = "encoder.json"
MASKING = 0.3  # of bundles without settings of their own
MOST_WEIGHT = 1.0


@dataclass(frozen=True)
class EncoderSettings:
    """How to encode with a model for pictures of any size. Weights are of the rate in rounding, squared steps per bit.

    Arguments:
        dead_zone: weight of chroma, then of luma at level L, …, 1, for the smallest squared error; or nothing, which is
            the manifest's for all.
        eye_dead_zone: likewise for files that are tuned for the eye.
        tuning: how much the steps of the levels follow the eye in such files, in 1/32.
        masking: in such files, octaves of the step for an octave of contrast.
        shifts: whether files say how far the nets' scales are off, see `eocodec.coding.shifts`.
    """

    dead_zone: tuple[float, ...] = ()
    eye_dead_zone: tuple[float, ...] = ()
    tuning: int = MAX_TUNING
    masking: float = MASKING
    shifts: bool = False

    @classmethod
    def of(cls, files: Mapping[str, bytes], manifest: PhotoManifest) -> "EncoderSettings":
        """The settings of a bundle.

        Raises:
            ModelError: they cannot be read, do not fit the manifest or are out of range.
        """
        if SETTINGS not in files:
            return cls(eye_dead_zone=tuple(manifest.eye_dead_zone))
        try:
            raw: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in objects.read_object(files[SETTINGS]).items()
            }
            result = cls(**raw)
            weights = (*result.dead_zone, *result.eye_dead_zone, result.masking)
            bands = 1 + manifest.levels
            fits = {len(result.dead_zone), len(result.eye_dead_zone)} <= {0, bands}
            fits = fits and type(result.tuning) is int and 1 <= result.tuning <= MAX_TUNING
            fits = fits and all(type(v) in (int, float) and math.isfinite(v) and v >= 0 for v in weights)
            fits = fits and max(weights) <= MOST_WEIGHT and type(result.shifts) is bool
        except (ValueError, TypeError, AttributeError) as e:
            raise ModelError(f"the model bundle's settings for encoders cannot be read ({e})") from None
        if not fits:
            raise ModelError("the model bundle's settings for encoders are out of range")
        return result

    def pack(self) -> bytes:
        """Content of `encoder.json`."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True).encode()

    def weights(self, eye: bool) -> tuple[float, ...]:
        """Weights of the rate in rounding, of chroma, then of luma at level L, …, 1; nothing: the manifest's."""
        return self.eye_dead_zone if eye else self.dead_zone

"""eocodec: image compression and denoising on entropy-ordered flows.

Example:
    >>> import numpy as np, eocodec
    >>> picture = np.zeros((32, 48, 3), np.uint8)
    >>> data = eocodec.compress(picture, rate=64)
    >>> eocodec.decompress(data).shape
    (32, 48, 3)
"""

from typing import Any

__all__ = ["EocodecError", "compress", "decompress", "denoise", "load_model", "truncate"]
__version__ = "0.1.0"

_HOMES = {
    "EocodecError": "eocodec.errors",
    "compress": "eocodec.codec",
    "decompress": "eocodec.codec",
    "denoise": "eocodec.denoising",
    "load_model": "eocodec.bundle",
    "truncate": "eocodec.codec",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that `import eocodec` stays fast."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'eocodec' has no attribute {name!r}")

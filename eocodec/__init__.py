"""eocodec: image compression and denoising on entropy-ordered flows.

Example:
    >>> import numpy as np, eocodec
    >>> picture = np.zeros((32, 48, 3), np.uint8)
    >>> data = eocodec.compress(picture, rate=64)
    >>> eocodec.decompress(data).shape
    (32, 48, 3)
"""

from typing import TYPE_CHECKING

from eocodec import _moved

__all__ = [
    "Compressed",
    "Decoded",
    "Denoised",
    "EocodecError",
    "FormatError",
    "ImageError",
    "Library",
    "LimitError",
    "Model",
    "ModelError",
    "compress",
    "compress_picture",
    "decode_file",
    "decompress",
    "denoise",
    "denoise_picture",
    "estimate_sigma",
    "load_model",
    "truncate",
]
__version__ = "0.1.0"

if TYPE_CHECKING:  # what type checkers see
    from eocodec.codec import compress, compress_picture, decode_file, decompress, truncate
    from eocodec.denoising import Denoised, denoise, denoise_picture, estimate_sigma
    from eocodec.errors import EocodecError, FormatError, ImageError, LimitError, ModelError
    from eocodec.model.bundle import Model
    from eocodec.model.library import Library, load_model
    from eocodec.results import Compressed, Decoded
else:  # the same names, loaded when they are first used, so that `import eocodec` stays fast
    _HOMES = {
        "codec": ("compress", "compress_picture", "decode_file", "decompress", "truncate"),
        "denoising": ("Denoised", "denoise", "denoise_picture", "estimate_sigma"),
        "errors": ("EocodecError", "FormatError", "ImageError", "LimitError", "ModelError"),
        "model.bundle": ("Model",),
        "model.library": ("Library", "load_model"),
        "results": ("Compressed", "Decoded"),
    }

    def __getattr__(name):
        for module, names in _HOMES.items():
            if name in names:
                import importlib

                return getattr(importlib.import_module(f"eocodec.{module}"), name)
        raise AttributeError(f"module 'eocodec' has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})


_moved.install()

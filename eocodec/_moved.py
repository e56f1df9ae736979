"""Where modules and names of earlier versions have gone: one table, one import hook.

In: an old name, such as `eocodec.bundle`. Out: a module that warns (DeprecationWarning) and takes what is asked of it
from where it is now. Old names last for one release.
"""

import importlib
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

__all__ = ["install", "moved_names"]

# Modules that are gone, and where to look for their names.
HOMES: dict[str, tuple[str, ...]] = {
    "bundle": ("model.library", "model.bundle", "model.manifest", "model.runtime", "model.rotation"),
    "graphs": ("model.graphs",),
    "transform": ("model.transform", "model.tiles"),
    "latents": ("coding.units", "steps", "format", "model.manifest"),
    "entropy": ("coding.ordinary", "coding.walk", "coding.range_coder", "coding.base", "coding.units"),
    "flat": ("coding.flat", "denoising.dropping", "model.transform", "model.manifest"),
    "progressive": (
        "coding.embedded", "coding.embedded_state", "coding.embedded_coder", "coding.embedded_tables"
    ),
    "lossless": ("coding.lossless", "coding.lossless_walk", "coding.lossless_tables"),
    "lattice": ("coding.lattice",),
    "symbols": ("coding.symbols",),
    "describe": ("coding.describe",),
    "search": ("coding.rate_control",),
    "gains": ("denoising.net",),
    "shrinkage": ("denoising.shrinkage",),
}  # fmt: skip


def _library(models: Any, threads: int, device: str) -> Any:
    from eocodec.model.library import library_of

    return library_of(models, threads, device)


# Names that are called otherwise today, as `module:name`; or what does the same as the function that is gone. Methods
# take what the functions took.
RENAMED: dict[str, dict[str, str | Callable[..., Any]]] = {
    "bundle": {"Manifest": "model.manifest:PhotoManifest", "INTEGER": "model.runtime:EXACT"},
    "transform": {
        "encode_picture": "model.transform:analyse",
        "decode_tiles": "model.transform:synthesise_tiles",
        "decode_latents": "model.transform:synthesise",
        "padded_size": lambda width, height, multiple: (
            -(-width // multiple) * multiple,
            -(-height // multiple) * multiple,
        ),
    },
    "latents": {
        "delta_of_rate": "model.manifest:PhotoManifest.step_of",
        "rate_of_delta": "model.manifest:PhotoManifest.rate_of",
        "refinement_step": "model.manifest:PhotoManifest.decoder_step",
        "band_steps": "model.manifest:PhotoManifest.steps",
        "NO_REFINEMENT": "model.manifest:FLOW_ONLY",
    },
    "entropy": {"MEAN_UNIT": "coding.scales:MEAN_UNIT"},
    "flat": {
        "encode_picture": "model.transform:analyse_vector",
        "synthesise": "model.transform:synthesise_vectors",
        "to_bytes": "model.transform:to_levels",
        "delta_of_rate": "model.manifest:FlatManifest.step_of",
        "rate_of_delta": "model.manifest:FlatManifest.rate_of",
        "refinement_step": "model.manifest:FlatManifest.decoder_step",
        "core_step": "model.manifest:FlatManifest.core_step",
        "latent_steps": "model.manifest:FlatManifest.steps",
        "order": "model.manifest:FlatManifest.order.fget",
        "step_delta": "steps:step_of_code",
        "keep_top": lambda manifest, latents, rate: latents * manifest.kept(rate),
        "spectrum": lambda manifest: manifest.spectrum.entropy,
    },
    "progressive": {"refinement_step": "coding.embedded:synthesis_step"},
    "gains": {"available": lambda model: "net" in model.denoising_methods},
    "codec": {
        "find_model": lambda identity, model, threads=0, device="auto": _library(model, threads, device).of_id(
            identity
        ),
        "find_tiny_model": lambda number, model, threads=0, device="auto": _library(model, threads, device).of_number(
            number
        ),
        "pack_alpha": "coding.alpha:pack",
        "unpack_alpha": "coding.alpha:unpack",
        "shipped_models": "model.library:shipped_models",
    },
}


def _find(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(f"eocodec.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _getter(old: str) -> Callable[[str], Any]:
    def get(name: str) -> Any:
        renamed = None if name.startswith("__") else RENAMED.get(old, {}).get(name)
        if renamed is not None:
            return _find(renamed) if isinstance(renamed, str) else renamed
        for home in () if name.startswith("__") else HOMES.get(old, ()):
            module = importlib.import_module(f"eocodec.{home}")
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module 'eocodec.{old}' has no attribute {name!r}")

    return get


def moved_names(module: str) -> Callable[[str], Any]:
    """`__getattr__` of a module that is still there, but some of whose names are not."""
    get = _getter(module.removeprefix("eocodec."))

    def warned(name: str) -> Any:
        found = get(name)
        warnings.warn(f"{module}.{name} has moved", DeprecationWarning, stacklevel=2)
        return found

    return warned


class _Moved:
    """Finds modules that are gone, and makes them of what is where now: a finder and loader of the import system."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Of modules in the table only."""
        package, _, name = fullname.partition(".")
        known = package == "eocodec" and name in HOMES
        return importlib.machinery.ModuleSpec(fullname, self) if known else None  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """A module as usual."""

    def exec_module(self, module: ModuleType) -> None:
        """Warn, and take names from where they are now."""
        old = module.__name__.removeprefix("eocodec.")
        homes = ", ".join(f"eocodec.{home}" for home in HOMES[old])
        warnings.warn(f"{module.__name__} has moved to {homes}", DeprecationWarning, stacklevel=2)
        module.__doc__ = f"Moved to {homes}."
        module.__getattr__ = _getter(old)  # type: ignore[method-assign]


def install() -> None:
    """Let the names of modules that are gone be imported."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())

"""The models of the service.

In: loaded models. Out: what clients choose by: names, limits, abilities, spectra.
"""

from typing import Any

from fastapi import APIRouter, HTTPException

from eocodec.codec import default_rate
from eocodec.coding.embedded_tables import TABLES_FILE as EMBEDDED_TABLES
from eocodec.coding.lossless_tables import TABLES_FILE as LOSSLESS_TABLES
from eocodec.lab.paths.editing import shipped_paths
from eocodec.model.bundle import Model
from eocodec.service.access import Access
from eocodec.service.problems import Problem
from eocodec.service.rivals import rivals
from eocodec.service.state import State

__all__ = ["described", "routes"]


def described(model: Model, default: str) -> dict[str, Any]:
    """What a client may know of a model, and what it can do."""
    return {
        "name": model.name,
        "default": model.name == default,
        "id": model.id.hex(),
        "sha256": model.full_id.hex(),
        "size": model.size,
        "block": model.block,
        "default_rate": default_rate(model),
        "methods": list(model.denoising_methods),
        "lossless": LOSSLESS_TABLES in model.files,
        "progressive": EMBEDDED_TABLES in model.files,
        "paths": paths.manifest.names if (paths := shipped_paths(model)) else [],
        "tiny": bool(model.any_manifest.tiny_number),
        "licence": model.any_manifest.licence,
        "card": model.any_manifest.card,
    }


def spectrum(model: Model) -> dict[str, Any]:
    """Explained entropy (nats) over rank, falling; long spectra thinned out evenly in the logarithm of the rank."""
    ranks, entropies = model.any_manifest.spectrum.curve()
    return {"block": model.block, "rank": ranks, "entropy": entropies}


def routes(state: State, access: Access) -> APIRouter:
    """Routes that describe models."""
    router = APIRouter(dependencies=access.private)
    settings = state.settings

    @router.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """The models of this service, the first being the default, the largest body and picture, and other codecs."""
        limits = {"max_body": settings.max_body, "max_pixels": settings.max_pixels}
        return {"models": [described(m, state.default) for m in state.models], "limits": limits, "rivals": rivals()}

    @router.get("/v1/models/{name}/spectrum", responses={404: {"model": Problem, "description": "no such model"}})
    async def model_spectrum(name: str) -> dict[str, Any]:
        """Explained entropy of a model's latents over their rank."""
        for model in state.models:
            if model.name == name:
                return spectrum(model)
        raise HTTPException(404, "there is no such model")

    return router

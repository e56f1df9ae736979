"""The models of the service.

In: loaded models. Out: what clients choose by: names, limits, abilities, spectra.
"""

import math
from typing import Any

import numpy as np
from fastapi import APIRouter, HTTPException

from eocodec.bundle import Model
from eocodec.codec import DEFAULT_RATE
from eocodec.gains import available
from eocodec.inspection import measures
from eocodec.service.access import Access
from eocodec.service.state import State

__all__ = ["described", "routes"]

POINTS = 400  # of a spectrum's curve, about


def described(model: Model, default: str) -> dict[str, Any]:
    """What a client may know of a model, and what it can do."""
    files = model.files
    flat = model.kind == "flat"
    return {
        "name": model.name,
        "default": model.name == default,
        "id": model.id.hex(),
        "sha256": model.full_id.hex(),
        "size": model.size,
        "block": model.block,
        "default_rate": DEFAULT_RATE,
        "methods": ["drop"] if flat else (["net"] if available(model) else []) + ["shrink", "drop"],
        "lossless": "lossless/tables.bin" in files,
        "progressive": "progressive.bin" in files,
        "tiny": flat and bool(model.flat.tiny),
        "licence": model.any_manifest.licence,
        "card": model.any_manifest.card,
    }


def spectrum(model: Model) -> dict[str, Any]:
    """Explained entropy (nats) over rank, falling; long spectra thinned out evenly in the logarithm of the rank."""
    found = measures.spectrum(model)
    falling = np.argsort(-found.entropy, kind="stable")
    count = found.count[falling]
    middle = np.cumsum(count) - (count - 1) / 2
    places = np.arange(len(count))
    if len(count) > POINTS:
        places = np.unique(np.rint(np.exp(np.linspace(0, math.log(len(count)), POINTS + 1))).astype(int)) - 1
    return {
        "block": model.block,
        "rank": middle[places].tolist(),
        "entropy": found.entropy[falling][places].tolist(),
    }


def routes(state: State, access: Access) -> APIRouter:
    """Routes that describe models."""
    router = APIRouter(dependencies=access.private)
    settings = state.settings

    @router.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """The models of this service, the first being the default, and the largest body and picture."""
        limits = {"max_body": settings.max_body, "max_pixels": settings.max_pixels}
        return {"models": [described(m, state.default) for m in state.models], "limits": limits}

    @router.get("/v1/models/{name}/spectrum")
    async def model_spectrum(name: str) -> dict[str, Any]:
        """Explained entropy of a model's latents over their rank."""
        for model in state.models:
            if model.name == name:
                return spectrum(model)
        raise HTTPException(404, "there is no such model")

    return router

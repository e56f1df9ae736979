"""Trained photo models to bundles: ONNX graphs with parity checks, entropy tables, spectrum."""

from eocodec_export.bundle import export

__all__ = ["export"]

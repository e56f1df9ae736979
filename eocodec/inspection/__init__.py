"""What a model's ordered latents do: figures (`measures`), and sheets and plots of them (`sheets`)."""

from eocodec.inspection.measures import (
    COLOURS,
    ORIENTATIONS,
    Spectrum,
    TotalCorrelation,
    basis,
    core,
    latents_of_rate,
    log_column_norms,
    noise_floor,
    sample,
    spectrum,
    total_correlation,
    traversal,
)
from eocodec.inspection.sheets import around_grey, detail_gain, plot_spectrum, sheet

__all__ = [
    "COLOURS",
    "ORIENTATIONS",
    "Spectrum",
    "TotalCorrelation",
    "around_grey",
    "basis",
    "core",
    "detail_gain",
    "latents_of_rate",
    "log_column_norms",
    "noise_floor",
    "plot_spectrum",
    "sample",
    "sheet",
    "spectrum",
    "total_correlation",
    "traversal",
]

"""Pictures of embeddings and of training; matplotlib and umap-learn are imported when drawing."""

from speaker_encoder.plots.background import BackgroundPlotter, FinishedPlot
from speaker_encoder.plots.curve import plot_curve
from speaker_encoder.plots.det import plot_det
from speaker_encoder.plots.histogram import plot_histogram
from speaker_encoder.plots.umap_plot import plot_umap
from speaker_encoder.plots.verification_report import write_report

__all__ = [
    "BackgroundPlotter",
    "FinishedPlot",
    "plot_curve",
    "plot_det",
    "plot_histogram",
    "plot_umap",
    "write_report",
]

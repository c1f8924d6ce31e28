"""Pictures of embeddings and of training; matplotlib and umap-learn are imported when drawing."""

from speaker_encoder.plots.background import BackgroundPlotter, FinishedPlot
from speaker_encoder.plots.curve import plot_curve
from speaker_encoder.plots.umap_plot import plot_umap

__all__ = ["BackgroundPlotter", "FinishedPlot", "plot_curve", "plot_umap"]

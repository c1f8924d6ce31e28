"""Speaker embeddings in the plane, by UMAP."""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.plots.figures import (
    new_figure,
    save_figure,
    set_plain,
    short_name,
    speaker_style,
    without_common_start,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

NUM_NEIGHBORS = 15
MIN_UMAP = 5
"""Below this many embeddings UMAP has no neighbourhoods to work with."""
MIN_DISTANCE = 0.5
"""UMAP's min_dist: wide enough that a tight cluster still shows its points."""
MIN_DIRECT_LABELS = 9
"""From this many speakers on their names stand in the picture too; the legend is far away."""
ALIKE_COSINE = 0.98
"""Above this mean cosine the picture says that the embeddings are nearly all alike."""
MARGIN = 0.15
HEADER = 0.55


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes in inches (fonts in points) that grow with the speakers, so that none is left out."""

    panel: float
    font_size: float
    num_columns: int
    width: float
    height: float

    @classmethod
    def for_names(cls, names: Sequence[str]) -> "_Layout":
        """As few legend columns as the panel's height allows, as wide as the names are long."""
        num_names = len(names)
        panel = 7.0 if num_names <= 40 else 8.5 if num_names <= 100 else 11.0
        font_size = 9.0 if num_names <= 40 else 7.5
        num_columns = math.ceil(num_names * font_size * 1.55 / (panel * 72))
        longest = max(len(name) for name in names)
        legend = num_columns * (longest * 0.62 + 3.2) * font_size / 72
        return cls(
            panel, font_size, num_columns, panel + legend + 3 * MARGIN, panel + MARGIN + HEADER
        )


def plot_umap(
    embeddings: ArrayLike,
    labels: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    annotations: Sequence[str] | None = None,
    seed: int = 42,
) -> Path:
    """Writes a picture of embeddings in the plane, one colour and marker for each speaker.

    UMAP by cosine distance with `min(15, N - 1)` neighbours. Fewer than 5 embeddings are shown
    by their two principal components instead, and the picture says so. Embeddings that are not
    finite are left out, and the picture says how many.

    Args:
        embeddings: (N, D) array, N >= 1.
        labels: (N,) speaker of each embedding.
        path: the picture; the suffix gives the format.
        title: above the picture.
        annotations: (N,) a text beside each point.
        seed: of UMAP. The same data and seed give the same picture.

    Returns:
        The path.

    Raises:
        UserError: no finite embedding, or labels or annotations of another length.
    """
    rows = np.asarray(embeddings, dtype=np.float32)
    texts = None if annotations is None else list(annotations)
    if (
        rows.ndim != 2
        or len(rows) != len(labels)
        or len(rows) != len(labels if texts is None else texts)
    ):
        raise UserError(
            "A UMAP needs embeddings (N, D), N labels and N annotations (or none); found "
            f"{rows.shape}, {len(labels)} and {'none' if texts is None else len(texts)}."
        )
    kept = np.flatnonzero(np.isfinite(rows).all(axis=1)).tolist()
    if not kept:
        raise UserError(f"None of the {len(rows)} embeddings to plot is finite.")
    notes = []
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} embeddings are not finite and left out")
    points, note = project(rows[kept], seed=seed)
    notes.extend([note] if note else [])
    if len(kept) > 1 and (cosine := _mean_cosine(rows[kept])) > ALIKE_COSINE:
        notes.append(f"the embeddings are nearly all alike (mean cosine {cosine:.3f})")
    figure = _draw(points, [str(labels[i]) for i in kept], title, "; ".join(notes))
    if texts is not None:
        _annotate(figure.axes[0], points, [str(texts[i]) for i in kept])
    return save_figure(figure, path)


def project(embeddings: NDArray[np.float32], *, seed: int = 42) -> tuple[NDArray[np.float64], str]:
    """Embeddings in two dimensions.

    Args:
        embeddings: (N, D) finite.
        seed: of UMAP.

    Returns:
        (points, note): (N, 2), and what to say about them if they are not UMAP's.
    """
    num_rows = len(embeddings)
    rows = _normalize(embeddings)
    if num_rows < MIN_UMAP:
        return principal_components(rows), f"principal components: {num_rows} points are too few"
    import umap

    reducer = umap.UMAP(
        n_neighbors=min(NUM_NEIGHBORS, num_rows - 1),
        n_components=2,
        metric="cosine",
        min_dist=MIN_DISTANCE,
        # The spectral start needs more points than it has eigenvectors to find.
        init="spectral" if num_rows > NUM_NEIGHBORS else "random",
        random_state=seed,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points = np.asarray(reducer.fit_transform(rows), dtype=np.float64)
    if np.isfinite(points).all():
        return points, ""
    return principal_components(rows), "principal components: UMAP found no neighbours"


def principal_components(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """The first two principal components.

    Args:
        rows: (N, D), N >= 1.

    Returns:
        (N, 2), the sign fixed so that the largest entry of each component is positive.
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(rows), 2))
    num_components = min(2, len(values))
    points[:, :num_components] = left[:, :num_components] * values[:num_components]
    largest = points[np.abs(points).argmax(axis=0), [0, 1]]
    return points * np.where(largest < 0, -1.0, 1.0)


def _normalize(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, np.finfo(np.float32).tiny)


def _mean_cosine(rows: NDArray[np.float32]) -> float:
    """The mean cosine of two different embeddings."""
    total = float(np.square(_normalize(rows).sum(axis=0, dtype=np.float64)).sum())
    return (total - len(rows)) / (len(rows) * (len(rows) - 1))


def _draw(points: NDArray[np.float64], labels: list[str], title: str, note: str) -> "Figure":
    speakers = sorted(set(labels))
    names = [short_name(speaker) for speaker in speakers]
    layout = _Layout.for_names(names)
    width, height = layout.width, layout.height
    figure = new_figure(width, height)
    axes = figure.add_axes(
        (MARGIN / width, MARGIN / height, layout.panel / width, layout.panel / height)
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#bbbbbb")
    size = float(np.clip(9000 / len(points), 22 if len(points) <= 2000 else 8, 60))
    members = np.array(labels)
    handles = [
        _scatter(axes, points[members == speaker], number, size)
        for number, speaker in enumerate(speakers)
    ]
    if len(speakers) >= MIN_DIRECT_LABELS:
        size = layout.font_size - 1.5
        for speaker, name in zip(speakers, without_common_start(names), strict=True):
            _label(axes, points[members == speaker], name, size)
    _add_legend(figure, handles, names, layout)
    header = f"{title} ({len(speakers)} speakers, {len(points)} utterances)" if title else ""
    set_plain(
        figure.text(MARGIN / width, 1 - HEADER / 2 / height, "", fontsize=12, va="center"), header
    )
    if note:
        set_plain(axes.text(0.01, 0.01, "", transform=axes.transAxes, fontsize=8), note)
    return figure


def _scatter(
    axes: "Axes", points: NDArray[np.float64], number: int, size: float
) -> "PathCollection":
    """One speaker's points; returns what its legend entry shows."""
    style = speaker_style(number)
    return axes.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        marker=style.marker,
        facecolors=style.colour if style.is_filled else "none",
        edgecolors="white" if style.is_filled else style.colour,
        linewidths=0.4 if style.is_filled else 1.0,
        alpha=0.9,
    )


def _label(axes: "Axes", points: NDArray[np.float64], name: str, font_size: float) -> None:
    """A speaker's name over the point that is nearest to the middle of its points."""
    from matplotlib.patheffects import withStroke

    middle = np.linalg.norm(points - np.median(points, axis=0), axis=1).argmin()
    text = axes.annotate(
        "",
        tuple(points[middle]),
        xytext=(0, 3.5),
        textcoords="offset points",
        fontsize=font_size,
        ha="center",
        va="bottom",
        color="#222222",
    )
    text.set_path_effects([withStroke(linewidth=1.5, foreground="white", alpha=0.8)])
    set_plain(text, name)


def _add_legend(
    figure: "Figure",
    handles: "list[PathCollection]",
    names: list[str],
    layout: _Layout,
) -> None:
    from matplotlib.collections import PathCollection

    box = figure.legend(
        handles,
        # Written below: a name may start with "_" or hold "$".
        ["name"] * len(names),
        loc="upper left",
        bbox_to_anchor=((2 * MARGIN + layout.panel) / layout.width, 1 - HEADER / layout.height),
        ncols=layout.num_columns,
        fontsize=layout.font_size,
        frameon=False,
        borderaxespad=0.0,
        handletextpad=0.3,
        columnspacing=0.8,
        labelspacing=0.25,
        scatterpoints=1,
    )
    for text, name in zip(box.get_texts(), names, strict=True):
        set_plain(text, name)
    for handle in box.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([layout.font_size * 3.5])


def _annotate(axes: "Axes", points: NDArray[np.float64], texts: list[str]) -> None:
    font_size = 6.0 if len(texts) <= 100 else 4.0
    for (x, y), content in zip(points, texts, strict=True):
        text = axes.annotate(
            "", (x, y), xytext=(3, 2), textcoords="offset points", fontsize=font_size
        )
        set_plain(text, short_name(content, 40))

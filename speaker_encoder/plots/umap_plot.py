"""Speaker embeddings in the plane, by UMAP."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.plots.figures import save_figure
from speaker_encoder.plots.points import annotate_points, draw_points

NUM_NEIGHBORS = 15
MIN_UMAP = 5
"""Below this many embeddings UMAP has no neighbourhoods to work with."""
MIN_DISTANCE = 0.5
"""UMAP's min_dist: wide enough that a tight cluster still shows its points."""
ALIKE_COSINE = 0.98
"""Above this mean cosine the picture says that the embeddings are nearly all alike."""


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
    if len(kept) > 1 and (cosine := mean_cosine(rows[kept])) > ALIKE_COSINE:
        notes.append(f"the embeddings are nearly all alike (mean cosine {cosine:.3f})")
    figure = draw_points(points, [str(labels[i]) for i in kept], title, "; ".join(notes))
    if texts is not None:
        annotate_points(figure.axes[0], points, [str(texts[i]) for i in kept])
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
    rows = normalize(embeddings)
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


def normalize(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1.

    Args:
        rows: (N, D); a row of zeros stays one.

    Returns:
        (N, D).
    """
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, np.finfo(np.float32).tiny)


def mean_cosine(rows: NDArray[np.float32]) -> float:
    """The mean cosine of two different embeddings.

    Args:
        rows: (N, D), N >= 2.

    Returns:
        In [-1, 1].
    """
    total = float(np.square(normalize(rows).sum(axis=0, dtype=np.float64)).sum())
    return (total - len(rows)) / (len(rows) * (len(rows) - 1))

"""Embeddings in the plane, by UMAP or t-SNE, and what must be said about the picture."""

import warnings
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.plots.umap_plot import (
    ALIKE_COSINE,
    MIN_UMAP,
    mean_cosine,
    normalize,
    principal_components,
    project,
)

Method = Literal["umap", "tsne"]
PERPLEXITY = 30.0


class Projection(NamedTuple):
    """Embeddings in two dimensions.

    Attributes:
        points: (N, 2) finite.
        note: what a viewer must know; empty for nothing.
    """

    points: NDArray[np.float64]
    note: str


def project_by(embeddings: NDArray[np.float32], method: Method, *, seed: int = 42) -> Projection:
    """Embeddings in the plane.

    Args:
        embeddings: (N, D) finite, N >= 1; only their directions count.
        method: umap or tsne.
        seed: the same data and seed give the same points.

    Returns:
        The points. Fewer than 5 are principal components, and the note says so.

    Raises:
        UserError: no embedding, or embeddings that are not finite.
    """
    rows = np.asarray(embeddings, dtype=np.float32)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise UserError(f"A projection needs finite embeddings (N, D), found shape {rows.shape}.")
    points, note = project(rows, seed=seed) if method == "umap" else project_tsne(rows, seed=seed)
    notes = [note] if note else []
    if len(rows) > 1 and (cosine := mean_cosine(rows)) > ALIKE_COSINE:
        notes.append(f"the embeddings are nearly all alike (mean cosine {cosine:.3f})")
    return Projection(points, "; ".join(notes))


def project_tsne(
    embeddings: NDArray[np.float32], *, seed: int = 42
) -> tuple[NDArray[np.float64], str]:
    """Embeddings in two dimensions, by t-SNE.

    Perplexity 30, less for fewer than 91 embeddings; starts from the principal components. On
    rows of length 1 the squared Euclidean distance is twice the cosine distance.

    Args:
        embeddings: (N, D) finite.
        seed: of t-SNE.

    Returns:
        (points, note): (N, 2), and what to say about them if they are not t-SNE's.

    Source:
        van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.
    """
    rows = normalize(embeddings)
    if len(rows) < MIN_UMAP:
        return principal_components(rows), f"principal components: {len(rows)} points are too few"
    start = principal_components(rows)
    spread = start[:, 0].std()
    if not spread > 1e-7:
        return start, "principal components: the embeddings are all equal"
    from sklearn.manifold import TSNE

    reducer = TSNE(
        n_components=2,
        perplexity=min(PERPLEXITY, (len(rows) - 1) / 3),
        init=(start / spread * 1e-4).astype(np.float32),
        random_state=seed,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        points = np.asarray(reducer.fit_transform(rows), dtype=np.float64)
    if np.isfinite(points).all():
        return points, ""
    return start, "principal components: t-SNE did not converge"

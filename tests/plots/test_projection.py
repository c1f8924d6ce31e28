import numpy as np
import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.plots.projection import project_by, project_tsne


def clusters(num_speakers: int, num_utterances: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    numbers = np.repeat(np.arange(num_speakers), num_utterances)
    rows = rng.normal(size=(num_speakers, 16))[numbers]
    return (rows + 0.2 * rng.normal(size=rows.shape)).astype(np.float32), numbers


def test_tsne_separates_speakers_and_is_repeatable() -> None:
    rows, numbers = clusters(5, 8)
    points, note = project_by(rows, "tsne", seed=3)
    assert note == ""
    assert np.array_equal(points, project_by(rows, "tsne", seed=3).points)
    # Only directions count.
    assert np.allclose(points, project_by(rows * 2, "tsne", seed=3).points, atol=1e-3)
    centres = np.array([points[numbers == n].mean(axis=0) for n in range(5)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == numbers).all()


@pytest.mark.parametrize("num_rows", [1, 2, 4, 5, 6, 31])
def test_any_number_of_points_by_tsne(num_rows: int) -> None:
    points, note = project_tsne(clusters(num_rows, 1)[0])
    assert points.shape == (num_rows, 2)
    assert np.isfinite(points).all()
    assert bool(note) == (num_rows < 5)


def test_what_a_viewer_must_know_is_said() -> None:
    assert project_by(np.ones((8, 4)), "tsne").note == (
        "principal components: the embeddings are all equal; "
        "the embeddings are nearly all alike (mean cosine 1.000)"
    )
    for rows in (np.zeros((0, 3)), np.full((3, 3), np.nan), np.zeros(3)):
        with pytest.raises(UserError, match="needs finite embeddings"):
            project_by(rows, "umap")

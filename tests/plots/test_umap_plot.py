from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from speaker_encoder.errors import UserError
from speaker_encoder.plots import plot_umap
from speaker_encoder.plots import umap_plot as umap_module
from speaker_encoder.plots.umap_plot import principal_components, project


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that were saved."""
    figures: list[matplotlib.figure.Figure] = []
    save = umap_module.save_figure

    def keep(figure, path):
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(umap_module, "save_figure", keep)
    return figures


@pytest.fixture
def without_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Principal components for all, where UMAP itself is not what is tested."""
    monkeypatch.setattr(umap_module, "MIN_UMAP", 100_000)


def make_batch(num_speakers: int, num_utterances: int = 6) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(num_speakers)
    numbers = np.repeat(np.arange(num_speakers), num_utterances)
    rows = rng.normal(size=(num_speakers, 24))[numbers]
    rows = rows + 0.2 * rng.normal(size=(len(numbers), 24))
    return rows.astype(np.float32), [f"p{225 + n}" for n in numbers]


def notes_of(figure: matplotlib.figure.Figure) -> str:
    axes = figure.axes[0]
    return " ".join(
        text.get_text() for text in axes.texts if text.get_transform() == axes.transAxes
    )


@pytest.mark.slow
def test_umap_separates_speakers_and_is_repeatable(tmp_path: Path) -> None:
    rows, labels = make_batch(6)
    first = plot_umap(rows, labels, tmp_path / "a.png", title="train, step 5")
    second = plot_umap(rows, labels, tmp_path / "b.png", title="train, step 5")
    other = plot_umap(rows, labels, tmp_path / "c.png", title="train, step 5", seed=1)
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    points, note = project(rows)
    assert note == ""
    centres = np.array(
        [points[np.array(labels) == name].mean(axis=0) for name in sorted(set(labels))]
    )
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == np.repeat(np.arange(6), 6)).all()


@pytest.mark.slow
@pytest.mark.parametrize("num_rows", [1, 2, 4, 5, 6, 15, 16, 17])
def test_any_number_of_points(num_rows: int) -> None:
    points, note = project(make_batch(num_rows, 1)[0])
    assert points.shape == (num_rows, 2)
    assert np.isfinite(points).all()
    assert bool(note) == (num_rows < 5)


@pytest.mark.slow
def test_equal_and_zero_embeddings(tmp_path: Path, drawn: list) -> None:
    for rows in (np.ones((20, 8)), np.zeros((20, 8)), np.ones((3, 8))):
        plot_umap(rows, ["a", "b"] * (len(rows) // 2) + ["a"] * (len(rows) % 2), tmp_path / "x.png")
    assert "nearly all alike (mean cosine 1.000)" in notes_of(drawn[0])
    assert "principal components: 3 points are too few" in notes_of(drawn[2])


@pytest.mark.usefixtures("without_umap")
@pytest.mark.parametrize(
    ("num_speakers", "prefix"),
    [
        *((number, "p") for number in (1, 2, 9, 40, 41, 64, 100, 200)),
        *((number, "a_rather_long_speaker_name_") for number in (6, 20, 101, 200)),
    ],
)
def test_the_legend_fits_beside_the_points(
    tmp_path: Path, drawn: list, num_speakers: int, prefix: str
) -> None:
    rows, labels = make_batch(num_speakers, 2)
    labels = [label.replace("p", prefix) for label in labels]
    plot_umap(rows, labels, tmp_path / "umap.png", title="validation, step 120")
    (figure,) = drawn
    assert isinstance(figure.canvas, FigureCanvasAgg)
    renderer = figure.canvas.get_renderer()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == num_speakers
    box, panel = legend.get_window_extent(renderer), figure.axes[0].get_window_extent(renderer)
    assert box.x0 >= panel.x1
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0
    assert box.y1 <= figure.bbox.y1
    assert min(text.get_fontsize() for text in legend.get_texts()) >= 7
    assert figure.bbox.width < 2600
    names = {text.get_text() for text in figure.axes[0].texts} - {notes_of(figure)}
    assert len(names) == (num_speakers if num_speakers >= 9 else 0)
    header = f"validation, step 120 ({num_speakers} speakers, {2 * num_speakers} utterances)"
    assert figure.texts[0].get_text() == header


@pytest.mark.usefixtures("without_umap")
@pytest.mark.filterwarnings("error")
def test_names_are_shown_as_they_are(tmp_path: Path, drawn: list) -> None:
    names = ["_hidden", "$a$", 'it\'s "x"', "声优", "\\frac", "%s {0}"]
    rows, _ = make_batch(6, 2)
    annotations = [f"$utterance_{i}" for i in range(12)]
    plot_umap(
        rows,
        [name for name in names for _ in range(2)],
        tmp_path / "umap.png",
        title="_$",
        annotations=annotations,
    )
    (figure,) = drawn
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == sorted(names)
    assert {text.get_text() for text in figure.axes[0].texts} >= set(annotations)


@pytest.mark.usefixtures("without_umap")
def test_embeddings_that_are_not_finite_are_left_out_and_counted(
    tmp_path: Path, drawn: list
) -> None:
    rows, labels = make_batch(3)
    rows[0, 0], rows[7, 3] = np.nan, np.inf
    plot_umap(rows, labels, tmp_path / "umap.png", annotations=[f"{i}" for i in range(18)])
    assert "2 embeddings are not finite and left out" in notes_of(drawn[0])
    assert sum(len(points.get_offsets()) for points in drawn[0].axes[0].collections) == 16
    assert "0" not in {text.get_text() for text in drawn[0].axes[0].texts}
    with pytest.raises(UserError, match="None of the 18 embeddings to plot is finite"):
        plot_umap(rows * np.nan, labels, tmp_path / "umap.png")


@pytest.mark.parametrize(("num_labels", "num_annotations"), [(5, None), (7, None), (6, 5), (6, 0)])
def test_lengths_must_agree(tmp_path: Path, num_labels: int, num_annotations: int | None) -> None:
    annotations = None if num_annotations is None else ["x"] * num_annotations
    with pytest.raises(UserError, match=r"needs embeddings \(N, D\), N labels and N annotations"):
        plot_umap(np.ones((6, 3)), ["a"] * num_labels, tmp_path / "x.png", annotations=annotations)


def test_principal_components_keep_distances_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(10, 2))
    rows = plane @ np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    points = principal_components(rows)
    distances = [np.linalg.norm(p[:, None] - p, axis=2) for p in (plane, points)]
    np.testing.assert_allclose(*distances, atol=1e-12)
    assert principal_components(rows[:1]).tolist() == [[0.0, 0.0]]

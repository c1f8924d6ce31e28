import math
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.plots import det as det_module
from speaker_encoder.plots import histogram as histogram_module
from speaker_encoder.plots import plot_det, plot_histogram
from speaker_encoder.plots.det import probit
from speaker_encoder.verification import equal_error_rate


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that were saved."""
    figures: list[matplotlib.figure.Figure] = []
    for module in (det_module, histogram_module):
        save = module.save_png_and_svg

        def keep(figure, path, save=save):
            figures.append(figure)
            return save(figure, path)

        monkeypatch.setattr(module, "save_png_and_svg", keep)
    return figures


def scored(num_targets: int, num_nontargets: int, distance: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    scores = np.concatenate(
        [rng.normal(distance, 1, num_targets), rng.normal(0, 1, num_nontargets)]
    )
    return scores, np.repeat([1, 0], [num_targets, num_nontargets])


def test_probits_by_hand() -> None:
    # The quantiles of the normal distribution at 2.5 %, 50 % and 97.5 %.
    np.testing.assert_allclose(
        probit(np.array([0.025, 0.5, 0.975])), [-1.959964, 0, 1.959964], atol=1e-6
    )


def test_curve_follows_every_threshold_and_marks_its_points(tmp_path: Path, drawn: list) -> None:
    scores, labels = scored(300, 900, 2.5)
    plot_det({"a system": (scores, labels)}, tmp_path / "det.png", p_targets=(0.05,), title="$t_")
    axes = drawn[0].axes[0]
    curve = axes.lines[0].get_xydata()
    # Every shown point is the error rates at one threshold, counted naively.
    naive = {
        (round((scores[labels == 0] >= t).mean(), 9), round((scores[labels == 1] < t).mean(), 9))
        for t in [*scores, np.inf]
    }
    low, high = axes.get_xlim()
    inside = curve[((curve > low) & (curve < high)).all(axis=1)]
    rates = 0.5 * (1 + np.vectorize(math.erf)(inside / np.sqrt(2)))
    assert len(rates) > 200
    assert {(round(x, 9), round(y, 9)) for x, y in rates} <= naive
    marks = {
        line.get_marker(): line.get_xydata()[0] for line in axes.lines if len(line.get_xdata()) == 1
    }
    eer, _ = equal_error_rate(scores, labels)
    np.testing.assert_allclose(marks["o"], probit(np.array([eer, eer])))
    cost = {(x, y): 0.05 * y + 0.95 * x for x, y in naive}
    best = min(cost, key=cost.get)
    np.testing.assert_allclose(marks["^"], probit(np.array(best)), atol=1e-6)
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts[0] == f"a system: EER {100 * eer:.2f} %"
    assert axes.get_title(loc="left") == "$t_"


def test_both_files_are_written_and_repeatable(tmp_path: Path) -> None:
    systems = {"x": scored(50, 80, 2), "y": scored(50, 80, 1)}
    first = plot_det(systems, tmp_path / "a" / "det.png")
    second = plot_det(systems, tmp_path / "b" / "det.svg")
    third = plot_det(systems, tmp_path / "c" / "det.v1")
    assert [path.name for path in first] == [path.name for path in second] == ["det.png", "det.svg"]
    assert [path.name for path in third] == ["det.v1.png", "det.v1.svg"]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))
    assert b"http" not in first[1].read_bytes().split(b"<defs>")[1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "systems",
    [
        {"perfect": (np.r_[np.ones(9), np.zeros(9)], np.repeat([1, 0], 9))},
        {"inverted": (np.r_[np.zeros(9), np.ones(9)], np.repeat([1, 0], 9))},
        {"all equal": (np.ones(18), np.repeat([1, 0], 9))},
        {"one each": (np.array([0.2, 0.1]), np.array([1, 0]))},
        {f"system {i}": scored(60, 60, i / 8, i) for i in range(34)},
        {"_hidden": scored(9, 9, 1), "$a^{": scored(9, 9, 1), "声优": scored(9, 9, 1)},
    ],
    ids=["perfect", "inverted", "equal", "two trials", "many", "odd names"],
)
def test_odd_systems_are_drawn_inside_the_figure(
    tmp_path: Path, drawn: list, systems: dict
) -> None:
    plot_det(systems, tmp_path / "det.png")
    (figure,) = drawn
    renderer = figure.canvas.get_renderer()
    legend = figure.legends[0].get_window_extent(renderer)
    panel = figure.axes[0].get_window_extent(renderer)
    assert legend.y0 >= 0
    assert legend.y1 < panel.y0
    assert max(panel.x1, legend.x1) <= figure.bbox.x1
    assert len(figure.legends[0].get_texts()) == len(systems) + 3
    for line in figure.axes[0].lines:
        if line.get_marker() not in ("None", None):
            low, high = figure.axes[0].get_xlim()
            assert low - 1e-9 <= line.get_xydata().min() <= line.get_xydata().max() <= high + 1e-9


def test_large_trial_lists_give_small_pictures(tmp_path: Path) -> None:
    _, svg = plot_det({"large": scored(100_000, 300_000, 4)}, tmp_path / "det.png")
    assert svg.stat().st_size < 200_000


def test_missing_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one system"):
        plot_det({}, tmp_path / "det.png")
    with pytest.raises(UserError, match="found 3 targets and 0 nontargets"):
        plot_det({"x": (np.ones(3), np.ones(3))}, tmp_path / "det.png")


def test_each_class_fills_an_area_of_one(tmp_path: Path, drawn: list) -> None:
    scores, labels = scored(200, 900, 2)
    paths = plot_histogram(scores, labels, 1.0, tmp_path / "h.png", title="x", score_name="cosine")
    assert [path.name for path in paths] == ["h.png", "h.svg"]
    axes = drawn[0].axes[0]
    for stairs in axes.patches:
        values, edges, _ = stairs.get_data()
        assert np.sum(values * np.diff(edges)) == pytest.approx(1.0)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["target trials (200)", "nontarget trials (900)", "threshold 1"]
    assert axes.get_xlabel() == "cosine"


@pytest.mark.filterwarnings("error")
def test_histogram_of_unlabelled_and_equal_scores(tmp_path: Path, drawn: list) -> None:
    plot_histogram([1.0, 1.0], None, None, tmp_path / "h.png", title="$声_", score_name="$声_$")
    plot_histogram([0.1, 0.4], [1, 1], None, tmp_path / "h.png")
    texts = [[t.get_text() for t in f.axes[0].get_legend().get_texts()] for f in drawn]
    assert texts == [["trials (2)"], ["target trials (2)"]]
    for scores in ([], [np.nan, 1.0], [[1.0]]):
        with pytest.raises(UserError, match="needs finite scores"):
            plot_histogram(scores, None, None, tmp_path / "h.png")
    with pytest.raises(UserError, match=r"found shapes \(2,\) and \(1,\)"):
        plot_histogram([0.1, 0.4], [1], None, tmp_path / "h.png")

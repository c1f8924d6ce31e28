from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import pytest

from speaker_encoder.plots import interpolation
from speaker_encoder.plots.interpolation import plot_interpolation
from speaker_encoder.training.interpolation import Choice, CurvePoint


class Line(NamedTuple):
    """What a plot needs of a run's line."""

    curve: list[CurvePoint]
    choice: Choice


NOISE = "no difference beyond noise"
EERS = (0.06, 0.055, 0.05, 0.052)
REFERENCE = (0.02, 0.021, 0.03, 0.05)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that were saved."""
    figures: list[matplotlib.figure.Figure] = []
    save = interpolation.save_figure

    def keep(figure, path):
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(interpolation, "save_figure", keep)
    return figures


def make_line(
    chosen: float,
    *,
    alphas: Sequence[float] = (0.0, 0.25, 0.5, 1.0),
    reference: Sequence[float] = (),
    limit: float | None = None,
) -> Line:
    """A line whose intervals reach half the value to each side."""
    points = [
        CurvePoint(
            alpha=alpha,
            eer=EERS[number],
            eer_interval=(EERS[number] * 0.5, EERS[number] * 1.5),
            against_best=NOISE,
            against_pretrained=NOISE,
            reference_eer=reference[number] if reference else None,
            reference_interval=(reference[number] * 0.5, reference[number] * 1.5)
            if reference
            else None,
        )
        for number, alpha in enumerate(alphas)
    ]
    return Line(points, Choice(chosen, "a reason", limit))


def test_both_curves_the_choice_and_what_forgets_too_much(tmp_path: Path, drawn: list) -> None:
    line = make_line(0.25, reference=REFERENCE, limit=0.022)
    path = plot_interpolation(line, tmp_path / "curve.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    above, below = drawn[0].axes
    for axes, eers in ((above, EERS), (below, REFERENCE)):
        pretrained, curve, star = axes.lines[:3]
        np.testing.assert_allclose(pretrained.get_ydata(), 100 * eers[0])
        np.testing.assert_allclose(curve.get_ydata(), 100 * np.array(eers))
        np.testing.assert_allclose(star.get_xdata(), 0.25)
        np.testing.assert_allclose(star.get_ydata(), 100 * eers[1])
        assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] >= 150 * max(eers)
        # grey: the half around alpha 0.5 and all from there to 1
        spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
        assert spans == [(0.375, 0.75), (0.75, 1.0)]
    texts = [text.get_text() for text in below.get_legend().get_texts()]
    assert texts == [
        "95 %",
        r"$\alpha$ = 0, pretrained: 2.00 %",
        r"$\alpha$ = 1, fine-tuned: 5.00 %",
        r"$\alpha$ = 0.25, chosen: 2.10 %",
        "limit: 2.20 %",
        "forgets too much",
    ]


def test_a_line_that_ends_before_the_fine_tuned_encoder(tmp_path: Path, drawn: list) -> None:
    plot_interpolation(make_line(0.0, alphas=(0.0, 0.5)), tmp_path / "curve.png")
    texts = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert texts[2] == r"$\alpha$ = 0.5: 5.50 %"


@pytest.mark.parametrize("chosen", [0.0, 1.0])
def test_two_points_without_reference_are_one_panel(
    tmp_path: Path, drawn: list, chosen: float
) -> None:
    plot_interpolation(make_line(chosen, alphas=(0.0, 1.0)), tmp_path / "curve.png")
    (axes,) = drawn[0].axes
    assert not axes.patches and axes.get_ylabel() == "validation EER (%)"
    star = axes.lines[2]
    np.testing.assert_allclose(star.get_xdata(), chosen)
    np.testing.assert_allclose(star.get_ydata(), 100 * EERS[int(chosen)])
    low, high = axes.get_xlim()
    assert low < -0.03 and high > 1.03  # a star at the end is whole

from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.plots import interpolation
from speaker_encoder.plots.interpolation import plot_interpolation

ALPHAS = [0.0, 0.25, 0.5, 1.0]
EERS = [0.06, 0.055, 0.05, 0.052]
REFERENCE = [0.02, 0.021, 0.03, 0.05]


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


def around(eers: list[float]) -> list[tuple[float, float]]:
    return [(eer * 0.5, eer * 1.5) for eer in eers]


def test_both_curves_the_choice_and_what_forgets_too_much(tmp_path: Path, drawn: list) -> None:
    path = plot_interpolation(
        ALPHAS, EERS, around(EERS), tmp_path / "curve.png", chosen_alpha=0.25,
        reference_eers=REFERENCE, reference_intervals=around(REFERENCE), reference_limit=0.022,
    )  # fmt: skip
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


def test_without_reference_there_is_one_panel(tmp_path: Path, drawn: list) -> None:
    plot_interpolation(ALPHAS, EERS, around(EERS), tmp_path / "curve.png", chosen_alpha=1.0)
    (axes,) = drawn[0].axes
    assert not axes.patches and axes.get_ylabel() == "validation EER (%)"
    with pytest.raises(UserError, match=r"alpha 0\.7 is chosen, but not among"):
        plot_interpolation(ALPHAS, EERS, around(EERS), tmp_path / "c.png", chosen_alpha=0.7)

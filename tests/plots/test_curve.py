import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.plots import curve as curve_module
from speaker_encoder.plots import plot_curve
from speaker_encoder.plots.curve import smooth


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that were saved."""
    figures: list[matplotlib.figure.Figure] = []
    save = curve_module.save_figure

    def keep(figure, path):
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(curve_module, "save_figure", keep)
    return figures


def make_lines() -> list[dict]:
    lines: list[dict] = [
        {"step": step, "epoch": 0.1, "split": "train", "loss": 3.0 / step, "eer": None}
        for step in range(1, 101)
    ]
    lines += [  # a stage that stays close to its start: the loss with what is added to it
        {"step": step, "split": "train", "loss": 3.0 / step + 0.5, "loss_l2_sp": 0.5}
        for step in range(101, 201)
    ]
    for step, eer in [(0, 0.063), (100, 0.9), (100, 0.04), (200, 0.0456)]:
        lines.append(
            {
                "step": step,
                "split": "validation",
                "loss": 1.0,
                "eer": eer,
                "eer_low": eer * 0.8,
                "eer_high": eer * 1.2,
            }
        )
    return lines


def test_shows_step_zero_and_the_best(tmp_path: Path, drawn: list) -> None:
    path = plot_curve(make_lines(), tmp_path / "plots" / "curve.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    loss_axes, eer_axes = drawn[0].axes
    texts = [text.get_text() for text in eer_axes.get_legend().get_texts()]
    assert texts == [
        "95 %",
        "validation EER",
        "step 0, untouched: 6.30 %",
        "best: 4.00 % at step 100",
    ]
    dashed = eer_axes.lines[1]
    assert dashed.get_linestyle() == "--"
    np.testing.assert_allclose(dashed.get_ydata(), 6.3)
    np.testing.assert_allclose(eer_axes.lines[0].get_ydata(), [6.3, 4.0, 4.56])
    assert loss_axes.get_yscale() == "log"
    np.testing.assert_allclose(loss_axes.lines[0].get_ydata(), 3.0 / np.arange(1, 201))


def test_reference_and_what_interpolation_makes_of_each_step(tmp_path: Path, drawn: list) -> None:
    lines = make_lines()
    found = {0: (0.02, 0.063), 100: (0.03, 0.039), 200: (0.05, 0.035)}
    for line in lines:
        if line["split"] == "validation":
            reference, mixed = found[line["step"]]
            line |= {"reference_eer": reference, "interpolated_eer": mixed, "forgetting": 0.0}
            line |= {"reference_eer_low": 0.01, "reference_eer_high": 0.06}
    plot_curve(lines, tmp_path / "curve.png")
    _, eer_axes, reference_axes = drawn[0].axes
    texts = [text.get_text() for text in eer_axes.get_legend().get_texts()]
    assert texts[-2:] == ["interpolated", "best: 3.50 % at step 200"]
    np.testing.assert_allclose(reference_axes.lines[0].get_ydata(), [2.0, 3.0, 5.0])
    texts = [text.get_text() for text in reference_axes.get_legend().get_texts()]
    assert texts == ["95 %", "reference EER", "step 0, untouched: 2.00 %"]


def test_the_first_lines_of_a_run(tmp_path: Path, drawn: list) -> None:
    lines = [{"step": 0, "split": "validation", "eer": 0.05}]
    plot_curve(lines, tmp_path / "curve.png")
    lines.append({"step": 1, "split": "train", "loss": 2.0})
    plot_curve(lines, tmp_path / "curve.png")
    plot_curve(lines[1:], tmp_path / "curve.png")
    assert [len(figure.axes) for figure in drawn] == [1, 2, 1]


def test_values_that_are_not_finite_are_gaps(tmp_path: Path, drawn: list) -> None:
    lines = [{"step": s, "split": "train", "loss": v} for s, v in [(1, 2.0), (2, float("nan"))]]
    plot_curve(lines, tmp_path / "curve.png")
    assert drawn[0].axes[0].lines[0].get_xdata().tolist() == [1.0]


@pytest.mark.parametrize("lines", [[], [{"step": 1, "split": "train", "loss": float("inf")}]])
def test_nothing_to_draw(tmp_path: Path, lines: list[dict]) -> None:
    with pytest.raises(UserError, match=rf"None of the {len(lines)} metric lines has a training"):
        plot_curve(lines, tmp_path / "curve.png")


def test_smoothing_keeps_lines_and_lengths() -> None:
    line = np.arange(300, dtype=np.float64)
    np.testing.assert_allclose(smooth(line), line)
    assert smooth(np.array([1.0, 5.0])).tolist() == [1.0, 5.0]
    noisy = np.random.default_rng(0).normal(size=600)
    assert smooth(noisy)[50:-50].std() < 0.4


def test_the_package_is_light() -> None:
    code = (
        "import sys, speaker_encoder.plots\n"
        "heavy = {'matplotlib', 'umap', 'numba', 'torch', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

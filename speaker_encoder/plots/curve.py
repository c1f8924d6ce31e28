"""The course of a training run: loss and validation error over steps."""

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.plots.figures import PALETTE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = tuple[NDArray[np.float64], NDArray[np.float64]]
BLUE, ORANGE, GREEN, PINK = PALETTE[:4]


def plot_curve(metrics: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Writes the curve of a run: training loss, validation EER, and reference EER.

    The loss is the config's own, without what keeps the encoder close to its start.

    The untouched model's EER (step 0) is a dashed line, the best step is marked, and the 95 %
    interval, where there is one, shaded; so is that of the reference trials, if there are any. Of
    several lines for a step the last counts, as after a resume.

    Args:
        metrics: the lines of `metrics.jsonl`, each with `step`, `split` and values.
        path: the picture; the suffix gives the format.

    Returns:
        The path.

    Raises:
        UserError: no line has a loss or a validation EER.
    """
    lines = [_without_pulls(line) for line in metrics]
    loss, validation_loss = _series(lines, "train", "loss"), _series(lines, "validation", "loss")
    eer, reference = (_series(lines, "validation", n) for n in ("eer", "reference_eer"))
    known = (("loss", loss), ("eer", eer), ("reference_eer", reference))
    panels = [name for name, series in known if len(series[0])]
    if not panels:
        raise UserError(
            f"None of the {len(lines)} metric lines has a training loss or a validation EER."
        )
    figure = new_figure(8.0, 3.0 * len(panels) + 0.4)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for name, axes in zip(panels, all_axes, strict=True):
        if name == "loss":
            _draw_loss(axes, loss, validation_loss)
        elif name == "eer":
            _draw_rate(axes, lines, name, ORANGE, "validation EER")
            _draw_best(axes, eer, _series(lines, "validation", "interpolated_eer"))
            axes.set_ylabel("EER on unseen speakers (%)")
        else:
            _draw_rate(axes, lines, name, BLUE, "reference EER")
            axes.set_ylabel("reference EER (%)")
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    all_axes[-1].set_xlabel("step")
    all_axes[-1].xaxis.get_major_locator().set_params(integer=True)
    figure.align_ylabels()
    figure.tight_layout()
    return save_figure(figure, path)


def _without_pulls(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line of metrics whose loss is without its parts `loss_*`, as that of validation is."""
    pulls = [value for name, value in line.items() if name.startswith("loss_")]
    return {**line, "loss": line["loss"] - sum(pulls)} if pulls else line


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred running mean over about a thirtieth of the curve, shorter at the ends.

    Args:
        values: (N,).

    Returns:
        (N,).
    """
    reach = len(values) // 60
    sums = np.concatenate([[0.0], np.cumsum(values)])
    positions = np.arange(len(values))
    # The same reach on both sides, so that the ends are not pulled inward.
    reaches = np.minimum(np.minimum(positions, positions[::-1]), reach)
    return (sums[positions + reaches + 1] - sums[positions - reaches]) / (2 * reaches + 1)


def _series(lines: list[Mapping[str, Any]], split: str, name: str) -> Series:
    """(steps, values) of one finite figure, ascending, the last line of a step."""
    values: dict[int, float] = {}
    for line in lines:
        value = line.get(name)
        if line.get("split") == split and value is not None and math.isfinite(value):
            values[int(line["step"])] = float(value)
    steps = sorted(values)
    return np.array(steps, dtype=np.float64), np.array([values[step] for step in steps])


def _draw_loss(axes: "Axes", loss: Series, validation_loss: Series) -> None:
    steps, values = loss
    is_long = len(values) >= 120
    axes.plot(
        steps,
        values,
        color=BLUE,
        linewidth=0.8 if is_long else 1.6,
        alpha=0.35 if is_long else 1.0,
        label=None if is_long else "training",
    )
    if is_long:
        axes.plot(steps, smooth(values), color=BLUE, linewidth=1.8, label="training (smoothed)")
    if len(validation_loss[0]):
        axes.plot(*validation_loss, color=ORANGE, marker="o", ms=3.5, label="validation")
    axes.set_ylabel("loss")
    trend = smooth(values)
    if values.min() > 0 and trend.max() > 20 * trend.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")


def _draw_rate(
    axes: "Axes", lines: list[Mapping[str, Any]], key: str, colour: str, label: str
) -> None:
    """An error rate at each validation: its 95 % interval shaded, that of step 0 dashed."""
    rate, low, high = (
        _series(lines, "validation", name) for name in (key, f"{key}_low", f"{key}_high")
    )
    steps, percent = rate[0], 100 * rate[1]
    if len(low[0]) and np.array_equal(low[0], high[0]):
        axes.fill_between(
            low[0], 100 * low[1], 100 * high[1], color=colour, alpha=0.15, linewidth=0, label="95 %"
        )
    axes.plot(steps, percent, color=colour, marker="o", ms=3.5, label=label)
    if steps[0] == 0:
        label = f"step 0, untouched: {percent[0]:.2f} %"
        axes.axhline(percent[0], color="#555555", linestyle="--", linewidth=1.2, label=label)
    axes.set_ylim(bottom=0)


def _draw_best(axes: "Axes", eer: Series, interpolated: Series) -> None:
    """The best step, by what interpolation makes of each where that was measured."""
    chosen_by = eer
    if len(interpolated[0]):
        steps, rates = chosen_by = interpolated
        axes.plot(steps, 100 * rates, color=PINK, marker="o", ms=3.5, label="interpolated")
    best = int(np.argmin(chosen_by[1]))
    step, percent = chosen_by[0][best], 100 * chosen_by[1][best]
    axes.plot(
        step, percent, marker="*", ms=14, color=GREEN, markeredgecolor="white", linestyle="none",
        label=f"best: {percent:.2f} % at step {step:.0f}",
    )  # fmt: skip

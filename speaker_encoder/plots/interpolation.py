"""Error rates between a pretrained and a fine-tuned encoder, against alpha."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from speaker_encoder.plots.figures import PALETTE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from speaker_encoder.training.interpolation import Choice, CurvePoint

Interval = tuple[float, float]
BLUE, ORANGE, GREEN = PALETTE[:3]
GREY = "#555555"
_LEAST_TOP = 0.5


class Line(Protocol):
    """A measured line of encoders, of a run or of `speaker-encoder interpolate`."""

    @property
    def curve(self) -> "Sequence[CurvePoint]":
        """A point for each alpha, ascending, 0 first."""

    @property
    def choice(self) -> "Choice":
        """Of one of them."""


def plot_interpolation(line: Line, path: str | os.PathLike[str]) -> Path:
    """Writes the curve of an interpolation: validation EER above, reference EER below.

    The 95 % intervals are shaded, the pretrained encoder's EER (alpha 0) is dashed, the chosen
    alpha is a star. Where the reference EER is above its limit, the background is grey. Without
    reference trials there is one panel only.

    Args:
        line: what was measured and chosen.
        path: the picture; the suffix gives the format.

    Returns:
        The path.
    """
    alphas = [point.alpha for point in line.curve]
    chosen = alphas.index(line.choice.alpha)
    eers = [point.eer for point in line.curve]
    reference_eers = [p.reference_eer for p in line.curve if p.reference_eer is not None]
    panels = [("validation EER (%)", ORANGE, eers, [point.eer_interval for point in line.curve])]
    if reference_eers:
        intervals = [p.reference_interval or (math.nan, math.nan) for p in line.curve]
        panels.append(("reference EER (%)", BLUE, reference_eers, intervals))
    figure = new_figure(8.0, 3.0 * len(panels) + 0.4)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, colour, values, bounds) in zip(all_axes, panels, strict=True):
        _draw_panel(axes, colour, alphas, values, bounds, chosen)
        axes.set_ylabel(label)
    if line.choice.reference_limit is not None:
        _draw_limit(list(all_axes), alphas, reference_eers, line.choice.reference_limit)
    for axes in all_axes:
        axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1] * 1.02, _LEAST_TOP))
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(
            frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5)
        )  # beside the curve: it spans the whole panel
    all_axes[-1].set_xlabel(r"$\alpha$   (0: pretrained, 1: fine-tuned)")
    all_axes[-1].set_xlim(-0.04, 1.04)
    figure.align_ylabels()
    figure.tight_layout()
    return save_figure(figure, path)


def _draw_panel(
    axes: "Axes",
    colour: str,
    alphas: Sequence[float],
    eers: Sequence[float],
    intervals: Sequence[Interval],
    chosen: int,
) -> None:
    percent = 100 * np.array(eers)
    low, high = (100 * np.array(ends) for ends in zip(*intervals, strict=True))
    name = ", fine-tuned" if alphas[-1] == 1 else ""
    axes.fill_between(alphas, low, high, color=colour, alpha=0.13, linewidth=0, label="95 %")
    axes.axhline(
        percent[0], color=GREY, linestyle="--", linewidth=1.2,
        label=rf"$\alpha$ = 0, pretrained: {percent[0]:.2f} %",
    )  # fmt: skip
    axes.plot(
        alphas,
        percent,
        color=colour,
        marker="o",
        ms=4,
        label=rf"$\alpha$ = {alphas[-1]:g}{name}: {percent[-1]:.2f} %",
    )
    axes.plot(
        alphas[chosen], percent[chosen], marker="*", ms=15, color=GREEN, markeredgecolor="white",
        linestyle="none", zorder=4,
        label=rf"$\alpha$ = {alphas[chosen]:g}, chosen: {percent[chosen]:.2f} %",
    )  # fmt: skip


def _draw_limit(
    all_axes: "Sequence[Axes]",
    alphas: Sequence[float],
    reference_eers: Sequence[float],
    limit: float,
) -> None:
    """The limit as a line, and both panels grey around the points that are above it."""
    all_axes[-1].axhline(
        100 * limit, color="#CC3311", linestyle=":", linewidth=1.4,
        label=f"limit: {100 * limit:.2f} %",
    )  # fmt: skip
    middles = (np.array(alphas[1:]) + np.array(alphas[:-1])) / 2
    edges = [alphas[0], *middles.tolist(), alphas[-1]]
    for axes in all_axes:
        label = "forgets too much"
        for number, eer in enumerate(reference_eers):
            if eer > limit + 1e-9:
                axes.axvspan(
                    edges[number], edges[number + 1], color="#888888", alpha=0.14, linewidth=0,
                    zorder=0, label=label,
                )  # fmt: skip
                label = "_" + label

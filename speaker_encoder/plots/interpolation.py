"""Error rates between a pretrained and a fine-tuned encoder, against alpha."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speaker_encoder.errors import UserError
from speaker_encoder.plots.figures import PALETTE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Interval = tuple[float, float]
BLUE, ORANGE, GREEN = PALETTE[:3]
GREY = "#555555"


def plot_interpolation(
    alphas: Sequence[float],
    eers: Sequence[float],
    intervals: Sequence[Interval],
    path: str | os.PathLike[str],
    *,
    chosen_alpha: float,
    reference_eers: Sequence[float] = (),
    reference_intervals: Sequence[Interval] = (),
    reference_limit: float | None = None,
) -> Path:
    """Writes the curve of an interpolation: validation EER above, reference EER below.

    The 95 % intervals are shaded, the pretrained encoder's EER (alpha 0) is dashed, the chosen
    alpha is a star. Where the reference EER is above its limit, the background is grey.

    Args:
        alphas: (N,) ascending, 0 first.
        eers: (N,) on the validation trials, fractions.
        intervals: (N,) their (low, high).
        path: the picture; the suffix gives the format.
        chosen_alpha: one of `alphas`.
        reference_eers: (N,) on the reference trials, or none of them: one panel only.
        reference_intervals: (N,) their (low, high).
        reference_limit: the highest reference EER that is allowed.

    Returns:
        The path.

    Raises:
        UserError: the chosen alpha is not among the alphas.
    """
    if chosen_alpha not in alphas:
        raise UserError(f"alpha {chosen_alpha:g} is chosen, but not among those measured.")
    chosen = list(alphas).index(chosen_alpha)
    panels = [("validation EER (%)", ORANGE, eers, intervals)]
    if reference_eers:
        panels.append(("reference EER (%)", BLUE, reference_eers, reference_intervals))
    figure = new_figure(8.0, 3.0 * len(panels) + 0.4)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, colour, values, bounds) in zip(all_axes, panels, strict=True):
        _draw_panel(axes, colour, alphas, values, bounds, chosen)
        axes.set_ylabel(label)
    if reference_limit is not None:
        _draw_limit(list(all_axes), alphas, reference_eers, reference_limit)
    for axes in all_axes:
        axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.02)
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(
            frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5)
        )  # beside the curve: it spans the whole panel
    all_axes[-1].set_xlabel(r"$\alpha$   (0: pretrained, 1: fine-tuned)")
    all_axes[-1].set_xlim(-0.02, 1.02)
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
        label=rf"$\alpha$ = 1, fine-tuned: {percent[-1]:.2f} %",
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

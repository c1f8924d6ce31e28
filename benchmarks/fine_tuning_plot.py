"""The plot of `fine_tuning.py`: error rates against the size of the training corpus."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.plots.figures import PALETTE, new_figure, save_figure

SETS = ("domain", "reference")


@dataclass(frozen=True)
class Sized:
    """EERs in percent of the runs with one config and size: [seed][set]."""

    stem: str
    size: int
    eers: NDArray[np.float64]  # (seeds, 2)
    alphas: list[float]


def draw_sizes(found: Sequence[Sized], untouched: Sequence[float], path: Path) -> None:
    """Both error rates against the number of training speakers."""
    figure = new_figure(9.0, 4.2)
    looks = {
        "plain": (PALETTE[1], "s", "plain, last step"),
        "default": (PALETTE[0], "o", "default"),
    }
    all_axes = figure.subplots(1, 2)
    for place, axes in enumerate(all_axes):
        axes.axhline(
            untouched[place], color="#555555", linestyle="--", linewidth=1.2, label="untouched"
        )
        for stem, (colour, marker, label) in looks.items():
            parts = [one for one in found if one.stem == stem]
            at = [one.size for one in parts]
            columns = [one.eers[:, place] for one in parts]
            axes.fill_between(
                at, [c.min() for c in columns], [c.max() for c in columns],
                color=colour, alpha=0.15, linewidth=0,
            )  # fmt: skip
            means = [column.mean() for column in columns]
            axes.plot(at, means, color=colour, marker=marker, ms=5, label=label)
        axes.set_xscale("log")
        sizes = sorted({one.size for one in found})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("training speakers")
        axes.set_ylabel(f"{SETS[place]} EER (%)")
        axes.set_ylim(bottom=0)
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    all_axes[0].legend(frameon=False, loc="lower left")
    figure.tight_layout()
    save_figure(figure, path)

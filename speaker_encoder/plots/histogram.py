"""How the scores of target and nontarget trials are spread."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.plots.figures import (
    PALETTE,
    new_figure,
    quiet_fonts,
    save_png_and_svg,
    set_plain,
)
from speaker_encoder.verification.metrics import to_numpy

TARGET_COLOUR, NONTARGET_COLOUR = PALETTE[0], PALETTE[1]


def plot_histogram(
    scores: ArrayLike,
    labels: ArrayLike | None,
    threshold: float | None,
    path: str | os.PathLike[str],
    *,
    title: str = "",
    score_name: str = "score",
) -> tuple[Path, Path]:
    """Writes how the scores of target and nontarget trials are spread, as PNG and as SVG.

    Each class fills an area of its own of size 1, since nontarget trials are often many more.

    Args:
        scores: (N,) finite.
        labels: (N,) 1 or True for target, else 0 or False; None when they are not known. One of
            the two classes may be missing.
        threshold: a score to mark, the one at the equal error rate for instance; None for none.
        path: of the picture; its suffix is replaced by .png and by .svg.
        title: above the picture.
        score_name: below the axis of scores.

    Returns:
        (png_path, svg_path).

    Raises:
        UserError: no score, a score that is not finite, or labels of another length.
    """
    values = to_numpy(scores).astype(np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise UserError(
            f"A histogram needs finite scores (N,), N >= 1; found shape {values.shape} with "
            f"{int(np.count_nonzero(~np.isfinite(values)))} that are not finite."
        )
    groups = _groups(values, labels)
    edges = _bin_edges(values)
    figure = new_figure(8.0, 4.2)
    axes = figure.add_subplot()
    for name, colour, members in groups:
        share = np.histogram(members, bins=edges)[0] / len(members) / np.diff(edges)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.35)
        label = f"{name} ({len(members):,})"
        axes.stairs(share, edges, color=colour, linewidth=1.4, label=label)
    if threshold is not None:
        label = f"threshold {threshold:.4g}"
        axes.axvline(threshold, color="#333333", linestyle="--", linewidth=1.3, label=label)
    set_plain(axes.set_xlabel(""), score_name)
    axes.set_ylabel("share of the trials, per unit of score")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    # Above the areas, which may lie anywhere.
    axes.legend(
        frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=3,
        borderaxespad=0, borderpad=0.3, handlelength=1.6, columnspacing=1.2,
    )  # fmt: skip
    set_plain(axes.set_title("", loc="left", fontsize=12, pad=22), title)
    with quiet_fonts():
        figure.tight_layout()
    return save_png_and_svg(figure, path)


def _groups(
    values: NDArray[np.float64], labels: ArrayLike | None
) -> list[tuple[str, str, NDArray[np.float64]]]:
    """(name, colour, scores) of each class that there is."""
    if labels is None:
        return [("trials", TARGET_COLOUR, values)]
    is_target = to_numpy(labels).astype(bool)
    if is_target.shape != values.shape:
        raise UserError(
            f"Scores and labels must be one value per trial; found shapes {values.shape} and "
            f"{is_target.shape}."
        )
    groups = [
        ("target trials", TARGET_COLOUR, values[is_target]),
        ("nontarget trials", NONTARGET_COLOUR, values[~is_target]),
    ]
    return [group for group in groups if len(group[2])]


def _bin_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal bins over all scores, more of them for more trials; some room when all are equal."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    num_bins = int(np.clip(3 * len(values) ** (1 / 3), 10, 120))
    return np.linspace(low, high, num_bins + 1)

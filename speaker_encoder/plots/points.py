"""Points in the plane, one colour and marker for each speaker, beside a legend of all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.plots.figures import (
    new_figure,
    set_plain,
    short_name,
    speaker_style,
    without_common_start,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

MIN_DIRECT_LABELS = 9
"""From this many speakers on their names stand in the picture too; the legend is far away."""
MARGIN = 0.15
HEADER = 0.55


@dataclass(frozen=True, slots=True)
class _Layout:
    """Sizes in inches (fonts in points) that grow with the speakers, so that none is left out."""

    panel: float
    font_size: float
    num_columns: int
    width: float
    height: float

    @classmethod
    def for_names(cls, names: Sequence[str]) -> "_Layout":
        """As few legend columns as the panel's height allows, as wide as the names are long."""
        num_names = len(names)
        panel = 7.0 if num_names <= 40 else 8.5 if num_names <= 100 else 11.0
        font_size = 9.0 if num_names <= 40 else 7.5
        num_columns = math.ceil(num_names * font_size * 1.55 / (panel * 72))
        longest = max(len(name) for name in names)
        legend = num_columns * (longest * 0.62 + 3.2) * font_size / 72
        return cls(
            panel, font_size, num_columns, panel + legend + 3 * MARGIN, panel + MARGIN + HEADER
        )


def draw_points(
    points: NDArray[np.float64], labels: Sequence[str], title: str = "", note: str = ""
) -> "Figure":
    """Draws points in the plane, one colour and marker for each speaker, with a legend.

    Args:
        points: (N, 2) finite.
        labels: (N,) speaker of each point.
        title: above the picture.
        note: small, in a corner of it.

    Returns:
        The figure, not yet written.
    """
    speakers = sorted(set(labels))
    names = [short_name(speaker) for speaker in speakers]
    layout = _Layout.for_names(names)
    width, height = layout.width, layout.height
    figure = new_figure(width, height)
    axes = figure.add_axes(
        (MARGIN / width, MARGIN / height, layout.panel / width, layout.panel / height)
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color("#bbbbbb")
    size = float(np.clip(9000 / len(points), 22 if len(points) <= 2000 else 8, 60))
    members = np.array(labels)
    handles = [
        _scatter(axes, points[members == speaker], number, size)
        for number, speaker in enumerate(speakers)
    ]
    if len(speakers) >= MIN_DIRECT_LABELS:
        size = layout.font_size - 1.5
        for speaker, name in zip(speakers, without_common_start(names), strict=True):
            _label(axes, points[members == speaker], name, size)
    _add_legend(figure, handles, names, layout)
    header = f"{title} ({len(speakers)} speakers, {len(points)} utterances)" if title else ""
    set_plain(
        figure.text(MARGIN / width, 1 - HEADER / 2 / height, "", fontsize=12, va="center"), header
    )
    if note:
        set_plain(axes.text(0.01, 0.01, "", transform=axes.transAxes, fontsize=8), note)
    return figure


def _scatter(
    axes: "Axes", points: NDArray[np.float64], number: int, size: float
) -> "PathCollection":
    """One speaker's points; returns what its legend entry shows."""
    style = speaker_style(number)
    return axes.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        marker=style.marker,
        facecolors=style.colour if style.is_filled else "none",
        edgecolors="white" if style.is_filled else style.colour,
        linewidths=0.4 if style.is_filled else 1.0,
        alpha=0.9,
    )


def _label(axes: "Axes", points: NDArray[np.float64], name: str, font_size: float) -> None:
    """A speaker's name over the point that is nearest to the middle of its points."""
    from matplotlib.patheffects import withStroke

    middle = np.linalg.norm(points - np.median(points, axis=0), axis=1).argmin()
    text = axes.annotate(
        "",
        tuple(points[middle]),
        xytext=(0, 3.5),
        textcoords="offset points",
        fontsize=font_size,
        ha="center",
        va="bottom",
        color="#222222",
    )
    text.set_path_effects([withStroke(linewidth=1.5, foreground="white", alpha=0.8)])
    set_plain(text, name)


def _add_legend(
    figure: "Figure",
    handles: "list[PathCollection]",
    names: list[str],
    layout: _Layout,
) -> None:
    from matplotlib.collections import PathCollection

    box = figure.legend(
        handles,
        # Written below: a name may start with "_" or hold "$".
        ["name"] * len(names),
        loc="upper left",
        bbox_to_anchor=((2 * MARGIN + layout.panel) / layout.width, 1 - HEADER / layout.height),
        ncols=layout.num_columns,
        fontsize=layout.font_size,
        frameon=False,
        borderaxespad=0.0,
        handletextpad=0.3,
        columnspacing=0.8,
        labelspacing=0.25,
        scatterpoints=1,
    )
    for text, name in zip(box.get_texts(), names, strict=True):
        set_plain(text, name)
    for handle in box.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([layout.font_size * 3.5])


def annotate_points(axes: "Axes", points: NDArray[np.float64], texts: Sequence[str]) -> None:
    """Writes a text beside each point.

    Args:
        axes: of `draw_points`.
        points: (N, 2).
        texts: (N,).
    """
    font_size = 6.0 if len(texts) <= 100 else 4.0
    for (x, y), content in zip(points, texts, strict=True):
        text = axes.annotate(
            "", (x, y), xytext=(3, 2), textcoords="offset points", fontsize=font_size
        )
        set_plain(text, short_name(content, 40))

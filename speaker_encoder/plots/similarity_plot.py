"""Speaker by speaker similarity as a picture, alike speakers beside each other."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.plots.figures import new_figure, set_plain, short_name
from speaker_encoder.plots.speaker_similarity import SpeakerSimilarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SHOWN = 200
"""The most speakers whose names can be read in a picture."""
MAX_WITH_NUMBERS = 12
"""Up to this many speakers the similarities stand in the cells."""
LEFT_OUT_COLOUR = "#dddddd"


def draw_similarity(similarity: SpeakerSimilarity, title: str = "") -> "Figure":
    """Draws the matrix of a similarity.

    Args:
        similarity: of S speakers. Of more than 200 those that are most alike another one are
            shown, and the picture says so.
        title: above the picture.

    Returns:
        The figure, not yet written.
    """
    shown = _shown(similarity.matrix)
    matrix = similarity.matrix[np.ix_(shown, shown)]
    names = [short_name(similarity.speakers[i]) for i in shown]
    num_names = len(names)
    font_size = 9.0 if num_names <= 40 else 7.5 if num_names <= 100 else 6.0
    panel = max(2.2, num_names * font_size * 1.35 / 72, 0.5 * min(num_names, MAX_WITH_NUMBERS))
    text = max(map(len, names)) * font_size * 0.62 / 72 + 0.15
    header, bar, margin = 0.75 if title else 0.45, 0.95, 0.15
    width = max(margin + text + panel + bar, 5.2)
    height = header + panel + text + margin
    figure = new_figure(width, height)
    left, bottom = (margin + text) / width, (margin + text) / height
    axes = figure.add_axes((left, bottom, panel / width, panel / height))
    # The same scale on both sides of a diagonal that may be empty.
    image = axes.imshow(np.ma.masked_invalid(matrix), cmap="viridis", interpolation="nearest")
    axes.set_facecolor(LEFT_OUT_COLOUR)
    for axis, rotation in ((axes.xaxis, 90), (axes.yaxis, 0)):
        axis.set_ticks(range(num_names), labels=names)
        for label, name in zip(axis.get_ticklabels(), names, strict=True):
            set_plain(label, name)
            label.set_fontsize(font_size)
            label.set_rotation(rotation)
    axes.tick_params(length=0, pad=2)
    for side in axes.spines.values():
        side.set_visible(False)
    if num_names <= MAX_WITH_NUMBERS:
        _write_numbers(figure, matrix)
    bar_height = min(panel, 4.0)
    bar_axes = figure.add_axes(
        (left + (panel + 0.15) / width, bottom + (panel - bar_height) / height, 0.16 / width,
         bar_height / height)
    )  # fmt: skip
    figure.colorbar(image, cax=bar_axes)
    bar_axes.tick_params(labelsize=8)
    caption = "mean cosine of two different utterances, one of each speaker"
    if num_names < len(similarity.speakers):
        caption += f"; the {num_names} of {len(similarity.speakers)} speakers most alike another"
    head = figure.text(margin / width, 1 - 0.25 / height, "", fontsize=12, va="center")
    set_plain(head, title)
    set_plain(
        figure.text(margin / width, 1 - (header - 0.23) / height, "", fontsize=8, va="center"),
        caption,
    )
    return figure


def _shown(matrix: NDArray[np.float64]) -> list[int]:
    """The speakers to show, alike ones beside each other."""
    speakers = np.arange(len(matrix))
    if len(matrix) > MAX_SHOWN:
        others = matrix.copy()
        np.fill_diagonal(others, -np.inf)
        speakers = np.sort(np.argsort(-others.max(axis=1), kind="stable")[:MAX_SHOWN])
    if len(speakers) < 3:
        return [int(i) for i in speakers]
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    distances = 1.0 - matrix[np.ix_(speakers, speakers)]
    np.fill_diagonal(distances, 0.0)
    condensed = squareform((distances + distances.T) / 2, checks=False).clip(min=0.0)
    tree = optimal_leaf_ordering(linkage(condensed, "average"), condensed)
    return [int(speakers[i]) for i in leaves_list(tree)]


def _write_numbers(figure: "Figure", matrix: NDArray[np.float64]) -> None:
    """Each cell's value in black or white, whichever can be read on its colour."""
    low, high = np.nanmin(matrix), np.nanmax(matrix)
    middle = low + 0.6 * (high - low)
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            colour = "black" if value > middle else "white"
            figure.axes[0].text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour
            )

"""Detection error tradeoff (DET) curves of scored trials."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.plots.figures import (
    PALETTE,
    new_figure,
    save_png_and_svg,
    set_plain,
    short_name,
)
from speaker_encoder.verification.metrics import SortedScores, crossing_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Rate = NDArray[np.float64]
Rates = tuple[Rate, Rate]
"""False-accept and miss rates, (M,) each, as of `SortedScores.error_rates`."""
LineStyle = Literal["-", "--", "-.", ":"]
TICKS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8,
    0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999,
)  # fmt: skip
LEAST_UPPER_LIMIT, GREATEST_UPPER_LIMIT = 0.4, 0.95
LEAST_TICK_GAP = 0.052
"""Of the axis: ticks that are nearer to the one before have no text."""
PANEL, LEFT, BOTTOM, MARGIN, HEADER = 6.2, 0.75, 0.55, 0.25, 0.4
"""Inches."""
MAX_CURVE_POINTS = 2000
"""More points of a curve than this cannot be told apart in the picture."""
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", "-.", ":")
COST_MARKERS = ("^", "s", "D", "v")
MAX_SYSTEM_NAME = 60


def plot_det(
    systems: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: str | os.PathLike[str],
    *,
    p_targets: Sequence[float] = (0.01, 0.05),
    title: str = "",
) -> tuple[Path, Path]:
    """Writes the DET curves of systems, as PNG and as SVG.

    Both axes are probits (normal deviates), where normally distributed scores give straight
    lines. A filled circle marks each system's equal error rate, an outlined mark its least
    detection cost at each `p_target`.

    Args:
        systems: name -> (scores (N,), labels (N,) of 1 or True for target, else 0 or False).
        path: of the picture; its suffix is replaced by .png and by .svg.
        p_targets: prior probabilities of a target trial whose minDCF is marked.
        title: above the picture.

    Returns:
        (png_path, svg_path).

    Raises:
        UserError: no system, one class missing, scores that are not finite.

    Source:
        Martin et al., "The DET curve in assessment of detection task performance",
        Eurospeech 1997.
    """
    if not systems:
        raise UserError("A DET plot needs at least one system with scored trials; found none.")
    rates = {
        name: SortedScores.from_trials(scores, labels).error_rates()
        for name, (scores, labels) in systems.items()
    }
    low, high = _limits(list(rates.values()), p_targets)
    handles, texts = _legend_entries(rates, p_targets)
    header = HEADER if title else MARGIN
    legend_height = 0.21 * len(texts) + 0.1
    width, height = PANEL + LEFT + MARGIN, PANEL + BOTTOM + legend_height + header
    figure = new_figure(width, height)
    axes = figure.add_axes(
        (LEFT / width, (BOTTOM + legend_height) / height, PANEL / width, PANEL / height)
    )
    for number, (false_accepts, misses) in enumerate(rates.values()):
        _draw_system(axes, number, false_accepts, misses, p_targets, (low, high))
    _probit_axes(axes, low, high)
    # Below the curves: inside, it would hide those of a weak system.
    box = figure.legend(
        handles, ["name"] * len(texts), loc="lower left", fontsize=9, frameon=False,
        bbox_to_anchor=(LEFT / width, 0), borderaxespad=0.2,
    )  # fmt: skip
    for shown, text in zip(box.get_texts(), texts, strict=True):
        set_plain(shown, text)
    set_plain(axes.set_title("", loc="left", fontsize=12), title)
    return save_png_and_svg(figure, path)


def probit(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal deviates: the inverse of the normal distribution function.

    Args:
        rates: (N,) in (0, 1).

    Returns:
        (N,); 0.5 gives 0.
    """
    from scipy.special import ndtri

    return np.asarray(ndtri(rates), dtype=np.float64)


def _limits(rates: Sequence[Rates], p_targets: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest rate of both axes: ticks just outside what is to be seen."""
    least = min(_least_shown(*pair) for pair in rates)
    most = LEAST_UPPER_LIMIT
    for pair in rates:
        most = max(most, 1.6 * crossing_rate(*pair))
        for p_target in p_targets:
            position = least_cost_position(*pair, p_target)
            false_accept, miss = float(pair[0][position]), float(pair[1][position])
            if max(false_accept, miss) <= GREATEST_UPPER_LIMIT:
                most = max(most, false_accept, miss)
                least = min([least, *(rate for rate in (false_accept, miss) if rate > 0)])
    lower = [tick for tick in TICKS if tick <= least] or [TICKS[0]]
    upper = [tick for tick in TICKS if tick >= most] or [TICKS[-1]]
    return lower[-1], upper[0]


def least_cost_position(false_accepts: Rate, misses: Rate, p_target: float) -> int:
    """The operating point of the least detection cost.

    Args:
        false_accepts: (M,) rates.
        misses: (M,) rates.
        p_target: prior probability of a target trial.

    Returns:
        Its position.
    """
    return int(np.argmin(p_target * misses + (1 - p_target) * false_accepts))


def _least_shown(false_accepts: NDArray[np.float64], misses: NDArray[np.float64]) -> float:
    """The least positive rate that a curve reaches while the other one is not yet large."""
    shown = np.concatenate(
        [
            false_accepts[(false_accepts > 0) & (misses < LEAST_UPPER_LIMIT)],
            misses[(misses > 0) & (false_accepts < LEAST_UPPER_LIMIT)],
        ]
    )
    # One error of few trials says little of rates far below it.
    least = float(shown.min()) if len(shown) else 0.01
    return min(least, 0.05)


def _draw_system(
    axes: "Axes",
    number: int,
    false_accepts: Rate,
    misses: Rate,
    p_targets: Sequence[float],
    limits: tuple[float, float],
) -> None:
    colour, line_style = _look(number)
    outside = min(limits[0], 1e-4) / 10
    xs, ys = (probit(np.clip(rate, outside, 1 - outside)) for rate in (false_accepts, misses))
    kept = _thinned(xs, ys)
    axes.plot(xs[kept], ys[kept], color=colour, linestyle=line_style, linewidth=1.7, zorder=2)
    for order, (p_target, marker) in enumerate(zip(p_targets, COST_MARKERS, strict=False)):
        least = least_cost_position(false_accepts, misses, p_target)
        point = np.array([false_accepts[least], misses[least]])
        if point.max() <= limits[1]:
            # A rate of 0 lies infinitely far off: its mark stands on the edge.
            axes.plot(
                *probit(np.maximum(point, limits[0])), marker=marker, ms=max(5, 9 - 2 * order),
                color="white", markeredgecolor=colour, markeredgewidth=1.5, linestyle="none",
                zorder=4, clip_on=False,
            )  # fmt: skip
    equal = probit(np.clip([crossing_rate(false_accepts, misses)], *limits))
    axes.plot(
        equal, equal, marker="o", ms=7, color=colour, markeredgecolor="white",
        linestyle="none", zorder=5, clip_on=False,
    )  # fmt: skip


def _look(number: int) -> tuple[str, LineStyle]:
    """Colour and line style of a system: 32 distinct ones."""
    return (
        PALETTE[number % len(PALETTE)],
        LINE_STYLES[(number // len(PALETTE)) % len(LINE_STYLES)],
    )


def _thinned(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of the points that are far enough from the one before to be seen."""
    # Along the curve xs rises and ys falls: their difference only rises.
    length = xs - ys
    step = (length[-1] - length[0]) / MAX_CURVE_POINTS
    cells = np.floor((length - length[0]) / max(step, 1e-12)).astype(np.int64)
    firsts = np.flatnonzero(np.diff(cells, prepend=-1))
    lasts = np.flatnonzero(np.diff(cells, append=cells[-1] + 1))
    return np.unique(np.concatenate([firsts, lasts]))


def _probit_axes(axes: "Axes", low: float, high: float) -> None:
    ticks = [tick for tick in TICKS if low <= tick <= high]
    places = probit(np.array(ticks)).tolist()
    limits = probit(np.array([low, high])).tolist()
    names, last = [], -np.inf
    for tick, place in zip(ticks, places, strict=True):
        is_clear = place - last >= LEAST_TICK_GAP * (limits[1] - limits[0])
        names.append(f"{100 * tick:g}" if is_clear else "")
        last = place if is_clear else last
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(places, labels=names)
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    axes.plot(limits, limits, color="#999999", linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
    axes.set_xlabel("false accepts (%)")
    axes.set_ylabel("misses (%)")
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)


def _legend_entries(
    rates: Mapping[str, Rates], p_targets: Sequence[float]
) -> tuple[list["Line2D"], list[str]]:
    """What the legend shows: each system, then what the marks mean."""
    from matplotlib.lines import Line2D

    handles, texts = [], []
    for number, (name, pair) in enumerate(rates.items()):
        colour, line_style = _look(number)
        handles.append(Line2D([], [], color=colour, linestyle=line_style, linewidth=1.7))
        texts.append(f"{short_name(name, MAX_SYSTEM_NAME)}: EER {100 * crossing_rate(*pair):.2f} %")
    marks = {"o": "equal error rate"} | {
        marker: f"least detection cost (minDCF) at p_target {p_target:g}"
        for p_target, marker in zip(p_targets, COST_MARKERS, strict=False)
    }
    for marker, text in marks.items():
        colour = "#555555" if marker == "o" else "white"
        handles.append(
            Line2D([], [], ls="none", marker=marker, ms=7, color=colour, markeredgecolor="#555555")
        )
        texts.append(text)
    return handles, texts

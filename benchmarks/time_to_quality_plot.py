"""The curves of `time_to_quality.py`: what they say, and their plot."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speaker_encoder.plots.figures import PALETTE, new_figure, save_figure

LEVELS = tuple(x / 2 for x in range(80, 0, -5))  # 40 %, 37.5 %, ... 2.5 %
NUM_LEVELS = 4
UNITS = {"cpu": "s of CPU", "wall": "s"}
LABELS = {"ours": "speaker-encoder", "theirs": "voxceleb_trainer"}


@dataclass(frozen=True)
class Point:
    """A checkpoint.

    Attributes:
        steps: of training.
        cpu: seconds of all processors in training so far.
        wall: seconds by the clock in training so far.
        eer: on the trials, in percent.
    """

    steps: int
    cpu: float
    wall: float
    eer: float


@dataclass(frozen=True)
class Curve:
    """One run: `side` is "ours" or "theirs"."""

    side: str
    seed: int
    points: list[Point]

    def seconds_to(self, level: float, clock: str) -> float | None:
        """Gives the seconds to the first checkpoint whose EER is at most `level` percent."""
        return next((getattr(p, clock) for p in self.points if p.eer <= level), None)


def of_side(curves: Iterable[Curve], side: str) -> list[Curve]:
    """Gives the runs of one side."""
    return [curve for curve in curves if curve.side == side]


def mean_seconds_to(curves: Sequence[Curve], level: float, clock: str) -> float | None:
    """Gives the mean over the runs, None where one of them never came there, or there is none."""
    seconds = [curve.seconds_to(level, clock) for curve in curves]
    reached = [value for value in seconds if value is not None]
    return statistics.mean(reached) if reached and len(reached) == len(seconds) else None


def levels_to_show(curves: Sequence[Curve], clock: str) -> list[float]:
    """Gives the lowest EERs, a few, that all runs of both sides came to."""
    sides = [runs for side in LABELS if (runs := of_side(curves, side))]
    reached = [
        level
        for level in LEVELS
        if all(mean_seconds_to(runs, level, clock) is not None for runs in sides)
    ]
    return reached[-NUM_LEVELS:]


def summarise(curves: Sequence[Curve], what: str, batch_size: int, clock: str) -> list[tuple]:
    """Gives (what, ours, counterpart, ratio, unit) of each figure, means over the runs."""
    ours, theirs = of_side(curves, "ours"), of_side(curves, "theirs")
    unit = UNITS[clock]

    def crops_per_second(runs: Sequence[Curve]) -> float | None:
        ends = [run.points[-1] for run in runs]
        return (
            statistics.mean(batch_size * end.steps / getattr(end, clock) for end in ends)
            if ends
            else None
        )

    def last_eer(runs: Sequence[Curve]) -> float | None:
        return statistics.mean(run.points[-1].eer for run in runs) if runs else None

    speeds = crops_per_second(ours), crops_per_second(theirs)
    found = [_row(f"{what}: crops trained on", *speeds, f"per {unit}", more_is_better=True)]
    for level in levels_to_show(curves, clock):
        seconds = (mean_seconds_to(runs, level, clock) for runs in (ours, theirs))
        found.append(_row(f"{what}: to {level:g} % EER", *seconds, unit))
    found.append(_row(f"{what}: EER at the end", last_eer(ours), last_eer(theirs), "%"))
    return found


def _row(
    what: str,
    ours: float | None,
    theirs: float | None,
    unit: str,
    *,
    more_is_better: bool = False,
) -> tuple:
    ratio = None
    if ours and theirs:
        ratio = ours / theirs if more_is_better else theirs / ours
    return what, ours, theirs, ratio, unit


def draw_curves(curves: Sequence[Curve], clock: str, path: Path) -> None:
    """Draws the EER of every run over the seconds of its training."""
    figure = new_figure(8.0, 4.5)
    axes = figure.subplots()
    looks = {"ours": (PALETTE[0], "o"), "theirs": (PALETTE[1], "s")}
    for side, (colour, marker) in looks.items():
        for number, curve in enumerate(of_side(curves, side)):
            axes.plot(
                [getattr(point, clock) for point in curve.points],
                [point.eer for point in curve.points],
                color=colour,
                marker=marker,
                ms=4,
                linewidth=1.5,
                alpha=0.85,
                label=LABELS[side] if number == 0 else None,
            )
    axes.set_xlabel(
        "seconds of training, of all processors" if clock == "cpu" else "seconds of training"
    )
    axes.set_ylabel("EER on unseen speakers (%)")
    axes.set_xlim(left=0)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for where in ("top", "right"):
        axes.spines[where].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    save_figure(figure, path)

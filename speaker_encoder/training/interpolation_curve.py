"""The figures of encoders along the line between a pretrained and a fine-tuned one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.training.interpolation import Choice, CurvePoint, choose_alpha
from speaker_encoder.verification.evaluate import Verdict
from speaker_encoder.verification.several import SeveralSystems, evaluate_several
from speaker_encoder.verification.trials import Trials

ALPHAS = tuple(tenth / 10 for tenth in range(11))
LEAST_SPEAKERS = 5
"""Draws of fewer speakers are so alike that any difference would seem to be beyond noise."""
_LEAST_DRAWS = 100


class LabelledTrials(Protocol):
    """Trials with labels over utterances whose speakers are known."""

    trials: Trials

    @property
    def speaker_ids(self) -> Sequence[str] | None:
        """(N,) the speaker of each utterance."""


@dataclass(frozen=True)
class MeasuredLine:
    """What was measured at each alpha; systems are in the order of the curve.

    Attributes:
        curve: a point for each alpha, ascending, alpha 0 first.
        validation: on the validation trials.
        reference: on the reference trials; None where there are none.
        num_speakers: of the validation trials.
    """

    curve: list[CurvePoint]
    validation: SeveralSystems
    reference: SeveralSystems | None
    num_speakers: int

    def place(self, alpha: float) -> int:
        """Gives the number of the system at an alpha of the curve."""
        return [point.alpha for point in self.curve].index(alpha)

    def choose(self, forgetting_tolerance: float, *, allow_worse: bool = False) -> Choice:
        """Chooses by `choose_alpha`; the reason says so where there are too few speakers."""
        return self.explained(
            choose_alpha(self.curve, forgetting_tolerance, allow_worse=allow_worse)
        )

    def explained(self, choice: Choice) -> Choice:
        """Gives a choice with the reason that counts where there are too few speakers."""
        if self.num_speakers >= LEAST_SPEAKERS or choice.alpha:
            return choice
        reason = (
            f"{self.num_speakers} validation speakers are too few to tell a difference from "
            f"noise; {LEAST_SPEAKERS} are needed"
        )
        return replace(choice, reason=reason)


def measure_line(
    alphas: Sequence[float],
    validation: LabelledTrials,
    rows: Sequence[NDArray[np.float32]],
    reference: LabelledTrials | None = None,
    reference_rows: Sequence[NDArray[np.float32]] = (),
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> MeasuredLine:
    """Measures the embeddings of the encoders at each alpha.

    Args:
        alphas: (A,) ascending, 0 first.
        validation: the validation trials.
        rows: A times (N, D) embeddings of their utterances.
        reference: the reference trials, if there are any.
        reference_rows: A times (M, D) embeddings of theirs.
        num_bootstrap: number of draws of speakers.
        seed: of the draws.

    Returns:
        The figures; the same draws at all alphas.

    Raises:
        UserError: trials that nothing can be measured on.
    """
    found = _measure(validation, rows, num_bootstrap, seed)
    other = None
    if reference is not None:
        other = _measure(reference, reference_rows, num_bootstrap, seed)
    best = int(np.argmin(found.eers))  # of equals the first, nearest to alpha 0
    num_speakers = _count_speakers(validation)
    curve = [
        CurvePoint(
            alpha,
            float(found.eers[place]),
            found.eer_interval(place),
            _verdict(found, best, place, num_speakers),
            _verdict(found, 0, place, num_speakers),
            None if other is None else float(other.eers[place]),
            None if other is None else other.eer_interval(place),
        )
        for place, alpha in enumerate(alphas)
    ]
    return MeasuredLine(curve, found, other, num_speakers)


def _measure(
    data: LabelledTrials, systems: Sequence[NDArray[np.float32]], num_bootstrap: int, seed: int
) -> SeveralSystems:
    assert data.speaker_ids is not None
    return evaluate_several(
        systems,
        data.trials,
        data.speaker_ids,
        num_bootstrap=max(num_bootstrap, _LEAST_DRAWS),
        seed=seed,
    )


def _count_speakers(data: LabelledTrials) -> int:
    """How many speakers the trials have."""
    assert data.speaker_ids is not None
    used = np.unique([data.trials.enrolment, data.trials.test])
    return len({data.speaker_ids[place] for place in used})


def _verdict(found: SeveralSystems, before: int, after: int, num_speakers: int) -> Verdict:
    """Whether a system is better than another; few speakers cannot tell."""
    if num_speakers < LEAST_SPEAKERS:
        return "no difference beyond noise"
    return found.verdict(before, after)

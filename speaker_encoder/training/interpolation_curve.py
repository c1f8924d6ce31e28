"""The figures of encoders along the line between a pretrained and a fine-tuned one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.training.interpolation import CurvePoint
from speaker_encoder.verification.several import SeveralSystems, evaluate_several
from speaker_encoder.verification.trials import Trials

ALPHAS = tuple(tenth / 10 for tenth in range(11))


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
    """

    curve: list[CurvePoint]
    validation: SeveralSystems
    reference: SeveralSystems | None

    def place(self, alpha: float) -> int:
        """Gives the number of the system at an alpha of the curve."""
        return [point.alpha for point in self.curve].index(alpha)


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

    def measure(data: LabelledTrials, systems: Sequence[NDArray[np.float32]]) -> SeveralSystems:
        assert data.speaker_ids is not None
        return evaluate_several(
            systems, data.trials, data.speaker_ids, num_bootstrap=num_bootstrap, seed=seed
        )

    found = measure(validation, rows)
    other = None if reference is None else measure(reference, reference_rows)
    best = int(np.argmin(found.eers))  # of equals the first, nearest to alpha 0
    curve = [
        CurvePoint(
            alpha,
            float(found.eers[place]),
            found.eer_interval(place),
            found.verdict(best, place),
            found.verdict(0, place),
            None if other is None else float(other.eers[place]),
            None if other is None else other.eer_interval(place),
        )
        for place, alpha in enumerate(alphas)
    ]
    return MeasuredLine(curve, found, other)

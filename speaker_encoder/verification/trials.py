"""Verification trials: made from a corpus, read from a list, and scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.metrics import to_numpy

if TYPE_CHECKING:
    from speaker_encoder.corpora import Utterance

SCORING_CHUNK = 16_384
LEAST_NORM = 1e-150  # its square is still a normal number; a zero embedding scores 0


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """Pairs of utterances to compare, as positions in a list of utterances.

    Attributes:
        enrolment: (N,) int64 positions.
        test: (N,) int64 positions.
        labels: (N,) bool, true for the same speaker (target); None when they are not known.
    """

    enrolment: NDArray[np.int64]
    test: NDArray[np.int64]
    labels: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.enrolment)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """All pairs of one kind, numbered but not built: position p with partners[p] and on.

    Position p of the sorted utterances pairs with `first_partner[p] ... first_partner[p] +
    num_partners[p] - 1`.
    """

    first_partner: NDArray[np.int64]
    num_partners: NDArray[np.int64]

    @property
    def total(self) -> int:
        return int(self.num_partners.sum())

    def take(self, num_pairs: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(num_pairs, 2) positions of distinct pairs: all of them, or drawn uniformly."""
        if num_pairs == self.total:
            chosen = np.arange(num_pairs)
        else:
            chosen = rng.choice(self.total, size=num_pairs, replace=False, shuffle=False)
        ends = np.cumsum(self.num_partners)
        position = np.searchsorted(ends, chosen, side="right")
        offset = chosen - (ends - self.num_partners)[position]
        return np.stack([position, self.first_partner[position] + offset], axis=1)


def make_trials(
    utterances: "Sequence[Utterance]",
    *,
    max_trials: int = 200_000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Trials:
    """All pairs of utterances as trials, or a fixed sample of them when there are too many.

    Pairs of one speaker within one known session are left out: they are easier than what a
    speaker verification system meets. When there are more than `max_trials` pairs, target pairs
    fill up to half of them and nontarget pairs the rest, each drawn uniformly without
    repetition. The pairs are never all built, so 100,000 utterances are no difficulty.

    Args:
        utterances: N utterances; the trials hold positions in this sequence.
        max_trials: the most trials to make, at least 2.
        seed: of the sample.
        groups: N; nontarget pairs are of one group only, such as the speaker's sex, and never of
            the group `""`. All utterances of a speaker are of one group.

    Returns:
        Trials in ascending order, `enrolment < test`, every pair once.

    Raises:
        UserError: no target pair or no nontarget pair is possible.
    """
    if max_trials < 2:
        raise UserError(f"max_trials must be at least 2, found {max_trials}.")
    order, targets, nontargets = _number_pairs(utterances, groups)
    if not nontargets.total and groups is not None:
        raise UserError("No nontarget trial is possible: no two speakers are of the same group.")
    if not nontargets.total:
        raise UserError(
            "Verification trials need at least 2 speakers, found "
            f"{len({utterance.speaker_id for utterance in utterances})}. Add speakers."
        )
    if not targets.total:
        raise UserError(
            f"No target trial is possible among {len(utterances)} utterances: every speaker has "
            "only one utterance, or only one session (pairs within a session are left out). "
            "Add recordings, or give a trial list."
        )
    num_targets, num_nontargets = targets.total, nontargets.total
    if num_targets + num_nontargets > max_trials:
        num_targets = min(num_targets, max_trials // 2)
        num_nontargets = min(num_nontargets, max_trials - num_targets)
        num_targets = min(targets.total, max_trials - num_nontargets)
    rng = np.random.default_rng(seed)
    positions = np.concatenate(
        [targets.take(num_targets, rng), nontargets.take(num_nontargets, rng)]
    )
    pairs = np.sort(order[positions], axis=1)
    ascending = np.lexsort((pairs[:, 1], pairs[:, 0]))
    labels = np.arange(len(pairs)) < num_targets
    return Trials(pairs[ascending, 0], pairs[ascending, 1], labels[ascending])


def _number_pairs(
    utterances: "Sequence[Utterance]", groups: Sequence[str] | None
) -> tuple[NDArray[np.int64], _Pairs, _Pairs]:
    """The utterances sorted by group, speaker and session, their target and nontarget pairs."""
    num_utterances = len(utterances)
    group_numbers = np.zeros(num_utterances, dtype=np.int64)
    if groups is not None:
        group_numbers = np.unique(groups, return_inverse=True)[1]
    speaker_of: dict[str, int] = {}
    session_of: dict[tuple[str, str | int], int] = {}
    keys = np.empty((num_utterances, 2), dtype=np.int64)
    for position, utterance in enumerate(utterances):
        # An utterance of unknown session is a session of its own.
        session = position if utterance.session_id is None else utterance.session_id
        keys[position] = (
            speaker_of.setdefault(utterance.speaker_id, len(speaker_of)),
            session_of.setdefault((utterance.speaker_id, session), len(session_of)),
        )
    order = np.lexsort((keys[:, 1], keys[:, 0], group_numbers))
    speaker_end = _ends_of_runs(keys[order, 0])
    session_end = _ends_of_runs(keys[order, 1])
    group_end = _ends_of_runs(group_numbers[order])
    if groups is not None:
        is_outside = np.array([not groups[position] for position in order], dtype=np.bool_)
        group_end = np.where(is_outside, speaker_end, group_end)
    return (
        order,
        _Pairs(session_end, speaker_end - session_end),
        _Pairs(speaker_end, group_end - speaker_end),
    )


def _ends_of_runs(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each position, the position behind the run of equal values that it is in."""
    if not len(values):
        return np.zeros(0, dtype=np.int64)
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, len(values))
    return np.repeat(ends, np.diff(ends, prepend=0))


def score_trials(embeddings: ArrayLike, trials: Trials) -> NDArray[np.float64]:
    """Cosine score of each trial.

    Args:
        embeddings: (N, D) array or tensor on any device, rows need not be normalised.
        trials: positions of the rows to compare.

    Returns:
        (num_trials,) float64 in [-1, 1].

    Raises:
        UserError: an embedding of a trial is not finite.
        ValueError: trials that point outside the embeddings.
    """
    rows = to_numpy(embeddings)
    if len(trials) and max(trials.enrolment.max(), trials.test.max()) >= len(rows):
        raise ValueError(f"The trials point outside the {len(rows)} embeddings.")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise UserError(
            f"{len(bad)} of {len(rows)} embeddings are not finite, the first at position {bad[0]}."
        )
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    norms = np.maximum(norms, LEAST_NORM)
    scores = np.empty(len(trials))
    for start in range(0, len(trials), SCORING_CHUNK):
        chunk = slice(start, start + SCORING_CHUNK)
        enrolment, test = trials.enrolment[chunk], trials.test[chunk]
        dots = np.einsum("nd,nd->n", rows[enrolment], rows[test], dtype=np.float64)
        scores[chunk] = dots / (norms[enrolment] * norms[test])
    return np.clip(scores, -1.0, 1.0, out=scores)

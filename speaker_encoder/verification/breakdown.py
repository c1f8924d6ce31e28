"""Error rates by kind of trial: duration, sex, session, corpus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.metrics import check_scored_trials, equal_error_rate
from speaker_encoder.verification.trials import Trials

DURATION_BORDERS = (2.0, 4.0, 8.0)
"""Seconds; a group holds its lower border."""
DURATION_GROUPS = ("< 2 s", "2-4 s", "4-8 s", ">= 8 s")
SESSION_GROUPS = ("same session", "cross session")


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Error rate of one kind of trial.

    Attributes:
        group: its name.
        num_targets: target trials of this kind.
        num_nontargets: nontarget trials they are measured against.
        eer: equal error rate, a fraction; None when a class is missing.
    """

    group: str
    num_targets: int
    num_nontargets: int
    eer: float | None

    def as_dict(self) -> dict[str, Any]:
        """The figures for JSON."""
        return {
            "group": self.group,
            "num_targets": self.num_targets,
            "num_nontargets": self.num_nontargets,
            "eer": self.eer,
        }


def breakdown(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str | None],
    *,
    order: Sequence[str] = (),
    nontargets_in_every_group: bool = False,
) -> list[GroupFigures]:
    """EER of each group of trials, each with its own threshold.

    Args:
        scores: (N,) finite; higher means more alike.
        labels: (N,) 1 or True for target, 0 or False for nontarget; both kinds.
        groups: (N,) the group of each trial, None where it is not known; those are left out.
        order: names to list first, in this order; the others follow sorted.
        nontargets_in_every_group: count every nontarget trial in each group, whatever its own
            group. For groups that only target trials have, as same and cross session.

    Returns:
        The figures of each group that has trials.

    Raises:
        UserError: shapes that differ, no target or no nontarget trial at all, or scores that are
            not finite.
    """
    values, is_target = check_scored_trials(scores, labels)
    if len(groups) != len(values):
        raise UserError(f"Wanted a group for each of {len(values)} trials, found {len(groups)}.")
    codes: dict[str | None, int] = {}
    numbers = np.fromiter((codes.setdefault(g, len(codes)) for g in groups), np.int64, len(groups))
    known = [group for group in codes if group is not None]
    rank = {group: place for place, group in enumerate(order)}
    known.sort(key=lambda group: (rank.get(group, len(rank)), group))
    figures = []
    for group in known:
        chosen = numbers == codes[group]
        if nontargets_in_every_group:
            chosen = (chosen & is_target) | ~is_target
        figures.append(_figures(group, values[chosen], is_target[chosen]))
    if nontargets_in_every_group:
        figures = [found for found in figures if found.num_targets]
    return figures


def duration_groups(trials: Trials, seconds: ArrayLike) -> list[str | None]:
    """The group of each trial by its shorter utterance: < 2, 2-4, 4-8, >= 8 s.

    Args:
        trials: N trials over U utterances.
        seconds: (U,) duration of each utterance.

    Returns:
        (N,) names, of `DURATION_GROUPS`.
    """
    durations = np.asarray(seconds, dtype=np.float64)
    shorter = np.minimum(durations[trials.enrolment], durations[trials.test])
    return _names(DURATION_GROUPS, np.digitize(shorter, DURATION_BORDERS))


def sex_groups(trials: Trials, sexes: Sequence[str | None]) -> list[str | None]:
    """The sexes of each trial's speakers, whichever side they are on.

    Args:
        trials: N trials over U utterances.
        sexes: (U,) sex of each utterance's speaker, None where it is not known.

    Returns:
        (N,) "F-F", "F-M" and so on of the names given, None where one is not known.
    """
    return _pair_groups(trials, sexes, lambda first, second: f"{first}-{second}")


def corpus_groups(
    trials: Trials, paths: Sequence[str], speaker_ids: Sequence[str] | None = None
) -> list[str | None]:
    """The corpora of each trial's utterances: the first part of their paths.

    Args:
        trials: N trials over U utterances.
        paths: (U,) relative to one root, `/` between parts.
        speaker_ids: (U,) the speaker of each; when given, first parts that hold one speaker each
            are taken as speakers' folders, not corpora.

    Returns:
        (N,) a corpus, or "a / b" for two; None where a path has no folder, or for all trials
        where there are no corpora.
    """
    corpora = [path.split("/", 1)[0] if "/" in path else None for path in paths]
    if speaker_ids is not None:
        held = set(zip(corpora, speaker_ids, strict=True))
        if len(held) == len({corpus for corpus, _ in held}):
            return [None] * len(trials)
    return _pair_groups(
        trials,
        corpora,
        lambda first, second: first if first == second else f"{first} / {second}",
    )


def session_groups(
    trials: Trials, speaker_ids: Sequence[str], session_ids: Sequence[str | None]
) -> list[str | None]:
    """Whether the utterances of a trial are of one speaker's same session.

    To be measured against all nontarget trials (`nontargets_in_every_group`): two speakers have
    no session together.

    Args:
        trials: N trials over U utterances.
        speaker_ids: (U,) the speaker of each utterance.
        session_ids: (U,) the session of each utterance within its speaker, None where it is not
            known.

    Returns:
        (N,) of `SESSION_GROUPS`; None where the speakers differ or a session is not known.
    """
    _, speakers = np.unique(np.asarray(speaker_ids, dtype=str), return_inverse=True)
    codes: dict[str | None, int] = {None: 0}
    sessions = np.array([codes.setdefault(name, len(codes)) for name in session_ids])
    first, second = sessions[trials.enrolment], sessions[trials.test]
    is_known = (first > 0) & (second > 0)
    is_known &= speakers[trials.enrolment] == speakers[trials.test]
    number = np.where(is_known, 1 + (first != second), 0)
    return _names((None, *SESSION_GROUPS), number)


def _figures(group: str, scores: NDArray[np.float64], is_target: NDArray[np.bool_]) -> GroupFigures:
    num_targets = int(np.count_nonzero(is_target))
    num_nontargets = len(is_target) - num_targets
    eer = equal_error_rate(scores, is_target)[0] if num_targets and num_nontargets else None
    return GroupFigures(group, num_targets, num_nontargets, eer)


def _pair_groups(
    trials: Trials, kinds: Sequence[str | None], name_pair: Callable[[str, str], str]
) -> list[str | None]:
    """A name for each trial of what its two utterances are, in sorted order; None if unknown."""
    known = sorted({kind for kind in kinds if kind is not None})
    codes: dict[str | None, int] = {kind: place for place, kind in enumerate(known)}
    numbers = np.array([codes.get(kind, -1) for kind in kinds], dtype=np.int64)
    first, second = numbers[trials.enrolment], numbers[trials.test]
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs, inverse = np.unique(np.where(low < 0, -1, low * len(known) + high), return_inverse=True)
    names: list[str | None] = [
        None if pair < 0 else name_pair(known[pair // len(known)], known[pair % len(known)])
        for pair in pairs.tolist()
    ]
    return _names(names, inverse)


def _names(names: Sequence[str | None], numbers: NDArray[np.int64]) -> list[str | None]:
    """The name of each number, fast for millions."""
    return np.array(names, dtype=object)[numbers].tolist()

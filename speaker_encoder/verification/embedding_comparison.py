"""Two sets of embeddings of the same utterances: how alike, and whether only the axes differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.corpora import Utterance
from speaker_encoder.errors import UserError
from speaker_encoder.verification.comparison_records import (
    Agreement,
    CosineFacts,
    EmbeddingComparison,
    ErrorRates,
    SetFacts,
)
from speaker_encoder.verification.cross_space import cross_space_rates
from speaker_encoder.verification.procrustes import fit_rotation, row_cosines
from speaker_encoder.verification.sources import StoredEmbeddings
from speaker_encoder.verification.systems import find_rows
from speaker_encoder.verification.trials import make_trials

NUM_WORST = 5
MAX_SAMPLE = 1000
"""Utterances whose pairs are compared within each set."""
_LEAST_FOR_ROTATION = 8
Rows = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Matched:
    """The utterances that are in both sets; rows (N, D) and (N, E) are L2-normalised."""

    ids: list[str]
    speaker_ids: list[str] | None
    first: Rows
    second: Rows


def compare_embeddings(
    first: StoredEmbeddings, second: StoredEmbeddings, *, num_bootstrap: int = 1000, seed: int = 0
) -> EmbeddingComparison:
    """Compares two sets of embeddings, such as those before and after fine-tuning.

    Args:
        first: A.
        second: B; an utterance is matched by its id, also where one of the two has a longer path or
            the one word that some formats make of it.
        num_bootstrap: draws of speakers for the intervals.
        seed: of these draws.

    Raises:
        UserError: no utterance is in both, or two of one set are one of the other.
    """
    places = _match(first, second)
    matched = [(row, place) for place, row in enumerate(places) if row is not None]
    rows, others = (list(side) for side in zip(*sorted(matched), strict=True))
    taken = set(rows)
    speakers, num_other = _speakers_of(first, second, rows, others)
    raw = first.embeddings[rows], second.embeddings[others]
    both = _Matched(
        [first.utterance_ids[row] for row in rows], speakers, _unit(raw[0]), _unit(raw[1])
    )
    turned = _rotated(both)
    is_same_size = both.first.shape == both.second.shape
    rates, reason = _error_rates(both, turned, num_bootstrap, seed)
    return EmbeddingComparison(
        first=_facts(first, raw[0]),
        second=_facts(second, raw[1]),
        num_matched=len(rows),
        only_first=[name for row, name in enumerate(first.utterance_ids) if row not in taken],
        only_second=[second.utterance_ids[p] for p, row in enumerate(places) if row is None],
        num_other_speakers=num_other,
        cosine=_cosines(both, both.first, both.second) if is_same_size else None,
        rotated=None if turned is None else _cosines(both, *turned),
        agreement=_agreement(both),
        error_rates=rates,
        why_no_error_rates=reason,
    )


def _match(first: StoredEmbeddings, second: StoredEmbeddings) -> list[int | None]:
    """For each utterance of the second set its row in the first."""
    places = find_rows(first, second.utterance_ids)
    name_of: dict[int, str] = {}
    for row, name in zip(places, second.utterance_ids, strict=True):
        if row is not None and row in name_of:
            raise UserError(
                f"{name_of[row]!r} and {name!r} of B would both be {first.utterance_ids[row]!r} of "
                "A. Export both in a format that keeps whole ids, such as parquet."
            )
        if row is not None:
            name_of[row] = name
    if not name_of:
        raise UserError(
            f"No utterance is in both: A has such as {first.utterance_ids[0]!r}, B such as "
            f"{second.utterance_ids[0]!r}. Give two exports of the same corpus."
        )
    return places


def _speakers_of(
    first: StoredEmbeddings, second: StoredEmbeddings, rows: list[int], others: list[int]
) -> tuple[list[str] | None, int]:
    """Who speaks in the matched utterances, and of how many the sets say different things."""
    found = [
        None if stored.speaker_ids is None else [stored.speaker_ids[place] for place in places]
        for stored, places in ((first, rows), (second, others))
    ]
    if found[0] is None or found[1] is None:
        return found[0] or found[1], 0
    return found[0], sum(a != b for a, b in zip(found[0], found[1], strict=True))


def _unit(embeddings: NDArray[np.float32]) -> Rows:
    rows = embeddings.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-150)


def _facts(stored: StoredEmbeddings, matched: NDArray[np.float32]) -> SetFacts:
    norms = np.linalg.norm(matched.astype(np.float64), axis=1)
    spread = (float(norms.mean()), float(norms.min()), float(norms.max()))
    return SetFacts(len(stored), stored.embeddings.shape[1], spread)


def _cosines(both: _Matched, first: Rows, second: Rows) -> CosineFacts:
    cosines = row_cosines(first, second)
    order = np.argsort(cosines, kind="stable")[:NUM_WORST]
    speakers: list[tuple[str, float, int]] = []
    if both.speaker_ids is not None:
        names, numbers = np.unique(both.speaker_ids, return_inverse=True)
        counts = np.bincount(numbers)
        means = np.bincount(numbers, weights=cosines) / counts
        worst = np.argsort(means, kind="stable")[:NUM_WORST]
        speakers = [(str(names[n]), float(means[n]), int(counts[n])) for n in worst]
    return CosineFacts(
        float(cosines.mean()),
        float(cosines.min()),
        [(both.ids[place], float(cosines[place])) for place in order],
        speakers,
    )


def _rotated(both: _Matched) -> tuple[Rows, Rows] | None:
    """A, and B under a rotation fitted on the other half; both of the larger dimension."""
    count = len(both.ids)
    if count < _LEAST_FOR_ROTATION:
        return None
    halves = np.arange(count) % 2
    if both.speaker_ids is not None and len(set(both.speaker_ids)) > 1:
        halves = np.unique(both.speaker_ids, return_inverse=True)[1] % 2
    dim = max(both.first.shape[1], both.second.shape[1])
    first, second = (
        np.pad(rows, ((0, 0), (0, dim - rows.shape[1]))) for rows in (both.first, both.second)
    )
    turned = np.empty_like(second)
    for half in (0, 1):
        own = halves == half
        turned[own] = second[own] @ fit_rotation(second[~own], first[~own])
    return first, turned


def _agreement(both: _Matched) -> Agreement | None:
    """Correlations of the cosines of all pairs of a sample."""
    from scipy.stats import rankdata

    count = min(len(both.ids), MAX_SAMPLE)
    if count < 3:
        return None
    chosen = np.arange(count) * len(both.ids) // count
    pairs = np.triu_indices(count, 1)
    cosines = [(rows[chosen] @ rows[chosen].T)[pairs] for rows in (both.first, both.second)]
    if min(values.std() for values in cosines) < 1e-12:
        return None
    ranks = [rankdata(values) for values in cosines]
    return Agreement(_correlation(*cosines), _correlation(*ranks), count)


def _correlation(first: Rows, second: Rows) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def _error_rates(
    both: _Matched, turned: tuple[Rows, Rows] | None, num_bootstrap: int, seed: int
) -> tuple[ErrorRates | None, str | None]:
    """EER of trials made of the matched utterances; or why not."""
    if both.speaker_ids is None:
        return None, "neither A nor B tells who speaks"
    utterances = [
        Utterance(name, speaker, None, name, 0, 1)
        for name, speaker in zip(both.ids, both.speaker_ids, strict=True)
    ]
    sides: list[tuple[Rows, Rows]] = [(both.first, both.first), (both.second, both.second)]
    is_same_size = both.first.shape == both.second.shape
    sides += [(both.first, both.second)] if is_same_size else []
    sides += [turned] if turned is not None else []
    try:
        trials = make_trials(utterances, seed=seed)
        rates = cross_space_rates(
            sides, trials, both.speaker_ids, num_bootstrap=num_bootstrap, seed=seed
        )
    except UserError as error:
        return None, str(error)
    assert trials.labels is not None
    num_targets = int(trials.labels.sum())
    return (
        ErrorRates(
            rates[0],
            rates[1],
            rates[2] if is_same_size else None,
            rates[-1] if turned is not None else None,
            len(set(both.speaker_ids)),
            num_targets,
            len(trials) - num_targets,
        ),
        None,
    )

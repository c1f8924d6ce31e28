"""What follows the plain scores: normalisation against a cohort, and calibration."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.audio_finder import scan_corpus_or_list
from speaker_encoder.verification.embedding import UtteranceVectors
from speaker_encoder.verification.evaluation_options import NORMS, EvaluationOptions
from speaker_encoder.verification.protocols import score_vectors
from speaker_encoder.verification.scoring_run import Evaluation, ScoredSystem
from speaker_encoder.verification.sources import read_embeddings
from speaker_encoder.verification.systems import EmbeddingSource, StoredSource, find_rows
from speaker_encoder.verification.trial_data import TrialData, load_list
from speaker_encoder.verification.trials import Trials

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cohort:
    """Utterances of other speakers.

    Attributes:
        names: as paths below their corpus.
        paths: of their audio.
        speaker_ids: of each.
    """

    names: list[str]
    paths: list[str]
    speaker_ids: list[str]


def load_calibration(options: EvaluationOptions, data: TrialData) -> TrialData:
    """The calibration trials.

    Raises:
        UserError: they have no labels, or some of them are among the trials to measure.
    """
    from speaker_encoder.verification.calibration import refuse_same_trials

    assert options.calibration_trials is not None
    root = options.calibration_root or options.data_root
    found = load_list(options.calibration_trials, root, needs_audio=bool(options.models))
    if found.trials.labels is None:
        raise UserError(f"{options.calibration_trials} has no labels; calibration needs them.")
    refuse_same_trials(_pairs(found), _pairs(data))
    return found


def _pairs(data: TrialData) -> list[tuple[str, str]]:
    """The two sides of each trial, as files where there are such."""
    names = data.names if data.paths is None else [os.path.realpath(path) for path in data.paths]
    names = [os.path.normpath(name) for name in names]
    pairs = zip(data.trials.enrolment.tolist(), data.trials.test.tolist(), strict=True)
    return [(names[a], names[b]) for a, b in pairs]


def _refuse_same_rows(source: StoredSource, calibration: TrialData, data: TrialData) -> None:
    """The same check by the rows of an export, in which two names may be one utterance.

    Raises:
        UserError: a calibration trial is among the trials to measure.
    """
    from speaker_encoder.verification.calibration import refuse_same_trials

    pairs = []
    for part in (calibration, data):
        rows = find_rows(source.stored, part.names)
        ids = [None if row is None else source.stored.utterance_ids[row] for row in rows]
        words = [known or name for known, name in zip(ids, part.names, strict=True)]
        sides = zip(part.trials.enrolment.tolist(), part.trials.test.tolist(), strict=True)
        pairs.append([(words[a], words[b]) for a, b in sides])
    refuse_same_trials(*pairs)


def load_cohort(options: EvaluationOptions) -> Cohort:
    """The utterances of the cohort.

    Raises:
        UserError: there is no such corpus or list.
    """
    assert options.cohort is not None
    corpus = scan_corpus_or_list(options.cohort, options.data_root)
    return Cohort(
        [os.path.relpath(utterance.path, corpus.root) for utterance in corpus.utterances],
        [utterance.path for utterance in corpus.utterances],
        [utterance.speaker_id for utterance in corpus.utterances],
    )


def add_stages(
    evaluation: Evaluation, source: EmbeddingSource, utterances: UtteranceVectors
) -> None:
    """Adds the normalised and the calibrated scores of a source to an evaluation.

    Raises:
        UserError: the cohort or the calibration trials cannot be used.
    """
    options, data = evaluation.options, evaluation.data
    plain = evaluation.systems[-1]
    cohort: NDArray[Any] | None = None
    calibration = evaluation.calibration
    current = plain
    if options.norm is not None:
        cohort, about = _cohort_rows(evaluation, source)
        scores, top_k = _normalise(options, utterances, data.trials, plain.scores, cohort)
        about["top_k"] = top_k if options.norm == "as" else None
        current = ScoredSystem(
            f"{plain.name} + {NORMS[options.norm]}",
            scores,
            {**plain.description, "normalisation": about},
        )
        evaluation.systems.append(current)
    if calibration is None:
        return
    if isinstance(source, StoredSource):
        _refuse_same_rows(source, calibration, data)
    others = source.embed(calibration.names, calibration.paths, calibration.label)
    other_scores = score_vectors(others.vectors, calibration.trials, options.score)
    if cohort is not None:
        other_scores, _ = _normalise(options, others, calibration.trials, other_scores, cohort)
    scores, fitted = _calibrate(
        options,
        (other_scores, calibration.trials, others),
        (current.scores, data.trials, utterances),
    )
    description = {
        **current.description,
        "calibration": {"trials": options.calibration_trials, **fitted},
    }
    name = f"{current.name} + calibration"
    evaluation.systems.append(ScoredSystem(name, scores, description, is_calibrated=True))


def _cohort_rows(
    evaluation: Evaluation, source: EmbeddingSource
) -> tuple[NDArray[Any], dict[str, Any]]:
    """(C, D) embeddings of the cohort, and what to say of it."""
    from speaker_encoder.verification.normalisation import cohort_means

    options = evaluation.options
    assert options.norm is not None and options.cohort is not None
    rows: NDArray[Any]
    speaker_ids: list[str] | None
    if isinstance(source, StoredSource) and _is_export(options.cohort):
        stored = read_embeddings(options.cohort)
        rows, speaker_ids = stored.embeddings, stored.speaker_ids
        shared = set(stored.utterance_ids) & {os.path.splitext(n)[0] for n in evaluation.data.names}
    else:
        if evaluation.cohort is None:
            evaluation.cohort = load_cohort(options)
        found = evaluation.cohort
        speaker_ids = found.speaker_ids
        rows = source.embed(found.names, found.paths, lambda index: found.names[index]).means()
        tested = {os.path.realpath(path) for path in evaluation.data.paths or ()}
        shared = {path for path in map(os.path.realpath, found.paths) if path in tested}
        if isinstance(source, StoredSource):
            in_trials = set(find_rows(source.stored, evaluation.data.names)) - {None}
            rows_of = zip(found.names, find_rows(source.stored, found.names), strict=True)
            shared |= {name for name, row in rows_of if row in in_trials}
    if shared:
        _logger.warning(
            "%d utterances of the cohort are in the trials too, such as %s; a cohort should hold "
            "other speakers", len(shared), min(shared),
        )  # fmt: skip
    num_utterances = len(rows)
    if options.cohort_by == "speakers":
        if speaker_ids is None:
            raise UserError(f"--cohort {options.cohort} does not tell who speaks.")
        rows = cohort_means(rows, speaker_ids)
    about = {
        "kind": NORMS[options.norm],
        "cohort": options.cohort,
        "cohort_by": options.cohort_by,
        "num_utterances": num_utterances,
        "num_entries": len(rows),
        "num_shared_with_trials": len(shared),
    }
    return rows, about


def _is_export(path: str) -> bool:
    try:
        read_embeddings(path)
    except UserError:
        return False
    return True


def _normalise(
    options: EvaluationOptions,
    utterances: UtteranceVectors,
    trials: Trials,
    scores: NDArray[np.float64],
    cohort: NDArray[Any],
) -> tuple[NDArray[np.float64], int]:
    from speaker_encoder.verification.normalisation import ScoreNormaliser

    kind: Any = options.norm
    score: Any = options.score
    normaliser = ScoreNormaliser(utterances.means(), cohort, kind, options.top_k, score=score)
    return normaliser.apply(scores, trials), normaliser.top_k


def _calibrate(
    options: EvaluationOptions,
    fit: tuple[NDArray[np.float64], Trials, UtteranceVectors],
    measured: tuple[NDArray[np.float64], Trials, UtteranceVectors],
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """The log-likelihood ratios of the measured trials, and what was fitted."""
    from speaker_encoder.verification.calibration import fit_calibration, trial_qualities

    qualities = []
    for _, trials, utterances in (fit, measured):
        found: dict[str, NDArray[np.float64]] = {}
        if options.use_quality:
            found = trial_qualities(trials, utterances.seconds, utterances.norms)
            if not found:
                raise UserError(
                    "--quality uses durations and embedding norms, which these exported "
                    "embeddings do not have. Leave it out, or give --model."
                )
        qualities.append(found)
    scores, trials, _ = fit
    assert trials.labels is not None
    calibration = fit_calibration(scores, trials.labels, qualities[0])
    return calibration.apply(measured[0], qualities[1]), {
        "num_trials": len(trials),
        **calibration.as_dict(),
    }

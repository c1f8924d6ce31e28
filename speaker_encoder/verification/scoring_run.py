"""An evaluation: trials, embeddings, scores, figures."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.evaluation_options import EvaluationOptions
from speaker_encoder.verification.protocols import Protocol, score_vectors
from speaker_encoder.verification.speaker_table import SpeakerTable, read_speaker_table
from speaker_encoder.verification.systems import (
    EmbeddingSource,
    EncoderSource,
    StoredSource,
    split_name,
)
from speaker_encoder.verification.trial_data import (
    TrialData,
    check_trial_data,
    describe_utterances,
    load_list,
    make_data,
)
from speaker_encoder.verification.trial_files import read_trial_file

if TYPE_CHECKING:
    from speaker_encoder.verification.stages import Cohort

_logger = logging.getLogger(__name__)


@dataclass
class ScoredSystem:
    """The scores of one system on the trials.

    Attributes:
        name: unique in its evaluation.
        scores: (N,) float64.
        description: of the model, the normalisation and the calibration.
        is_calibrated: the scores are log-likelihood ratios.
    """

    name: str
    scores: NDArray[np.float64]
    description: dict[str, Any] = field(default_factory=dict)
    is_calibrated: bool = False


@dataclass
class Evaluation:
    """Scored trials.

    Attributes:
        options: what was asked for.
        data: the trials.
        systems: one or more; the scores of a model before and after normalisation and calibration
            are systems of their own.
        seconds: (U,) lengths of the utterances, where they are known.
        calibration: the trials to calibrate on.
        cohort: for score normalisation, once it is known.
    """

    options: EvaluationOptions
    data: TrialData
    systems: list[ScoredSystem]
    seconds: NDArray[np.float64] | None = None
    calibration: TrialData | None = None
    cohort: Cohort | None = None


def run_evaluation(options: EvaluationOptions) -> Evaluation:
    """Scores the trials with every system.

    Raises:
        UserError: something that the user must change.
    """
    options.check()
    table = read_speaker_table(options.speaker_table) if options.speaker_table else None
    if options.scores:
        return read_scores(options, table)
    stored = [StoredSource(path) for path in options.embeddings]
    data = _load_trials(options, table, stored)
    check_trial_data(data)
    evaluation = Evaluation(options, data, [])
    if options.calibration_trials is not None:
        from speaker_encoder.verification.stages import load_calibration

        evaluation.calibration = load_calibration(options, data)
    for path in stored:
        _score_system(evaluation, path)
    for name in options.models:
        source = EncoderSource(
            name, device=options.model_device, protocol=Protocol.parse(options.protocol),
            batch_size=options.batch_size, use_cache=options.use_cache,
            show_progress=options.show_progress,
        )  # fmt: skip
        _score_system(evaluation, source)
    _make_names_unique(evaluation.systems)
    return evaluation


def _load_trials(
    options: EvaluationOptions, table: SpeakerTable | None, stored: Sequence[StoredSource]
) -> TrialData:
    needs_audio = bool(options.models)
    if options.trials is not None:
        return load_list(options.trials, options.data_root, table, needs_audio=needs_audio)
    if options.data_root is not None:
        return make_data(
            options.data_root, table, max_trials=options.max_trials, seed=options.seed,
            is_hard=options.is_hard,
        )  # fmt: skip
    return _trials_of_stored(options, stored[0])


def _trials_of_stored(options: EvaluationOptions, source: StoredSource) -> TrialData:
    """All pairs, or a sample of them, of embeddings that tell their speakers."""
    from speaker_encoder.corpora import Utterance
    from speaker_encoder.verification.trials import make_trials

    stored = source.stored
    if stored.speaker_ids is None:
        raise UserError(
            f"{source.name} does not tell who speaks. Give --trials, or --data_root of the corpus."
        )
    if options.is_hard:
        raise UserError("--hard needs --data_root of the corpus.")
    utterances = [
        Utterance(utterance_id, speaker_id, None, utterance_id, 0, 1)
        for utterance_id, speaker_id in zip(stored.utterance_ids, stored.speaker_ids, strict=True)
    ]
    trials = make_trials(utterances, max_trials=options.max_trials, seed=options.seed)
    unknown: list[str | None] = [None] * len(utterances)
    text = f"pairs of {source.name} (at most {options.max_trials}, seed {options.seed})"
    return TrialData(
        text, stored.utterance_ids, trials, None, list(stored.speaker_ids), "the export",
        unknown, list(unknown),
    )  # fmt: skip


def _score_system(evaluation: Evaluation, source: EmbeddingSource) -> None:
    """Adds the scores of a source, and the normalised and calibrated ones."""
    options, data = evaluation.options, evaluation.data
    start = time.perf_counter()
    utterances = source.embed(data.names, data.paths, data.label)
    embedded = time.perf_counter()
    scores = score_vectors(utterances.vectors, data.trials, options.score)
    scored = time.perf_counter()
    if evaluation.seconds is None:
        evaluation.seconds = utterances.seconds
    description = {
        **source.describe(),
        "protocol": options.protocol,
        "score": options.score,
        "num_embedded_now": utterances.num_computed,
        "embedding_seconds": round(embedded - start, 3),
        "scoring_seconds": round(scored - embedded, 3),
    }
    _logger.info(
        "%s: %d utterances, %d of them embedded now, in %.1f s; %d trials scored in %.1f s",
        source.name, len(data.names), utterances.num_computed, embedded - start,
        len(data.trials), scored - embedded,
    )  # fmt: skip
    evaluation.systems.append(ScoredSystem(source.name, scores, description))
    if options.norm is not None or options.calibration_trials is not None:
        from speaker_encoder.verification.stages import add_stages

        add_stages(evaluation, source, utterances)


def _make_names_unique(systems: Sequence[ScoredSystem]) -> None:
    taken: set[str] = set()
    for system in systems:
        name, number = system.name, 2
        while system.name in taken:
            system.name = f"{name} ({number})"
            number += 1
        taken.add(system.name)


def read_scores(options: EvaluationOptions, table: SpeakerTable | None) -> Evaluation:
    """An evaluation of score files; several must be of the same trials.

    Raises:
        UserError: a file cannot be read, or the trials differ.
    """
    places = [split_name(text) for text in options.scores]
    files = [read_trial_file(path, is_scores=True) for _, path in places]
    first = files[0]
    for other in files[1:]:
        is_same = other.names == first.names and all(
            np.array_equal(a, b)
            for a, b in (
                (other.trials.enrolment, first.trials.enrolment),
                (other.trials.test, first.trials.test),
            )
        )
        if not is_same:
            raise UserError(
                f"{first.path} and {other.path} are not of the same trials in one order."
            )
    for other in files[1:]:
        ours, theirs = first.trials.labels, other.trials.labels
        is_same = ours is theirs if ours is None or theirs is None else np.array_equal(ours, theirs)
        if not is_same:
            raise UserError(f"{first.path} and {other.path} do not have the same labels.")
    data = TrialData(
        ", ".join(path for _, path in places), first.names, first.trials, list_file=first
    )
    describe_utterances(data, table)
    check_trial_data(data)
    systems = []
    for (name, path), found in zip(places, files, strict=True):
        assert found.scores is not None
        systems.append(ScoredSystem(name, found.scores, {"scores": path}))
    _make_names_unique(systems)
    return Evaluation(options, data, systems)

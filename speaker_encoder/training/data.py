"""The corpora of a run, scanned, checked against each other and against the config."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speaker_encoder.corpora import Corpus, Utterance, build_demo_corpus, scan
from speaker_encoder.errors import UserError
from speaker_encoder.training.sampler import choose_speakers, group_by_speaker
from speaker_encoder.training.selection import cap_speakers, perturb_speed
from speaker_encoder.verification import Trials, make_trials, read_trials

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

DEMO = "demo"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """The utterances of training or validation, and what batches are drawn from.

    Attributes:
        name: "training" or "validation".
        corpus: all that was found.
        utterances: those that are used.
        speakers: utterance indices by speaker.
        groups: what a batch has P of: the speakers, or for views every utterance by itself; a
            label is the number of a group.
    """

    name: str
    corpus: Corpus
    utterances: tuple[Utterance, ...]
    speakers: dict[str, list[int]]
    groups: dict[str, list[int]]

    def __str__(self) -> str:
        found = f"{self.name}: {self.corpus.summary()}"
        if len(self.utterances) == len(self.corpus.utterances):
            return found
        hours = sum(utterance.seconds for utterance in self.utterances) / 3600
        used = (
            f"{len(self.speakers)} speakers, {len(self.utterances)} utterances, {hours:.2f} hours"
        )
        speeds = {utterance.speed for utterance in self.utterances} - {1.0}
        if speeds:
            listed = ", ".join(f"{speed:g}" for speed in sorted(speeds))
            return f"{found}\n  used, with speeds {listed} as new speakers: {used}"
        return f"{found}\n  of these are used: {used}"


@dataclass(frozen=True)
class RunData:
    """All data of a run; `trials` refer to the utterances of `validation`."""

    training: Split
    validation: Split | None
    trials: Trials | None


def load_data(config: TrainConfig) -> RunData:
    """Scans what the config names and checks that a run with it is possible.

    Raises:
        UserError: nothing usable was found, a batch cannot be made, a speaker is in both splits,
            or the trials do not fit.
    """
    train_root, val_root = _roots(config)
    corpus = _scan(config, train_root, config.train_list)
    training = _make_split(config, "training", corpus, corpus.utterances)
    validation, trials = None, None
    if val_root is not None:
        corpus = _scan(config, val_root, config.val_list)
        utterances = corpus.utterances
        if config.val_trials:
            utterances, trials = _read_trials(config.val_trials, utterances, val_root)
        validation = _make_split(config, "validation", corpus, utterances)
        if trials is None:
            trials = make_trials(
                validation.utterances, max_trials=config.val_max_trials, seed=config.seed
            )
        _check_trials(trials)
        if not config.allow_speaker_overlap:
            _check_overlap(training, validation)
    return RunData(training, validation, trials)


def _roots(config: TrainConfig) -> tuple[str, str | None]:
    """Gives the training and validation roots; the demo corpus is built when it is asked for."""
    train_root, val_root = config.train_data_root, config.val_data_root
    if DEMO in (train_root, val_root):
        try:
            demo = build_demo_corpus(config.cache_dir)
        except OSError as error:
            raise UserError(
                f"The demo corpus cannot be kept: {error}. Set cache_dir to a folder that can be "
                "written to."
            ) from error
        _logger.info("demo corpus of synthetic voices, a demonstration only: %s", demo.train_root)
        train_root = str(demo.train_root) if train_root == DEMO else train_root
        val_root = str(demo.val_root) if val_root == DEMO else val_root
    return train_root, val_root


def _scan(config: TrainConfig, root: str, list_path: str | None) -> Corpus:
    corpus = scan(
        root,
        config.layout if not list_path else "list",
        list_path=list_path,
        multi_rec_session=config.multi_rec_session,
        cache_dir=config.cache_dir,
    )
    for excluded in corpus.excluded:
        _logger.debug("left out: %s: %s", excluded.path, excluded.reason)
    return corpus


def _make_split(
    config: TrainConfig, name: str, corpus: Corpus, utterances: Sequence[Utterance]
) -> Split:
    """Leaves out utterances that are too short, and chooses the speakers of batches."""
    least = config.min_utterance_seconds
    if config.val_trials and name == "validation":
        least = 0.0  # the list says which
    kept = tuple(utterance for utterance in utterances if utterance.seconds >= least)
    short = [utterance for utterance in utterances if utterance.seconds < least]
    if short:
        shown = ", ".join(f"{u.path} ({u.seconds:.3f} s)" for u in short[:5])
        _logger.info(
            "%s: %d utterances shorter than min_utterance_seconds %g left out: %s%s",
            *(name, len(short), least, shown, ", ..." if len(short) > 5 else ""),
        )
        for utterance in short:
            _logger.debug("left out: %s: %.3f s long", utterance.path, utterance.seconds)
    is_training = name == "training"
    if is_training:
        least_utterances = config.utterances_per_speaker if config.few_utterances == "drop" else 1
        kept = cap_speakers(kept, config.max_speakers, least_utterances, config.seed)
        kept = perturb_speed(kept, config.speed_perturbation)
        if config.views != "speaker":
            return _split_of_views(name, corpus, kept, config.speakers_per_batch)
    speakers = choose_speakers(
        kept,
        config.speakers_per_batch if is_training else config.val_speakers_per_batch,
        config.utterances_per_speaker if is_training else config.val_utterances_per_speaker,
        config.few_utterances if is_training else "repeat",
        name,
    )
    return Split(name, corpus, kept, speakers, groups=speakers)


def _split_of_views(
    name: str, corpus: Corpus, utterances: tuple[Utterance, ...], num_utterances: int
) -> Split:
    """Gives a split whose batches are made of single utterances.

    Raises:
        UserError: there are fewer than a batch needs.
    """
    if len(utterances) < num_utterances:
        raise UserError(
            f"A {name} batch needs {num_utterances} different utterances, found "
            f"{len(utterances)}. Add recordings, or lower speakers_per_batch."
        )
    groups = {utterance.utterance_id: [place] for place, utterance in enumerate(utterances)}
    return Split(name, corpus, utterances, group_by_speaker(utterances), groups)


def _read_trials(
    path: str, utterances: Sequence[Utterance], root: str
) -> tuple[tuple[Utterance, ...], Trials]:
    """Reads a trial list; gives the utterances that it names, and trials over these.

    Its paths are relative to the data root, or to the nearest folder above it in which the first
    of them exists.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        first = next((line.split() for line in file if line.strip()), [])
    base = Path(root)
    for folder in (base, *base.resolve().parents):
        if len(first) >= 2 and (folder / first[1]).is_file():
            base = folder
            break
    trials = read_trials(path, utterances, base)
    if trials.labels is None:
        raise UserError(f"val_trials: {path} has no labels. Each line is `label path1 path2`.")
    used, inverse = np.unique(np.concatenate([trials.enrolment, trials.test]), return_inverse=True)
    count = len(trials.enrolment)
    renumbered = replace(trials, enrolment=inverse[:count], test=inverse[count:])
    return tuple(utterances[index] for index in used), renumbered


def _check_trials(trials: Trials) -> None:
    assert trials.labels is not None
    num_targets = int(np.sum(trials.labels))
    if num_targets == 0 or num_targets == len(trials.labels):
        kind = "target" if num_targets == 0 else "nontarget"
        raise UserError(
            f"The validation data gives no {kind} trial. EER needs at least two speakers, and two "
            "utterances of one speaker (of different sessions, where sessions are known)."
        )


def _check_overlap(training: Split, validation: Split) -> None:
    known = {utterance.speaker_id for utterance in training.utterances}
    both = sorted({utterance.speaker_id for utterance in validation.utterances} & known)
    if both:
        shown = ", ".join(both[:20]) + (f" and {len(both) - 20} more" if len(both) > 20 else "")
        raise UserError(
            f"{len(both)} speakers are in both training and validation data: {shown}. Validation "
            "speakers must be unseen: take them out of one, or set allow_speaker_overlap to true."
        )

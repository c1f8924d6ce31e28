"""The trials of a run: read from a list or made of a corpus, and checked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speaker_encoder.corpora import Utterance, scan
from speaker_encoder.errors import UserError
from speaker_encoder.verification import Trials, make_trials, read_trials

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """Speech on which the model must not get worse; `trials` refer to the utterances."""

    utterances: tuple[Utterance, ...]
    trials: Trials

    def __str__(self) -> str:
        speakers = {utterance.speaker_id for utterance in self.utterances}
        num_targets = int(np.sum(np.asarray(self.trials.labels)))
        return (
            f"reference: {len(speakers)} speakers, {len(self.utterances)} utterances; trials: "
            f"{num_targets} target, {len(self.trials) - num_targets} nontarget"
        )


def load_reference(config: TrainConfig) -> Reference | None:
    """Gives the reference trials; the corpus may lie in another layout than the others.

    Args:
        config: of the run; without `reference_data_root` there are none.

    Raises:
        UserError: the corpus or the list cannot be read, or there are not both kinds of trials.
    """
    root = config.reference_data_root
    if root is None:
        return None
    listed = config.reference_list
    corpus = scan(root, "list" if listed else "auto", list_path=listed, cache_dir=config.cache_dir)
    for excluded in corpus.excluded:
        _logger.debug("left out: %s: %s", excluded.path, excluded.reason)
    if config.reference_trials:
        utterances, trials = read_labelled_trials(
            config.reference_trials, corpus.utterances, root, "reference_trials"
        )
    else:
        least = config.min_utterance_seconds
        utterances = tuple(one for one in corpus.utterances if one.seconds >= least)
        trials = make_trials(utterances, max_trials=config.val_max_trials, seed=config.seed)
    check_trials(trials, "reference")
    return Reference(utterances, trials)


def read_labelled_trials(
    path: str, utterances: Sequence[Utterance], root: str, key: str
) -> tuple[tuple[Utterance, ...], Trials]:
    """Reads a trial list; gives the utterances that it names, and trials over these.

    Its paths are relative to the data root, or to the nearest folder above it in which the first
    of them exists.

    Args:
        path: of the list.
        utterances: of the corpus.
        root: of the corpus.
        key: of the config, that the list is the value of.

    Raises:
        UserError: the list cannot be read, has no labels, or names what is not of the corpus.
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
        raise UserError(f"{key}: {path} has no labels. Each line is `label path1 path2`.")
    used, inverse = np.unique(np.concatenate([trials.enrolment, trials.test]), return_inverse=True)
    count = len(trials.enrolment)
    renumbered = replace(trials, enrolment=inverse[:count], test=inverse[count:])
    return tuple(utterances[index] for index in used), renumbered


def check_trials(trials: Trials, name: str) -> None:
    """Checks that there are trials of both kinds.

    Args:
        trials: with labels.
        name: "validation" or "reference".

    Raises:
        UserError: there is no target, or no nontarget trial.
    """
    assert trials.labels is not None
    num_targets = int(np.sum(trials.labels))
    if num_targets == 0 or num_targets == len(trials.labels):
        kind = "target" if num_targets == 0 else "nontarget"
        raise UserError(
            f"The {name} data gives no {kind} trial. EER needs at least two speakers, and two "
            "utterances of one speaker (of different sessions, where sessions are known)."
        )

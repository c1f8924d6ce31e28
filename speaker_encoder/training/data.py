"""The corpora of a run, scanned, checked against each other and against the config."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from speaker_encoder.corpora import Corpus, Utterance, build_demo_corpus, scan
from speaker_encoder.errors import UserError
from speaker_encoder.training.distributed import gather_dict, num_processes, process_rank
from speaker_encoder.training.replay import num_replay_speakers, with_replay
from speaker_encoder.training.run_trials import (
    Reference,
    check_trials,
    load_reference,
    read_labelled_trials,
)
from speaker_encoder.training.sampler import choose_speakers, group_by_speaker
from speaker_encoder.training.selection import cap_speakers, perturb_speed
from speaker_encoder.verification import Trials, make_trials

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

DEMO = "demo"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """The utterances of training, replay or validation, and what batches are drawn from.

    Attributes:
        name: "training", "replay" or "validation".
        corpus: all that was found.
        utterances: those that are used.
        speakers: utterance indices by speaker.
        groups: what a batch has P of: the speakers, or for views every utterance by itself; a
            label is the number of a group.
        replayed: which groups are of the replay corpus, where the split is of two corpora.
    """

    name: str
    corpus: Corpus
    utterances: tuple[Utterance, ...]
    speakers: dict[str, list[int]]
    groups: dict[str, list[int]]
    replayed: frozenset[str] = frozenset()

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
    reference: Reference | None = None
    replay: Split | None = None

    def batches_from(self) -> Split:
        """Gives what training batches are made of: the training and the replay corpus.

        Raises:
            UserError: a speaker is in both.
        """
        return with_replay(self.training, self.replay)

    def digest(self) -> str:
        """Tells corpora apart: a hash of who speaks which utterance, in all splits."""
        digest = hashlib.sha256()
        for split in (self.training, self.replay, self.validation, self.reference):
            for utterance in split.utterances if split is not None else ():
                row = f"{utterance.utterance_id}\0{utterance.speaker_id}\0"
                digest.update(row.encode("utf-8", "surrogateescape"))
            digest.update(b"\n")
        return digest.hexdigest()


def check_same_data(data: RunData) -> str:
    """Compares what the processes of a run found; a collective call when there are several.

    Returns:
        The digest of the data.

    Raises:
        UserError: a process found something else, by which its labels would be other ones.
    """
    own = data.digest()
    found = f"on {socket.gethostname()} found {len(data.training.utterances)} training utterances"
    found += f" of {len(data.training.speakers)} speakers"
    parts = gather_dict({str(process_rank()): f"{own} {found}"})
    first = parts["0"].partition(" ")
    for rank in range(num_processes()):
        digest, _, text = parts[str(rank)].partition(" ")
        if digest != first[0]:
            raise UserError(
                f"The processes do not see the same data: process {rank} {text}, process 0 "
                f"{first[2]} (or others of them, or other validation data). Give every machine the "
                "same files, and where a cache_dir is older than they are, another one."
            )
    return own


def scan_training(config: TrainConfig) -> Corpus:
    """Gives the training corpus, with all that was found of it.

    Raises:
        UserError: nothing usable was found.
    """
    return _scan(config, _roots(config)[0], config.train_list)


def load_data(config: TrainConfig, training_corpus: Corpus | None = None) -> RunData:
    """Scans what the config names and checks that a run with it is possible.

    Args:
        config: of the run.
        training_corpus: as `scan_training` gave it; None: it is scanned.

    Raises:
        UserError: nothing usable was found, a batch cannot be made, a speaker is in both splits,
            or the trials do not fit.
    """
    _, val_root = _roots(config)
    if DEMO in (config.train_data_root, config.val_data_root):
        _logger.info("demo corpus of synthetic voices, a demonstration only")
    corpus = training_corpus or scan_training(config)
    training = _make_split(config, "training", corpus, corpus.utterances)
    replay, batches_from = None, training
    if config.replay_data_root is not None:
        corpus = _scan(config, config.replay_data_root, config.replay_list)
        replay = _make_split(config, "replay", corpus, corpus.utterances)
        batches_from = with_replay(training, replay)
    validation, trials = None, None
    if val_root is not None:
        corpus = _scan(config, val_root, config.val_list)
        utterances = corpus.utterances
        if config.val_trials:
            utterances, trials = read_labelled_trials(
                config.val_trials, utterances, val_root, "val_trials"
            )
        validation = _make_split(config, "validation", corpus, utterances)
        if trials is None:
            trials = make_trials(
                validation.utterances, max_trials=config.val_max_trials, seed=config.seed
            )
        check_trials(trials, "validation")
        if not config.allow_speaker_overlap:
            _check_overlap(batches_from, validation.utterances, "validation")
    reference = load_reference(config)
    if reference is not None and not config.allow_speaker_overlap:
        _check_overlap(batches_from, reference.utterances, "reference")
    return RunData(training, validation, trials, reference, replay)


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
    if name == "training":
        least_utterances = config.utterances_per_speaker if config.few_utterances == "drop" else 1
        kept = cap_speakers(kept, config.max_speakers, least_utterances, config.seed)
        kept = perturb_speed(kept, config.speed_perturbation)
    num_replayed = num_replay_speakers(vars(config))
    sizes = {
        "training": config.speakers_per_batch - num_replayed,
        "replay": num_replayed,
        "validation": config.val_speakers_per_batch,
    }
    is_training = name != "validation"
    if is_training and config.views != "speaker":
        return _split_of_views(name, corpus, kept, sizes[name])
    speakers = choose_speakers(
        kept,
        sizes[name],
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


def _check_overlap(training: Split, others: Sequence[Utterance], name: str) -> None:
    known = {utterance.speaker_id for utterance in training.utterances}
    both = sorted({utterance.speaker_id for utterance in others} & known)
    if both:
        shown = ", ".join(both[:20]) + (f" and {len(both) - 20} more" if len(both) > 20 else "")
        namesakes = (
            " Where they are other people of the same name, such as numbers of two corpora, give "
            "reference_list, with lines `speaker path` and other names."
        )
        raise UserError(
            f"{len(both)} speakers are in both training and {name} data: {shown}. {name.title()} "
            "speakers must be unseen: take them out of one, or set allow_speaker_overlap to true."
            f"{namesakes if name == 'reference' else ''}"
        )

"""What is wrong with a trial list: files, duplicates, self-trials, speakers of the training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.corpora import Corpus
from speaker_encoder.verification.audio_finder import (
    AudioFinder,
    kaldi_speakers,
    scan_corpus_or_list,
)
from speaker_encoder.verification.speaker_table import SpeakerTable
from speaker_encoder.verification.trial_data import TrialData, describe_utterances
from speaker_encoder.verification.trial_files import parse_trial_file
from speaker_encoder.verification.trials import Trials

_MAX_SHOWN = 10
KINDS = {
    "unusable": "lines that are no trials",
    "missing": "lines that name files that are not there",
    "contradictory": "lines whose label differs from that of the same pair before",
    "duplicate": "lines with the same pair as one before",
    "self_trial": "lines that compare an utterance with itself",
    "training_utterance": "lines with an utterance that is in the training list",
    "training_speaker": "lines with a speaker who is in the training list",
}
"""Kind of finding -> what it is, for people."""


@dataclass
class TrialCheck:
    """What was found.

    Attributes:
        path: of the list.
        num_trials: lines that are trials.
        num_targets: of them; None for a list without labels.
        num_utterances: different ones.
        findings: kind of ``KINDS`` -> (line, what).
        training_speakers: those of the trials that are in the training list too.
        speakers_from: where the trials' speakers are known from.
    """

    path: Path
    num_trials: int
    num_targets: int | None
    num_utterances: int
    findings: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    training_speakers: list[str] = field(default_factory=list)
    speakers_from: str | None = None

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not any(self.findings.values())

    def as_dict(self) -> dict[str, object]:
        """Everything, for JSON."""
        return {
            "trials": str(self.path),
            "num_trials": self.num_trials,
            "num_targets": self.num_targets,
            "num_utterances": self.num_utterances,
            "speakers_from": self.speakers_from,
            "findings": {
                kind: [{"line": line, "what": what} for line, what in found]
                for kind, found in self.findings.items()
            },
            "training_speakers": self.training_speakers,
        }

    def __str__(self) -> str:
        targets = "without labels" if self.num_targets is None else f"{self.num_targets} targets"
        text = [
            f"{self.path}: {self.num_trials} trials ({targets}), {self.num_utterances} utterances"
        ]
        for kind, found in self.findings.items():
            if not found:
                continue
            text.append(f"{KINDS[kind]}: {len(found)}")
            text += [f"  line {line}: {what}" for line, what in found[:_MAX_SHOWN]]
            if len(found) > _MAX_SHOWN:
                text.append(f"  and {len(found) - _MAX_SHOWN} more")
        if self.training_speakers:
            shown = ", ".join(self.training_speakers[:_MAX_SHOWN])
            more = len(self.training_speakers) - _MAX_SHOWN
            text.append(
                f"speakers who are in the training list too: {len(self.training_speakers)} ({shown}"
                + (f" and {more} more)" if more > 0 else ")")
            )
        if self.is_clean:
            text.append("nothing is wrong with it")
        return "\n".join(text)


def check_trials(
    list_path: str | os.PathLike[str],
    data_root: str | os.PathLike[str] | None,
    *,
    training: str | os.PathLike[str] | None = None,
    training_root: str | os.PathLike[str] | None = None,
    speaker_table: SpeakerTable | None = None,
) -> TrialCheck:
    """Checks a trial list line by line.

    Args:
        list_path: the list.
        data_root: what its paths are relative to; None: the list's folder.
        training: a training list (``speaker path``) or the folder of a training corpus.
        training_root: what the paths of the training list are relative to; None: ``data_root``
            where its first file is there, else the list's folder.
        speaker_table: of the trials' speakers.

    Returns:
        What was found.

    Raises:
        UserError: the list cannot be read at all, or the training corpus cannot.
    """
    root = data_root if data_root is not None else Path(list_path).absolute().parent
    finder = AudioFinder(root, list_path)
    parsed, _ = parse_trial_file(list_path, is_known=finder.is_known)
    names = list(parsed.positions)
    enrolment = np.array(parsed.enrolment, dtype=np.int64)
    test = np.array(parsed.test, dtype=np.int64)
    lines = np.array(parsed.lines, dtype=np.int64)
    labels = None
    if parsed.labels and None not in parsed.labels:
        labels = np.array(parsed.labels, dtype=np.bool_)
    trials = Trials(enrolment, test, labels)
    num_targets = None if labels is None else int(labels.sum())
    check = TrialCheck(Path(list_path), len(trials), num_targets, len(names))
    check.findings = {kind: [] for kind in KINDS}
    check.findings["unusable"] = sorted(parsed.problems)
    paths = [finder.find(name) for name in names]
    is_missing = np.array([path is None for path in paths], dtype=np.bool_)
    check.findings["missing"] = _name_sides(trials, lines, is_missing, names, "there is no file")
    _find_repeats(check, trials, lines, names)
    if training is not None:
        data = TrialData(str(list_path), names, trials)
        describe_utterances(data, speaker_table, kaldi_speakers(root, list_path))
        check.speakers_from = data.speakers_from
        corpus = scan_corpus_or_list(training, training_root or data_root)
        _find_training(check, data, lines, paths, os.fspath(root), corpus)
    return check


def _name_sides(
    trials: Trials,
    lines: NDArray[np.int64],
    is_bad: NDArray[np.bool_],
    names: Sequence[str],
    what: str,
) -> list[tuple[int, str]]:
    """Lines with a bad utterance: ``what`` and the names of it."""
    found = []
    for trial in np.flatnonzero(is_bad[trials.enrolment] | is_bad[trials.test]):
        pair = dict.fromkeys((int(trials.enrolment[trial]), int(trials.test[trial])))
        bad = [repr(names[position]) for position in pair if is_bad[position]]
        found.append((int(lines[trial]), f"{what} {' and '.join(bad)}"))
    return found


def _find_repeats(
    check: TrialCheck, trials: Trials, lines: NDArray[np.int64], names: Sequence[str]
) -> None:
    seen: dict[tuple[int, int], int] = {}
    pairs = zip(trials.enrolment.tolist(), trials.test.tolist(), strict=True)
    for number, (a, b) in enumerate(pairs):
        if a == b:
            check.findings["self_trial"].append((int(lines[number]), names[a]))
        first = seen.setdefault((min(a, b), max(a, b)), number)
        if first == number:
            continue
        line = int(lines[number])
        if trials.labels is not None and trials.labels[number] != trials.labels[first]:
            kind = "target" if trials.labels[first] else "nontarget"
            check.findings["contradictory"].append((line, f"line {lines[first]} says {kind}"))
        else:
            check.findings["duplicate"].append((line, f"as line {lines[first]}"))


def _find_training(
    check: TrialCheck,
    data: TrialData,
    lines: NDArray[np.int64],
    paths: Sequence[str | None],
    root: str,
    corpus: Corpus,
) -> None:
    """Finds utterances and speakers of the trials in a training corpus.

    A speaker is the same by name, or when the speaker's folder holds training utterances too.
    """
    training_files = {os.path.realpath(utterance.path) for utterance in corpus.utterances}
    folders: set[str] = set()
    for path in training_files:
        while (path := os.path.dirname(path)) not in folders and path != "/":
            folders.add(path)
    is_utterance = np.array(
        [path is not None and os.path.realpath(path) in training_files for path in paths],
        dtype=np.bool_,
    )
    check.findings["training_utterance"] = _name_sides(
        data.trials, lines, is_utterance, data.names, "in training:"
    )
    speaker_ids = data.speaker_ids or [""] * len(data.names)
    shared = {
        speaker
        for speaker in set(speaker_ids)
        if speaker
        and (
            speaker in corpus.speakers
            or speaker.rsplit("/", 1)[-1] in corpus.speakers
            or (
                ("/" in speaker or data.speakers_from is not None)
                and os.path.realpath(os.path.join(root, speaker)) in folders
            )
        )
    }
    shared |= {s for s, known in zip(speaker_ids, is_utterance, strict=True) if known and s}
    # Wrong labels mislead who is taken for whom; folders that are called as a speaker do not.
    above = [
        [part for part in os.path.dirname(name).split("/") if part in corpus.speakers]
        for name in data.names
    ]
    shared.update(part for parts in above for part in parts)
    is_speaker = np.array(
        [
            speaker in shared or bool(parts)
            for speaker, parts in zip(speaker_ids, above, strict=True)
        ],
        dtype=np.bool_,
    )
    check.findings["training_speaker"] = _name_sides(
        data.trials, lines, is_speaker & ~is_utterance, data.names, "a training speaker's"
    )
    check.training_speakers = sorted(shared)

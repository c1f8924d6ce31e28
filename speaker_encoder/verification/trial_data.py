"""Trials with all that is known of their utterances: audio, speakers, sessions, sex."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from speaker_encoder.errors import UserError
from speaker_encoder.verification.audio_finder import AudioFinder, kaldi_speakers
from speaker_encoder.verification.speaker_table import (
    SpeakerTable,
    find_speaker_table,
)
from speaker_encoder.verification.trial_files import (
    FORMS,
    TrialFile,
    explain_lines,
    read_trial_file,
)
from speaker_encoder.verification.trials import Trials, make_trials


@dataclass
class TrialData:
    """Trials over U utterances.

    Attributes:
        source: where the trials come from, for people.
        names: U; as trial lists and score files write them.
        trials: N pairs of positions in ``names``.
        paths: U audio files; None where there are none to read.
        speaker_ids: U; None when they are not known.
        speakers_from: where they come from, for people.
        sessions: U; None for an utterance whose session is not known.
        sexes: U.
        list_file: the list; None for trials that were made.
        unreadable: audio files of the corpus that could not be opened, and why.
    """

    source: str
    names: list[str]
    trials: Trials
    paths: list[str] | None = None
    speaker_ids: list[str] | None = None
    speakers_from: str | None = None
    sessions: list[str | None] = field(default_factory=list)
    sexes: list[str | None] = field(default_factory=list)
    list_file: TrialFile | None = None
    unreadable: list[str] = field(default_factory=list)

    def label(self, position: int) -> str:
        """How an error names an utterance."""
        return self._labels[position]

    @cached_property
    def _labels(self) -> list[str]:
        if self.list_file is None:
            return self.names
        lines = self.list_file.first_lines()
        return [f"line {line}: {name}" for line, name in zip(lines, self.names, strict=True)]


def load_list(
    list_path: str | os.PathLike[str],
    data_root: str | os.PathLike[str] | None,
    speaker_table: SpeakerTable | None = None,
    *,
    needs_audio: bool = True,
) -> TrialData:
    """The trials of a list.

    Args:
        list_path: VoxCeleb's form, Kaldi's, or without labels.
        data_root: what the paths are relative to; None: the list's folder.
        speaker_table: of the speakers; None: what lies in ``data_root``.
        needs_audio: every utterance must have a file.

    Raises:
        UserError: lines that are no trials, or name files that are not there.
    """
    root = data_root if data_root is not None else Path(list_path).absolute().parent
    finder = AudioFinder(root, list_path)
    found = read_trial_file(list_path, is_known=finder.is_known if needs_audio else None)
    paths: list[str] | None = None
    if needs_audio:
        wanted = [finder.find(name) for name in found.names]
        missing = [i for i, path in enumerate(wanted) if path is None]
        if missing:
            first = found.first_lines()
            problems = [
                (int(first[i]), f"there is no file {found.names[i]!r} in {root}") for i in missing
            ]
            raise UserError(
                explain_lines(list_path, FORMS[found.form], problems)
                + "\n`speaker-encoder check-trials` lists all of them."
            )
        paths = [path for path in wanted if path is not None]
    data = TrialData(str(list_path), found.names, found.trials, paths, list_file=found)
    if speaker_table is None:
        speaker_table = find_speaker_table(root)
    describe_utterances(data, speaker_table, kaldi_speakers(root, list_path))
    return data


def make_data(
    data_root: str | os.PathLike[str],
    speaker_table: SpeakerTable | None = None,
    *,
    max_trials: int = 200_000,
    seed: int = 0,
    is_hard: bool = False,
) -> TrialData:
    """Trials of all pairs of a corpus, or a seeded sample of them.

    Args:
        data_root: the corpus.
        speaker_table: of the speakers; None: what lies in the corpus.
        max_trials: the most trials.
        seed: of the sample.
        is_hard: only nontarget pairs of the same sex.

    Raises:
        UserError: no trials are possible, or the sex of the speakers is not known.
    """
    from speaker_encoder.corpora import scan

    corpus = scan(data_root)
    root = corpus.root
    if speaker_table is None:
        speaker_table = find_speaker_table(root)
    utterances = corpus.utterances
    names = [os.path.relpath(utterance.path, root) for utterance in utterances]
    speaker_ids = [utterance.speaker_id for utterance in utterances]
    sexes: list[str | None] = [None] * len(names)
    if speaker_table is not None:
        by_path = [speaker_table.speakers.get(os.path.normpath(name)) for name in names]
        pairs = zip(speaker_ids, by_path, strict=True)
        sexes = [speaker_table.sex_of(known or speaker) for speaker, known in pairs]
    groups = None
    if is_hard:
        if not any(sexes):
            raise UserError(
                "--hard makes nontarget trials of speakers of the same sex, which is not known. "
                "Give --speaker_table with a column `speaker` and a column `sex`."
            )
        groups = [sex or "" for sex in sexes]
    if speaker_table is not None and speaker_table.sessions:
        told = speaker_table.sessions
        utterances = tuple(
            replace(utterance, session_id=told.get(os.path.normpath(name), utterance.session_id))
            for utterance, name in zip(utterances, names, strict=True)
        )
    trials = make_trials(utterances, max_trials=max_trials, seed=seed, groups=groups)
    kind = "same-sex nontarget pairs" if is_hard else "pairs of utterances"
    return TrialData(
        f"{kind} of {data_root} (at most {max_trials}, seed {seed})", names, trials,
        [utterance.path for utterance in utterances], speaker_ids, f"layout {corpus.layout}",
        [utterance.session_id for utterance in utterances], sexes,
        unreadable=[f"{f.path}: {f.reason}" for f in corpus.excluded if _is_unreadable(f.path)],
    )  # fmt: skip


def _is_unreadable(path: str) -> bool:
    from speaker_encoder.audio import AudioError, read_info

    try:
        read_info(path)
    except AudioError:
        return not os.path.isdir(path)
    return False


def describe_utterances(
    data: TrialData, table: SpeakerTable | None, speakers: dict[str, str] | None = None
) -> None:
    """Finds out who speaks, from a table, from ``utt2spk``, or from the labels."""
    names = [os.path.normpath(name) for name in data.names]
    data.sessions = [None] * len(names)
    by_path = [table.speakers.get(name) for name in names] if table is not None else []
    by_id = [(speakers or {}).get(name) for name in data.names]
    if by_path and None not in by_path:
        data.speaker_ids = [name for name in by_path if name is not None]
        data.speakers_from = "the speaker table"
        assert table is not None
        data.sessions = [table.sessions.get(name) for name in names]
    elif by_id and None not in by_id:
        data.speaker_ids = [name for name in by_id if name is not None]
        data.speakers_from = "utt2spk"
    elif data.trials.labels is not None:
        from speaker_encoder.verification.speakers import infer_speakers

        inferred = infer_speakers(data.trials, names)
        data.speaker_ids = inferred.speaker_ids
        data.speakers_from = {
            "folders": "the folders, which agree with every label",
            "target trials": "the target trials: what they connect is one speaker",
        }[inferred.source]
        if inferred.source == "folders":
            data.sessions = _sessions_of(names, inferred.speaker_ids)
    data.sexes = [None] * len(names)
    if table is not None and data.speaker_ids is not None:
        data.sexes = [table.sex_of(speaker) for speaker in data.speaker_ids]


def _sessions_of(names: Sequence[str], speaker_ids: Sequence[str]) -> list[str | None]:
    """The folder between the speaker's and the file, where there is just one, as in VoxCeleb."""
    between = [
        os.path.dirname(name)[len(speaker) :].strip("/")
        for name, speaker in zip(names, speaker_ids, strict=True)
    ]
    return [folder if folder and "/" not in folder else None for folder in between]


def check_trial_data(data: TrialData) -> None:
    """Checks that there are both kinds of trials, and that speakers of a table fit the labels.

    Raises:
        UserError: they are not, or do not.
    """
    labels, speakers = data.trials.labels, data.speaker_ids
    if labels is not None and len(np.unique(labels)) < 2:
        found, other = ("target", "nontarget") if labels[0] else ("nontarget", "target")
        raise UserError(
            f"{data.source} has {len(labels)} {found} trials and no {other} trials; error rates "
            "need both. For scores alone, leave the labels out."
        )
    if labels is None or speakers is None or data.list_file is None:
        return
    _, numbers = np.unique(speakers, return_inverse=True)
    same = numbers[data.trials.enrolment] == numbers[data.trials.test]
    wrong = np.flatnonzero(same != labels)
    if not len(wrong) or data.speakers_from not in ("the speaker table", "utt2spk"):
        return
    problems = []
    for trial in wrong:
        first, second = (
            speakers[data.trials.enrolment[trial]],
            speakers[data.trials.test[trial]],
        )
        kind = "target" if labels[trial] else "nontarget"
        problems.append(
            (int(data.list_file.lines[trial]), f"{kind}, but the speakers are {first} and {second}")
        )
    raise UserError(
        f"The labels and {data.speakers_from} disagree. "
        + explain_lines(data.source, FORMS[data.list_file.form], problems)
    )

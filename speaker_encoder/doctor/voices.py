"""What an encoder hears: utterances of another speaker, and one person under two names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio import resampled_num_samples
from speaker_encoder.doctor.findings import Finding
from speaker_encoder.doctor.recordings import Recordings, speaker_text
from speaker_encoder.doctor.same_person import SamePerson, find_same_persons
from speaker_encoder.doctor.wrong_speaker import WrongSpeakers, find_wrong_speakers

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder


@dataclass
class Voices:
    """What the voices say.

    Attributes:
        findings: wrong speakers, same persons, voices that are in the evaluation data.
        wrong: index of a recording of the data -> probability that its label is wrong.
        notes: what could not be judged, and why.
    """

    findings: list[Finding] = field(default_factory=list)
    wrong: dict[int, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def audible(recordings: Recordings, encoder: SpeakerEncoder) -> list[int]:
    """The recordings that the encoder can embed and that hold speech."""
    rate = encoder.sampling_rate
    return [
        index
        for index, facts in recordings.decoded()
        if facts.speech_seconds > 0
        and resampled_num_samples(facts.info.num_samples, facts.info.sampling_rate, rate)
        >= encoder.min_num_samples
    ]


def embed(
    recordings: Recordings,
    indices: Sequence[int],
    encoder: SpeakerEncoder,
    batch_size: int = 16,
    show_progress: bool | None = None,
) -> NDArray[np.float32]:
    """Embeds recordings: (N, D) float32, rows L2-normalised."""
    paths = [recordings.utterances[index].path for index in indices]
    vectors = encoder.encode(paths, batch_size=batch_size, show_progress=show_progress)
    embeddings: NDArray[np.float32] = vectors.numpy()
    return embeddings


class VoiceExamination:
    """Compares the voices of all recordings that can be embedded.

    Args:
        recordings: measured.
        indices: (N) of recordings, each sound once per speaker.
        embeddings: (N, D), rows L2-normalised.
        disputed: recordings that are there under several speakers; they count in no mean.
        seed: of random halves.
    """

    def __init__(
        self,
        recordings: Recordings,
        indices: Sequence[int],
        embeddings: NDArray[np.float32],
        disputed: set[int],
        seed: int = 0,
    ) -> None:
        self._recordings = recordings
        self._indices = np.asarray(indices, dtype=np.int64)
        self._embeddings = embeddings
        self._names = sorted({recordings.speaker(index) for index in indices})
        numbers = {speaker: number for number, speaker in enumerate(self._names)}
        self._speakers = np.array(
            [numbers[recordings.speaker(index)] for index in indices], dtype=np.int64
        )
        self._counted = np.array([index not in disputed for index in indices], dtype=bool)
        self._seed = seed

    def examine(self) -> Voices:
        """Finds wrong labels, then same persons among the rest, then wrong labels with these."""
        voices = Voices()
        is_data = self._indices < self._recordings.num_data
        self._note_missing(voices, is_data)
        if len(np.unique(self._speakers[is_data])) < 2:
            voices.notes.append(
                "Wrong speakers are found by comparing speakers; the data has fewer than two."
            )
            return voices
        wrong = self._find_wrong(is_data, self._speakers)
        pairs = self._find_pairs(wrong)
        joined = self._speakers.copy()
        for pair in pairs:
            if not (self._names[pair.first][0] or self._names[pair.second][0]):
                joined[joined == pair.second] = pair.first
        found = wrong
        if (joined != self._speakers).any():
            found = self._find_wrong(is_data, joined)
        self._report_wrong(voices, found, np.flatnonzero(is_data))
        self._report_pairs(voices, pairs, found, np.flatnonzero(is_data))
        return voices

    def _find_wrong(self, is_data: NDArray[np.bool_], speakers: NDArray[np.int64]) -> WrongSpeakers:
        """The result for the data, with speakers numbered as in ``self._names``."""
        present, numbers = np.unique(speakers[is_data], return_inverse=True)
        found = find_wrong_speakers(self._embeddings[is_data], numbers, self._counted[is_data])
        found.similarities.nearest_speakers[:] = present[found.similarities.nearest_speakers]
        return found

    def _find_pairs(self, wrong: WrongSpeakers) -> list[SamePerson]:
        """Same persons among all speakers, without the wrong and the disputed utterances."""
        kept = self._counted.copy()
        is_data = self._indices < self._recordings.num_data
        kept[np.flatnonzero(is_data)[wrong.probability > 0.5]] = False
        present, numbers = np.unique(self._speakers[kept], return_inverse=True)
        pairs = find_same_persons(self._embeddings[kept], numbers, self._seed)
        return [
            SamePerson(
                int(present[pair.first]), int(present[pair.second]), pair.likeness, pair.limit
            )
            for pair in pairs
        ]

    def _note_missing(self, voices: Voices, is_data: NDArray[np.bool_]) -> None:
        sizes = np.bincount(self._speakers[is_data & self._counted])
        if alone := int((sizes == 1).sum()):
            voices.notes.append(
                f"{alone} speakers have a single utterance, which cannot be compared to others."
            )
        if (sizes >= 4).sum() < 5:
            voices.notes.append(
                "Same persons are found by what is usual within a speaker; that takes at least 5 "
                "speakers with 4 utterances."
            )

    def _typical(self, speaker: int, found: WrongSpeakers, rows: NDArray[np.int64]) -> int | None:
        """The recording that is most like the others of its speaker."""
        own = np.where(found.probability < 0.5, found.similarities.own, np.nan)
        mine = np.flatnonzero(self._speakers[rows] == speaker)
        mine = mine[np.isfinite(own[mine])]
        return int(self._indices[rows[mine[np.argmax(own[mine])]]]) if len(mine) else None

    def _example(
        self, name: str, speaker: int, found: WrongSpeakers, rows: NDArray[np.int64]
    ) -> tuple[str, str]:
        """(what it is, path) of a recording that a speaker is known by."""
        index = self._typical(speaker, found, rows)
        if index is None:
            others = np.flatnonzero(self._speakers == speaker)
            index = int(self._indices[others[0]])
        return f"typical of {name}", self._recordings.utterances[index].path

    def _report_wrong(
        self,
        voices: Voices,
        found: WrongSpeakers,
        rows: NDArray[np.int64],
    ) -> None:
        similarities = found.similarities
        for row, probability in enumerate(found.probability):
            voices.wrong[int(self._indices[rows[row]])] = float(probability)
        flagged = np.flatnonzero(found.probability > 0.5)
        margins = similarities.nearest[flagged, 0] - similarities.own[flagged]
        for row in flagged[np.argsort(-margins, kind="stable")]:
            index = int(self._indices[rows[row]])
            own, nearest = float(similarities.own[row]), float(similarities.nearest[row, 0])
            other = int(similarities.nearest_speakers[row, 0])
            other_text = speaker_text(self._names[other])
            is_stranger = bool(found.is_stranger[row])
            whose = "like no speaker here" if is_stranger else f"likely {other_text}"
            path, name = (
                self._recordings.utterances[index].path,
                self._recordings.speaker_text(index),
            )
            mine = self._example(name, int(self._speakers[rows[row]]), found, rows)
            theirs = self._example(other_text, other, found, rows)
            voices.findings.append(
                Finding(
                    "wrong_speaker", (path,), (name,),
                    f"{whose}; own {own:.2f}, nearest other ({other_text}) {nearest:.2f}",
                    {
                        "probability": float(found.probability[row]),
                        "own_similarity": own,
                        "nearest_similarity": nearest,
                        "nearest_speaker": other_text,
                        "likely_speaker": "" if is_stranger else other_text,
                    },
                    (path,),
                    (("this file", path), mine, theirs),
                )
            )  # fmt: skip

    def _report_pairs(
        self,
        voices: Voices,
        pairs: Sequence[SamePerson],
        found: WrongSpeakers,
        rows: NDArray[np.int64],
    ) -> None:
        for pair in pairs:
            first, second = (self._names[number] for number in (pair.first, pair.second))
            if (first[0] and second[0]) or (first[0] != second[0] and first[1] == second[1]):
                continue  # not of the data, or known by name already
            examples = [
                self._example(speaker_text(self._names[number]), number, found, rows)
                for number in (pair.first, pair.second)
            ]
            across = first[0] != second[0]
            mine = [speaker for speaker in (first, second) if across and not speaker[0]]
            voices.findings.append(
                Finding(
                    "voice_in_evaluation" if across else "same_person",
                    tuple(path for _, path in examples),
                    (speaker_text(first), speaker_text(second)),
                    f"likeness {pair.likeness:.2f} (two halves of one speaker: 1, strangers: 0; "
                    f"limit {pair.limit:.2f})",
                    {"likeness": pair.likeness, "limit": pair.limit},
                    tuple(path for speaker in mine for path in self._recordings.files[speaker]),
                    tuple(examples),
                )
            )

"""The recordings under examination: those to train on, and those to evaluate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from speaker_encoder.audio import AudioError
from speaker_encoder.corpora import Corpus, Utterance
from speaker_encoder.doctor.audio_facts import AudioFacts

Speaker = tuple[bool, str]
"""Whether it is one of the evaluation data, and its id."""


@dataclass(frozen=True)
class Recordings:
    """All recordings of one examination.

    Attributes:
        utterances: those of the data first, then those of the evaluation data.
        num_data: how many are of the data.
        facts: of each, or why it cannot be decoded.
    """

    utterances: Sequence[Utterance]
    num_data: int
    facts: Sequence[AudioFacts | AudioError]

    @classmethod
    def of(
        cls,
        data: Corpus,
        evaluation: Corpus | None,
        facts: Sequence[AudioFacts | AudioError],
    ) -> Recordings:
        """Joins the two corpora; a file that is in both appears twice."""
        others = evaluation.utterances if evaluation else ()
        return cls((*data.utterances, *others), len(data.utterances), facts)

    def is_evaluation(self, index: int) -> bool:
        """Whether a recording is of the evaluation data."""
        return index >= self.num_data

    def speaker(self, index: int) -> Speaker:
        """Whose recording it is; one name in both corpora is two speakers here."""
        return self.is_evaluation(index), self.utterances[index].speaker_id

    def speaker_text(self, index: int) -> str:
        """The speaker's name for a reader."""
        return speaker_text(self.speaker(index))

    @cached_property
    def files(self) -> dict[Speaker, tuple[str, ...]]:
        """All files of each speaker."""
        paths: dict[Speaker, list[str]] = {}
        for index, utterance in enumerate(self.utterances):
            paths.setdefault(self.speaker(index), []).append(utterance.path)
        return {speaker: tuple(files) for speaker, files in paths.items()}

    def decoded(self) -> list[tuple[int, AudioFacts]]:
        """The recordings that can be read."""
        return [
            (index, facts) for index, facts in enumerate(self.facts)
            if not isinstance(facts, AudioError)
        ]  # fmt: skip


def speaker_text(speaker: Speaker) -> str:
    """The name of a speaker for a reader."""
    return f"{speaker[1]} (evaluation)" if speaker[0] else speaker[1]

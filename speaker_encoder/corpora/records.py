"""The records of a scanned corpus: the utterance, what was left out, and the sums."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datasets

_EXAMPLES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording of one speaker.

    Attributes:
        utterance_id: unique in its corpus: the path below the root without its extension.
        speaker_id: never holds a path separator.
        session_id: the recording session, video or chapter where the layout knows it.
        path: of the audio file.
        num_samples: per channel, at the file's own sampling rate.
        sampling_rate: of the file, in Hz.
        speed: that the file is played at, 1 as it was recorded; pitch and formants move with it.
    """

    utterance_id: str
    speaker_id: str
    session_id: str | None
    path: str
    num_samples: int
    sampling_rate: int
    speed: float = 1.0

    @property
    def played_rate(self) -> int:
        """The rate in Hz at which the file's samples are played."""
        return round(self.sampling_rate * self.speed)

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.num_samples / self.played_rate


@dataclass(frozen=True, slots=True)
class ExcludedFile:
    """A file or folder that was left out of a corpus.

    Attributes:
        path: where it is.
        reason: the same words for every file of that kind, so that they can be counted.
        detail: what was found in this one file.
    """

    path: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class CorpusSummary:
    """What a corpus holds, for a log or a terminal.

    Attributes:
        num_speakers: speakers with at least one utterance.
        num_utterances: all utterances.
        hours: of audio.
        sampling_rates: rate in Hz -> number of utterances.
        exclusions: reason -> number of audio files (or speaker folders) left out for it.
        examples: reason -> the first few paths left out for it.
        ignored: kind -> number of files that are not audio at all, such as transcripts.
    """

    num_speakers: int
    num_utterances: int
    hours: float
    sampling_rates: Mapping[int, int]
    exclusions: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rates = ", ".join(f"{rate} Hz: {count}" for rate, count in self.sampling_rates.items())
        lines = [
            f"{self.num_speakers} speakers, {self.num_utterances} utterances, "
            f"{self.hours:.2f} hours ({rates})"
        ]
        for reason, count in self.exclusions.items():
            shown = ", ".join(self.examples.get(reason, ()))
            more = ", ..." if count > len(self.examples.get(reason, ())) else ""
            lines.append(f"  left out, {reason}: {count}" + (f" ({shown}{more})" if shown else ""))
        if self.ignored:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.ignored.items())
            lines.append(f"  not audio: {kinds}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Corpus:
    """A scanned corpus.

    Attributes:
        root: the folder that was scanned.
        layout: the name of the layout that it was read as.
        utterances: sorted by utterance_id.
        excluded: audio files and speaker folders left out, sorted by path.
        ignored: kind -> number of files that are not audio at all, such as transcripts.
    """

    root: str
    layout: str
    utterances: tuple[Utterance, ...]
    excluded: tuple[ExcludedFile, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def speakers(self) -> dict[str, list[int]]:
        """speaker_id -> the indices of its utterances; sorted."""
        indices: dict[str, list[int]] = {}
        for index, utterance in enumerate(self.utterances):
            indices.setdefault(utterance.speaker_id, []).append(index)
        return {speaker: indices[speaker] for speaker in sorted(indices)}

    def summary(self) -> CorpusSummary:
        """The sums over the corpus, and what was left out of it and why."""
        rates = Counter(utterance.sampling_rate for utterance in self.utterances)
        reasons = Counter(file.reason for file in self.excluded)
        examples: dict[str, tuple[str, ...]] = {}
        for file in self.excluded:
            shown = examples.get(file.reason, ())
            if len(shown) < _EXAMPLES_SHOWN:
                examples[file.reason] = (*shown, file.path)
        return CorpusSummary(
            num_speakers=len(self.speakers),
            num_utterances=len(self.utterances),
            hours=sum(utterance.seconds for utterance in self.utterances) / 3600,
            sampling_rates=dict(sorted(rates.items())),
            exclusions=dict(reasons.most_common()),
            examples=examples,
            ignored=self.ignored,
        )

    def to_dataset(self) -> "datasets.Dataset":
        """The corpus as a Hugging Face table; column ``audio`` holds paths, not decoded."""
        import datasets

        columns = ("utterance_id", "speaker_id", "session_id", "num_samples", "sampling_rate")
        table = {name: [getattr(row, name) for row in self.utterances] for name in columns}
        table["audio"] = [row.path for row in self.utterances]
        features = datasets.Features(
            {
                "utterance_id": datasets.Value("string"),
                "speaker_id": datasets.Value("string"),
                "session_id": datasets.Value("string"),
                "num_samples": datasets.Value("int64"),
                "sampling_rate": datasets.Value("int32"),
                "audio": datasets.Value("string"),
            }
        )
        dataset = datasets.Dataset.from_dict(table, features=features)
        # A cast, since encoding as Audio at once asks for torchcodec even for mere paths.
        return dataset.cast_column("audio", datasets.Audio(decode=False))

"""The report of an export: what was done, what failed, and which utterances do not fit."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.export.averaging import average_speaker, least_similar
from speaker_encoder.export.source import FailedFile, Source
from speaker_encoder.export.store import Store


@dataclass
class SpeakerReport:
    """One speaker.

    Attributes:
        num_utterances: with an embedding.
        seconds: of them.
        dispersion: 1 - mean cosine to the speaker's mean.
        least_similar: (utterance, cosine to the mean of the others), the worst first.
        outliers: left out of the average, with their cosine.
        without: files of this speaker that failed; the average is without them.
    """

    num_utterances: int
    seconds: float
    dispersion: float | None
    least_similar: list[tuple[str, float]] = field(default_factory=list)
    outliers: list[tuple[str, float]] = field(default_factory=list)
    without: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data; empty lists are left out."""
        data: dict[str, Any] = {
            "num_utterances": self.num_utterances,
            "seconds": round(self.seconds, 3),
            "dispersion": self.dispersion,
            "least_similar": [{"utterance": u, "similarity": s} for u, s in self.least_similar],
        }
        if self.outliers:
            data["outliers"] = [{"utterance": u, "similarity": s} for u, s in self.outliers]
        if self.without:
            data["average_is_without"] = self.without
        return data


def average_speakers(
    source: Source, store: Store, failures: Sequence[FailedFile], method: str
) -> tuple[dict[str, NDArray[np.float32]], dict[str, SpeakerReport]]:
    """Makes the embedding and the report of each speaker.

    Args:
        source: the corpus.
        store: with the embeddings of its utterances.
        failures: files without one.
        method: as ``averaging.average_speaker``.

    Returns:
        speaker id -> (D,) float32, and speaker id -> report; both sorted.
    """
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(source.items):
        if store.has(item):
            numbers[item.utterance.speaker_id].append(number)
    failed: dict[str, list[str]] = defaultdict(list)
    for failure in failures:
        if failure.speaker_id is not None:
            failed[failure.speaker_id].append(failure.path)
    vectors: dict[str, NDArray[np.float32]] = {}
    reports: dict[str, SpeakerReport] = {}
    for speaker in sorted({*numbers, *failed}):
        items = [source.items[number].utterance for number in numbers[speaker]]
        without = sorted(failed[speaker])
        if not items:
            reports[speaker] = SpeakerReport(0, 0.0, None, without=without)
            continue
        ids = [item.utterance_id for item in items]
        rows = [store.vector(source.items[number]) for number in numbers[speaker]]
        average = average_speaker(np.stack(rows), method)
        vectors[speaker] = average.vector
        reports[speaker] = SpeakerReport(
            len(items),
            sum(item.seconds for item in items),
            round(average.dispersion, 4),
            least_similar(ids, average.similarities) if len(ids) > 1 else [],
            [
                (name, round(float(cosine), 4))
                for name, cosine, out in zip(
                    ids, average.similarities, average.is_outlier, strict=True
                )
                if out
            ],
            without,
        )
    return vectors, reports


def merge_figures(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """What all processes measured, together: seconds and ratios."""
    total: dict[str, float] = defaultdict(float)
    for part in figures:
        for name, value in part.items():
            if name == "wall_seconds":
                total[name] = max(total[name], value)
            else:
                total[name] += value
    computed, busy = total["computed_samples"], total["lane_seconds"]
    return {
        "utterances": total["utterances"],
        "audio_seconds": round(total["audio_seconds"], 3),
        "wall_seconds": round(total["wall_seconds"], 3),
        "batches": total["batches"],
        "padding_share": round(total["padded_samples"] / computed, 5) if computed else 0.0,
        "share_outside_forward": round(1 - total["forward_seconds"] / busy, 4) if busy else 0.0,
    }


def failure_list(failures: Sequence[FailedFile]) -> list[dict[str, Any]]:
    """The failures as plain data, sorted."""
    rows = [
        {"path": failure.path, "reason": failure.reason, "speaker": failure.speaker_id}
        for failure in failures
    ]
    return sorted(rows, key=lambda row: json.dumps(row))

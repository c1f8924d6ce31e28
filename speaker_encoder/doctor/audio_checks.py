"""What is wrong with single recordings: formats mixed, silence, clipping, level, length.

Limits are those of the corpus itself: a recording is found when it lies more than 4 robust
deviations, and by a margin that matters, away from the median of the corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from speaker_encoder.audio import AudioError
from speaker_encoder.corpora import ExcludedFile
from speaker_encoder.doctor.audio_facts import AudioFacts
from speaker_encoder.doctor.findings import Finding, robust_spread
from speaker_encoder.doctor.recordings import Recordings

DEVIATIONS = 4.0
MIN_SILENCE_MARGIN = 0.2
MIN_LEVEL_MARGIN_DB = 10.0
MIN_LENGTH_FACTOR = 3.0
CLIPPED_SHARE = 1e-3
"""Cut tops are a fault in any corpus, so this limit is fixed; clean speech has none at all."""


def check_audio(recordings: Recordings, excluded: Sequence[ExcludedFile]) -> list[Finding]:
    """All that the samples of single recordings tell; of the data, not of the evaluation data.

    Args:
        recordings: measured.
        excluded: what the scan left out.
    """
    measured = [(i, facts) for i, facts in recordings.decoded() if not recordings.is_evaluation(i)]
    speaking = [(i, facts) for i, facts in measured if facts.speech_seconds > 0]
    return [
        *_unusable(recordings, excluded),
        *_minorities(recordings, measured),
        *(
            _single(recordings, index, "no_speech", "no speech was found", {}, is_suspect=True)
            for index, facts in measured
            if facts.speech_seconds == 0
        ),
        *_clipped(recordings, speaking),
        *_far(recordings, speaking, "silence", _silence_share, MIN_SILENCE_MARGIN, _silence_text),
        *_far(recordings, speaking, "level", _level, MIN_LEVEL_MARGIN_DB, _level_text),
        *_far(recordings, measured, "", _log_seconds, np.log(MIN_LENGTH_FACTOR), _length_text),
    ]


def _single(
    recordings: Recordings,
    index: int,
    kind: str,
    detail: str,
    figures: dict[str, float | str],
    is_suspect: bool = True,
) -> Finding:
    path = recordings.utterances[index].path
    return Finding(
        kind, (path,), (recordings.speaker_text(index),), detail, figures,
        (path,) if is_suspect else (), (("this file", path),),
    )  # fmt: skip


def _unusable(recordings: Recordings, excluded: Sequence[ExcludedFile]) -> list[Finding]:
    findings = [
        Finding("unusable", (file.path,), (), _because(file.reason, file.detail), {}, (file.path,))
        for file in excluded
    ]
    for index, facts in enumerate(recordings.facts[: recordings.num_data]):
        if isinstance(facts, AudioError):
            text = _because(facts.reason, facts.detail)
            speakers = (recordings.speaker_text(index),)
            findings.append(Finding("unusable", (facts.path,), speakers, text, {}, (facts.path,)))
    return findings


def _because(reason: str, detail: str) -> str:
    return reason + (f" ({detail})" if detail else "")


def _minorities(
    recordings: Recordings, measured: Sequence[tuple[int, AudioFacts]]
) -> list[Finding]:
    """Recordings whose rate or number of channels is not that of most."""
    findings = []
    kinds: tuple[tuple[str, str, Callable[[AudioFacts], int]], ...] = (
        ("sampling_rate", "Hz", lambda facts: facts.info.sampling_rate),
        ("channels", "channels", lambda facts: facts.info.num_channels),
    )
    for kind, unit, value_of in kinds:
        counts = Counter(value_of(facts) for _, facts in measured)
        if len(counts) < 2:
            continue
        usual, num_usual = counts.most_common(1)[0]
        for index, facts in measured:
            value = value_of(facts)
            if value != usual:
                detail = f"{value} {unit}; {num_usual} of {len(measured)} have {usual}"
                figures: dict[str, float | str] = {"value": value, "usual": usual}
                findings.append(_single(recordings, index, kind, detail, figures))
    return findings


def _clipped(recordings: Recordings, speaking: Sequence[tuple[int, AudioFacts]]) -> list[Finding]:
    ordered = sorted(speaking, key=lambda item: -item[1].clipped_share)
    return [
        _single(
            recordings, index, "clipping", f"{facts.clipped_share:.2%} of its samples",
            {"clipped_share": facts.clipped_share},
        )
        for index, facts in ordered
        if facts.clipped_share >= CLIPPED_SHARE
    ]  # fmt: skip


def _far(
    recordings: Recordings,
    measured: Sequence[tuple[int, AudioFacts]],
    kind: str,
    value_of: Callable[[AudioFacts], float],
    margin: float,
    text_of: Callable[[float, float], tuple[str, str]],
) -> list[Finding]:
    """Recordings far from the median, the farthest first; ``text_of`` gives kind and detail."""
    if not measured:
        return []
    values = [value_of(facts) for _, facts in measured]
    median, deviation = robust_spread(values)
    limit = max(DEVIATIONS * deviation, margin)
    far = [
        (abs(value - median), index, value)
        for (index, _), value in zip(measured, values, strict=True)
        if abs(value - median) > limit
    ]
    findings = []
    for _, index, value in sorted(far, key=lambda item: (-item[0], item[1])):
        found_kind, detail = text_of(value, median)
        if found_kind:
            figures: dict[str, float | str] = {"value": value, "median": median}
            findings.append(_single(recordings, index, kind or found_kind, detail, figures))
    return findings


def _silence_share(facts: AudioFacts) -> float:
    return 1 - facts.speech_seconds / facts.info.seconds


def _silence_text(value: float, median: float) -> tuple[str, str]:
    kind = "silence" if value > median else ""  # less silence than others is no fault
    return kind, f"{value:.0%} is silence, {median:.0%} in the median"


def _level(facts: AudioFacts) -> float:
    return facts.level_db


def _level_text(value: float, median: float) -> tuple[str, str]:
    return "level", f"speech at {value:.0f} dBFS, {median:.0f} in the median"


def _log_seconds(facts: AudioFacts) -> float:
    return float(np.log(facts.info.seconds))


def _length_text(value: float, median: float) -> tuple[str, str]:
    kind = "too_short" if value < median else "too_long"
    return kind, f"{np.exp(value):.2f} s, {np.exp(median):.2f} s in the median"

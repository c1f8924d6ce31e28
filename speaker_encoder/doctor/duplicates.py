"""Recordings that are there twice, also across speakers, and across training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speaker_encoder.doctor.findings import Finding
from speaker_encoder.doctor.fingerprint import Match, find_matches
from speaker_encoder.doctor.recordings import Recordings

MIN_SHARE_LEFT_OUT = 0.5
"""Two recordings that share less of the shorter one, such as an opening jingle, both stay."""


@dataclass(frozen=True)
class Copies:
    """Recordings of one sound.

    Attributes:
        indices: of the recordings, the data's first.
        is_exact: the same samples.
        match: how alike the two are, where they are not exact.
    """

    indices: tuple[int, ...]
    is_exact: bool
    match: Match | None = None


def find_copies(recordings: Recordings) -> list[Copies]:
    """Groups of exact duplicates, then pairs of near ones between different sounds."""
    groups: dict[str, list[int]] = {}
    decoded = dict(recordings.decoded())
    speaking = {index: facts for index, facts in decoded.items() if facts.speech_seconds > 0}
    for index, facts in speaking.items():
        groups.setdefault(facts.digest, []).append(index)
    exact = [Copies(tuple(group), True) for group in groups.values() if len(group) > 1]
    firsts = [group[0] for group in groups.values()]
    near = [
        Copies((firsts[match.first], firsts[match.second]), False, match)
        for match in find_matches([speaking[index].words for index in firsts])
    ]
    in_data = [
        copies for copies in [*exact, *near]
        if not all(recordings.is_evaluation(index) for index in copies.indices)
    ]  # fmt: skip
    return in_data


def redundant(recordings: Recordings, copies: Sequence[Copies]) -> set[int]:
    """Copies that tell nothing new of their own speaker: all but the first of each."""
    extra = set()
    for group in copies:
        speakers = set()
        for index in group.indices:
            if recordings.speaker(index) in speakers:
                extra.add(index)
            speakers.add(recordings.speaker(index))
    return extra


def disputed(recordings: Recordings, copies: Sequence[Copies]) -> set[int]:
    """Copies of one sound that are with different speakers of the data."""
    found: set[int] = set()
    for group in copies:
        data = [index for index in group.indices if not recordings.is_evaluation(index)]
        if len({recordings.speaker(index) for index in data}) > 1:
            found.update(data)
    return found


def describe_copies(
    recordings: Recordings, copies: Sequence[Copies], wrong: dict[int, float]
) -> list[Finding]:
    """The findings; those across speakers first.

    Args:
        recordings: measured.
        copies: of ``find_copies``.
        wrong: index -> probability that the utterance is not of its speaker, where a model told.
    """
    findings = []
    for group in copies:
        indices = group.indices
        suspects = _suspects(recordings, group, wrong)
        paths = tuple(recordings.utterances[index].path for index in indices)
        speakers = tuple(recordings.speaker_text(index) for index in indices)
        labels = tuple(zip(speakers, paths, strict=True))
        findings.append(
            Finding(
                "duplicate" if group.is_exact else "near_duplicate",
                paths,
                speakers,
                _describe(recordings, group),
                _figures(group.match),
                tuple(recordings.utterances[index].path for index in suspects),
                labels,
            )
        )
    return sorted(findings, key=lambda finding: len(set(finding.speakers)) == 1)


def _suspects(recordings: Recordings, group: Copies, wrong: dict[int, float]) -> tuple[int, ...]:
    """Which copies to leave out: all but one, or all where nobody knows whose they are."""
    if group.match is not None and group.match.share < MIN_SHARE_LEFT_OUT:
        return ()
    data = [index for index in group.indices if not recordings.is_evaluation(index)]
    if len(data) < len(group.indices):
        return tuple(data)
    if len({recordings.speaker(index) for index in data}) == 1:
        return tuple(_but_the_longest(recordings, data))
    right = [index for index in data if index in wrong and wrong[index] < 0.5]
    doubted = [index for index in data if index in wrong and wrong[index] >= 0.5]
    if len(right) == 1 and len(right) + len(doubted) == len(data):
        return tuple(doubted)
    return tuple(data)


def _but_the_longest(recordings: Recordings, indices: list[int]) -> list[int]:
    """All but the recording with most in it; the first of equal ones stays."""
    kept = max(indices, key=lambda index: (recordings.utterances[index].seconds, -index))
    return [index for index in indices if index != kept]


def _describe(recordings: Recordings, group: Copies) -> str:
    across = len({recordings.utterances[index].speaker_id for index in group.indices}) > 1
    parts = ["the same samples" if group.match is None else _alike(group.match)]
    if len({recordings.is_evaluation(index) for index in group.indices}) > 1:
        parts.append("in the data and in the evaluation data")
    if across:
        parts.append("different speakers")
    return "; ".join(parts)


def _alike(match: Match) -> str:
    how = "the shorter one whole" if match.share > 0.9 else f"{match.share:.0%} of the shorter one"
    return f"share {match.seconds:.1f} s, {how}; {match.bit_error_rate:.0%} of the bits differ"


def _figures(match: Match | None) -> dict[str, float | str]:
    if match is None:
        return {}
    return {
        "shared_seconds": match.seconds,
        "shared_share": min(1.0, match.share),
        "bit_error_rate": match.bit_error_rate,
    }

"""What the doctor can find, and one thing that it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes:
        title: for a heading.
        advice: what it does to a training, and what to do.
        is_left_out: whether the list of what to keep leaves such files out.
    """

    title: str
    advice: str
    is_left_out: bool


KINDS: dict[str, Kind] = {
    "unusable": Kind(
        "Files that cannot be used",
        "Not readable, not audio, empty, or not where the layout has its recordings.",
        True,
    ),
    "wrong_speaker": Kind(
        "Utterances that likely belong to another speaker",
        "Less like the others of its speaker than this corpus explains. Listen, then move it.",
        True,
    ),
    "same_person": Kind(
        "Two speakers that are likely one person",
        "Training pushes them apart although they are one voice. Listen, then join them.",
        False,
    ),
    "speaker_in_evaluation": Kind(
        "Speakers that are in the evaluation data by name",
        "Figures measured on speakers that were trained on say nothing about unseen ones.",
        True,
    ),
    "voice_in_evaluation": Kind(
        "Speakers whose voice is in the evaluation data under another name",
        "A speaker that was trained on is no unseen one. Listen, then take one of them out.",
        True,
    ),
    "duplicate": Kind(
        "Exact duplicates",
        "The same samples. Of copies of one speaker the first is kept.",
        True,
    ),
    "near_duplicate": Kind(
        "Near duplicates",
        "One recording at another level, in another encoding, cut or padded, or parts of it.",
        True,
    ),
    "no_speech": Kind("No speech", "Silence or noise from the start to the end.", True),
    "silence": Kind("Mostly silence", "Far more silence than the others; trim it.", False),
    "clipping": Kind("Clipped", "The tops of the waveform are cut off.", False),
    "level": Kind("Far from the others' level", "Much quieter or louder than the others.", False),
    "too_short": Kind("Very short", "Far shorter than the others.", False),
    "too_long": Kind("Very long", "Far longer than the others; often several recordings.", False),
    "sampling_rate": Kind(
        "Another sampling rate than most",
        "An encoder can learn the rate in place of the voice where it differs by speaker.",
        False,
    ),
    "channels": Kind(
        "Another number of channels than most",
        "Channels are averaged, which can cancel a voice; check which one holds it.",
        False,
    ),
}
"""Kind -> what it is; in the order of a report."""


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor found.

    Attributes:
        kind: of ``KINDS``.
        paths: the files it is about; for speakers, a typical file of each.
        speakers: whose they are, in the same order.
        detail: what was found, for a person.
        figures: the same for a program.
        suspects: the files that the list of what to keep leaves out.
        examples: (what it is, path) of files to compare by ear.
    """

    kind: str
    paths: tuple[str, ...]
    speakers: tuple[str, ...]
    detail: str
    figures: Mapping[str, float | str] = field(default_factory=dict)
    suspects: tuple[str, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()


def robust_spread(values: list[float]) -> tuple[float, float]:
    """The median, and 1.4826 times the median absolute deviation: a deviation without outliers."""
    import numpy as np

    median = float(np.median(values))
    return median, 1.4826 * float(np.median(np.abs(np.asarray(values) - median)))

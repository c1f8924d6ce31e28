"""What the page computes: the score of two recordings, and the nearest of enrolled speakers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

MAX_NAME_LENGTH = 60
MAX_SPEAKERS = 200


@dataclass(frozen=True)
class Enrolment:
    """A speaker that someone enrolled.

    Attributes:
        total: (D,) sum of the speaker's unit embeddings.
        num_utterances: How many.
    """

    total: np.ndarray
    num_utterances: int

    def centroid(self) -> np.ndarray:
        """Gives the (D,) L2-normalised mean embedding."""
        centroid: np.ndarray = self.total / max(float(np.linalg.norm(self.total)), 1e-12)
        return centroid


Enrolled = Mapping[str, Enrolment]


def score_recordings(encoder: SpeakerEncoder, first: str, second: str) -> float:
    """Gives the cosine of the embeddings of two audio files.

    Raises:
        UserError: one cannot be read or is too short.
    """
    embeddings = encoder.encode([first, second], show_progress=False)
    return float(embeddings[0].double() @ embeddings[1].double())


def enrol(
    encoder: SpeakerEncoder, enrolled: Enrolled, name: str, path: str
) -> dict[str, Enrolment]:
    """Adds an utterance to a speaker, who may be new.

    Args:
        encoder: The encoder.
        enrolled: The speakers so far; not changed.
        name: Of the speaker.
        path: Of an audio file.

    Returns:
        All speakers.

    Raises:
        UserError: there is no name, there are too many speakers, or the file cannot be embedded.
    """
    name = " ".join(name.split())
    if not name:
        raise UserError("Give the speaker a name.")
    if len(name) > MAX_NAME_LENGTH:
        raise UserError(f"A name has at most {MAX_NAME_LENGTH} characters.")
    if name not in enrolled and len(enrolled) >= MAX_SPEAKERS:
        raise UserError(f"At most {MAX_SPEAKERS} speakers can be enrolled.")
    embedding = encoder.encode(path, show_progress=False)[0].numpy()
    known = enrolled.get(name, Enrolment(np.zeros_like(embedding), 0))
    known = replace(known, total=known.total + embedding, num_utterances=known.num_utterances + 1)
    return {**enrolled, name: known}


def identify(encoder: SpeakerEncoder, enrolled: Enrolled, path: str) -> list[tuple[str, float]]:
    """Compares an utterance with every enrolled speaker's mean embedding.

    Args:
        encoder: The encoder.
        enrolled: The speakers.
        path: Of an audio file.

    Returns:
        Speaker and cosine, the most alike first.

    Raises:
        UserError: nobody is enrolled, or the file cannot be embedded.
    """
    if not enrolled:
        raise UserError("Enrol a speaker first.")
    embedding = encoder.encode(path, show_progress=False)[0].numpy()
    scores = [(name, float(one.centroid() @ embedding)) for name, one in enrolled.items()]
    return sorted(scores, key=lambda entry: (-entry[1], entry[0]))

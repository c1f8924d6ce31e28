"""What a recipe looks at: the training utterances, and the encoder."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from speaker_encoder.hub.secrets import lend_token
from speaker_encoder.training.recipe_table import (
    CONVOLUTIONAL,
    DVECTOR,
    NEW_HEAD,
    RANDOM,
    SELF_SUPERVISED,
    TRAINED,
)
from speaker_encoder.training.selection import perturb_speed, select_speakers

if TYPE_CHECKING:
    from speaker_encoder.corpora import Utterance
    from speaker_encoder.training.config import TrainConfig


@dataclass(frozen=True)
class CorpusFacts:
    """What a recipe looks at in the training utterances.

    Attributes:
        num_speakers: with each speed of the key `speed_perturbation` as a speaker of its own.
        num_utterances: of all.
        hours: of all.
        num_sessions: known ones, 0 when the layout knows none.
        median_seconds: of an utterance.
        counts: utterances of each speaker, fewest first.
    """

    num_speakers: int
    num_utterances: int
    hours: float
    num_sessions: int
    median_seconds: float
    counts: tuple[int, ...]

    @classmethod
    def of(cls, utterances: Sequence[Utterance]) -> CorpusFacts:
        """Counts utterances, at least one."""
        counts = Counter(utterance.speaker_id for utterance in utterances)
        seconds = [utterance.seconds for utterance in utterances]
        sessions = {(one.speaker_id, one.session_id) for one in utterances if one.session_id}
        return cls(
            len(counts),
            len(seconds),
            sum(seconds) / 3600,
            len(sessions),
            statistics.median(seconds),
            tuple(sorted(counts.values())),
        )

    def __str__(self) -> str:
        fewest, most = self.counts[0], self.counts[-1]
        each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        sessions = f"{self.num_sessions} sessions" if self.num_sessions else "no sessions known"
        return (
            f"{self.num_speakers} speakers, {self.num_utterances} utterances ({each} of each), "
            f"{self.hours:.2f} hours, {sessions}, median utterance {self.median_seconds:.1f} s"
        )


@dataclass(frozen=True)
class EncoderFacts:
    """What a recipe looks at in the encoder.

    Attributes:
        family: of `recipe_table.FAMILIES`.
        start: of `recipe_table.STARTS`.
        least_seconds: of a crop.
    """

    family: str
    start: str
    least_seconds: float


def selected_utterances(
    config: TrainConfig, utterances: Iterable[Utterance]
) -> tuple[Utterance, ...]:
    """Gives the utterances that are trained on.

    Args:
        config: of the run.
        utterances: of the training corpus.
    """
    kept = [one for one in utterances if one.seconds >= config.min_utterance_seconds]
    if config.max_speakers is not None:
        least = 2 if config.few_utterances == "drop" else 1
        chosen = select_speakers(kept, config.max_speakers, least, config.seed)
        kept = [one for one in kept if one.speaker_id in chosen]
    return perturb_speed(kept or list(utterances), config.speed_perturbation)


def describe_encoder(config: TrainConfig) -> EncoderFacts:
    """Loads, or makes, the encoder of a config to look at it.

    Raises:
        UserError: it cannot be had.
    """
    from speaker_encoder.modeling import SpeakerEncoder

    lend_token(os.environ, config.hub_token)
    with torch.random.fork_rng(devices=[]):
        encoder = SpeakerEncoder.from_name(
            config.model_name,
            pretrained=config.pretrained,
            encoder_config=config.encoder_config,
            head=config.head,
            layers=config.layers,
        )
    family = DVECTOR if encoder.config.encoder_kind == "dvector" else CONVOLUTIONAL
    if encoder.backbone.has_heads:
        family = SELF_SUPERVISED
    start = TRAINED
    if encoder.config.untrained_head or config.enlarge_head:
        start = NEW_HEAD if config.pretrained and family == SELF_SUPERVISED else RANDOM
    return EncoderFacts(family, start, encoder.min_num_samples / encoder.sampling_rate)

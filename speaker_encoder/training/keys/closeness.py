"""Keys of the config: what keeps training close to the encoder that it starts from."""

from __future__ import annotations

from dataclasses import dataclass

from speaker_encoder.training.config_compound import FilePath
from speaker_encoder.training.config_kinds import Number, integer
from speaker_encoder.training.keys.field import key


@dataclass(frozen=True, kw_only=True)
class ClosenessKeys:
    """What keeps training close to the encoder that it starts from."""

    l2_sp: float = key(
        Number(least=0),
        0.0,
        "Weight of a pull to the pretrained weights (L2-SP): this, halved, times the squared "
        "distance of the encoder's trained weights to them is added to the loss.",
    )
    distillation: float = key(
        Number(least=0),
        0.0,
        "Weight of the distance to the pretrained encoder's embeddings: this times the mean of "
        "1 - cosine over the batch's crops, as the encoder hears them, is added to the loss.",
    )
    head_first_steps: int = key(
        integer(0),
        0,
        "First steps, in which only the head (the pooling and all behind it) and the loss's own "
        "weights learn; then everything does.",
    )
    replay_data_root: str | None = key(
        FilePath("any", nullable=True, may_be_shards=True),
        None,
        "Folder or list file of a second corpus, with other speakers, some of whom are in every "
        "training batch, so that they are not forgotten; an epoch is one of the training corpus. "
        "null: none.",
    )
    replay_list: str | None = key(
        FilePath("file", nullable=True),
        None,
        "File with lines `speaker path`, paths relative to replay_data_root; null: all of it.",
    )
    replay_share: float = key(
        Number(above=0, most=0.99),
        0.25,
        "Share of speakers_per_batch that is of the replay corpus, rounded; at least one speaker "
        "of each corpus.",
    )

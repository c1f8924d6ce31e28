"""Keys of the config: what is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speaker_encoder.training.config_compound import Mapping
from speaker_encoder.training.config_kinds import Boolean, Text
from speaker_encoder.training.keys.field import REQUIRED, key


@dataclass(frozen=True, kw_only=True)
class ModelKeys:
    """What is fine-tuned."""

    model_name: str = key(
        Text(what="the name of an encoder, a Hub id, or a folder"),
        REQUIRED,
        "The pretrained encoder: a short name (ecapa, wavlm-base-plus-sv, ...), a Hugging Face Hub "
        "id, a local folder, or a checkpoint-<step> of a run.",
    )
    pretrained: bool = key(
        Boolean(),
        True,
        "false: the same architecture with random weights, to train from scratch.",
    )
    encoder_config: dict[str, Any] | None = key(  # noqa: RUF009
        Mapping(nullable=True),
        None,
        "With pretrained false: what differs from the encoder's usual architecture, in the "
        "argument names of its own library (ECAPA: SpeechBrain's, WavLM: WavLMConfig's).",
    )
    train_only_head: bool = key(
        Boolean(), False, "WavLM: train only the x-vector head, freeze everything below."
    )
    enlarge_head: bool = key(
        Boolean(), False, "WavLM: replace the last layer by a new one with 1024 outputs."
    )
    freeze_feature_encoder: bool = key(
        Boolean(), False, "WavLM: freeze the convolutional feature encoder."
    )
    freeze_batch_norm: bool = key(
        Boolean(), False, "Keep the running statistics of batch normalisation as they are."
    )

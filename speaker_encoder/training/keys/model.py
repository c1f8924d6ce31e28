"""Keys of the config: what is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speaker_encoder.training.config_compound import Mapping
from speaker_encoder.training.config_heads import HEADS
from speaker_encoder.training.config_kinds import Boolean, NumberOrWord, Text, integer
from speaker_encoder.training.config_named import Named, Options, TextList
from speaker_encoder.training.config_tables import LORA_OPTIONS
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
    head: dict[str, Any] | None = key(  # noqa: RUF009
        Named(HEADS, nullable=True),
        None,
        "Self-supervised encoders (WavLM, wav2vec 2.0, HuBERT, Whisper, ...): what makes the "
        "embedding from their frames. A head that the encoder does not have yet starts untrained; "
        "null: the one that it has.",
    )
    layers: str | int | None = key(
        NumberOrWord(integer(0), ("last", "weighted_sum"), nullable=True),
        None,
        "Self-supervised encoders: which layers the head takes: the last, a sum with trained "
        "weights, or one by its number, behind which the others are cut off (0: what goes into "
        "the first). null: as the encoder has it.",
    )
    train_only_head: bool = key(
        Boolean(),
        False,
        "Self-supervised encoders: train only the head and the weights of a sum of layers, freeze "
        "everything below.",
    )
    enlarge_head: bool = key(
        Boolean(),
        False,
        "Self-supervised encoders with the x-vector head: replace its last layer by a new one with "
        "1024 outputs.",
    )
    freeze_feature_encoder: bool = key(
        Boolean(),
        False,
        "Self-supervised encoders: freeze the convolutions on the waveform or its log-mel.",
    )
    freeze_batch_norm: bool = key(
        Boolean(), False, "Keep the running statistics of batch normalisation as they are."
    )
    freeze: tuple[str, ...] = key(
        TextList("patterns of parameters' names"),
        [],
        "Parameters and modules that are not trained, by patterns of their names with * for "
        "anything: backbone.wavlm.encoder.layers.0.*.",
    )
    lora: dict[str, Any] | None = key(  # noqa: RUF009
        Options(LORA_OPTIONS, nullable=True),
        None,
        "Train low-rank adapters of the target modules instead of the encoder; what is saved is "
        "the plain encoder with the adapters merged.",
    )

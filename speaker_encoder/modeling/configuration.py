"""The configuration of a speaker encoder, as it stands in its ``config.json``."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class SpeakerEncoderConfig(PreTrainedConfig):
    """What a speaker encoder is: its family, its architecture, how its input is prepared.

    Attributes:
        encoder_kind: Family of the backbone, a key of ``registry.BACKBONES``.
        encoder_config: Arguments of the backbone, with the upstream library's names.
        embedding_dim: Dimensions of an embedding; set by the backbone.
        sampling_rate: Hz of the waveforms.
        do_normalize: The model brings each utterance to zero mean and unit variance itself.
        untrained_head: The part that makes the embedding has random weights.
        base_model_name: The encoder that this one started from: a name or a Hub id.
        source_license: Licence of the weights it started from, as the Hub names it: "mit", or
            "other".
        source_license_name: Name of a licence that is "other".
        source_license_link: Where the text of a licence that is "other" is.
    """

    model_type = "speaker-encoder"

    encoder_kind: str = "ecapa"
    encoder_config: dict[str, Any] = field(default_factory=dict)
    embedding_dim: int = 192
    sampling_rate: int = 16000
    do_normalize: bool = False
    untrained_head: bool = True
    base_model_name: str | None = None
    source_license: str | None = None
    source_license_name: str | None = None
    source_license_link: str | None = None

"""The tables of encoder names and of backbone families."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import Backbone


@dataclass(frozen=True)
class NamedEncoder:
    """A published speaker encoder that users call by a short name.

    Attributes:
        encoder_kind: Its family, a key of ``BACKBONES``.
        hub_id: Its repository on the Hugging Face Hub.
        package: The installed Python package that ships the weights; with neither, none are
            published under this name.
        encoder_config: Where its architecture differs from the family's defaults.
    """

    encoder_kind: str
    hub_id: str | None = None
    package: str | None = None
    encoder_config: dict[str, Any] = field(default_factory=dict)


_WAVLM_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}

_WAV2VEC2_LARGE = {**_WAVLM_LARGE, "conv_bias": True}


def _whisper(size: int, num_layers: int) -> dict[str, int]:
    """Gives the architecture of a Whisper of a hidden size."""
    return {
        "d_model": size,
        "encoder_layers": num_layers,
        "encoder_attention_heads": size // 64,
        "encoder_ffn_dim": 4 * size,
    }


NAMES: dict[str, NamedEncoder] = {
    "ecapa": NamedEncoder("ecapa", "speechbrain/spkrec-ecapa-voxceleb"),
    "wavlm-base": NamedEncoder("wavlm", "microsoft/wavlm-base"),
    "wavlm-base-plus": NamedEncoder("wavlm", "microsoft/wavlm-base-plus"),
    "wavlm-base-sv": NamedEncoder("wavlm", "microsoft/wavlm-base-sv"),
    "wavlm-base-plus-sv": NamedEncoder("wavlm", "microsoft/wavlm-base-plus-sv"),
    "wavlm-large": NamedEncoder("wavlm", "microsoft/wavlm-large", encoder_config=_WAVLM_LARGE),
    "wav2vec2-base": NamedEncoder("wav2vec2", "facebook/wav2vec2-base"),
    "wav2vec2-xls-r-300m": NamedEncoder(
        "wav2vec2", "facebook/wav2vec2-xls-r-300m", encoder_config=_WAV2VEC2_LARGE
    ),
    "hubert-base-ls960": NamedEncoder("hubert", "facebook/hubert-base-ls960"),
    "hubert-large-ll60k": NamedEncoder(
        "hubert", "facebook/hubert-large-ll60k", encoder_config=_WAV2VEC2_LARGE
    ),
    "unispeech-sat-base": NamedEncoder("unispeech-sat", "microsoft/unispeech-sat-base"),
    "unispeech-sat-base-plus": NamedEncoder("unispeech-sat", "microsoft/unispeech-sat-base-plus"),
    "unispeech-sat-base-sv": NamedEncoder("unispeech-sat", "microsoft/unispeech-sat-base-sv"),
    "unispeech-sat-base-plus-sv": NamedEncoder(
        "unispeech-sat", "microsoft/unispeech-sat-base-plus-sv"
    ),
    "data2vec-audio-base": NamedEncoder("data2vec-audio", "facebook/data2vec-audio-base"),
    "w2v-bert-2.0": NamedEncoder("wav2vec2-bert", "facebook/w2v-bert-2.0"),
    "whisper-tiny": NamedEncoder("whisper", "openai/whisper-tiny", encoder_config=_whisper(384, 4)),
    "whisper-base": NamedEncoder("whisper", "openai/whisper-base", encoder_config=_whisper(512, 6)),
    "whisper-small": NamedEncoder(
        "whisper", "openai/whisper-small", encoder_config=_whisper(768, 12)
    ),
    "whisper-medium": NamedEncoder(
        "whisper", "openai/whisper-medium", encoder_config=_whisper(1024, 24)
    ),
    "dvector": NamedEncoder("dvector", package="resemblyzer"),
    "dvector-residual": NamedEncoder(
        "dvector", encoder_config={"network": "residual_lstm", "num_mels": 80}
    ),
    "dvector-transformer": NamedEncoder(
        "dvector", encoder_config={"network": "transformer", "num_mels": 80}
    ),
    "xvector": NamedEncoder("xvector", "speechbrain/spkrec-xvect-voxceleb"),
    "resnet": NamedEncoder("resnet", "speechbrain/spkrec-resnet-voxceleb"),
    "mfa_conformer": NamedEncoder("mfa_conformer"),
    "ska_tdnn": NamedEncoder("ska_tdnn"),
    "resnetse34l": NamedEncoder("resnetse34l"),
    "resnetse34v2": NamedEncoder("resnetse34v2"),
    "vggvox40": NamedEncoder("vggvox40"),
    "res2netse34": NamedEncoder("res2netse34"),
    "rawnet3": NamedEncoder("rawnet3", "jungjee/RawNet3"),
}

BACKBONES: dict[str, str] = {
    "ecapa": "speaker_encoder.modeling.ecapa:EcapaBackbone",
    "wavlm": "speaker_encoder.modeling.wavlm:WavLMBackbone",
    "dvector": "speaker_encoder.modeling.dvector:DVectorBackbone",
    "wav2vec2": "speaker_encoder.modeling.wav2vec2:Wav2Vec2Backbone",
    "hubert": "speaker_encoder.modeling.wav2vec2:HubertBackbone",
    "unispeech-sat": "speaker_encoder.modeling.wav2vec2:UniSpeechSatBackbone",
    "data2vec-audio": "speaker_encoder.modeling.wav2vec2:Data2VecAudioBackbone",
    "wav2vec2-bert": "speaker_encoder.modeling.w2v_bert:W2vBertBackbone",
    "whisper": "speaker_encoder.modeling.whisper:WhisperBackbone",
    "xvector": "speaker_encoder.modeling.xvector:XVectorBackbone",
    "resnet": "speaker_encoder.modeling.resnet:ResNetBackbone",
    "mfa_conformer": "speaker_encoder.modeling.mfa_conformer:MfaConformerBackbone",
    "ska_tdnn": "speaker_encoder.modeling.ska_tdnn:SkaTdnnBackbone",
    "resnetse34l": "speaker_encoder.modeling.resnetse34l:ResNetSE34LBackbone",
    "resnetse34v2": "speaker_encoder.modeling.resnetse34v2:ResNetSE34V2Backbone",
    "vggvox40": "speaker_encoder.modeling.vggvox40:VggVox40Backbone",
    "res2netse34": "speaker_encoder.modeling.res2netse34:Res2NetSE34Backbone",
    "rawnet3": "speaker_encoder.modeling.rawnet3:RawNet3Backbone",
}


def unknown_name(what: str, found: object, known: Iterable[str]) -> UserError:
    """Gives the error for a name that a table does not have: the known ones and the nearest."""
    names = sorted(known)
    nearest = difflib.get_close_matches(str(found), names, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UserError(f"Unknown {what} {found!r}.{hint} Known: {', '.join(names)}.")


def backbone_class(encoder_kind: str) -> type[Backbone]:
    """Imports the class of a family.

    Raises:
        UserError: no such family.
    """
    if encoder_kind not in BACKBONES:
        raise unknown_name("encoder_kind", encoder_kind, BACKBONES)
    module_name, class_name = BACKBONES[encoder_kind].split(":")
    return getattr(importlib.import_module(module_name), class_name)

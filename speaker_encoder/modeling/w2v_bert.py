"""w2v-BERT 2.0: a conformer on log-mels.

Source: Communication et al. 2023, "Seamless: Multilingual Expressive and Streaming Speech
Translation", section 3.2.1; ``Wav2Vec2BertModel`` and ``SeamlessM4TFeatureExtractor`` of
transformers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.ssl_backbone import SelfSupervisedBackbone
from speaker_encoder.modeling.ssl_config import Upstream
from speaker_encoder.modeling.ssl_parts import frame_mask

FRAME_SAMPLES = 400
HOP_SAMPLES = 160
N_FFT = 512
STRIDE = 2
"""Mel frames that are laid side by side as one input of the model."""
PREEMPHASIS = 0.97
SCALE = 2.0**15
"""Kaldi's samples are 16-bit integers."""
MEL_FLOOR = 1.192092955078125e-07


class KaldiLogMel(nn.Module):
    """Kaldi's log-mel, each mel normalised over the utterance, two frames side by side.

    Args:
        num_mels: Mels of a frame.

    Source: ``SeamlessM4TFeatureExtractor`` of transformers.
    """

    window: torch.Tensor
    filters: torch.Tensor

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank, window_function

        filters = mel_filter_bank(
            N_FFT // 2 + 1,
            num_mels,
            20,
            8000,
            16000,
            None,
            "kaldi",
            triangularize_in_mel_space=True,
        )
        window = window_function(FRAME_SAMPLES, "povey", periodic=False)
        self.register_buffer("window", torch.from_numpy(window).float())
        self.register_buffer("filters", torch.from_numpy(filters).float())

    def forward(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gives (B, T, 2 num_mels) float32 features and the (B,) true lengths in their frames.

        Args:
            input_values: (B, N) waveforms.
            lengths: (B,) samples of each; None: all are N.
        """
        with torch.autocast(input_values.device.type, enabled=False):
            features = self._log_mel(input_values.float())
            counts = None if lengths is None else (lengths - FRAME_SAMPLES) // HOP_SAMPLES + 1
            features = _normalize_mels(features, counts)
        num_frames = features.shape[1] // STRIDE
        stacked = features[:, : num_frames * STRIDE].unflatten(1, (num_frames, STRIDE)).flatten(2)
        return stacked, None if counts is None else counts // STRIDE

    def _log_mel(self, input_values: torch.Tensor) -> torch.Tensor:
        frames = SCALE * input_values.unfold(1, FRAME_SAMPLES, HOP_SAMPLES)  # (B, T, 400)
        frames = frames - frames.mean(dim=-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - PREEMPHASIS * before) * self.window.float()
        spectrum = torch.fft.rfft(frames, N_FFT)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.filters.float()).clamp(min=MEL_FLOOR).log()


def _normalize_mels(features: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
    """Brings each mel of an utterance to zero mean and unit variance; zero behind its end.

    A mel that never changes, as in silence, gives exact zeros: all are taken relative to the first
    frame, as rounding would otherwise be multiplied by ``1 / sqrt(1e-7)``.
    """
    features = features - features[:, :1]
    if num_frames is None:
        variance, mean = torch.var_mean(features, dim=1, keepdim=True)
        return (features - mean) / torch.sqrt(variance + 1e-7)
    is_frame = frame_mask(num_frames, features.shape[1])[..., None]
    count = num_frames[:, None, None].to(features.dtype)
    mean = features.masked_fill(~is_frame, 0.0).sum(dim=1, keepdim=True) / count
    centred = (features - mean).masked_fill(~is_frame, 0.0)
    variance = centred.square().sum(dim=1, keepdim=True) / (count - 1)
    return centred / torch.sqrt(variance + 1e-7)


class SdpaRelativeKeyAttention(Wav2Vec2BertSelfAttention):
    """Attention whose scores depend on the clamped distance from query to key.

    Same parameters, names and results as upstream's class, which makes a vector for every pair of
    frames, (T, T, C / H); here each query meets the few vectors that there are, and the scores are
    then taken where they belong.

    Source: Shaw et al. 2018, "Self-Attention with Relative Position Representations".
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        relative_position_embeddings: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attends.

        Args:
            hidden_states: (B, T, C) frames.
            attention_mask: (B, 1, 1, T) bool, True for the frames of an utterance; None: all are.
            relative_position_embeddings: Upstream's, not used.
            **kwargs: Upstream's, not used.

        Returns:
            (B, T, C) frames, and None in place of the attention weights.
        """
        query, key, value = (
            layer(hidden_states).unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)
            for layer in (self.linear_q, self.linear_k, self.linear_v)
        )
        frame = torch.arange(hidden_states.shape[1], device=hidden_states.device)
        left, right = self.left_max_position_embeddings, self.right_max_position_embeddings
        distance = (frame[None] - frame[:, None]).clamp(-left, right) + left  # (T, T)
        vectors = self.distance_embedding.weight.to(query.dtype)
        scores = query @ vectors.T * self.scaling  # (B, H, T, left + right + 1)
        bias = scores.gather(-1, distance.expand(*scores.shape[:2], *distance.shape))
        if attention_mask is not None:
            bias = bias.masked_fill(~attention_mask, float("-inf"))
        attended = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias,
            dropout_p=self.dropout.p if self.training else 0.0,
            scale=self.scaling,
        )
        return self.linear_out(attended.transpose(1, 2).flatten(2)), None


class W2vBertBackbone(SelfSupervisedBackbone):
    """Log-mel -> projection -> conformer layers -> head.

    Raises:
        UserError: an unknown argument, or values that do not fit each other.
    """

    encoder_kind: ClassVar[str] = "wav2vec2-bert"
    upstream: ClassVar[Upstream] = Upstream("wav2vec2-bert", "Wav2Vec2Bert", "wav2vec2_bert")

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__(encoder_config)
        positions = self.encoder_config["position_embeddings_type"]
        if positions != "relative_key":
            raise UserError(
                "encoder_config of the wav2vec2-bert encoder: position_embeddings_type must be "
                f"'relative_key', as in w2v-BERT 2.0, found {positions!r}."
            )
        self.log_mel = KaldiLogMel(_num_mels(self.encoder_config))
        layer: Any
        for layer in self._encoder.layers:
            # The weights and the settings are upstream's; only the forward pass is another.
            layer.self_attn.__class__ = SdpaRelativeKeyAttention

    def _num_samples(self, num_frames: int) -> int:
        return (STRIDE * num_frames - 1) * HOP_SAMPLES + FRAME_SAMPLES

    def _first_frames(
        self, input_values: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        features, num_frames = self.log_mel(input_values, lengths)
        weight = self._model.feature_projection.projection.weight
        hidden_states, _ = self._model.feature_projection(features.to(weight.dtype))
        if self.training:
            hidden_states = self._spec_augment(hidden_states, num_frames)
        if num_frames is not None:
            is_frame = frame_mask(num_frames, hidden_states.shape[1])[..., None]
            hidden_states = hidden_states.masked_fill(~is_frame, 0.0)
        return self._encoder.dropout(hidden_states), num_frames

    def _run_layer(
        self, layer: Any, hidden_states: torch.Tensor, is_frame: torch.Tensor | None, state: Any
    ) -> tuple[torch.Tensor, Any]:
        mask = None if is_frame is None else is_frame[:, None, None, :]
        return layer(hidden_states, mask, None, is_frame), None

    @classmethod
    def _constants(cls, encoder_config: dict[str, Any]) -> dict[str, torch.Tensor]:
        constants = KaldiLogMel(_num_mels(encoder_config)).state_dict()
        return {f"log_mel.{name}": tensor for name, tensor in constants.items()}


def _num_mels(encoder_config: dict[str, Any]) -> int:
    size = encoder_config["feature_projection_input_dim"]
    if size < STRIDE or size % STRIDE:
        raise UserError(
            "encoder_config of the wav2vec2-bert encoder: feature_projection_input_dim is the mels "
            f"of {STRIDE} frames, a multiple of {STRIDE}; found {size}."
        )
    return size // STRIDE

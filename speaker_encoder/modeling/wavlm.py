"""The WavLM series: wav2vec 2.0 with a gated relative position bias in its attention.

Source: Chen et al. 2022, "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech
Processing"; Snyder et al. 2018, "X-Vectors"; ``WavLMForXVector`` of transformers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from speaker_encoder.modeling.ssl_config import Upstream
from speaker_encoder.modeling.wav2vec2 import WaveformBackbone
from speaker_encoder.modeling.wavlm_parts import SdpaWavLMAttention


class WavLMBackbone(WaveformBackbone):
    """WavLM; with its own x-vector head the embedding is ``WavLMForXVector(...).embeddings``.

    Args:
        encoder_config: Arguments of ``WavLMConfig``, ``head`` and ``layers``.

    Raises:
        UserError: an unknown argument, or values that do not fit each other.
    """

    wavlm: Any
    encoder_kind: ClassVar[str] = "wavlm"
    upstream: ClassVar[Upstream] = Upstream("wavlm", "WavLM", "wavlm")
    is_normalized = None

    def __init__(self, encoder_config: dict[str, Any]) -> None:
        super().__init__(encoder_config)
        layer: Any
        for layer in self._encoder.layers:
            # The weights and the settings are upstream's; only the forward pass is another.
            layer.attention.__class__ = SdpaWavLMAttention

    def _run_layer(
        self, layer: Any, hidden_states: torch.Tensor, is_frame: torch.Tensor | None, state: Any
    ) -> tuple[torch.Tensor, Any]:
        # By position: a reentrant checkpoint follows no tensor that comes by keyword.
        return layer(hidden_states, is_frame, state)

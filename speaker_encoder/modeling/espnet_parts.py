"""What the speaker recipes of ESPnet share: their log-mel and their pooling, exact in a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import conv1d

from speaker_encoder.modeling.masked import (
    clear_padding,
    mean_over_time,
    moments_over_time,
    softmax_over_time,
    weighted_statistics,
)
from speaker_encoder.modeling.torchaudio_mel import N_FFT, WINDOW_SAMPLES, NormalizedMel

SAMPLING_RATE = 16000
F_MIN, F_MAX = 20.0, 7600.0
MIN_VARIANCE, MAX_VARIANCE = 1e-4, 1e4


class MeanNormalizedLogMel(NormalizedMel):
    """Pre-emphasis -> mel power between 20 and 7600 Hz -> logarithm -> minus the utterance's mean.

    Args:
        num_mels: Bands.

    Source: ``espnet2.asr.frontend.melspec_torch`` with ``preemp``, ``log`` and ``normalize: mn``.
    """

    def __init__(self, num_mels: int) -> None:
        from transformers.audio_utils import mel_filter_bank

        window = torch.hamming_window(WINDOW_SAMPLES)
        super().__init__(num_mels, window, has_pre_emphasis=True, log_input=True)
        filters = mel_filter_bank(
            N_FFT // 2 + 1, num_mels, F_MIN, F_MAX, SAMPLING_RATE, norm=None, mel_scale="htk"
        )
        self.filters = torch.from_numpy(filters).float()

    def forward(self, input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Gives (B, num_mels, T // 160 + 1) float32, zero behind each end, whatever the autocast.

        Args:
            input_values: (B, T) waveforms, zero behind each end.
            lengths: (B,) samples of each utterance, or None for T.
        """
        num_frames = self.num_frames(lengths)
        with torch.autocast(input_values.device.type, enabled=False):
            mel = (self.mel(input_values.float(), lengths) + 1e-6).log()
            return clear_padding(mel - mean_over_time(mel, num_frames), num_frames)


class ContextStatisticsPooling(nn.Module):
    """Weighted mean and deviation of each channel; the weights also see the whole utterance's.

    The part of the first product that belongs to the whole utterance's mean and deviation is the
    same for all frames; it is computed once and added.

    Args:
        channels: Channels of a frame.
        hidden_size: Hidden channels of the attention.

    Source: Desplanques et al. 2020, ECAPA-TDNN, section 3.1;
    ``espnet2.spk.pooling.chn_attn_stat_pooling``.
    """

    def __init__(self, channels: int, hidden_size: int = 128) -> None:
        super().__init__()
        self.attention: Any = nn.Sequential(
            nn.Conv1d(3 * channels, hidden_size, 1),
            nn.ReLU(),
            nn.BatchNorm1d(hidden_size),
            nn.Conv1d(hidden_size, channels, 1),
        )

    def forward(self, x: torch.Tensor, num_frames: torch.Tensor | None) -> torch.Tensor:
        """Pools (B, C, T') frames, at least two of each utterance, to (B, 2 C)."""
        mean, variance = moments_over_time(x, num_frames)
        count = x.shape[2] if num_frames is None else num_frames[:, None, None].to(x.dtype)
        variance = variance * (count / (count - 1))
        context = torch.cat([mean, variance.clamp(MIN_VARIANCE, MAX_VARIANCE).sqrt()], dim=1)
        first = self.attention[0]
        of_frames, of_context = first.weight.split((x.shape[1], context.shape[1]), dim=1)
        hidden = conv1d(x, of_frames, first.bias) + conv1d(context, of_context)
        weights = softmax_over_time(self.attention[1:](hidden), num_frames)
        return weighted_statistics(x, weights, MIN_VARIANCE, MAX_VARIANCE)

"""The features and the pooling of ESPnet's recipes, against torchaudio and naive formulas."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv1d, pad

import speaker_encoder  # noqa: F401 (lets torchaudio be imported without its native extension)
from speaker_encoder.modeling.espnet_parts import ContextStatisticsPooling, MeanNormalizedLogMel


def test_log_mel_equals_torchaudio(waveform):
    from torchaudio.transforms import MelSpectrogram

    transform = MelSpectrogram(
        sample_rate=16000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        f_min=20,
        f_max=7600,
        window_fn=torch.hamming_window,
        n_mels=80,
    )
    wavs = torch.from_numpy(np.stack([waveform(20_000), waveform(20_001)[:20_000]]))
    lifted = conv1d(pad(wavs[:, None], (1, 0), "reflect"), torch.tensor([[[-0.97, 1.0]]]))[:, 0]
    log_mel = torch.log(transform(lifted) + 1e-6)
    expected = log_mel - log_mel.mean(dim=-1, keepdim=True)
    own = MeanNormalizedLogMel(80)
    torch.testing.assert_close(own(wavs, None), expected, atol=1e-4, rtol=0)
    lengths = torch.tensor([20_000, 20_000])
    torch.testing.assert_close(own(wavs, lengths), expected, atol=1e-4, rtol=0)
    assert expected.shape[own.mel_axis] == 80


def test_log_mel_is_zero_behind_the_end(waveform):
    own = MeanNormalizedLogMel(24)
    wav = torch.from_numpy(waveform(8000))[None]
    alone = own(wav, None)
    padded = own(pad(wav, (0, 4000)), torch.tensor([8000]))
    torch.testing.assert_close(padded[..., :51], alone, atol=1e-5, rtol=0)
    assert not padded[..., 51:].any()


@pytest.mark.parametrize("num_frames", [None, [2, 9, 30]])
def test_pooling_equals_the_formula(num_frames):
    torch.manual_seed(0)
    pooling = ContextStatisticsPooling(6, hidden_size=5).eval()
    nn.init.normal_(pooling.attention[2].running_mean, std=0.3)
    x = torch.randn(3, 6, 30)
    lengths = None if num_frames is None else torch.tensor(num_frames)
    found = pooling(x, lengths)
    for row, total in enumerate(num_frames or [30, 30, 30]):
        own = x[row, :, :total]
        mean, deviation = own.mean(dim=1), own.var(dim=1).clamp(min=1e-4).sqrt()
        context = torch.cat([mean, deviation])[:, None].expand(-1, total)
        scores = pooling.attention(torch.cat([own, context])[None])[0]
        weights = torch.softmax(scores, dim=1)
        mu = (own * weights).sum(dim=1)
        sigma = ((own.square() * weights).sum(dim=1) - mu.square()).clamp(min=1e-4).sqrt()
        torch.testing.assert_close(found[row], torch.cat([mu, sigma]), atol=1e-5, rtol=1e-4)

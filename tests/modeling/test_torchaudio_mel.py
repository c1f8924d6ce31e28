"""The front-end of the encoders of voxceleb_trainer equals torchaudio's, also in a padded batch."""

import numpy as np
import pytest
import torch

from speaker_encoder.modeling.torchaudio_mel import (
    NormalizedMel,
    mel_filters_torchaudio,
    pre_emphasize,
)


@pytest.mark.parametrize("num_mels", [40, 64, 80])
def test_mel_filters_equal_torchaudio(num_mels):
    functional = pytest.importorskip("torchaudio.functional", reason="compares with torchaudio")
    expected = functional.melscale_fbanks(257, 0.0, 8000.0, num_mels, 16000)
    torch.testing.assert_close(
        mel_filters_torchaudio(num_mels, 512, 16000), expected, atol=2e-5, rtol=0
    )


@pytest.mark.parametrize("make_window", [torch.hamming_window, torch.hann_window])
@pytest.mark.parametrize("has_pre_emphasis", [False, True])
def test_front_end_equals_torchaudio(make_window, has_pre_emphasis, waveform):
    transforms = pytest.importorskip("torchaudio.transforms", reason="compares with torchaudio")
    upstream = transforms.MelSpectrogram(
        16000, n_fft=512, win_length=400, hop_length=160, window_fn=make_window, n_mels=64
    )
    ours = NormalizedMel(64, make_window(400), has_pre_emphasis=has_pre_emphasis, log_input=True)
    wavs = torch.from_numpy(np.stack([waveform(16000), waveform(16159)[:16000]]))
    # y[n] = x[n] - 0.97 x[n - 1], before the first sample its mirror image
    mirrored = torch.nn.functional.pad(wavs, (1, 0), "reflect")
    lifted = mirrored[:, 1:] - 0.97 * mirrored[:, :-1] if has_pre_emphasis else wavs
    expected = torch.nn.InstanceNorm1d(64)((upstream(lifted) + 1e-6).log())
    for lengths in (None, torch.tensor([16000, 16000])):
        torch.testing.assert_close(ours(wavs, lengths), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_samples", [257, 16000, 16001, 16127, 16128, 16159, 16160])
def test_front_end_of_padded_utterance_knows_only_its_own_samples(num_samples, waveform):
    mel = NormalizedMel(40, torch.hamming_window(400), has_pre_emphasis=True, log_input=True)
    wav = torch.from_numpy(waveform(num_samples))[None]
    alone = mel(wav, None)
    padded = mel(torch.nn.functional.pad(wav, (0, 777)), torch.tensor([num_samples]))
    torch.testing.assert_close(padded[..., : alone.shape[2]], alone, atol=1e-5, rtol=0)
    assert not padded[..., alone.shape[2] :].any()


def test_pre_emphasis_by_hand():
    found = pre_emphasize(torch.tensor([[1.0, 3.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([[1 - 0.97 * 3, 3 - 0.97, 2 - 0.97 * 3]]))

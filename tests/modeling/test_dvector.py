import importlib.util
import sys
import types

import numpy as np
import pytest
import torch

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.modeling.dvector import num_partials
from speaker_encoder.modeling.mel import mel_filters_slaney


@pytest.fixture(scope="module")
def resemblyzer_encoder():
    """The real VoiceEncoder; its voice activity detector is absent and not used by it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "webrtcvad", types.ModuleType("webrtcvad"))
        resemblyzer = pytest.importorskip("resemblyzer", reason="needs the package resemblyzer")
        yield resemblyzer.VoiceEncoder("cpu", verbose=False)
        for name in [name for name in sys.modules if name.split(".")[0] == "resemblyzer"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def encoder():
    if importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("the weights are those that the package resemblyzer ships")
    return SpeakerEncoder.from_pretrained("dvector")


LENGTHS = (400, 6400, 12321, 16000, 25599, 25600, 31519, 31520, 33000, 48000, 80000, 161234)


def test_embeddings_equal_resemblyzer(encoder, resemblyzer_encoder, waveform):
    waveforms = [waveform(length) for length in LENGTHS]
    found = encoder.encode(waveforms, batch_size=5).numpy()
    assert found.shape == (len(LENGTHS), 256)
    for row, one in zip(found, waveforms, strict=True):
        expected = resemblyzer_encoder.embed_utterance(one)
        assert np.abs(row - expected).max() <= 1e-4
    with torch.inference_mode():
        raw = encoder(torch.from_numpy(waveforms[-1])[None]).embeddings
    assert np.abs(raw[0].numpy() - expected).max() <= 1e-4


def test_windows_are_those_of_resemblyzer(resemblyzer_encoder):
    for num_samples in [*range(400, 120_000, 997), *LENGTHS]:
        _, slices = resemblyzer_encoder.compute_partial_slices(num_samples, 1.3, 0.75)
        assert num_partials(num_samples) == len(slices), num_samples
        assert [part.start for part in slices] == [77 * n for n in range(len(slices))]


def test_mel_filters_equal_librosa():
    librosa = pytest.importorskip("librosa", reason="compares with librosa's filters")
    expected = librosa.filters.mel(sr=16000, n_fft=400, n_mels=40).T
    np.testing.assert_allclose(mel_filters_slaney(40, 400, 16000), expected, atol=1e-7)


def test_weights_are_read_without_importing_the_package(encoder):
    assert encoder.config.base_model_name == "dvector"
    assert encoder.config.source_license == "apache-2.0"
    assert not encoder.config.untrained_head
    assert encoder.embedding_dim == 256


def test_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps resemblyzer"):
        SpeakerEncoder.from_pretrained("dvector")


@pytest.mark.parametrize("num_samples", [25600, 32000, 48000])
def test_training_on_crops_reaches_every_parameter(make_encoder, waveform, num_samples):
    encoder = make_encoder("dvector").train()
    wavs = torch.from_numpy(np.stack([waveform(num_samples + n)[:num_samples] for n in range(3)]))
    weights = torch.randn(3, encoder.embedding_dim)
    (encoder(wavs).embeddings * weights).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_folder_with_another_model_is_refused(tmp_path):
    torch.save({"model_state": {"conv.weight": torch.ones(1)}}, tmp_path / "pretrained.pt")
    with pytest.raises(UserError, match="holds no d-vector encoder"):
        SpeakerEncoder.from_pretrained(tmp_path)

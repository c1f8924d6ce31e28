import importlib.util
import pathlib
import sys
import types

import numpy as np
import pytest
import torch

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.modeling.dvector import DVectorBackbone, num_partials
from speaker_encoder.modeling.dvector_networks import (
    FirstFrameTransformer,
    ResidualLstm,
    to_symmetric_decibel,
)
from speaker_encoder.modeling.mel import mel_filters_slaney
from speaker_encoder.modeling.registry import NAMES


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


def test_damaged_or_malicious_weights_are_refused(tmp_path):
    flag = tmp_path / "it_ran"
    torch.save({"model_state": {"lstm.weight_ih_l0": _Touch(flag)}}, tmp_path / "pretrained.pt")
    with pytest.raises(UserError, match=r"pretrained.pt is refused"):
        SpeakerEncoder.from_pretrained(tmp_path)
    assert not flag.exists()


class _Touch:
    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return pathlib.Path.touch, (self.flag,)


def test_decibel_lie_between_minus_4_and_4():
    power = torch.tensor([0.0, 1e-12, 1e-10, 1e-5, 1.0, 100.0])
    found = to_symmetric_decibel(power)
    torch.testing.assert_close(found, torch.tensor([-4.0, -4.0, -4.0, 0.0, 4.0, 4.0]))


def test_residual_lstm_adds_the_input_of_all_layers_but_the_last():
    torch.manual_seed(0)
    network = ResidualLstm(5, 8, 3, 6)
    windows = torch.randn(2, 9, 5)
    hidden = torch.relu(network.prenet(windows))
    for layer in network.layers[:2]:
        hidden = hidden + layer(hidden)[0]
    hidden = network.layers[2](hidden)[0]
    torch.testing.assert_close(network(windows), network.linear(hidden[:, -1]))


def test_transformer_gives_its_first_frame_and_knows_the_order_of_frames():
    torch.manual_seed(0)
    network = FirstFrameTransformer(5, 8, 2, 6).eval()
    windows = torch.randn(2, 9, 5)
    swapped = windows[:, [0, 2, 1, 3, 4, 5, 6, 7, 8]]
    with torch.no_grad():
        embeddings, of_swapped = network(windows), network(swapped)
        assert (embeddings - of_swapped).abs().max() > 1e-4
        network.alpha.zero_()  # without positions only the set of the other frames counts
        torch.testing.assert_close(network(windows), network(swapped))


def test_embedding_is_the_mean_over_windows_of_equal_weight(make_encoder, waveform):
    encoder = make_encoder("dvector-residual")
    wav = torch.from_numpy(waveform(60_000))[None]
    backbone = encoder.backbone
    with torch.inference_mode():
        mel = backbone.mel(torch.nn.functional.pad(wav, (0, 40_000)))
        starts = [77 * n for n in range(num_partials(60_000))]
        windows = torch.cat([mel[:, start : start + 160] for start in starts])
        mean = backbone.network(to_symmetric_decibel(windows)).mean(dim=0)
    expected = torch.nn.functional.normalize(mean, dim=0)
    assert len(starts) > 2
    torch.testing.assert_close(encoder.encode(wav[0])[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [("dvector", 1_423_616), ("dvector-residual", 1_665_536), ("dvector-transformer", 2_456_321)],
)
def test_sizes(name, num_parameters):
    entry = NAMES[name]
    with torch.device("meta"):
        backbone = DVectorBackbone(entry.encoder_config)
    assert backbone.embedding_dim == 256
    assert sum(parameter.numel() for parameter in backbone.parameters()) == num_parameters


@pytest.mark.parametrize(
    ("encoder_config", "message"),
    [
        ({"network": "residual"}, "Did you mean 'residual_lstm'"),
        ({"network": "transformer", "hidden_size": 30}, "multiple of its 4 heads"),
    ],
)
def test_impossible_architecture(encoder_config, message):
    with pytest.raises(UserError, match=message):
        DVectorBackbone(encoder_config)

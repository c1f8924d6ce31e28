import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.modeling.ecapa import EcapaBackbone

HUB_CHANNELS = [1024, 1024, 1024, 1024, 3072]


def _load_with_speechbrain(folder):
    from speechbrain.inference.classifiers import EncoderClassifier

    return EncoderClassifier.from_hparams(source=str(folder), savedir=str(folder))


@pytest.mark.parametrize("label_file", ["label_encoder.txt", "label_encoder.ckpt"])
def test_embeddings_equal_speechbrain(tmp_path, write_speechbrain_folder, waveform, label_file):
    folder = tmp_path / "ecapa"
    write_speechbrain_folder(folder, str(folder), label_file=label_file)
    upstream = _load_with_speechbrain(folder)
    encoder = SpeakerEncoder.from_pretrained(folder)
    assert not encoder.training
    for num_samples in (800, 6400, 16000, 48123):
        wavs = torch.from_numpy(waveform(num_samples))[None]
        with torch.inference_mode():
            expected = upstream.encode_batch(wavs).squeeze(1)
            found = encoder(wavs).embeddings
        assert found.shape == (1, 192)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_embeddings_equal_speechbrain_in_full_size(tmp_path, write_speechbrain_folder, waveform):
    folder = tmp_path / "ecapa"
    write_speechbrain_folder(folder, str(folder), channels=HUB_CHANNELS)
    wavs = torch.from_numpy(np.stack([waveform(32000), waveform(32001)[:32000]]))
    with torch.inference_mode():
        expected = _load_with_speechbrain(folder).encode_batch(wavs).squeeze(1)
        found = SpeakerEncoder.from_pretrained(folder)(wavs).embeddings
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_copy_whose_path_names_the_hub_loads_the_files_beside_it(speechbrain_folder, waveform):
    encoder = SpeakerEncoder.from_pretrained(speechbrain_folder)
    saved = torch.load(speechbrain_folder / "embedding_model.ckpt", weights_only=True)
    own = encoder.backbone.network.state_dict()
    assert own.keys() == saved.keys()
    assert all(torch.equal(own[name], saved[name]) for name in saved)
    assert not encoder.config.untrained_head
    assert encoder.config.source_license is None  # a folder does not tell
    assert encoder.config.base_model_name == "spkrec-ecapa"  # not the path on this machine
    assert encoder.encode(waveform(16000)).shape == (1, 192)


def test_default_architecture_is_that_of_the_hub():
    with torch.device("meta"):
        backbone = EcapaBackbone({})
    network = backbone.network
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_767_552
    assert len(network.state_dict()) == 231
    assert backbone.embedding_dim == 192


def test_log_mel_equals_speechbrain(make_encoder, waveform):
    from speechbrain.lobes.features import Fbank
    from speechbrain.processing.features import InputNormalization

    log_mel = make_encoder("ecapa").backbone.log_mel
    wavs = torch.from_numpy(np.stack([waveform(20000), 1e-4 * waveform(20001)[:20000]]))
    wavs[:, 9000:] = 0.0  # silence, to reach the floor of 80 dB and that of 1e-10
    expected = InputNormalization(norm_type="sentence", std_norm=False)(
        Fbank(n_mels=80)(wavs), torch.ones(2)
    )
    torch.testing.assert_close(log_mel(wavs, None), expected, atol=1e-4, rtol=0)
    all_valid = torch.tensor([126, 126])
    torch.testing.assert_close(log_mel(wavs, all_valid), expected, atol=1e-4, rtol=0)


def test_log_mel_of_padded_utterance_knows_only_its_own_frames(make_encoder):
    log_mel = make_encoder("ecapa").backbone.log_mel
    wav = torch.full((1, 16159), 1e-7)
    wav[0, -1] = 1.0  # loudest in the first frame behind the utterance's last
    alone = log_mel(wav, None)
    padded = log_mel(torch.nn.functional.pad(wav, (0, 5000)), torch.tensor([101]))
    torch.testing.assert_close(padded[:, :101], alone, atol=1e-4, rtol=0)
    assert not padded[:, 101:].any()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.integers(6400, 48000), min_size=2, max_size=4))
def test_batch_equals_single_for_any_lengths(encoder_and_waveform, lengths):
    encoder, waveform = encoder_and_waveform
    waveforms = [waveform(length) for length in lengths]
    together = encoder.encode(waveforms)
    alone = torch.cat([encoder.encode(waveform) for waveform in waveforms])
    assert (together - alone).abs().max() <= 1e-5


@pytest.fixture(scope="module")
def encoder_and_waveform(speechbrain_folder, waveform):
    return SpeakerEncoder.from_pretrained(speechbrain_folder), waveform


@pytest.mark.parametrize("offset", [0, 1, 2, 159, 160, 161, 320, 480, 640, 800])
def test_batch_equals_single_at_the_edges_of_frames(encoder_and_waveform, offset):
    encoder, waveform = encoder_and_waveform
    waveforms = [waveform(16000), waveform(16000 + offset), waveform(encoder.min_num_samples)]
    together = encoder.encode(waveforms)
    alone = torch.cat([encoder.encode(waveform) for waveform in waveforms])
    assert (together - alone).abs().max() <= 1e-5


def test_raw_embeddings_do_not_depend_on_what_lies_behind_the_end(encoder_and_waveform):
    encoder, waveform = encoder_and_waveform
    short = torch.from_numpy(waveform(9000))
    long = torch.from_numpy(waveform(30000))
    mask = torch.ones(2, 30000)
    mask[0, 9000:] = 0
    results = []
    for behind in (torch.zeros(21000), torch.full((21000,), 0.7)):
        batch = torch.stack([torch.cat([short, behind]), long])
        with torch.inference_mode():
            results.append(encoder(batch, mask).embeddings)
    assert torch.equal(*results)


def test_equal_lengths_take_the_path_without_masks(make_encoder, waveform):
    backbone = make_encoder("ecapa").backbone
    seen = []
    backbone.network.asp.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["lengths"]), with_kwargs=True
    )
    encoder = make_encoder("ecapa")
    encoder.backbone = backbone
    wavs = torch.from_numpy(waveform(8000))[None].repeat(2, 1)
    encoder(wavs, torch.ones(2, 8000))
    encoder(wavs)
    assert seen == [None, None]


def test_training_reaches_every_parameter(make_encoder, waveform):
    encoder = make_encoder("ecapa").train()
    wavs = torch.from_numpy(np.stack([waveform(8000 + n)[:8000] for n in range(4)]))
    encoder(wavs).embeddings.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_too_short_names_the_least_length(make_encoder, waveform):
    encoder = make_encoder("ecapa")
    assert encoder.min_num_samples == 640
    with torch.inference_mode():
        assert torch.isfinite(encoder(torch.randn(1, 640)).embeddings).all()
    with pytest.raises(UserError, match=r"639 samples .* 640 samples \(0.040 s\)"):
        encoder.encode(waveform(639))
    with pytest.raises(UserError, match="640 samples"):
        encoder(torch.zeros(2, 639))
    mask = torch.ones(2, 1600)
    mask[1, 300:] = 0
    with pytest.raises(UserError, match="Utterance 1 has 300 samples"):
        encoder(torch.zeros(2, 1600), mask)


def test_what_has_no_meaning_is_an_error(make_encoder):
    encoder = make_encoder("ecapa")
    with pytest.raises(UserError, match="enlarge_head has no meaning for the ecapa encoder"):
        encoder.enlarge_head(256)
    with pytest.raises(UserError, match="train_only_head has no meaning for the ecapa encoder"):
        encoder.freeze(train_only_head=True)
    with pytest.raises(UserError, match="freeze_feature_encoder has no meaning"):
        encoder.freeze(freeze_feature_encoder=True)
    encoder.freeze()
    assert all(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("encoder_config", "message"),
    [
        ({"chanels": [64] * 5}, "Unknown key 'chanels'.* Did you mean 'channels'"),
        ({"channels": "64"}, "'channels' .* must be list, found '64'"),
        ({"channels": [64, 64, 64]}, "kernel_sizes must have as many values as channels"),
        ({"channels": [60, 60, 60, 60, 180]}, "multiple of res2net_scale"),
        ({"kernel_sizes": [4, 3, 3, 3, 1]}, "kernel_sizes must be odd"),
    ],
)
def test_impossible_architecture(encoder_config, message):
    with pytest.raises(UserError, match=message):
        SpeakerEncoder.from_name("ecapa", pretrained=False, encoder_config=encoder_config)


def test_reading_the_file_of_every_loaded_module_is_harmless(make_encoder):
    make_encoder("ecapa")
    read = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    assert len(read) > 100  # and none of them has raised an ImportError

"""SpeechBrain's x-vector and ResNet: its own folders, its own embeddings, the Hub's sizes."""

import numpy as np
import pytest
import torch
from speechbrain_folders import SIZES, write_folder

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.modeling.registry import NAMES, backbone_class

both = pytest.mark.parametrize("kind", sorted(SIZES))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return {kind: write_folder(root / kind, kind) for kind in SIZES}


@both
def test_embeddings_equal_speechbrain(folders, kind, waveform):
    from speechbrain.inference.classifiers import EncoderClassifier

    upstream = EncoderClassifier.from_hparams(source=str(folders[kind]), savedir=str(folders[kind]))
    encoder = SpeakerEncoder.from_pretrained(folders[kind])
    assert encoder.config.encoder_kind == kind
    assert not encoder.config.untrained_head
    for num_samples in (800, 6400, 16159, 48123):
        wavs = torch.from_numpy(waveform(num_samples))[None]
        with torch.inference_mode():
            expected = upstream.encode_batch(wavs).reshape(1, -1)
            found = encoder(wavs).embeddings
        assert found.shape == (1, SIZES[kind]["dim"])
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@both
def test_padded_batch_equals_speechbrain_on_each_utterance(folders, kind, waveform):
    from speechbrain.inference.classifiers import EncoderClassifier

    upstream = EncoderClassifier.from_hparams(source=str(folders[kind]), savedir=str(folders[kind]))
    encoder = SpeakerEncoder.from_pretrained(folders[kind])
    waveforms = [waveform(length) for length in (8000, 30_001, 16_160)]
    with torch.inference_mode():
        rows = [upstream.encode_batch(torch.from_numpy(one)[None]).flatten() for one in waveforms]
    expected = torch.nn.functional.normalize(torch.stack(rows), dim=-1)
    torch.testing.assert_close(encoder.encode(waveforms), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("kind", "num_parameters", "num_tensors"),
    [("xvector", 4_211_604, 37), ("resnet", 15_438_336, 361)],
)
def test_default_architecture_is_that_of_the_hub(kind, num_parameters, num_tensors):
    with torch.device("meta"):
        backbone = backbone_class(kind)({})
    own = sum(parameter.numel() for parameter in backbone.network.parameters())
    assert (own, len(backbone.network.state_dict())) == (num_parameters, num_tensors)
    assert backbone.embedding_dim == SIZES[kind]["dim"]
    assert backbone.log_mel.power_mel.filters.shape[1] == SIZES[kind]["num_mels"]


@both
def test_names_are_those_of_the_hub(kind):
    assert NAMES[kind].encoder_kind == kind
    assert NAMES[kind].hub_id.startswith("speechbrain/spkrec-")


@both
def test_weights_are_those_beside_the_yaml(tmp_path, kind):
    folder = write_folder(tmp_path / "copy", kind, pretrained_path=f"speechbrain/spkrec-{kind}")
    saved = torch.load(folder / "embedding_model.ckpt", weights_only=True)
    own = SpeakerEncoder.from_pretrained(folder).backbone.network.state_dict()
    assert own.keys() == saved.keys()
    assert all(torch.equal(own[name], saved[name]) for name in saved)


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("xvector", "tdnn_blocks: 5", "tdnn_blocks: 4", "as many values as tdnn_blocks says"),
        ("xvector", "sizes: [5,", "sizes: [4,", "must be odd"),
        ("xvector", "!name:torch.nn.LeakyReLU", "!name:torch.nn.ReLU", "must have the activation"),
        ("xvector", "!name:torch.nn.LeakyReLU", "!name:os.system", "!name:os.system"),
        ("xvector", "    tdnn_blocks", "    depth: 3\n    tdnn_blocks", "argument 'depth'"),
        ("xvector", "in_channels: !ref <n_mels>", "in_channels: 23", "gives 24 mels"),
        ("resnet", "strides: [1, 2, 2, 2]", "strides: [1, 2, 2]", "strides must have 4 values"),
        ("resnet", "lin_neurons: 256", "lin_neurons: 128", "do not fit its architecture"),
        ("resnet", "ResNet.ResNet", "ResNet.ResNeXt", "ResNet.ResNeXt"),
    ],
)
def test_other_networks_are_refused(tmp_path, kind, old, new, message):
    folder = write_folder(tmp_path / kind, kind)
    path = folder / "hyperparams.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        SpeakerEncoder.from_pretrained(folder)


def test_malicious_weights_are_refused(folders, tmp_path):
    folder = write_folder(tmp_path / "xvector", "xvector")
    torch.save({"weight": np.array([object()])}, folder / "embedding_model.ckpt")
    with pytest.raises(UserError, match=r"embedding_model.ckpt is refused"):
        SpeakerEncoder.from_pretrained(folder)


def test_xvector_of_an_utterance_is_always_the_same(folders, waveform):
    encoder = SpeakerEncoder.from_pretrained(folders["xvector"])
    assert torch.equal(encoder.encode(waveform(9000)), encoder.encode(waveform(9000)))

"""Small encoders with random weights and a SpeechBrain folder in the Hub's layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_configs import TINY
from torch import nn

from speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from speaker_encoder.modeling.registry import backbone_class

# The file of the Hub repository speechbrain/spkrec-ecapa-voxceleb (Apache-2.0), word for word but
# for the four places in braces.
HYPERPARAMS = """\
n_mels: 80

pretrained_path: {pretrained_path}

out_n_neurons: {num_classes}

compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False

embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: {channels}
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 128
    lin_neurons: 192

classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 192
    out_neurons: !ref <out_n_neurons>

mean_var_norm_emb: !new:speechbrain.processing.features.InputNormalization
    norm_type: global
    std_norm: False

modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    mean_var_norm_emb: !ref <mean_var_norm_emb>
    classifier: !ref <classifier>

label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        mean_var_norm_emb: !ref <mean_var_norm_emb>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
        mean_var_norm_emb: !ref <pretrained_path>/mean_var_norm_emb.ckpt
        classifier: !ref <pretrained_path>/classifier.ckpt
        label_encoder: !ref <pretrained_path>/{label_file}
"""
HUB_CHANNELS = [1024, 1024, 1024, 1024, 3072]
SMALL_CHANNELS = [64, 64, 64, 64, 192]


def _randomize_batch_norm(module: nn.Module) -> None:
    """Gives batch norm statistics as after training: at their start they hide most errors."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(child.running_mean, std=0.3)
            nn.init.uniform_(child.running_var, 0.5, 2.0)
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias, std=0.2)


@pytest.fixture
def make_encoder() -> Callable[[str], SpeakerEncoder]:
    """Makes a case of ``TINY`` with random weights that say it was trained."""

    def make(case: str) -> SpeakerEncoder:
        torch.manual_seed(7)
        tiny = TINY[case]
        settings = backbone_class(tiny.encoder_kind).default_feature_settings(tiny.encoder_config)
        config = SpeakerEncoderConfig(
            encoder_kind=tiny.encoder_kind,
            encoder_config=tiny.encoder_config,
            untrained_head=False,
            **settings,
        )
        encoder = SpeakerEncoder(config).eval()
        _randomize_batch_norm(encoder)
        return encoder

    return make


@pytest.fixture(scope="session")
def waveform() -> Callable[[int], np.ndarray]:
    """Makes (num_samples,) float32 noise with a level and a colour that change as in speech."""

    def make(num_samples: int) -> np.ndarray:
        generator = np.random.default_rng(num_samples)
        noise = generator.standard_normal(num_samples + 4)
        coloured = np.convolve(noise, [1.0, 0.9, 0.5, 0.2, 0.1], mode="valid")
        level = 0.02 + 0.2 * np.abs(np.sin(np.arange(num_samples) / 2500.0))
        return (0.3 * level * coloured).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def write_speechbrain_folder() -> Callable[..., Path]:
    """Writes random weights in the Hub's file layout, made by SpeechBrain's own classes."""

    def write(
        folder: Path,
        pretrained_path: str,
        channels: list[int] | None = None,
        label_file: str = "label_encoder.txt",
    ) -> Path:
        from speechbrain.dataio.encoder import CategoricalEncoder
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
        from speechbrain.processing.features import InputNormalization

        channels = channels or SMALL_CHANNELS
        torch.manual_seed(3)
        folder.mkdir(parents=True, exist_ok=True)
        network = ECAPA_TDNN(
            80,
            channels=channels,
            kernel_sizes=[5, 3, 3, 3, 1],
            dilations=[1, 2, 3, 4, 1],
            attention_channels=128,
            lin_neurons=192,
        )
        _randomize_batch_norm(network)
        torch.save(network.state_dict(), folder / "embedding_model.ckpt")
        torch.save(Classifier(192, out_neurons=5).state_dict(), folder / "classifier.ckpt")
        normalization = InputNormalization(norm_type="global", std_norm=False)
        normalization(torch.randn(2, 3, 192), torch.ones(2))
        normalization._save(folder / "mean_var_norm_emb.ckpt")
        labels = CategoricalEncoder()
        labels.update_from_iterable([f"id{n}" for n in range(5)])
        labels.save(folder / label_file)
        text = HYPERPARAMS.format(
            pretrained_path=pretrained_path,
            num_classes=5,
            channels=channels,
            label_file=label_file,
        )
        (folder / "hyperparams.yaml").write_text(text)
        (folder / "config.json").write_text('{"speechbrain_interface": "EncoderClassifier"}')
        return folder

    return write


@pytest.fixture(scope="session")
def speechbrain_folder(tmp_path_factory, write_speechbrain_folder) -> Path:
    """A copy of the Hub's folder whose ``pretrained_path`` still names the Hub."""
    folder = tmp_path_factory.mktemp("speechbrain") / "spkrec-ecapa"
    return write_speechbrain_folder(folder, "speechbrain/spkrec-ecapa-voxceleb")

"""Folders of SpeechBrain's x-vector and ResNet, made with random weights by SpeechBrain itself."""

from pathlib import Path

import torch
from torch import nn

# As in the repositories speechbrain/spkrec-xvect-voxceleb and spkrec-resnet-voxceleb of the Hub;
# sizes and the path are filled in.
HEAD = """\
# Feature parameters
n_mels: {num_mels}

# Pretrain folder (HuggingFace)
pretrained_path: {pretrained_path}

# Output parameters
out_n_neurons: {num_classes}

# Model params
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
"""
NETWORKS = {
    "xvector": """
embedding_model: !new:speechbrain.lobes.models.Xvector.Xvector
    in_channels: !ref <n_mels>
    activation: !name:torch.nn.LeakyReLU
    tdnn_blocks: 5
    tdnn_channels: [{channels}, {channels}, {channels}, {channels}, {last}]
    tdnn_kernel_sizes: [5, 3, 3, 1, 1]
    tdnn_dilations: [1, 2, 3, 1, 1]
    lin_neurons: {dim}

classifier: !new:speechbrain.lobes.models.Xvector.Classifier
    input_shape: [null, null, {dim}]
    activation: !name:torch.nn.LeakyReLU
    lin_blocks: 1
    lin_neurons: {dim}
    out_neurons: !ref <out_n_neurons>
""",
    "resnet": """
embedding_model: !new:speechbrain.lobes.models.ResNet.ResNet
    input_size: !ref <n_mels>
    channels: [{channels}, {channels}, {last}, {last}]
    strides: [1, 2, 2, 2]
    block_sizes: [3, 4, 6, 3]
    lin_neurons: {dim}

classifier: !new:speechbrain.lobes.models.ResNet.Classifier
    input_size: {dim}
    out_neurons: !ref <out_n_neurons>
""",
}
TAIL = """
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
        label_encoder: !ref <pretrained_path>/label_encoder.txt
"""
NUM_CLASSES = 5
SIZES = {
    "xvector": {"num_mels": 24, "channels": 32, "last": 60, "dim": 512},
    "resnet": {"num_mels": 80, "channels": 8, "last": 16, "dim": 256},
}


def write_folder(folder: Path, kind: str, pretrained_path: str | None = None) -> Path:
    """Writes a folder that SpeechBrain's ``EncoderClassifier`` loads."""
    from hyperpyyaml import load_hyperpyyaml
    from speechbrain.dataio.encoder import CategoricalEncoder

    folder.mkdir(parents=True)
    text = (HEAD + NETWORKS[kind] + TAIL).format(
        pretrained_path=pretrained_path or folder, num_classes=NUM_CLASSES, **SIZES[kind]
    )
    (folder / "hyperparams.yaml").write_text(text)
    torch.manual_seed(5)
    made = load_hyperpyyaml(text)
    randomize_statistics(made["embedding_model"])
    torch.save(made["embedding_model"].state_dict(), folder / "embedding_model.ckpt")
    torch.save(made["classifier"].state_dict(), folder / "classifier.ckpt")
    normalization = made["mean_var_norm_emb"]
    normalization(torch.randn(2, 3, SIZES[kind]["dim"]), torch.ones(2))
    normalization._save(folder / "mean_var_norm_emb.ckpt")
    labels = CategoricalEncoder()
    labels.update_from_iterable([f"id{n}" for n in range(NUM_CLASSES)])
    labels.save(folder / "label_encoder.txt")
    return folder


def randomize_statistics(network: nn.Module) -> None:
    """Gives batch norm statistics as after training: at their start they hide most errors."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.1)

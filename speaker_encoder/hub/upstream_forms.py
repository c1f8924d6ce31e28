"""Writes an encoder in the form of the library that it comes from, for that library's own loader.

An ECAPA-TDNN becomes a SpeechBrain folder (``EncoderClassifier.from_hparams``,
``SpeakerRecognition.from_hparams``), a WavLM one of transformers (``WavLMForXVector``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder, SpeakerEncoderConfig

SPEECHBRAIN_FILES = (
    "hyperparams.yaml",
    "embedding_model.ckpt",
    "mean_var_norm_emb.ckpt",
    "classifier.ckpt",
    "label_encoder.txt",
    "label_encoder.ckpt",
)
TRANSFORMERS_SUBFOLDER = "transformers"
"""Folder in our repositories that ``WavLMForXVector.from_pretrained(subfolder=...)`` loads."""
NO_CLASS = "unknown"
"""The one class of the classifier of an encoder that was trained without one."""

_HYPERPARAMS = """\
# Written by speaker-encoder. All files are taken from where this one lies: from the repository for
# EncoderClassifier.from_hparams(source="{pretrained_path}"), from a folder for a copy of it.
n_mels: {n_mels}
pretrained_path: {pretrained_path}
out_n_neurons: {num_classes}

compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
{features}

mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False

embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
{network}

classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: {embedding_dim}
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
"""


def write_upstream_form(
    encoder: SpeakerEncoder,
    folder: Path,
    repo_id: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> bool:
    """Writes the form of the encoder's own library beside our own, as a repository has it.

    Args:
        encoder: the encoder.
        folder: the folder that becomes the repository.
        repo_id: of the repository.
        dtype: in which the weights are stored.

    Returns:
        Whether its family has such a form.
    """
    form = upstream_form(encoder.config)
    if form == "speechbrain":
        write_speechbrain_form(encoder, folder, repo_id, dtype=dtype)
    elif form == "transformers":
        write_transformers_form(encoder, folder / TRANSFORMERS_SUBFOLDER, dtype=dtype)
    return form is not None


def upstream_form(config: SpeakerEncoderConfig) -> str | None:
    """Gives the name of the form that an encoder has in another library; None: it has none.

    A WavLM with another head than upstream's, or on a single inner layer, is in no library.
    """
    if config.encoder_kind == "ecapa":
        return "speechbrain"
    # What was saved before heads could be chosen names none.
    architecture = {"head": {"name": "xvector"}, "layers": "last", **config.encoder_config}
    is_upstreams = architecture["head"] == {"name": "xvector"} and architecture["layers"] in (
        "last",
        "weighted_sum",
    )
    return "transformers" if config.encoder_kind == "wavlm" and is_upstreams else None


def write_speechbrain_form(
    encoder: SpeakerEncoder,
    folder: str | Path,
    repo_id: str | None = None,
    *,
    class_weights: Mapping[str, torch.Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes an ECAPA-TDNN as SpeechBrain publishes it.

    The files are found beside ``hyperparams.yaml``, wherever that is loaded from: a repository, a
    fork of it, a revision, or a folder. A copy never loads another repository's weights.

    Args:
        encoder: of the ``ecapa`` family.
        folder: made if need be.
        repo_id: of the Hub repository that the folder becomes; ``pretrained_path`` names it.
        class_weights: speaker -> (D,) direction of that class, for ``classify_batch``. None: the
            encoder was trained without classes; there is one, ``unknown``, that scores 0.
        dtype: in which the embedding model's weights are stored.

    Raises:
        UserError: the encoder is of another family.
    """
    from speechbrain.dataio.encoder import CategoricalEncoder
    from speechbrain.processing.features import InputNormalization

    if encoder.config.encoder_kind != "ecapa":
        raise UserError(
            "SpeechBrain's form is that of an ECAPA-TDNN; this encoder is of the family "
            f"{encoder.config.encoder_kind!r}. {_other_form(encoder)}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dim = encoder.embedding_dim
    classes = dict(class_weights or {NO_CLASS: torch.zeros(dim)})
    text = _hyperparams_text(encoder, repo_id, len(classes))
    (folder / "hyperparams.yaml").write_text(text, encoding="utf-8")
    weights = {
        name.removeprefix("network."): _stored(tensor, dtype)
        for name, tensor in encoder.backbone.state_dict().items()
        if name.startswith("network.")
    }
    torch.save(weights, folder / "embedding_model.ckpt")
    rows = torch.stack([_stored(row, torch.float32) for row in classes.values()])
    torch.save({"weight": rows}, folder / "classifier.ckpt")
    normalization = InputNormalization(norm_type="global", std_norm=False)
    normalization.count = 1
    normalization.glob_mean, normalization.glob_std = torch.zeros(dim), torch.ones(dim)
    normalization._save(folder / "mean_var_norm_emb.ckpt")
    labels = CategoricalEncoder()
    labels.update_from_iterable(classes)
    labels.save(folder / "label_encoder.txt")
    # Where a path is not given, SpeechBrain looks for <name>.ckpt.
    labels.save(folder / "label_encoder.ckpt")


def _hyperparams_text(encoder: SpeakerEncoder, repo_id: str | None, num_classes: int) -> str:
    from speaker_encoder.modeling.ecapa import FEATURE_DEFAULTS, NETWORK_DEFAULTS

    config = encoder.config.encoder_config

    def arguments(names: Any) -> str:
        return "\n".join(f"    {name}: {config[name]}" for name in names if name != "input_size")

    return _HYPERPARAMS.format(
        n_mels=config["input_size"],
        pretrained_path=repo_id or ".",
        num_classes=num_classes,
        features=arguments(FEATURE_DEFAULTS),
        network=arguments(NETWORK_DEFAULTS),
        embedding_dim=encoder.embedding_dim,
    )


def write_transformers_form(
    encoder: SpeakerEncoder, folder: str | Path, *, dtype: torch.dtype = torch.float32
) -> None:
    """Writes a WavLM as a folder that ``WavLMForXVector.from_pretrained`` loads.

    ``.embeddings`` are ours. Upstream's ``classifier`` behind them, which training here does not
    use, is the identity, so that ``.logits`` are the embeddings too.

    Args:
        encoder: of the ``wavlm`` family.
        folder: made if need be.
        dtype: in which the weights are stored; they are loaded as float32.

    Raises:
        UserError: the encoder is of another family, or has another head.
    """
    from transformers import Wav2Vec2FeatureExtractor

    from speaker_encoder.modeling.loading import quiet_without_terminal
    from speaker_encoder.modeling.ssl_config import build_upstream
    from speaker_encoder.modeling.wavlm import WavLMBackbone

    if upstream_form(encoder.config) != "transformers":
        raise UserError(
            "transformers' form is that of a WavLM with transformers' own x-vector head on its "
            "last layer or on a sum of all; this encoder is of the family "
            f"{encoder.config.encoder_kind!r}{_head_of(encoder)}. {_other_form(encoder)}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        architecture = encoder.backbone.encoder_config
        upstream = build_upstream(WavLMBackbone.upstream, architecture, "ForXVector")
    torch.nn.init.eye_(upstream.classifier.weight)
    torch.nn.init.zeros_(upstream.classifier.bias)
    weights = {
        name: _stored(tensor, torch.float32)
        for name, tensor in encoder.backbone.state_dict().items()
    }
    unexpected = upstream.load_state_dict(weights, strict=False).unexpected_keys
    assert not unexpected, unexpected
    with quiet_without_terminal():
        torch.nn.Module.to(upstream, dtype)
        upstream.save_pretrained(folder)
    load_as_float32(folder)
    Wav2Vec2FeatureExtractor(
        sampling_rate=encoder.sampling_rate,
        do_normalize=encoder.config.do_normalize,
        return_attention_mask=True,
    ).save_pretrained(folder)


def load_as_float32(folder: Path) -> None:
    """Makes ``config.json`` say float32, in which stored bfloat16 weights are to be computed."""
    import json

    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of its own on the CPU; whole numbers keep their kind."""
    tensor = tensor.detach().cpu()
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).clone()


def _other_form(encoder: SpeakerEncoder) -> str:
    form = upstream_form(encoder.config)
    return f"Its form is {form}." if form else "It has no other library's form."


def _head_of(encoder: SpeakerEncoder) -> str:
    config = encoder.config.encoder_config
    if "head" not in config:
        return ""
    return f" with the {config['head']['name']} head on layers {config['layers']!r}"

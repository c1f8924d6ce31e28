"""The encoder of an export: found, checked against its name, and identified."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_encoder.errors import UserError
from speaker_encoder.export.names import safe_name
from speaker_encoder.export.options import ExportOptions

if TYPE_CHECKING:
    import torch

    from speaker_encoder.modeling import SpeakerEncoder

_ORIGINAL_SUFFIXES = (".pt", ".pth", ".bak", ".ckpt")


def file_tag(model_name: str) -> str:
    """The model's name in file names: ``ecapa`` in ``<utterance>.ecapa_embedding``."""
    return safe_name(model_name.rstrip("/").rsplit("/", 1)[-1])


def choose_device(name: str) -> torch.device:
    """The device that a user names.

    Raises:
        UserError: there is no such device here.
    """
    import torch

    if name == "best":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"Unknown --model_device {name!r}. Known: cpu, cuda, cuda:<number>, best."
        ) from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(
                f"--model_device {name!r}: this machine has {count} CUDA devices that torch can "
                "use. Give --model_device cpu, or best."
            )
    return device


def load_encoder(options: ExportOptions) -> SpeakerEncoder:
    """Loads the encoder that the options name; it is in eval mode.

    Raises:
        UserError: it cannot be found, is of another family than its name, or its head is
            untrained.
    """
    from speaker_encoder.modeling import SpeakerEncoder

    if options.checkpoint is None:
        encoder = SpeakerEncoder.from_pretrained(options.model_name)
    else:
        path = Path(options.checkpoint).expanduser()
        if path.is_file() and path.suffix in _ORIGINAL_SUFFIXES:
            from speaker_encoder.modeling.original import load_original

            encoder = load_original(path, options.model_name)
        else:
            encoder = SpeakerEncoder.from_pretrained(_folder_of_run(path, options.checkpoint))
    check_family(encoder, options)
    encoder.refuse_untrained_head()
    return encoder.eval()


def model_folder(name: str, **hub_options: Any) -> Path:
    """The folder, here or of a snapshot of the Hub, that an encoder is loaded from.

    Args:
        name: of an encoder, its folder or file, or the folder of a run.
        **hub_options: as to `from_pretrained`.

    Raises:
        UserError: it cannot be found.
    """
    from speaker_encoder.modeling.registry import NAMES
    from speaker_encoder.modeling.sources import locate

    path = Path(name).expanduser()
    if path.is_file():
        return path
    place = name if name in NAMES else _folder_of_run(path, name)
    return locate(place, **hub_options).folder


def _folder_of_run(path: Path, checkpoint: str) -> str:
    """The model's folder of a run directory; any other name as it is."""
    if not path.is_dir() or (path / "config.json").is_file():
        return checkpoint
    if (path / "model" / "config.json").is_file():
        return str(path / "model")
    steps = [
        (int(folder.name.removeprefix("checkpoint-")), folder)
        for folder in path.glob("checkpoint-*")
        if re.fullmatch(r"checkpoint-\d+", folder.name) and (folder / "config.json").is_file()
    ]
    return str(max(steps)[1]) if steps else checkpoint


def check_family(encoder: SpeakerEncoder, options: ExportOptions) -> None:
    """Checks that a checkpoint is of the family that the model's name says.

    Raises:
        UserError: it is not; the text names both.
    """
    from speaker_encoder.modeling.registry import BACKBONES, NAMES

    name, found = options.model_name, encoder.config.encoder_kind
    if options.checkpoint is None:
        return
    if name in NAMES:
        wanted = NAMES[name].encoder_kind
    else:
        in_name = [kind for kind in BACKBONES if kind in file_tag(name).lower()]
        wanted = max(in_name, key=len, default=found)
    if wanted != found:
        raise UserError(
            f"--model_name {name!r} is of the family {wanted!r}, but the checkpoint "
            f"{options.checkpoint!r} holds an encoder of the family {found!r}. Give the model name "
            "that it was trained with, or another --checkpoint."
        )


def weights_digest(encoder: SpeakerEncoder) -> str:
    """SHA-256 over the names, shapes and values of an encoder's weights and its configuration."""
    import torch

    digest = hashlib.sha256()
    config = encoder.config
    head = [config.encoder_kind, config.encoder_config, config.do_normalize, config.sampling_rate]
    digest.update(json.dumps(head, sort_keys=True).encode())
    for name, tensor in sorted(encoder.backbone.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def describe_model(encoder: SpeakerEncoder, options: ExportOptions) -> dict[str, Any]:
    """What the manifest says of an encoder; no path of this machine."""
    checkpoint = options.checkpoint
    if checkpoint is not None and Path(checkpoint).expanduser().exists():
        checkpoint = Path(checkpoint).expanduser().resolve().name
    return {
        "model_name": options.model_name,
        "checkpoint": checkpoint,
        "base_model": encoder.config.base_model_name,
        "encoder_kind": encoder.config.encoder_kind,
        "weights_sha256": weights_digest(encoder),
        "embedding_dim": encoder.embedding_dim,
        "sampling_rate": encoder.sampling_rate,
    }

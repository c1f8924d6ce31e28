"""Puts together the files of a repository, in a folder of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.hub.card import CardFacts, write_card
from speaker_encoder.hub.secrets import without_local
from speaker_encoder.hub.upstream_forms import load_as_float32, write_upstream_form

if TYPE_CHECKING:
    from speaker_encoder.hub.source import ModelSource
    from speaker_encoder.modeling import SpeakerEncoder

LOSS_FILE = "loss.safetensors"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LOSS_PREFIX = "loss_fn."


@dataclass(frozen=True)
class ContentOptions:
    """What is put into a repository.

    Attributes:
        repo_id: ``owner/name``.
        dtype: in which weights are stored, a key of ``DTYPES``; they load as float32.
        include_loss: also the weights of the loss.
        license: identifier of the licence, where the base model has none that is known.
        datasets: Hub ids or names of the training data, for the card.
        secrets: that no file may hold.
    """

    repo_id: str
    dtype: str = "float32"
    include_loss: bool = False
    license: str | None = None
    datasets: tuple[str, ...] = ()
    secrets: frozenset[str] = frozenset()


def write_contents(
    encoder: SpeakerEncoder,
    folder: Path,
    options: ContentOptions,
    source: ModelSource | None = None,
) -> None:
    """Writes all files of the repository.

    Args:
        encoder: on the CPU.
        folder: an empty folder.
        options: what is wanted.
        source: what is known of its run; None: nothing.

    Raises:
        UserError: what is wanted is not there, or an option is unknown.
    """
    if options.dtype not in DTYPES:
        raise UserError(f"Unknown dtype {options.dtype!r}. Known: {', '.join(DTYPES)}.")
    dtype = DTYPES[options.dtype]
    folder.mkdir(parents=True, exist_ok=True)
    _write_own_form(encoder, folder, dtype)
    has_upstream = write_upstream_form(encoder, folder, options.repo_id, dtype)
    config = public_config(source.train_config(), options.secrets) if source else {}
    results = public_results(source.results(), options.secrets) if source else {}
    if config:
        _write_json(folder / "train_config.json", config)
    if results:
        _write_json(folder / "results.json", results)
    pictures = source.pictures() if source else {}
    for name, path in pictures.items():
        (folder / "plots").mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "plots" / name)
    if options.include_loss:
        _write_loss(encoder, folder, source)
    own_card = source.model_dir / "README.md" if source else None
    if not config and own_card is not None and own_card.is_file():
        shutil.copyfile(own_card, folder / "README.md")
        return
    facts = CardFacts(
        repo_id=options.repo_id,
        encoder_kind=encoder.config.encoder_kind,
        embedding_dim=encoder.embedding_dim,
        base_model_name=encoder.config.base_model_name,
        source_license=encoder.config.source_license,
        license=options.license,
        datasets=options.datasets,
        config=config,
        results=results,
        pictures=tuple(pictures),
        has_upstream=has_upstream,
    )
    write_card(folder / "README.md", facts)


def _write_own_form(encoder: SpeakerEncoder, folder: Path, dtype: torch.dtype) -> None:
    """Writes config, weights and feature extractor; without an attached loss."""
    weights = {
        name: (tensor.detach().to(dtype) if tensor.is_floating_point() else tensor.detach())
        for name, tensor in encoder.state_dict().items()
        if not name.startswith(_LOSS_PREFIX) and not name.startswith("backbone.log_mel.")
    }
    # The constants of the log-mel stay exact.
    weights.update(
        (name, tensor.detach())
        for name, tensor in encoder.state_dict().items()
        if name.startswith("backbone.log_mel.")
    )
    encoder.save_pretrained(folder, state_dict=weights)
    if dtype != torch.float32:
        load_as_float32(folder)


def public_config(config: dict[str, Any], secrets: Iterable[str]) -> dict[str, Any]:
    """Gives a training config without secrets and local paths.

    Keys that hold a path are left out, but for the words that are no path, such as "demo".
    """
    from speaker_encoder.training.config import config_keys
    from speaker_encoder.training.config_compound import FilePath, PathList

    public = {}
    for name, value in config.items():
        field = config_keys().get(name)
        kind = field.metadata["kind"] if field is not None else None
        is_secret = field is not None and field.metadata["is_secret"]
        is_path = isinstance(kind, PathList) or (
            isinstance(kind, FilePath) and value not in (None, *kind.words)
        )
        if not is_secret and not (is_path and value):
            public[name] = value
    if Path(str(config.get("model_name"))).expanduser().exists():
        public["model_name"] = Path(str(config["model_name"])).name
    return without_local(public, secrets)


def public_results(results: dict[str, Any], secrets: Iterable[str]) -> dict[str, Any]:
    """Gives a run's results without the names of files; how many were unusable is kept."""
    if not results:
        return {}
    unusable = results.get("unusable_files") or {}
    public = {name: value for name, value in results.items() if name != "unusable_files"}
    if Path(str(results.get("model_name"))).expanduser().exists():
        public["model_name"] = Path(str(results["model_name"])).name
    return without_local({**public, "num_unusable_files": len(unusable)}, secrets)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_loss(encoder: SpeakerEncoder, folder: Path, source: ModelSource | None) -> None:
    """Writes the weights of the loss: those attached to the encoder, or of its run.

    Raises:
        UserError: there are none.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    weights = {
        name.removeprefix(_LOSS_PREFIX): tensor.detach().cpu().contiguous()
        for name, tensor in encoder.state_dict().items()
        if name.startswith(_LOSS_PREFIX)
    }
    path = source.loss_weights_path() if source else None
    if not weights and path is not None:
        with safe_open(path, framework="pt") as file:
            weights = {
                name.removeprefix(_LOSS_PREFIX): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 (no dict)
                if name.startswith(_LOSS_PREFIX)
            }
    if not weights:
        raise UserError(
            "include_loss: there are no weights of a loss: the encoder has none attached, and its "
            "run has no checkpoint with any. Leave include_loss out."
        )
    save_file(weights, folder / LOSS_FILE)

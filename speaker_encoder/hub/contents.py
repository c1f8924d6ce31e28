"""Puts together the files of a repository, in a folder of their own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.hub.card import CardFacts, card_header, chosen_license, write_card
from speaker_encoder.hub.origins import License
from speaker_encoder.hub.own_card import read_own_card
from speaker_encoder.hub.secrets import REMOVED, without_local
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
    has_space = _write_space(encoder, folder, source, dtype)
    has_upstream = write_upstream_form(encoder, folder, options.repo_id, dtype)
    known_names = (encoder.config.base_model_name, options.repo_id)
    config = public_config(source.train_config(), options.secrets, known_names) if source else {}
    results = public_results(source.results(), options.secrets, known_names) if source else {}
    if config:
        _write_json(folder / "train_config.json", config)
    if results:
        _write_json(folder / "results.json", results)
    pictures = source.pictures() if source else {}
    for name, picture in pictures.items():
        (folder / "plots").mkdir(exist_ok=True)
        shutil.copyfile(picture.path, folder / "plots" / name)
    if options.include_loss:
        _write_loss(encoder, folder, source)
    umap = pictures.get("umap.png")
    facts = CardFacts(
        repo_id=options.repo_id,
        encoder_kind=encoder.config.encoder_kind,
        embedding_dim=encoder.embedding_dim,
        base_model_name=encoder.config.base_model_name,
        source_license=License.of_config(encoder.config),
        license=License(options.license) if options.license else None,
        datasets=options.datasets,
        config=config,
        results=results,
        pictures=tuple(pictures),
        umap_step=umap.step if umap else None,
        has_upstream=has_upstream,
        has_space=has_space,
    )
    _write_card(folder, facts, None if config or source is None else source.model_dir)


def _write_card(folder: Path, facts: CardFacts, model_dir: Path | None) -> None:
    """Writes README.md, and the licence into config.json, so that who trains on keeps it.

    Args:
        folder: of the repository.
        facts: of the card.
        model_dir: where the user's own card may lie; None: one of a run is written anew.

    Raises:
        UserError: licences or datasets contradict each other, or the user's card is damaged.
    """
    if model_dir is not None and (model_dir / "README.md").is_file():
        own = read_own_card(model_dir / "README.md")
        facts = replace(facts, license=own.license(facts.license))
        text = own.completed(card_header(facts), facts.datasets)
        (folder / "README.md").write_bytes(text.encode("utf-8"))
    else:
        write_card(folder / "README.md", facts)
    licence = chosen_license(facts)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["source_license"] = licence.identifier if licence else None
    config["source_license_name"] = licence.name if licence else None
    config["source_license_link"] = licence.link if licence else None
    _write_json(folder / "config.json", config)


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


def _write_space(
    encoder: SpeakerEncoder, folder: Path, source: ModelSource | None, dtype: torch.dtype
) -> bool:
    """Writes the map to the pretrained encoder's space, where there is one.

    Returns:
        Whether the card tells of it: not where the encoder is the pretrained one itself.

    Raises:
        UserError: it is damaged, or belongs to other weights.
    """
    from speaker_encoder.export.model import weights_digest
    from speaker_encoder.export.pretrained_space import has_space, read_space
    from speaker_encoder.modeling import SpeakerEncoder

    if source is None or not has_space(source.model_dir):
        return False
    space = read_space(source.model_dir, encoder)
    is_moved = space.weights_sha256 != space.pretrained_sha256
    if dtype != torch.float32:  # other weights come back than those it was fitted to
        pushed = SpeakerEncoder.from_pretrained(folder)
        space = replace(space, weights_sha256=weights_digest(pushed))
    space.save(folder)
    return is_moved


def public_config(
    config: dict[str, Any], secrets: Iterable[str], known_names: Iterable[str | None] = ()
) -> dict[str, Any]:
    """Gives a training config without secrets and local paths.

    Keys that hold a path are left out, but for the words that are no path, such as "demo".

    Args:
        config: as it stands on disk.
        secrets: that no text may hold.
        known_names: of encoders that are known to be no folders here.
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
    if "model_name" in public:
        public["model_name"] = _public_name(str(public["model_name"]), known_names)
    if isinstance(public.get("training_arguments"), dict):  # they may name files and folders
        public["training_arguments"] = {
            name: REMOVED if isinstance(value, str) and os.sep in value else value
            for name, value in public["training_arguments"].items()
        }
    return without_local(public, secrets)


def _public_name(name: str, known_names: Iterable[str | None]) -> str:
    """Gives an encoder's name, of a folder only the last part.

    A folder like "models/mine" looks as a repository does; from elsewhere it cannot be seen which.
    """
    from speaker_encoder.modeling.registry import NAMES

    if name in NAMES or name in known_names:
        return name
    return Path(name.replace("\\", "/")).name


def public_results(
    results: dict[str, Any], secrets: Iterable[str], known_names: Iterable[str | None] = ()
) -> dict[str, Any]:
    """Gives a run's results without the names of files; how many were unusable is kept.

    Args:
        results: as they stand on disk.
        secrets: that no text may hold.
        known_names: as ``public_config``.
    """
    if not results:
        return {}
    public = {name: value for name, value in results.items() if name != "unusable_files"}
    if "unusable_files" in results:  # those of a repository have their number alone
        public["num_unusable_files"] = len(results["unusable_files"] or {})
    if "model_name" in public:
        public["model_name"] = _public_name(str(public["model_name"]), known_names)
    return without_local(public, secrets)


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

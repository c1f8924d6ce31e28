"""Makes an encoder from a folder or at random; executes nothing of what it loads."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.backbone import PretrainedParts
from speaker_encoder.modeling.card_license import read_card_license
from speaker_encoder.modeling.configuration import SpeakerEncoderConfig
from speaker_encoder.modeling.registry import NAMES, backbone_class, unknown_name
from speaker_encoder.modeling.safe_config import adapter_refused
from speaker_encoder.modeling.sources import Source

if TYPE_CHECKING:
    from speaker_encoder.modeling.encoder import SpeakerEncoder

HUB_OPTIONS = ("cache_dir", "revision", "token", "local_files_only", "force_download")


@contextmanager
def quiet_without_terminal() -> Iterator[None]:
    """Keeps transformers' progress bars for weights out of a log file."""
    from transformers.utils import logging

    is_silenced = logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if is_silenced:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if is_silenced:
            logging.enable_progress_bar()


def random_config(name: str, encoder_config: dict[str, Any]) -> SpeakerEncoderConfig:
    """Gives the config of an encoder with random weights.

    Args:
        name: A name of ``NAMES``.
        encoder_config: Where its architecture differs from that of the named encoder.

    Raises:
        UserError: unknown name.
    """
    if name not in NAMES:
        raise unknown_name("encoder", name, NAMES)
    entry = NAMES[name]
    architecture = {**entry.encoder_config, **encoder_config}
    settings = backbone_class(entry.encoder_kind).default_feature_settings(architecture)
    return SpeakerEncoderConfig(
        encoder_kind=entry.encoder_kind,
        encoder_config=architecture,
        untrained_head=True,
        **settings,
    )


def load_own(load: Callable[..., Any], source: Source, *args: Any, **kwargs: Any) -> Any:
    """Loads a folder that this package wrote.

    Args:
        load: transformers' own ``from_pretrained``.
        source: The folder.
        *args: As ``from_pretrained``.
        **kwargs: As ``from_pretrained``.

    Returns:
        The encoder in eval mode; with ``output_loading_info`` also what transformers says of it.

    Raises:
        UserError: the config or the weights are damaged, weights are missing, or transformers
            would put an adapter into the encoder.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    kwargs = {name: value for name, value in kwargs.items() if name not in HUB_OPTIONS}
    adapter = (kwargs.get("adapter_kwargs") or {}).get("_adapter_model_path")
    if adapter is not None:  # of AutoModel, which follows an adapter to the model that it names
        raise adapter_refused(Path(adapter))
    gives_info = kwargs.pop("output_loading_info", False)
    kwargs.update(output_loading_info=True, local_files_only=True, use_safetensors=True)
    try:
        with quiet_without_terminal():
            model, info = load(source.folder, *args, **kwargs)
    except (SafetensorError, StrictDataclassError, OSError, RuntimeError) as error:
        raise UserError(
            f"{source.folder} cannot be loaded: {error}. The folder is incomplete or damaged: copy "
            "it again, or name an older checkpoint."
        ) from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("loss_fn."))
    if missing:
        raise UserError(
            f"The weights in {source.folder} are incomplete: {len(missing)} are missing, "
            f"{', '.join(missing[:3])} first. Copy the folder again."
        )
    _own_memory(model)
    if model.config.source_license is None:
        _set_license(model.config, source)
    return (model, info) if gives_info else model


def _own_memory(model: torch.nn.Module) -> None:
    """Copies CPU weights out of the mapped file into aligned memory of their own.

    Matrix products add up in another order where a weight lies unaligned, as it does in a mapped
    file: embeddings and resumed trainings would then differ in the last bit. Nor may a model change
    when its file does.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def load_upstream(model_class: type[SpeakerEncoder], source: Source, **kwargs: Any) -> Any:
    """Loads a folder in the layout of the library that its weights come from.

    Args:
        model_class: The class to make.
        source: The folder and its family.
        **kwargs: ``dtype`` of the weights, ``encoder_config``; the Hub options have been used up.

    Returns:
        The encoder in eval mode.

    Raises:
        UserError: the folder is damaged, holds what its family does not know, or an option has no
            meaning for it.
    """
    assert source.encoder_kind is not None
    dtype = kwargs.pop("dtype", None) or kwargs.pop("torch_dtype", None)
    told = kwargs.pop("encoder_config", None)
    left = [k for k, v in kwargs.items() if v is not None and k not in HUB_OPTIONS]
    if left:
        raise UserError(
            f"{', '.join(left)} cannot be given for {source.name!r}, a folder in its own library's "
            "layout. Load it, save_pretrained it, and give that folder."
        )
    family = backbone_class(source.encoder_kind)
    if told:
        parts = family.load_pretrained_as(source.folder, told)
    else:
        parts = family.load_pretrained(source.folder)
    config = SpeakerEncoderConfig(
        encoder_kind=source.encoder_kind,
        encoder_config=parts.encoder_config,
        untrained_head=bool(parts.untrained_prefixes),
        base_model_name=_base_model_name(source),
        **parts.feature_settings,
    )
    if source.name in NAMES:
        config.source_license = parts.source_license  # of the published weights alone
    if config.source_license is None:
        _set_license(config, source)
    with torch.device("meta"):  # takes no memory, whatever sizes a stranger's folder names
        shapes = model_class(copy.deepcopy(config)).backbone.state_dict()
    _refuse_misfit(shapes, parts, source.folder)
    model = model_class(config)
    model.backbone.load_state_dict(parts.state_dict, strict=False)
    if dtype is not None:
        model = model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)
    return model.eval()


def _base_model_name(source: Source) -> str | None:
    """Gives what others may know an encoder by; None for a folder that is called like a published.

    The place of a folder on this machine is nobody else's business.
    """
    folder_name = source.folder.resolve().name
    if source.is_published:
        return source.name
    return None if folder_name in NAMES else folder_name


def _set_license(config: SpeakerEncoderConfig, source: Source) -> None:
    """Writes the licence that the encoder's own card names into its config."""
    hub_id = NAMES[source.name].hub_id if source.name in NAMES else source.name
    hub_id = hub_id if source.is_published else None
    for name, value in read_card_license(source.folder, hub_id).items():
        setattr(config, name, value)


def _refuse_misfit(own: dict[str, torch.Tensor], parts: PretrainedParts, folder: Path) -> None:
    """Checks that the weights read are those of the architecture read.

    Raises:
        UserError: a shape differs, or a weight is missing or unknown.
    """
    read = parts.state_dict

    def refuse(what: str, names: Iterable[str]) -> None:
        listed = list(names)
        if listed:
            raise UserError(
                f"The weights in {folder} do not fit its architecture; {what}: "
                f"{', '.join(listed[:3])}{', ...' if len(listed) > 3 else ''}. Copy it again."
            )

    refuse("missing", (n for n in own if n not in read and not _is_new(n, parts)))
    refuse("unknown", (n for n in read if n not in own))
    refuse(
        "another shape",
        (
            f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
            for name, tensor in read.items()
            if tensor.shape != own[name].shape
        ),
    )


def _is_new(name: str, parts: PretrainedParts) -> bool:
    return name.startswith(parts.untrained_prefixes)

"""From the config to the model, the transformers arguments and the Trainer's parts."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.hub.secrets import lend_token
from speaker_encoder.losses import build_chosen_loss
from speaker_encoder.training.augmentation import build_spec_augment
from speaker_encoder.training.closeness import build_closeness
from speaker_encoder.training.cluster import TIMEOUT_SECONDS
from speaker_encoder.training.config_checks import loss_with_activation
from speaker_encoder.training.data import Split
from speaker_encoder.training.dataset import CropDataset, ShortUtterances, Views
from speaker_encoder.training.distributed import GatheredLoss, is_main_process, num_processes
from speaker_encoder.training.freezing import freeze_parameters
from speaker_encoder.training.gradient_cache import check_activations, check_pieces
from speaker_encoder.training.head_first import build_head_first
from speaker_encoder.training.lora import add_lora
from speaker_encoder.training.optimizers import layer_scales
from speaker_encoder.training.replay import num_replay_speakers
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.sampler import SpeakerBatchSampler
from speaker_encoder.training.stream_order import StreamedBatchSampler, is_streamed

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.config import TrainConfig

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_VALIDATION_SEED = 1_000_003  # added to the run's, so that validation crops are not training's


def choose_device(config: TrainConfig) -> str:
    """Gives "cpu" or "cuda", and hides all other cards from this process.

    The Trainer would otherwise spread over every card that it sees with nn.DataParallel.

    Raises:
        UserError: there is no CUDA device.
    """
    if config.device == "cpu":
        return "cpu"
    number = config.device.partition(":")[2] or None
    if number is None and config.data_parallel:
        number = str(config.data_parallel[0])
    if num_processes() == 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        cards = visible.split(",") if visible else None
        if number is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = cards[int(number)] if cards else number
        elif visible is None or (cards and len(cards) > 1):
            os.environ["CUDA_VISIBLE_DEVICES"] = cards[0] if cards else "0"
    if torch.cuda.is_available():
        return "cuda"
    if config.device == "best":
        return "cpu"
    raise UserError(
        f"device: {config.device!r} was asked for, and torch sees no CUDA device. Use "
        '"cpu" or "best", or install a CUDA build of torch.'
    )


def build_model(config: TrainConfig, num_speakers: int) -> SpeakerEncoder:
    """Gives the encoder with its loss attached; random parts come from the config's seed.

    Raises:
        UserError: the model cannot be had, or an option does not fit it.
    """
    from speaker_encoder.modeling import SpeakerEncoder

    lend_token(os.environ, config.hub_token)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = SpeakerEncoder.from_name(
            config.model_name,
            pretrained=config.pretrained,
            encoder_config=config.encoder_config,
            head=config.head,
            layers=config.layers,
        )
        if _is_pulled(config):
            model.config.base_model_name = config.model_name
        if config.enlarge_head:
            model.enlarge_head()
        choice = loss_with_activation(config.loss, config.activation_function)
        loss = build_chosen_loss(choice, model.embedding_dim, num_speakers)
    if config.train_only_head or config.freeze_feature_encoder:
        model.freeze(
            train_only_head=config.train_only_head,
            freeze_feature_encoder=config.freeze_feature_encoder,
        )
    if config.freeze:
        freeze_parameters(model, config.freeze)
    if config.lora is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            add_lora(model, config.lora)
    if config.freeze_batch_norm:
        model.freeze_batch_norm()
    check_activations(config, model)
    check_pieces(config, model)
    shortest = window_seconds(config)[0]
    if shortest * model.sampling_rate < model.min_num_samples:
        raise UserError(
            f"window_size_s: {config.model_name} needs crops of at least "
            f"{model.min_num_samples / model.sampling_rate:.3f} s, found {shortest:g}."
        )
    model.attach_loss(GatheredLoss(loss))
    return model


def _is_pulled(config: TrainConfig) -> bool:
    """Says if an encoder that was found is of a Hub repository that is not pushed to again."""
    from speaker_encoder.modeling.registry import NAMES

    name = config.model_name
    is_local = Path(name).expanduser().exists()
    return config.pretrained and name not in NAMES and not is_local and name != config.hub_model_id


def check_model(config: TrainConfig, *, is_stage: bool = False) -> None:
    """Checks, before any data is looked at, what can be known of the model without its weights.

    Of a folder, a random encoder, and in a recipe of a named one too, that is everything: which
    parts are frozen, adapted and masked, the layers that learn at their own rate.

    Args:
        config: of a run.
        is_stage: whether it is one of a recipe, which must not fail after the stages before it.

    Raises:
        UserError: no such encoder, or the architecture or an option does not fit.
    """
    from speaker_encoder.modeling.backbone import without_heads
    from speaker_encoder.modeling.registry import NAMES, backbone_class, unknown_name

    if is_stage:  # it may stay close to a head that a stage before has trained
        config = dataclasses.replace(config, l2_sp=0.0, distillation=0.0)
    name = config.model_name
    is_local = name not in NAMES and os.path.exists(name)
    if config.pretrained and name not in NAMES and not is_local and not _HUB_ID.fullmatch(name):
        raise unknown_name("encoder", name, NAMES)
    if config.pretrained and name in NAMES and (config.head or config.layers) is not None:
        encoder_kind = NAMES[name].encoder_kind
        if not backbone_class(encoder_kind).has_heads:
            raise without_heads(encoder_kind)
    if not config.pretrained or is_local:
        _check_built(config)
    elif is_stage and name in NAMES:
        _check_built(dataclasses.replace(config, pretrained=False, interpolate="auto"))


def _check_built(config: TrainConfig) -> None:
    model = build_model(config, num_speakers=2)
    build_spec_augment(config, model)
    build_closeness(config, model)
    build_head_first(config, model)
    if config.layer_lr_decay < 1:
        layer_scales(model, config.layer_lr_decay)


def window_seconds(config: TrainConfig) -> tuple[float, float]:
    """Gives the shortest and longest crop in seconds."""
    window = config.window_size_s
    if isinstance(window, (int, float)):
        return float(window), float(window)
    return float(window[0]), float(window[1])


def build_batches(
    config: TrainConfig, split: Split, sampling_rate: int
) -> tuple[CropDataset, SpeakerBatchSampler]:
    """Gives the crops of a split and the sampler of its P x K batches."""
    if split.name == "training":
        size = (config.speakers_per_batch, config.utterances_per_speaker)
        seed, window = config.seed, window_seconds(config)
    else:
        size = (config.val_speakers_per_batch, config.val_utterances_per_speaker)
        seed, window = config.seed + _VALIDATION_SEED, (window_seconds(config)[1],) * 2
    is_training = split.name == "training"
    views = cast(Views, config.views if is_training else "speaker")
    sampler = _build_sampler(config, split, size, seed)
    dataset = CropDataset(
        split.utterances,
        split.groups,
        sampling_rate,
        window,
        sampler.batch_size,
        cast(ShortUtterances, config.short_utterances),
        seed,
        config.trim_silence,
        views,
        size[1] if views != "speaker" else 1,
    )
    return dataset, sampler


def _build_sampler(
    config: TrainConfig, split: Split, size: tuple[int, int], seed: int
) -> SpeakerBatchSampler:
    """Gives the sampler of a split: of shards that the buffer does not hold, one of its own."""
    is_training = split.name == "training"
    keywords: dict[str, Any] = {
        "max_utterances_per_speaker": config.max_utterances_per_speaker if is_training else None,
        "is_of_views": is_training and config.views != "speaker",
        "replayed": split.replayed,
        "replay_per_batch": num_replay_speakers(vars(config)) if split.replayed else 0,
    }
    examples = (split.utterances, split.groups, *size, seed)
    members = [
        index
        for name, group in split.groups.items()
        if name not in split.replayed
        for index in group
    ]
    is_small = not is_training or len(members) <= config.shuffle_buffer
    if is_small or not is_streamed(split.utterances, members):
        return SpeakerBatchSampler(*examples, **keywords)
    sampler = StreamedBatchSampler(*examples, shuffle_buffer=config.shuffle_buffer, **keywords)
    if is_main_process():
        sampler.explain()
    return sampler


def _check_processes(config: TrainConfig, processes: int) -> None:
    if config.speakers_per_batch % processes:
        raise UserError(
            f"speakers_per_batch: {config.speakers_per_batch} speakers cannot be divided over "
            f"{processes} processes. Choose a multiple of {processes}."
        )
    if config.training_arguments.get("fsdp") and processes == 1:
        raise UserError(
            "training_arguments: fsdp divides the weights over processes, and this is one. Set "
            "data_parallel to several devices, or start it with torchrun."
        )


def build_arguments(config: TrainConfig, run: RunDirectory, device: str) -> TrainingArguments:
    """Gives the Trainer's arguments; the config's `training_arguments` come last and win.

    Raises:
        UserError: the batch cannot be divided over the processes, or an argument is refused.
    """
    from transformers import TrainingArguments

    processes = num_processes()
    _check_processes(config, processes)
    if device == "cpu" and config.precision == "fp16":
        raise UserError('precision: "fp16" needs a CUDA device. Use "bf16" or "float32".')
    values: dict[str, Any] = {
        "output_dir": str(run.path),
        "seed": config.seed,
        "num_train_epochs": config.num_epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.speakers_per_batch
        * config.utterances_per_speaker
        // processes,
        "learning_rate": config.learning_rate_init,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "bf16": config.precision == "bf16",
        "fp16": config.precision == "fp16",
        "dataloader_num_workers": config.num_workers,
        "dataloader_persistent_workers": config.num_workers > 0,
        "dataloader_pin_memory": device != "cpu",
        "use_cpu": device == "cpu",
        "ddp_backend": ("gloo" if device == "cpu" else "nccl") if processes > 1 else None,
        "ddp_timeout": TIMEOUT_SECONDS,
        "ddp_find_unused_parameters": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
    }
    try:
        return TrainingArguments(**{**values, **copy.deepcopy(config.training_arguments)})
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        raise UserError(f"training_arguments: {error}") from error

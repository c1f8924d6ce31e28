"""From the config to the model, the transformers arguments and the Trainer's parts."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, cast

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.losses import build_loss
from speaker_encoder.training.data import Split
from speaker_encoder.training.dataset import CropDataset, ShortUtterances
from speaker_encoder.training.distributed import GatheredLoss, num_processes
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.sampler import SpeakerBatchSampler
from speaker_encoder.training.schedule import WarmupThenPlateau

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from speaker_encoder.audio.augment import Augmenter
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

    if config.hub_token:
        os.environ.setdefault("HF_TOKEN", config.hub_token)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = SpeakerEncoder.from_name(
            config.model_name, pretrained=config.pretrained, encoder_config=config.encoder_config
        )
        if config.enlarge_head:
            model.enlarge_head()
        options = dict(config.loss)
        name = options.pop("name")
        if config.activation_function is not None:
            options["activation"] = config.activation_function
        loss = build_loss(name, model.embedding_dim, num_speakers, **options)
    if config.train_only_head or config.freeze_feature_encoder:
        model.freeze(
            train_only_head=config.train_only_head,
            freeze_feature_encoder=config.freeze_feature_encoder,
        )
    if config.freeze_batch_norm:
        model.freeze_batch_norm()
    shortest = window_seconds(config)[0]
    if shortest * model.sampling_rate < model.min_num_samples:
        raise UserError(
            f"window_size_s: {config.model_name} needs crops of at least "
            f"{model.min_num_samples / model.sampling_rate:.3f} s, found {shortest:g}."
        )
    model.attach_loss(GatheredLoss(loss))
    return model


def check_model(config: TrainConfig) -> None:
    """Checks, before any data is looked at, what can be known of the model without its weights.

    Raises:
        UserError: no such encoder, or the architecture or an option does not fit.
    """
    from speaker_encoder.modeling.registry import NAMES, unknown_name

    name = config.model_name
    if not config.pretrained:
        build_model(config, num_speakers=2)
    elif name not in NAMES and not os.path.isdir(name) and not _HUB_ID.fullmatch(name):
        raise unknown_name("encoder", name, NAMES)


def window_seconds(config: TrainConfig) -> tuple[float, float]:
    """Gives the shortest and longest crop in seconds."""
    window = config.window_size_s
    if isinstance(window, (int, float)):
        return float(window), float(window)
    return float(window[0]), float(window[1])


def build_augmenter(config: TrainConfig, sampling_rate: int) -> Augmenter | None:
    """Gives the augmentation of the config, None when it is off.

    Raises:
        UserError: a folder of noises, music or impulse responses holds nothing usable.
    """
    paths = (
        config.augment_noises_paths,
        config.augment_musics_paths,
        config.augment_reverbs_paths,
    )
    if not config.use_data_augmentation or not any(paths):
        return None
    from speaker_encoder.audio.augment import AugmentConfig, Augmenter

    noise, music, reverb = (tuple(dict.fromkeys(group or ())) for group in paths)
    options = AugmentConfig(
        noise_paths=noise,
        music_paths=music,
        reverb_paths=reverb,
        noise_p=config.augment_noise_p,
        music_p=config.augment_music_p,
        reverb_p=config.augment_reverb_p,
        snr_db=(float(config.augment_snr_db[0]), float(config.augment_snr_db[1])),
        bank_seconds=config.augment_bank_seconds,
    )
    return Augmenter(options, sampling_rate, device=augmentation_device(config), seed=config.seed)


def augmentation_device(config: TrainConfig) -> str:
    """Gives "cpu", where the loader's processes augment, or the CUDA device of the main one."""
    if config.aug_device == "cpu" or config.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return "cuda"  # the only one that this process sees


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
    sampler = SpeakerBatchSampler(split.utterances, split.speakers, *size, seed)
    dataset = CropDataset(
        split.utterances,
        split.speakers,
        sampling_rate,
        window,
        sampler.batch_size,
        cast(ShortUtterances, config.short_utterances),
        seed,
        config.trim_silence,
    )
    return dataset, sampler


def build_arguments(config: TrainConfig, run: RunDirectory, device: str) -> TrainingArguments:
    """Gives the Trainer's arguments; the config's `training_arguments` come last and win.

    Raises:
        UserError: the batch cannot be divided over the processes, or an argument is refused.
    """
    from transformers import TrainingArguments

    processes = num_processes()
    if config.speakers_per_batch % processes:
        raise UserError(
            f"speakers_per_batch: {config.speakers_per_batch} speakers cannot be divided over "
            f"{processes} processes. Choose a multiple of {processes}."
        )
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
        return TrainingArguments(**{**values, **config.training_arguments})
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        raise UserError(f"training_arguments: {error}") from error


def choose_optimizer(config: TrainConfig) -> tuple[type[torch.optim.Optimizer], dict] | None:
    """Gives torch's Adam or AdamW; None when `training_arguments` names an optimizer."""
    if "optim" in config.training_arguments:
        return None
    classes = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    given = config.training_arguments
    betas = (given.get("adam_beta1", 0.9), given.get("adam_beta2", 0.999))
    options = {"betas": betas, "eps": given.get("adam_epsilon", 1e-8)}
    return classes[config.optimizer], {"lr": config.learning_rate_init, **options}


def schedule_maker(config: TrainConfig) -> Any:
    """Gives what makes the schedule from an optimizer; None when the user named another."""
    if "lr_scheduler_type" in config.training_arguments:
        return None
    on_training = config.scheduler_metrics.startswith("train_")

    def make(optimizer: torch.optim.Optimizer) -> WarmupThenPlateau:
        return WarmupThenPlateau(
            optimizer,
            config.warmup_steps,
            config.scheduler_factor,
            config.scheduler_patience,
            config.scheduler_metrics_avg_every if on_training else 1,
        )

    return make

"""What must hold between the keys of a config, and the values that follow from other keys."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.training.config_closeness_checks import CLOSENESS_CHECKS
from speaker_encoder.training.config_data_checks import DATA_CHECKS, is_augmented
from speaker_encoder.training.config_kinds import shown
from speaker_encoder.training.config_process_checks import PROCESS_CHECKS
from speaker_encoder.training.config_result_checks import RESULT_CHECKS
from speaker_encoder.training.config_tables import known_arguments

Values = Mapping[str, Any]


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like an unknown one."""
    found = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.5)
    return f" Did you mean {found[0]}?" if found else ""


def _check_encoder_config(values: Values) -> str | None:
    is_local = os.path.exists(os.path.expanduser(values["model_name"]))  # its own reader checks it
    if values["encoder_config"] and values["pretrained"] and not is_local:
        return (
            "encoder_config: given with pretrained true; a pretrained encoder has its own. "
            "Set pretrained to false, or leave encoder_config out"
        )
    return None


def _check_val_list(values: Values) -> str | None:
    if values["val_list"] and values["val_data_root"] is None:
        return "val_list: given without val_data_root, the folder that its paths are relative to"
    return None


def _check_val_trials(values: Values) -> str | None:
    if values["val_trials"] and values["val_data_root"] is None:
        return "val_trials: given without val_data_root, the folder that its paths are relative to"
    return None


def _check_scheduler_metrics(values: Values) -> str | None:
    watched = values["scheduler_metrics"]
    if watched and watched.startswith("val_") and values["val_data_root"] is None:
        return (
            f"scheduler_metrics: found {shown(watched)} and no validation data. Set val_data_root, "
            'or watch "train_loss" or "train_eer"'
        )
    if watched == "train_eer" and values["utterances_per_speaker"] == 1:
        return (
            'scheduler_metrics: found "train_eer", and utterances_per_speaker is 1: a batch has no '
            'two utterances of a speaker. Watch "train_loss"'
        )
    return None


def _check_early_stopping(values: Values) -> str | None:
    if values["early_stopping_patience"] and values["val_data_root"] is None:
        return "early_stopping_patience: given without validation data. Set val_data_root"
    return None


def _check_output_dir(values: Values) -> str | None:
    folder = values["output_dir"]
    if os.path.exists(folder) and not os.path.isdir(folder):
        return f"output_dir: found {shown(folder)}, which is a file, not a folder"
    return None


def _check_training_arguments(values: Values) -> str | None:
    given = values["training_arguments"]
    if not given:
        return None
    known = known_arguments()
    unknown = [f"{name!r}.{nearest(name, known)}" for name in given if name not in known]
    if not unknown:
        return None
    return f"training_arguments: transformers.TrainingArguments has no {'; no '.join(unknown)}"


def loss_with_activation(
    loss: dict[str, Any] | list[dict[str, Any]], activation: str | None
) -> dict[str, Any] | list[dict[str, Any]]:
    """The loss of a config with `activation_function` put into its GE2E."""
    if activation is None:
        return loss
    parts = [
        {**part, "activation": activation} if part["name"] == "ge2e" else part
        for part in (loss if isinstance(loss, list) else [loss])
    ]
    return parts if isinstance(loss, list) else parts[0]


def _check_loss(values: Values) -> str | None:
    loss, activation = values["loss"], values["activation_function"]
    parts = loss if isinstance(loss, list) else [loss]
    names = {part["name"] for part in parts}
    if activation is not None:
        if any(part.get("activation") is not None for part in parts):
            return "activation_function: given beside the loss's own activation. Give one of them"
        if "ge2e" not in names:
            return "activation_function: is GE2E's, and loss names no ge2e. Set it to null"
    if "nt_xent" in names and values["views"] == "speaker":
        return 'loss: nt_xent compares views of an utterance. Set views to "utterance" or "halves"'
    is_known = names == {"ge2e"} and all(set(part) <= {"name", "variant"} for part in parts)
    if is_known and activation is None and values["utterances_per_speaker"] > 1:
        return None
    return _try_loss(loss_with_activation(loss, activation), values)


def _try_loss(loss: dict[str, Any] | list[dict[str, Any]], values: Values) -> str | None:
    """Builds the loss and shows it a batch of the shape that training will have."""
    import torch

    from speaker_encoder.losses import build_chosen_loss, is_only_for_training, loss_title

    num_speakers, num_utterances = values["speakers_per_batch"], values["utterances_per_speaker"]
    batch = torch.linspace(-1, 1, 2 * num_speakers * num_utterances).reshape(-1, 2)
    try:
        module = build_chosen_loss(loss, embedding_dim=2, num_speakers=num_speakers)
    except UserError as error:
        return f"loss: {error}"
    except (TypeError, ValueError) as error:
        return f"loss: its options {shown(loss)} are refused: {error}"
    try:
        module(batch, torch.arange(num_speakers).repeat_interleave(num_utterances))
    except UserError as error:
        return f"utterances_per_speaker: {error}"
    except (TypeError, ValueError) as error:
        return f"loss: its options {shown(loss)} fail on a batch: {error}"
    if values["scheduler_metrics"] == "val_loss" and is_only_for_training(module):
        return (
            f'scheduler_metrics: found "val_loss", and the loss {loss_title(loss)} has no meaning '
            'on validation speakers. Watch "val_eer"'
        )
    return None


def _check_optimizer(values: Values) -> str | None:
    optimizer, given = values["optimizer"], values["training_arguments"]
    if optimizer["name"] != "adam" and "optim" in given:
        return (
            f"optimizer: found {shown(optimizer['name'])}, and training_arguments has optim. "
            "Keep one of them"
        )
    if optimizer.get("nesterov") and not optimizer["momentum"]:
        return "optimizer: nesterov true needs a momentum above 0, found 0"
    return None


def _check_schedule(values: Values) -> str | None:
    schedule, given = values["lr_schedule"], values["training_arguments"]
    if schedule["name"] == "noam" and not (schedule["base"] or values["warmup_steps"]):
        return (
            "lr_schedule: noam falls with the square root of the steps beyond warmup_steps, which "
            "is 0. Set warmup_steps, or the option base"
        )
    if schedule["name"] != "plateau" and "lr_scheduler_type" in given:
        return (
            f"lr_schedule: found {shown(schedule['name'])}, and training_arguments has "
            "lr_scheduler_type. Keep one of them"
        )
    return None


def _check_lora(values: Values) -> str | None:
    others = ("train_only_head", "freeze_feature_encoder", "freeze")
    both = [name for name in others if values[name]]
    if values["lora"] is not None and not values["lora"]["target"]:
        return "lora: its option target is empty. Name modules in it, or set lora to null"
    if values["lora"] is not None and both:
        return (
            f"lora: given together with {both[0]}; lora freezes the encoder itself, and its option "
            f"train says what is trained besides. Leave {both[0]} out"
        )
    return None


def _check_apart(values: Values) -> str | None:
    given = [name for name in ("ema_decay", "lora") if values[name]]
    sharded = [name for name in ("fsdp", "deepspeed") if values["training_arguments"].get(name)]
    if given and sharded:
        return f"{given[0]}: not possible with {sharded[0]} in training_arguments. Leave one out"
    return None


def _check_average(values: Values) -> str | None:
    if values["average_best"] and values["val_data_root"] is None:
        return "average_best: given without validation data. Set val_data_root"
    return None


def _check_push(values: Values) -> str | None:
    if values["push_to_hub"] and not values["hub_model_id"]:
        return (
            'hub_model_id: missing, and push_to_hub is true. Give the repository, "owner/name", or '
            "set push_to_hub to false"
        )
    return None


def _check_recipe(values: Values) -> str | None:
    if values["recipe"] and values["stages"]:
        return (
            'recipe: "auto" is for one training, and stages say what each of theirs has. Set one '
            "of them to null"
        )
    if values["recipe"] and values["views"] != "speaker":
        return (
            'recipe: "auto" is for batches of speakers, found views '
            f"{shown(values['views'])}. Set one of them to null"
        )
    return None


CHECKS: tuple[tuple[tuple[str, ...], Callable[[Values], str | None]], ...] = (
    (("model_name", "encoder_config", "pretrained"), _check_encoder_config),
    (("val_list", "val_data_root"), _check_val_list),
    (("val_trials", "val_data_root"), _check_val_trials),
    (("scheduler_metrics", "val_data_root", "utterances_per_speaker"), _check_scheduler_metrics),
    (("early_stopping_patience", "val_data_root"), _check_early_stopping),
    *RESULT_CHECKS,
    *DATA_CHECKS,
    *CLOSENESS_CHECKS,
    *PROCESS_CHECKS,
    (("output_dir",), _check_output_dir),
    (("recipe", "stages", "views"), _check_recipe),
    (("push_to_hub", "hub_model_id"), _check_push),
    (("optimizer", "training_arguments"), _check_optimizer),
    (("lora", "train_only_head", "freeze_feature_encoder", "freeze"), _check_lora),
    (("ema_decay", "lora", "training_arguments"), _check_apart),
    (("average_best", "val_data_root"), _check_average),
    (("lr_schedule", "warmup_steps", "training_arguments"), _check_schedule),
    (("training_arguments",), _check_training_arguments),
    (
        (
            *("loss", "activation_function", "views", "scheduler_metrics"),
            *("speakers_per_batch", "utterances_per_speaker"),
        ),
        _check_loss,
    ),
)
"""Keys -> what must hold between them; looked at when each of the keys is right by itself."""


def check_together(values: Values, broken: Iterable[str] = ()) -> list[str]:
    """The problems between keys that are right by themselves.

    Args:
        values: of all keys.
        broken: keys whose own value is wrong; checks that need them are left out.
    """
    skip = set(broken)
    checked = [check(values) for needed, check in CHECKS if not skip.intersection(needed)]
    return [problem for problem in checked if problem is not None]


def fill_in(values: Values) -> dict[str, Any]:
    """Puts the values that follow from other keys in the place of null.

    Filling in twice changes nothing, so the config of a run can be read again.
    """
    filled = dict(values)
    if filled["run_id"] is None:
        stem = os.path.basename(filled["model_name"].rstrip("/\\")) or "encoder"
        filled["run_id"] = re.sub(r"[\x00-\x1f/\\]|^\.+", "_", stem) + "_run"
    if filled["use_data_augmentation"] is None:
        filled["use_data_augmentation"] = is_augmented(filled)
    for name in ("augment_music_snr_db", "augment_noise_snr_db"):
        if filled[name] is None:
            filled[name] = filled["augment_snr_db"]
    if filled["scheduler_metrics"] is None:
        filled["scheduler_metrics"] = "train_loss" if filled["val_data_root"] is None else "val_eer"
    watches_training = filled["scheduler_metrics"].startswith("train_")
    was_accumulating = filled["gradient_accumulation_steps"] > 1
    window = filled["scheduler_metrics_avg_every"] or filled["val_every"] or 25
    if filled["accumulate_gradient_every_scheduler"] and not was_accumulating:
        filled["gradient_accumulation_steps"] = window
        filled["scheduler_metrics_avg_every"] = 1  # one step of the optimizer is one whole window
    elif filled["scheduler_metrics_avg_every"] is None:
        filled["scheduler_metrics_avg_every"] = window if watches_training else 1
    filled["data_parallel"] = filled["data_parallel"] or None
    return filled

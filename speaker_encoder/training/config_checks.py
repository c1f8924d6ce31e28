"""What must hold between the keys of a config, and the values that follow from other keys."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.training.config_kinds import shown
from speaker_encoder.training.config_tables import known_arguments

Values = Mapping[str, Any]


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like an unknown one."""
    found = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.5)
    return f" Did you mean {found[0]}?" if found else ""


def _check_encoder_config(values: Values) -> str | None:
    if values["encoder_config"] and values["pretrained"]:
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
    return None


def _check_early_stopping(values: Values) -> str | None:
    if values["early_stopping_patience"] and values["val_data_root"] is None:
        return "early_stopping_patience: given without validation data. Set val_data_root"
    return None


def _check_augmentation(values: Values) -> str | None:
    names = ("augment_noises_paths", "augment_musics_paths", "augment_reverbs_paths")
    if values["use_data_augmentation"] and not any(values[name] for name in names):
        return (
            f"use_data_augmentation: true, and none of {', '.join(names)} is given. Give at least "
            "one, or set it to false"
        )
    return None


def _check_data_parallel(values: Values) -> str | None:
    devices, device = values["data_parallel"] or (), values["device"]
    if len(devices) > 1 and values["speakers_per_batch"] % len(devices):
        return (
            f"speakers_per_batch: {values['speakers_per_batch']} speakers cannot be divided over "
            f"the {len(devices)} devices of data_parallel. Choose a multiple of {len(devices)}"
        )
    number = device.partition(":")[2]
    if devices and number and int(number) not in devices:
        return f'device: found "{device}", which is not among data_parallel {list(devices)}'
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


def _check_loss(values: Values) -> str | None:
    options = dict(values["loss"])
    name = options.pop("name")
    activation = values["activation_function"]
    if activation is not None and options.get("activation") is not None:
        return "activation_function: given beside the loss's own activation. Give one of them"
    if activation is None and name == "ge2e" and set(options) <= {"variant"}:
        return None
    from speaker_encoder.losses import build_loss

    if activation is not None:
        options["activation"] = activation
    try:
        build_loss(name, embedding_dim=2, num_speakers=2, **options)
    except UserError as error:
        return f"loss: {error}"
    except (TypeError, ValueError) as error:
        return f"loss: its options {shown(options)} are refused: {error}"
    return None


def _check_push(values: Values) -> str | None:
    if values["push_to_hub"] and not values["hub_model_id"]:
        return (
            'hub_model_id: missing, and push_to_hub is true. Give the repository, "owner/name", or '
            "set push_to_hub to false"
        )
    return None


CHECKS: tuple[tuple[tuple[str, ...], Callable[[Values], str | None]], ...] = (
    (("encoder_config", "pretrained"), _check_encoder_config),
    (("val_list", "val_data_root"), _check_val_list),
    (("val_trials", "val_data_root"), _check_val_trials),
    (("scheduler_metrics", "val_data_root"), _check_scheduler_metrics),
    (("early_stopping_patience", "val_data_root"), _check_early_stopping),
    (
        (
            "use_data_augmentation",
            "augment_noises_paths",
            "augment_musics_paths",
            "augment_reverbs_paths",
        ),
        _check_augmentation,
    ),
    (("data_parallel", "speakers_per_batch", "device"), _check_data_parallel),
    (("output_dir",), _check_output_dir),
    (("push_to_hub", "hub_model_id"), _check_push),
    (("training_arguments",), _check_training_arguments),
    (("loss", "activation_function"), _check_loss),
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
        filled["use_data_augmentation"] = any(
            filled[f"augment_{kind}_paths"] for kind in ("noises", "musics", "reverbs")
        )
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

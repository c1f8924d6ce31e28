"""What the config's keys name: losses, layouts, aliases, arguments that have a key of their own."""

from __future__ import annotations

from speaker_encoder.training.config_kinds import Boolean, Choice, Number, choice, integer
from speaker_encoder.training.config_named import Option, TextList

GE2E_VARIANTS = ("softmax", "contrast")

OPTIMIZERS: dict[str, dict[str, Option]] = {
    "adam": {},
    "adamw": {},
    "radam": {},
    "sgd": {"momentum": (Number(least=0, most=1), 0.9), "nesterov": (Boolean(), False)},
}
"""Optimizer -> its options."""

_PERIOD: Option = (Number(above=0), 1)
_GAMMA: Option = (Number(above=0, most=1), 0.5)
_UNIT: Option = (choice("step", "epoch"), "step")

SCHEDULES: dict[str, dict[str, Option]] = {
    "plateau": {},
    "constant": {},
    "noam": {"base": (Number(above=0, nullable=True), None)},
    "step": {"period": (Number(above=0), 10_000), "unit": _UNIT, "gamma": _GAMMA},
    "exponential": {"period": _PERIOD, "unit": _UNIT, "gamma": (Number(above=0, most=1), 0.9999)},
    "cosine": {
        "period": (Number(above=0, nullable=True), None),
        "unit": _UNIT,
        "multiplier": (Number(least=1), 1),
        "gamma": (Number(above=0, most=1), 1),
        "lowest": (Number(least=0, most=1), 0),
        "warm_each": (Boolean(), False),
    },
}
"""Schedule of the learning rate -> its options; docs/training.md says what they mean."""

LORA_OPTIONS: dict[str, Option] = {
    "r": (integer(1), 8),
    "alpha": (Number(above=0), 16),
    "dropout": (Number(least=0, most=1), 0.0),
    "target": (TextList("patterns of modules' names"), ["q_proj", "k_proj", "v_proj", "out_proj"]),
    "train": (TextList("patterns of parameters' names"), []),
}
"""Options of the key lora."""

ALIASES = {
    "augment_noise_paths": "augment_noises_paths",
    "augment_music_paths": "augment_musics_paths",
    "augment_reverb_paths": "augment_reverbs_paths",
    "accumalate_gradient_every_scheduler": "accumulate_gradient_every_scheduler",
    "annotate_point": "annote_point",
}
"""Other spellings -> the key."""

IGNORED_KEYS = ("$schema",)

RESERVED_ARGUMENTS = (
    ("auto_find_batch_size", "the batch is speakers_per_batch x utterances_per_speaker"),
    ("bf16", 'write "precision": "bf16"'),
    ("data_seed", "write seed"),
    ("dataloader_drop_last", "batches always have speakers_per_batch x utterances_per_speaker"),
    ("dataloader_num_workers", "write num_workers"),
    ("disable_tqdm", "the progress bar shows on terminals only"),
    ("eval_on_start", "the untouched model is always measured"),
    ("eval_steps", "write val_every"),
    ("eval_strategy", "write val_every"),
    ("fp16", 'write "precision": "fp16"'),
    ("gradient_accumulation_steps", "write gradient_accumulation_steps outside"),
    ("greater_is_better", "the best model is that of the lowest validation EER"),
    ("hub_token", "write hub_token outside"),
    ("ignore_data_skip", "a resumed run always goes on where it was"),
    ("label_names", "set by this package"),
    ("learning_rate", "write learning_rate_init"),
    ("load_best_model_at_end", "the best model is always kept"),
    ("logging_nan_inf_filter", "a loss that is not finite stops the run"),
    ("logging_steps", "write vis_train_metrics_every"),
    ("logging_strategy", "write vis_train_metrics_every"),
    ("max_grad_norm", "write max_grad_norm outside"),
    ("max_steps", "write max_steps outside"),
    ("metric_for_best_model", "the best model is that of the lowest validation EER"),
    ("num_train_epochs", "write num_epochs"),
    ("output_dir", "write output_dir and run_id"),
    ("per_device_eval_batch_size", "write val_speakers_per_batch and val_utterances_per_speaker"),
    ("per_device_train_batch_size", "write speakers_per_batch and utterances_per_speaker"),
    ("push_to_hub", "write push_to_hub outside"),
    ("remove_unused_columns", "set by this package"),
    ("report_to", "write comet, or report_to outside"),
    ("resume_from_checkpoint", "write force_restart"),
    ("run_name", "write run_id"),
    ("save_steps", "write save_every and backup_every"),
    ("save_strategy", "write save_every and backup_every"),
    ("save_total_limit", "write backup_keep"),
    ("seed", "write seed outside"),
    ("train_sampling_strategy", "batches always have speakers_per_batch x utterances_per_speaker"),
    ("use_cpu", "write device"),
    ("warmup_steps", "write warmup_steps outside"),
    ("weight_decay", "write weight_decay outside"),
)
"""Names of transformers.TrainingArguments that this package sets -> what to write instead."""


def known_losses() -> tuple[str, ...]:
    """The names of the losses."""
    from speaker_encoder.losses import LOSSES

    return tuple(LOSSES)


def known_layouts() -> Choice:
    """The kind of the key `layout`: every layout of the corpora, or auto."""

    def names() -> tuple[str, ...]:
        from speaker_encoder.corpora.layouts import LAYOUTS

        return ("auto", *sorted(LAYOUTS))

    return Choice(names)


def known_codecs() -> Choice:
    """The kind of one name of `augment_codecs`."""

    def names() -> tuple[str, ...]:
        from speaker_encoder.audio.codec import CODECS

        return tuple(CODECS)

    return Choice(names)


def known_arguments() -> tuple[str, ...]:
    """The names of transformers.TrainingArguments; imports torch."""
    import dataclasses

    from transformers import TrainingArguments

    return tuple(field.name for field in dataclasses.fields(TrainingArguments) if field.init)

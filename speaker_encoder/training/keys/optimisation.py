"""Keys of the config: loss, optimizer, schedule, devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speaker_encoder.training.config_compound import IntegerList, LossChoice, Mapping
from speaker_encoder.training.config_kinds import Boolean, Number, NumberOrWord, choice, integer
from speaker_encoder.training.config_named import Named, ObjectList
from speaker_encoder.training.config_tables import (
    GE2E_VARIANTS,
    OPTIMIZERS,
    RESERVED_ARGUMENTS,
    SCHEDULES,
    known_losses,
)
from speaker_encoder.training.keys.field import device, key

_MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class OptimisationKeys:
    """Loss, optimizer, schedule, devices."""

    loss: dict[str, Any] | list[dict[str, Any]] = key(  # noqa: RUF009
        LossChoice(known_losses, GE2E_VARIANTS),
        {"name": "ge2e", "variant": "softmax"},
        "The loss by its name, with its options, or the weighted sum of several; docs/losses.md.",
    )
    activation_function: str | None = key(
        choice("relu", "tanh", "sigmoid", nullable=True),
        None,
        "Applied to GE2E's similarity matrix.",
    )
    num_epochs: float = key(
        Number(above=0), 100, "Epochs of training; an epoch has files / (P K) steps, at least one."
    )
    max_steps: int | None = key(
        integer(1, nullable=True), None, "Steps of training; wins over num_epochs when given."
    )
    optimizer: dict[str, Any] = key(  # noqa: RUF009
        Named(OPTIMIZERS),
        "adam",
        "The optimizer by its name, or with its options. weight_decay is decoupled in AdamW and "
        "L2 in all others.",
    )
    learning_rate_init: float = key(
        Number(least=0),
        1e-5,
        "Learning rate after warm-up. 0.0 is for resuming: keep the checkpoint's rate.",
    )
    weight_decay: float = key(
        Number(least=0), 0.0, "Weight decay; never on the loss's own weights."
    )
    layer_lr_decay: float = key(
        Number(above=0, most=1),
        1.0,
        "Each numbered layer of the encoder learns this many times slower than the one above it.",
    )
    warmup_steps: int = key(integer(0), 0, "Steps over which the rate rises linearly from 0.")
    lr_schedule: dict[str, Any] = key(  # noqa: RUF009
        Named(SCHEDULES),
        "plateau",
        "What the learning rate does after warm-up, by its name or with its options; the keys "
        "scheduler_* are plateau's.",
    )
    scheduler_factor: float = key(
        Number(above=0, most=1), 0.6, "What the rate is multiplied by when the metric stands still."
    )
    scheduler_patience: int = key(
        integer(0), 3, "Values without a new lowest that are borne before that."
    )
    scheduler_metrics: str = key(
        choice("train_loss", "train_eer", "val_loss", "val_eer", "val_min_dcf", nullable=True),
        None,
        "What the schedule watches; null: val_eer with validation data, else train_loss.",
    )
    scheduler_metrics_avg_every: int = key(
        integer(1, nullable=True),
        None,
        "Steps over which a training metric is averaged before the schedule sees it; null: "
        "val_every, or 25 where that is 0. Validation metrics are seen one by one.",
    )
    accumulate_gradient_every_scheduler: bool = key(
        Boolean(),
        False,
        "Accumulate gradients over as many batches as the schedule averages over.",
    )
    gradient_accumulation_steps: int = key(integer(1), 1, "Batches per step of the optimizer.")
    mini_batch_size: int | str | None = key(
        NumberOrWord(integer(1), ("auto",), nullable=True),
        None,
        "Crops of a batch whose graph is in memory at once, of each process; the gradients are "
        "those of the whole batch, docs/large-batches.md. auto: as many as fit; null: all.",
    )
    max_grad_norm: float = key(
        Number(least=0), 3.0, "Gradients are scaled down to this L2 norm; 0: never."
    )
    precision: str = key(
        choice("float32", "bf16", "fp16"), "float32", "Precision of the forward pass."
    )
    ema_decay: float | None = key(
        Number(least=0.5, most=0.999999, nullable=True),
        None,
        "Validate and keep the exponential moving average of the weights, 0.999 say: what of it "
        "remains at each step; null: the weights themselves.",
    )
    interpolate: str | float = key(
        NumberOrWord(Number(least=0, most=1), ("auto", "off")),
        "auto",
        "The result lies between the untouched encoder (0) and the best trained one (1): auto: "
        "where the validation EER is lowest and the reference EER is kept; or the number given; "
        "off: at 1. Whatever it is, an encoder that does not beat the untouched one is not taken.",
    )
    interpolate_at: str = key(
        choice("end", "validation"),
        "end",
        "Interpolate at the end of the run; or at each validation too, to choose the best step by "
        "what interpolation makes of it.",
    )
    forgetting_tolerance: float = key(
        Number(least=0),
        0.1,
        "By which part of it the reference EER may rise with interpolate auto.",
    )
    allow_worse: bool = key(
        Boolean(),
        False,
        "Take, and push, the best encoder found although it does not beat the untouched one "
        "beyond noise.",
    )
    early_stopping_patience: int | None = key(
        integer(1, nullable=True),
        None,
        "Validations without a better EER before stopping; null: off.",
    )
    seed: int = key(integer(0, _MAX_SEED), 0, "Seed of everything that is random.")
    device: str = key(
        device(allows_best=True), "best", "Where the model is trained; best: CUDA if there is any."
    )
    data_parallel: tuple[int, ...] | None = key(
        IntegerList(nullable=True),
        None,
        "Numbers of the devices to train on, one process each; null or []: one process.",
    )
    recipe: str | None = key(
        choice("auto", nullable=True),
        None,
        "auto: what the config does not give of steps, learning rate, batch, crop, freezing and "
        "regularisation is chosen from the training corpus and the encoder by a table, "
        "docs/recipe.md, and printed before the start.",
    )
    stages: tuple[dict[str, Any], ...] = key(
        ObjectList(),
        [],
        "Stages of training one after the other, each with the keys that differ; the best model of "
        "a stage is what the next starts from.",
    )
    training_arguments: dict[str, Any] = key(  # noqa: RUF009
        Mapping(refused=RESERVED_ARGUMENTS),
        {},
        "Further arguments of transformers.TrainingArguments, verbatim.",
    )

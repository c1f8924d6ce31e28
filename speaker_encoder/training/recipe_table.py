"""The table of `"recipe": "auto"`: values of keys by encoder and corpus, each with its source."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig

DVECTOR, CONVOLUTIONAL, SELF_SUPERVISED = "d-vector", "convolutional", "self-supervised"
TRAINED, NEW_HEAD, RANDOM = "trained", "new head", "random weights"
FAMILIES = (DVECTOR, CONVOLUTIONAL, SELF_SUPERVISED)
STARTS = (TRAINED, NEW_HEAD, RANDOM)

RECIPE_KEYS = (
    *("max_steps", "num_epochs", "learning_rate_init", "warmup_steps", "lr_schedule"),
    *("optimizer", "weight_decay", "layer_lr_decay", "loss"),
    *("utterances_per_speaker", "speakers_per_batch", "window_size_s"),
    *("distillation", "l2_sp", "ema_decay", "head_first_steps", "train_only_head"),
    *("freeze_feature_encoder", "freeze_batch_norm", "freeze", "lora"),
    *("val_every", "save_every", "early_stopping_patience", "average_best", "interpolate"),
)
"""Keys that a row may fill; a run that goes on takes what is not given of these from its own
`train_config.json`, so none may ever be taken away."""

GIVES_WAY: dict[str, tuple[str, ...]] = {
    "max_steps": ("num_epochs",),
    "num_epochs": ("max_steps",),
    "train_only_head": ("lora",),
    "freeze_feature_encoder": ("lora",),
    "freeze": ("lora",),
    "lora": ("train_only_head", "freeze_feature_encoder", "freeze"),
    "loss": ("activation_function",),
}
"""Key -> keys that it contradicts: given, they leave it as it is without a recipe."""

_ARGUMENTS = {"lr_schedule": "lr_scheduler_type", "optimizer": "optim"}
"""Key -> the one of `training_arguments` that takes its place."""

_PLATEAU_KEYS = (
    *("scheduler_factor", "scheduler_patience"),
    *("scheduler_metrics", "scheduler_metrics_avg_every"),
)
"""Keys that only the schedule plateau, the default, has a use for."""

OF_VALIDATION = ("early_stopping_patience", "average_best")
"""Keys that have a meaning only with validation data."""


@dataclass(frozen=True)
class Source:
    """Where values come from: the few words of the printed table, and all of it."""

    label: str
    text: str


MEASURED = Source(
    "measured",
    "our runs with the pretrained dvector on 10 to 170 speakers, up to an hour, 3 seeds: "
    "docs/fine-tuning.md",
)
TRANSFERRED = Source(
    "transferred",
    "as measured with dvector on 10 to 170 speakers, up to an hour; not measured with this encoder "
    "or this much speech",
)
WESPEAKER = Source(
    "published by WeSpeaker",
    "rate and epochs that a maintainer of WeSpeaker advises for fine-tuning its models on new "
    "speech (github.com/wenet-e2e/wespeaker, issue 321); not measured here",
)
SPEECHBRAIN = Source(
    "published by SpeechBrain",
    "crops that SpeechBrain's ECAPA-TDNN was trained on (its VoxCeleb recipe); not measured here",
)
W2V_BERT = Source(
    "published for w2v-BERT",
    "joint fine-tuning of w2v-BERT 2.0 for speakers (arXiv 2510.04213, conf/w2v-bert/s2.yaml); not "
    "measured here",
)
WAV2VEC = Source(
    "published for wav2vec 2.0",
    "the feature encoder is not trained in fine-tuning (arXiv 2006.11477, section 4.3); not "
    "measured here",
)
ESPNET = Source(
    "published by ESPnet-SPK",
    "the first stage of configs/espnet_ecapa_wavlm_joint.json: the head alone; not measured here. "
    "Stages are what goes on from there",
)
SPEAKER_ENCODER = Source(
    "published by SpeakerEncoder", "batches of configs/seed_ge2e_wavlm.json; not measured here"
)
SPEAKER_EMBEDDING = Source(
    "published by Speaker_Embedding_Torch",
    "configs/dvector_ge2e_64x15.json, whose 100,000 steps were 149 epochs; not measured here",
)
VOXCELEB_TRAINER = Source(
    "published by voxceleb_trainer",
    "configs/fast_resnet34_angleproto.json, a FastResNet34 on VoxCeleb2; not measured here",
)
CHOSEN = Source("chosen", "our choice, neither measured nor published")


@dataclass(frozen=True)
class Row:
    """Values for some encoders and corpora; of rows that both fit, the later one wins.

    Attributes:
        values: of keys.
        source: where they come from.
        family: of the encoder; None: any.
        start: its weights before training; None: any.
        least_utterances: of the training corpus; epochs count them.
        least_hours: of it.
    """

    values: Mapping[str, Any]
    source: Source
    family: str | None = None
    start: str | None = None
    least_utterances: int = 0
    least_hours: float = 0.0

    def fits(self, family: str, start: str, num_utterances: int, hours: float) -> bool:
        """Is the row for such an encoder and such a corpus."""
        return (
            self.family in (None, family)
            and self.start in (None, start)
            and num_utterances >= self.least_utterances
            and hours >= self.least_hours
        )


TABLE: tuple[Row, ...] = (
    Row({"speakers_per_batch": 32, "utterances_per_speaker": 4}, MEASURED),
    Row({"val_every": 100, "save_every": 100}, CHOSEN),
    Row(
        {
            "max_steps": 100,
            "learning_rate_init": 3e-4,
            "lr_schedule": "cosine",
            "loss": [{"name": "sup_con"}, {"name": "triplet", "weight": 10}],
            "distillation": 10,
            "window_size_s": 1.6,
            "val_every": 50,
            "save_every": 50,
            "interpolate": "auto",
        },
        MEASURED,
        start=TRAINED,
    ),
    Row({"learning_rate_init": 5e-5}, WESPEAKER, CONVOLUTIONAL, TRAINED),
    Row({"window_size_s": 3.0}, SPEECHBRAIN, CONVOLUTIONAL, TRAINED),
    Row({"freeze_batch_norm": True}, CHOSEN, CONVOLUTIONAL, TRAINED),
    Row(
        {"learning_rate_init": 1e-5, "window_size_s": [2.0, 3.0]},
        W2V_BERT,
        SELF_SUPERVISED,
        TRAINED,
    ),
    Row({"freeze_feature_encoder": True}, WAV2VEC, SELF_SUPERVISED, TRAINED),
    Row({"num_epochs": 10, "max_steps": None}, WESPEAKER, None, TRAINED, 1100, 1.0),
    Row({"num_epochs": 4, "max_steps": None}, W2V_BERT, SELF_SUPERVISED, TRAINED, 1100, 1.0),
    Row(
        {
            "train_only_head": True,
            "learning_rate_init": 1e-3,
            "window_size_s": 3.0,
            "num_epochs": 40,
        },
        ESPNET,
        start=NEW_HEAD,
    ),
    Row(
        {
            "loss": "angular_prototypical",
            "learning_rate_init": 1e-3,
            "lr_schedule": {"name": "step", "period": 10, "unit": "epoch", "gamma": 0.95},
            "speakers_per_batch": 200,
            "utterances_per_speaker": 2,
            "window_size_s": 2.015,
            "num_epochs": 500,
        },
        VOXCELEB_TRAINER,
        start=RANDOM,
    ),
    Row(
        {
            "optimizer": "radam",
            "learning_rate_init": 1e-3,
            "lr_schedule": {"name": "step", "period": 10_000, "unit": "step", "gamma": 0.5},
            "speakers_per_batch": 64,
            "utterances_per_speaker": 15,
            "window_size_s": [2.24, 2.88],
            "num_epochs": 149,
        },
        SPEAKER_EMBEDDING,
        DVECTOR,
        RANDOM,
    ),
    Row(
        {"speakers_per_batch": 6, "utterances_per_speaker": 8},
        SPEAKER_ENCODER,
        SELF_SUPERVISED,
    ),
    Row({"val_every": 250, "save_every": 250}, CHOSEN, least_hours=10.0),
)
"""The rows, in the order in which they are put on one another."""


def left_to_recipe(recipe: str | None, given: Collection[str]) -> tuple[str, ...]:
    """The keys that a recipe chooses: those that are not given; none without a recipe."""
    return tuple(key for key in RECIPE_KEYS if key not in given) if recipe else ()


def contradicted_by(config: TrainConfig, key: str) -> str | None:
    """The key that is given and that a recipe's value of this key would contradict, if any."""
    if (argument := _ARGUMENTS.get(key)) in config.training_arguments:
        return f"{argument} of training_arguments"
    if key == "lr_schedule":
        return next((name for name in _PLATEAU_KEYS if name in config.named), None)
    given = (name for name in GIVES_WAY.get(key, ()) if name not in config.left_to_recipe)
    return next((name for name in given if getattr(config, name)), None)


def rows_for(family: str, start: str, num_utterances: int, hours: float) -> Iterator[Row]:
    """The rows that fit, those that win last.

    Args:
        family: of `FAMILIES`.
        start: of `STARTS`.
        num_utterances: of the training corpus.
        hours: of it.
    """
    return (row for row in TABLE if row.fits(family, start, num_utterances, hours))


def table_markdown() -> str:
    """The rows as a Markdown table, and the sources below it, for the documentation."""
    lines = ["| encoder | weights | corpus | values | source |", "|---|---|---|---|---|"]
    for row in TABLE:
        least = [f"{row.least_utterances} utterances"] * bool(row.least_utterances)
        least += [f"{row.least_hours:g} hours"] * bool(row.least_hours)
        values = (f"`{key}` {json.dumps(value)}" for key, value in row.values.items())
        cells = [
            row.family or "any",
            row.start or "any",
            f"at least {' and '.join(least)}" if least else "any",
            ", ".join(values),
            row.source.label,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    sources = dict.fromkeys([*(row.source for row in TABLE), TRANSFERRED])
    lines += ["", *(f"- {source.label}: {source.text}." for source in sources)]
    return "\n".join(lines) + "\n"

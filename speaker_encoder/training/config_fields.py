"""The keys of the training config: kind, default and meaning of each, and nothing else.

This is the one source of the config's checks, its defaults, its JSON schema and its table in the
documentation. A section is a dataclass; `TrainConfig` is made of all of them. A type says what the
key holds once the config is read, which is never null where null means "follows from other keys".
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from speaker_encoder.hub.names import REPO_ID
from speaker_encoder.training.config_compound import (
    FilePath,
    IntegerList,
    LossChoice,
    Mapping,
    NumberOrRange,
    PathList,
)
from speaker_encoder.training.config_kinds import Boolean, Kind, Number, Text, choice, integer
from speaker_encoder.training.config_tables import (
    GE2E_VARIANTS,
    RESERVED_ARGUMENTS,
    known_layouts,
    known_losses,
)

REQUIRED = dataclasses.MISSING
_AT_MOST_ONE = Number(least=0, most=1)
_ONE_FOLDER_NAME = r"^(?![\s\S]*[\u0000-\u001f/\\])[^.]"
_MAX_SEED = 2**32 - 1


def key(kind: Kind, default: Any, help_text: str) -> Any:
    """A dataclass field that knows its kind and its help text.

    Args:
        kind: what values are possible.
        default: as in the JSON file; `REQUIRED` where there is none.
        help_text: what the key means.
    """
    is_secret = isinstance(kind, Text) and kind.is_secret
    metadata = {"kind": kind, "help": help_text, "default": default, "is_secret": is_secret}
    if default is REQUIRED:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, repr=not is_secret, metadata=metadata)


def device(*, allows_best: bool) -> Text:
    """The kind of a key that names a device."""
    names = "best|cpu|cuda" if allows_best else "cpu|cuda"
    words = '"cpu", "cuda" or "cuda:<number>"'
    return Text(
        pattern=rf"^({names}|cuda:[0-9]{{1,3}})(?![\s\S])",
        what=f'"best", {words}' if allows_best else words,
    )


@dataclass(frozen=True, kw_only=True)
class ModelKeys:
    """What is fine-tuned."""

    model_name: str = key(
        Text(what="the name of an encoder, a Hub id, or a folder"),
        REQUIRED,
        "The pretrained encoder: a short name (ecapa, wavlm-base-plus-sv, ...), a Hugging Face Hub "
        "id, a local folder, or a checkpoint-<step> of a run.",
    )
    pretrained: bool = key(
        Boolean(),
        True,
        "false: the same architecture with random weights, to train from scratch.",
    )
    encoder_config: dict[str, Any] | None = key(  # noqa: RUF009
        Mapping(nullable=True),
        None,
        "With pretrained false: what differs from the encoder's usual architecture, in the "
        "argument names of its own library (ECAPA: SpeechBrain's, WavLM: WavLMConfig's).",
    )
    train_only_head: bool = key(
        Boolean(), False, "WavLM: train only the x-vector head, freeze everything below."
    )
    enlarge_head: bool = key(
        Boolean(), False, "WavLM: replace the last layer by a new one with 1024 outputs."
    )
    freeze_feature_encoder: bool = key(
        Boolean(), False, "WavLM: freeze the convolutional feature encoder."
    )
    freeze_batch_norm: bool = key(
        Boolean(), False, "Keep the running statistics of batch normalisation as they are."
    )


@dataclass(frozen=True, kw_only=True)
class DataKeys:
    """The corpora, and how examples are made of them."""

    train_data_root: str = key(
        FilePath("any", words=("demo",)),
        REQUIRED,
        'Folder of the training corpus, or a list file; "demo": a corpus of synthetic voices.',
    )
    val_data_root: str | None = key(
        FilePath("any", words=("demo",), nullable=True),
        None,
        "The same for validation, with other speakers; null: no validation.",
    )
    layout: str = key(
        known_layouts(), "auto", "How the corpora lie on disk; auto: found out by looking."
    )
    multi_rec_session: bool = key(
        Boolean(), False, "The corpora are speaker/session/file instead of speaker/file."
    )
    train_list: str | None = key(
        FilePath("file", nullable=True),
        None,
        "File with lines `speaker path`, paths relative to train_data_root; null: all of it.",
    )
    val_list: str | None = key(
        FilePath("file", nullable=True),
        None,
        "File with lines `speaker path`, paths relative to val_data_root; null: all of it.",
    )
    val_trials: str | None = key(
        FilePath("file", nullable=True),
        None,
        "File with lines `label path1 path2`: the trials of validation; null: all pairs.",
    )
    allow_speaker_overlap: bool = key(
        Boolean(), False, "Accept speakers that are in both training and validation data."
    )
    cache_dir: str | None = key(
        FilePath(nullable=True), None, "Where scans of corpora are cached; null: the user's cache."
    )
    model_sample_rate: int = key(
        choice(16000), 16000, "Sampling rate of the model in Hz; audio is resampled to it."
    )
    window_size_s: float | tuple[float, float] = key(
        NumberOrRange(Number(above=0)),
        2.0,
        "Seconds of a training crop, or [least, most], drawn for each batch.",
    )
    short_utterances: str = key(
        choice("repeat", "zero_pad"),
        "repeat",
        "Utterances shorter than the crop are repeated, or centred between zeros.",
    )
    trim_silence: str = key(
        choice("off", "energy", "vad"),
        "off",
        "Take crops, and validate, from what trimming leaves, as the exporter's --trim_silence; "
        "every file is then decoded whole once.",
    )
    few_utterances: str = key(
        choice("repeat", "drop", "error"),
        "repeat",
        "Speakers with fewer than utterances_per_speaker utterances: repeat their utterances with "
        "other crops, leave the speakers out, or stop.",
    )
    min_utterance_seconds: float = key(
        Number(least=0), 0.5, "Utterances shorter than this are left out; 0 keeps all."
    )
    speakers_per_batch: int = key(
        integer(2), 6, "P: speakers in a training batch; divided over the devices."
    )
    utterances_per_speaker: int = key(
        integer(2), 8, "K: utterances of each speaker in a training batch."
    )
    val_speakers_per_batch: int = key(integer(2), 4, "P of the validation batches.")
    val_utterances_per_speaker: int = key(integer(2), 8, "K of the validation batches.")
    num_workers: int = key(integer(0, 256), 2, "Processes that read audio; 0: the main one does.")


@dataclass(frozen=True, kw_only=True)
class AugmentationKeys:
    """Music, then noise, then impulse responses, on training batches."""

    use_data_augmentation: bool = key(
        Boolean(nullable=True),
        None,
        "Augment training batches; null: when any augment_*_paths is given.",
    )
    augment_noises_paths: tuple[str, ...] = key(
        PathList(), None, "Folders or files of background noise."
    )
    augment_musics_paths: tuple[str, ...] = key(PathList(), None, "Folders or files of music.")
    augment_reverbs_paths: tuple[str, ...] = key(
        PathList(), None, "Folders or files of room impulse responses."
    )
    augment_music_p: float = key(_AT_MOST_ONE, 0.6, "Probability that an example gets music.")
    augment_noise_p: float = key(_AT_MOST_ONE, 0.6, "Probability that an example gets noise.")
    augment_reverb_p: float = key(
        _AT_MOST_ONE, 0.6, "Probability that an example gets an impulse response."
    )
    augment_snr_db: tuple[float, float] = key(
        NumberOrRange(Number(least=-100, most=100), always_range=True),
        [10, 15],
        "Signal-to-noise ratio in dB of music and noise, [least, most], uniform.",
    )
    augment_bank_seconds: float = key(
        Number(above=0), 600.0, "Seconds of audio kept in memory for each kind, at most."
    )
    aug_device: str = key(
        device(allows_best=True),
        "cpu",
        "Where augmentation is computed; cpu: in the processes that read audio.",
    )


@dataclass(frozen=True, kw_only=True)
class OptimisationKeys:
    """Loss, optimizer, schedule, devices."""

    loss: dict[str, Any] = key(  # noqa: RUF009
        LossChoice(known_losses, GE2E_VARIANTS),
        {"name": "ge2e", "variant": "softmax"},
        "The loss by its name, or with its options.",
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
    optimizer: str = key(
        choice("adam", "adamw"), "adam", "Adam (weight_decay is L2) or AdamW (decoupled)."
    )
    learning_rate_init: float = key(
        Number(least=0),
        1e-5,
        "Learning rate after warm-up. 0.0 is for resuming: keep the checkpoint's rate.",
    )
    weight_decay: float = key(
        Number(least=0), 0.0, "Weight decay; never on the loss's own weights."
    )
    warmup_steps: int = key(integer(0), 0, "Steps over which the rate rises linearly from 0.")
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
    max_grad_norm: float = key(
        Number(least=0), 3.0, "Gradients are scaled down to this L2 norm; 0: never."
    )
    precision: str = key(
        choice("float32", "bf16", "fp16"), "float32", "Precision of the forward pass."
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
    training_arguments: dict[str, Any] = key(  # noqa: RUF009
        Mapping(refused=RESERVED_ARGUMENTS),
        {},
        "Further arguments of transformers.TrainingArguments, verbatim.",
    )


@dataclass(frozen=True, kw_only=True)
class RecordKeys:
    """Validation, checkpoints, and the record of the run."""

    output_dir: str = key(FilePath(), "runs", "Folder in which the run's own folder is made.")
    run_id: str = key(
        Text(
            _ONE_FOLDER_NAME, what="a name that can be a folder's, without / and \\", nullable=True
        ),
        None,
        "Name of the run: its folder, the Comet experiment, the key to resume; "
        "null: <model_name>_run.",
    )
    force_restart: bool = key(
        Boolean(), False, "Start anew; false: go on from the newest complete checkpoint."
    )
    save_every: int = key(integer(0), 25, "Steps between checkpoints; 0: only at the end.")
    backup_every: int = key(integer(0), 50, "Steps between checkpoints that are kept; 0: none.")
    backup_keep: int = key(integer(0), 3, "How many of those are kept.")
    val_every: int = key(integer(0), 25, "Steps between validations; 0: only first and last.")
    val_max_epochs: float = key(
        Number(above=0), 1, "Times the validation files are gone through for loss and in-batch EER."
    )
    val_max_trials: int = key(
        integer(2), 200_000, "Trials at most; beyond it, a fixed sample of all pairs."
    )
    val_max_seconds: float = key(
        Number(above=0), 30.0, "Longer utterances are cut to their middle in trials."
    )
    bootstrap_samples: int = key(
        integer(1), 1000, "Draws of speakers for the 95 % intervals of the figures."
    )
    vis_train_metrics_every: int = key(
        integer(0), 1, "Steps between logged training metrics; 0: off."
    )
    vis_train_art_every: int = key(
        integer(0), 50, "Steps between UMAP pictures and logged audio of the batch; 0: off."
    )
    vis_val_art_every: int = key(integer(0), 5, "Validation batches between UMAP pictures; 0: off.")
    annote_point: bool = key(Boolean(), False, "Write the file name at every point of a UMAP.")
    comet: str = key(
        choice("auto", "online", "offline", "off"),
        "auto",
        "Experiment tracking with Comet; auto: online with a key, else an offline archive.",
    )
    comet_key: str | None = key(
        Text(nullable=True, is_secret=True),
        None,
        "Comet's API key; better in the environment, COMET_API_KEY. Never written anywhere.",
    )
    comet_project: str = key(Text(), "speaker-encoder", "Comet's project.")
    comet_workspace: str | None = key(
        Text(nullable=True), None, "Comet's workspace; null: the key's own."
    )
    push_to_hub: bool = key(
        Boolean(), False, "Push the best model to the Hugging Face Hub, into hub_model_id."
    )
    hub_model_id: str | None = key(
        Text(pattern=REPO_ID, what='a repository, "owner/name"', nullable=True),
        None,
        "The repository that is pushed to; made if need be.",
    )
    hub_private: bool | None = key(
        Boolean(nullable=True),
        None,
        "Whether a repository that is made is private; null: the account's default.",
    )
    hub_strategy: str = key(
        choice("end", "every_save"),
        "end",
        "Push when the run has ended, or also the best model so far after each save, in a process "
        "of its own that training does not wait for.",
    )
    hub_token: str | None = key(
        Text(nullable=True, is_secret=True),
        None,
        "Token for the Hub: private repositories and pushing; better in the environment, HF_TOKEN. "
        "Never written anywhere.",
    )

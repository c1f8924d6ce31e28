"""Keys of the config: validation, checkpoints, and the record of the run."""

from __future__ import annotations

from dataclasses import dataclass

from speaker_encoder.hub.names import REPO_ID
from speaker_encoder.training.config_compound import FilePath
from speaker_encoder.training.config_kinds import Boolean, Number, Text, choice, integer
from speaker_encoder.training.config_named import TextList
from speaker_encoder.training.keys.field import key

_ONE_FOLDER_NAME = r"^(?![\s\S]*[\u0000-\u001f/\\])[^.]"


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
    average_best: int | None = key(
        integer(2, nullable=True),
        None,
        "At the end, take the mean of this many best validated models where it is at least as good "
        "as the best one.",
    )
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
    report_to: tuple[str, ...] = key(
        TextList("trackers", names=("wandb",)),
        [],
        "Further trackers: wandb, online with its own key (WANDB_API_KEY), else an offline folder.",
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
        "of its own that training does not wait for; with pretrained and validation data it needs "
        "allow_worse.",
    )
    hub_token: str | None = key(
        Text(nullable=True, is_secret=True),
        None,
        "Token for the Hub: private repositories and pushing; better in the environment, HF_TOKEN. "
        "Never written anywhere.",
    )

"""What happens around the steps: when to validate, save and stop, and which model is the best."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speaker_encoder.training.distributed import any_process, is_main_process
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.training.run_files import read_json
from speaker_encoder.training.schedule import WarmupThenPlateau

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.trainer import SpeakerTrainer

PROGRESS_NAME = "progress.json"
_SECOND_SECONDS = 1.0

_logger = logging.getLogger(__name__)


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a wish to stop after this step; a second Ctrl-C is at once."""

    def __init__(self) -> None:
        self.is_wanted = False
        self.consequence = "saving after this step"
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        # a launcher passes on the Ctrl-C that its processes get from the terminal as well
        if self.is_wanted and number == signal.SIGINT and now - self._since > _SECOND_SECONDS:
            raise KeyboardInterrupt
        if self.is_wanted:
            return
        self.is_wanted, self._since = True, now
        _logger.warning("%s: %s", signal.Signals(number).name, self.consequence)


@dataclass
class Progress:
    """What decides the rest of a run beside the Trainer's state, and so is in each checkpoint."""

    ranking: list[tuple[float, float, int]] = field(default_factory=list)  # EER, minDCF, step
    num_validations_without_gain: int = 0
    previous_loss: float | None = None
    is_validation_pending: bool = False  # stopped by a signal when a validation was due
    has_stopped_early: bool = False
    unusable_files: dict[str, str] = field(default_factory=dict)
    reference_eer: float | None = None  # of the encoder that fine-tuning began with
    mini_batch_size: int | None = None  # that "auto" found at the run's start
    data: str | None = None  # digest of who speaks which utterance

    @property
    def best_step(self) -> int | None:
        """The step of the best model, None before the first validation."""
        return self.ranking[0][2] if self.ranking else None

    def save(self, folder: Path) -> None:
        """Writes it into a checkpoint."""
        (folder / PROGRESS_NAME).write_text(json.dumps(asdict(self)), encoding="ascii")

    @classmethod
    def load(cls, folder: Path) -> Progress:
        """Reads it from a checkpoint, also of a version that knew the best model alone."""
        values = read_json(folder / PROGRESS_NAME)
        best = tuple(values.pop(f"best_{name}", None) for name in ("eer", "min_dcf", "step"))
        ranking = values.pop("ranking", [best] if best[2] is not None else [])
        return cls(**values, ranking=[tuple(row) for row in ranking])


class FlowCallback(TrainerCallback):
    """Says when to log, validate, save and stop, and keeps the best model.

    The best model is the one with the lowest trial EER on the validation data, then the lowest
    minDCF; the untouched model, step 0, competes.

    Args:
        config: of the run.
        run: its directory.
        stop: the wish to stop.
        has_validation: whether there is validation data.
        first_trained_step: 0 where the run goes on with what another one trained, else 1.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        stop: StopRequest,
        has_validation: bool,
        first_trained_step: int = 1,
    ) -> None:
        self._config = config
        self.first_trained_step = first_trained_step
        self._run = run
        self._stop = stop
        self._has_validation = has_validation
        self.progress = Progress()  # of the checkpoint, when the run is resumed
        self.trainer: SpeakerTrainer | None = None

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Tells the sampler the epoch.

        accelerate, whose task it is, does not find it where a run of several processes is gone on
        with within an epoch.
        """
        assert self.trainer is not None
        self.trainer.set_epoch(int(state.epoch or 0))

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> TrainerControl:
        """Takes the decisions of one step."""
        config, step = self._config, state.global_step
        is_last = step >= state.max_steps
        assert self.trainer is not None
        self.trainer.published.update()
        self._observe_training()
        control.should_log = is_due(step, config.vis_train_metrics_every)
        if self._has_validation:
            control.should_evaluate = is_due(step, config.val_every) or is_last
        control.should_save = (
            is_due(step, config.save_every) or is_due(step, config.backup_every) or is_last
        )
        if any_process(self._stop.is_wanted, args.device):
            self._stop.is_wanted = True
            self.progress.is_validation_pending = control.should_evaluate
            control.should_evaluate = False
            control.should_save = True
            control.should_training_stop = True
        return control

    def _observe_training(self) -> None:
        """Shows the schedule the training loss or EER when the config watches one of these."""
        assert self.trainer is not None and self.trainer.last_batch is not None
        schedule = self.trainer.lr_scheduler
        watched = self._config.scheduler_metrics
        if isinstance(schedule, WarmupThenPlateau):
            if watched == "train_loss":
                schedule.observe(self.trainer.last_batch.loss)
            elif watched == "train_eer":
                eer = self.trainer.last_batch.eer()
                assert eer is not None  # the config says that a batch has one
                schedule.observe(eer)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> TrainerControl:
        """Shows the schedule the validation, keeps a best model, and stops early if wanted."""
        assert self.trainer is not None and metrics is not None
        self.progress.is_validation_pending = False
        schedule = self.trainer.lr_scheduler
        names = {"val_loss": "loss", "val_eer": "eer", "val_min_dcf": "min_dcf"}
        watched = names.get(self._config.scheduler_metrics)
        if isinstance(schedule, WarmupThenPlateau) and watched and state.global_step > 0:
            schedule.observe(metrics[watched])
        if self.consider(metrics, state.global_step):
            self.progress.num_validations_without_gain = 0
        else:
            self.progress.num_validations_without_gain += 1
        patience = self._config.early_stopping_patience
        if patience and self.progress.num_validations_without_gain >= patience:
            _logger.info(
                "step %d: no better validation EER in %d validations, stopping early",
                *(state.global_step, patience),
            )
            self.progress.has_stopped_early = True
            control.should_training_stop = True
            control.should_save = True
        return control

    def consider(self, metrics: dict[str, float], step: int) -> bool:
        """Keeps the model of this step if it is among the best; says if it is the best yet."""
        eer = metrics.get("interpolated_eer", metrics["eer"])
        found = (eer, metrics.get("interpolated_min_dcf", metrics["min_dcf"]), step)
        ranking = self._leading(sorted([*self.progress.ranking, found]))
        self.progress.ranking = ranking
        is_best = ranking[0] == found
        if is_main_process() and found in ranking:
            assert self.trainer is not None and self.trainer.last_validation is not None
            if is_best:
                path = embeddings_path(self._run, step)
                save_embeddings(path, self.trainer.last_validation.embeddings)
            self.trainer.save_encoder(self._run.best_dir(step))
            self.trainer.save_loss(self._run.best_dir(step))
            if is_best:
                self._run.publish_best(step)
        return is_best

    def _leading(self, rows: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
        """The best of sorted rows, with a trained model among them if there is any."""
        count = self._config.average_best or 1
        trained = [row for row in rows if row[2] >= self.first_trained_step]
        if trained and trained[0] not in rows[:count]:
            return [*rows[:count], trained[0]]
        return rows[:count]

    def best_trained_step(self) -> int | None:
        """Gives the step of the best model but the untouched one, None where there is none yet."""
        steps = [row[2] for row in self.progress.ranking if row[2] >= self.first_trained_step]
        return steps[0] if steps else None

    def note_forgetting(self, metrics: dict[str, float]) -> None:
        """Adds how much the reference EER has risen since fine-tuning began to metrics with one."""
        if "reference_eer" not in metrics:
            return
        if self.progress.reference_eer is None:
            self.progress.reference_eer = metrics["reference_eer"]
        metrics["forgetting"] = metrics["reference_eer"] - self.progress.reference_eer

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> None:
        """Removes the checkpoints that are not wanted any more."""
        if is_main_process():
            self._run.prune(self._config.backup_keep, self._config.backup_every)
            self._run.prune_best({step for _, _, step in self.progress.ranking})


def is_due(step: int, every: int) -> bool:
    """Is it time at this step for what happens every so many steps; 0 turns it off."""
    return every > 0 and step % every == 0


def embeddings_path(run: RunDirectory, step: int) -> Path:
    """Gives the file of a step's validation embeddings."""
    return run.scores_dir / f"step_{step:06d}.npz"


def save_embeddings(path: Path, embeddings: np.ndarray) -> None:
    """Keeps validation embeddings (N, D), whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.stem}.part.npz")
    np.savez(part, embeddings=embeddings)
    part.replace(path)

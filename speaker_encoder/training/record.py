"""The record of a run: metrics, pictures, audio, and the progress bar."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speaker_encoder.corpora import Utterance
from speaker_encoder.training.callbacks import FlowCallback, is_due
from speaker_encoder.training.health import CollapseWatch, is_exploding
from speaker_encoder.training.model_card import INTERPOLATION_PICTURE
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.verification import embedding_health

if TYPE_CHECKING:
    import numpy as np

    from speaker_encoder.plots.background import BackgroundPlotter
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.data import RunData
    from speaker_encoder.training.last_batch import LastBatch
    from speaker_encoder.training.tracking import ExperimentTracker
    from speaker_encoder.training.trainer import SpeakerTrainer
    from speaker_encoder.training.validation import Validation

_logger = logging.getLogger(__name__)


class RecordCallback(TrainerCallback):
    """Writes down what happens, in the main process; nothing in it changes the training.

    Args:
        config: of the run.
        run: its directory.
        tracker: Comet, wandb, TensorBoard and metrics.jsonl.
        plotter: draws in a process of its own.
        train_utterances, val_utterances: for names.
        sampling_rate: Hz, of the audio that is logged.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        tracker: ExperimentTracker,
        plotter: BackgroundPlotter,
        train_utterances: Sequence[Utterance],
        val_utterances: Sequence[Utterance],
        sampling_rate: int,
    ) -> None:
        self._config = config
        self._run = run
        self._tracker = tracker
        self._plotter = plotter
        self._train_utterances = train_utterances
        self._val_utterances = val_utterances
        self._sampling_rate = sampling_rate
        self._collapse = CollapseWatch()
        self._bar: Any = None
        self._last_logged = (0, time.monotonic())
        self.trainer: SpeakerTrainer | None = None
        self.flow: FlowCallback | None = None

    def start(self, data: RunData, resume_step: int | None) -> None:
        """Opens the record; one that is resumed goes on after its checkpoint's step."""
        self._tracker.start(self._config.to_dict(), self._run.path, self._run.title, resume_step)
        summary = data.training.corpus.summary()
        self._tracker.log_parameters(
            {
                **self._config.to_dict(),
                "num_train_speakers": len(data.training.speakers),
                "num_train_utterances": len(data.training.utterances),
                "train_hours": summary.hours,
                "num_replay_speakers": len(data.replay.speakers) if data.replay else 0,
                "num_val_speakers": len(data.validation.speakers) if data.validation else 0,
                "num_val_utterances": len(self._val_utterances),
            }
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Opens the progress bar, on a terminal only."""
        from tqdm.auto import tqdm

        self._last_logged = (state.global_step, time.monotonic())
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self._run.title or "training",
            unit="step",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Draws, keeps audio, and watches for an exploding loss."""
        assert self.trainer is not None and self.flow is not None
        batch = self.trainer.last_batch
        assert batch is not None
        step = state.global_step
        if is_exploding(batch.loss, self.flow.progress.previous_loss):
            self._dump_explosion(batch, step)
        if is_due(step, self._config.vis_train_art_every):
            self._draw(batch, "train_umap", step, "training batch")
            self._log_audio(batch, step)
        self._send_pictures()
        self.flow.progress.previous_loss = batch.loss
        self._bar.update()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Closes the bar: what comes is not training."""
        self._bar.close()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Writes the metrics of a training step."""
        assert self.trainer is not None and logs is not None
        batch = self.trainer.last_batch
        if "loss" not in logs or batch is None:
            return  # the Trainer's own summary at the end
        step, now = state.global_step, time.monotonic()
        last_step, last_time = self._last_logged
        self._last_logged = (step, now)
        mean_cosine, effective_rank = embedding_health(batch.embeddings.float().cpu().numpy())
        self._collapse.observe(mean_cosine, effective_rank, step)
        values = {
            "loss": batch.loss,
            **batch.loss_parts,
            "learning_rate": logs["learning_rate"],
            "grad_norm": float(logs.get("grad_norm") or 0.0),
            "mean_cosine": mean_cosine,
            "effective_rank": effective_rank,
            "steps_per_second": (step - last_step) / max(now - last_time, 1e-9),
        }
        eer = batch.eer()
        if eer is not None:
            values["eer"] = eer
        self._tracker.log_metrics(values, "train", step, float(state.epoch or 0.0))
        shown_eer = "-" if eer is None else f"{eer:.1%}"
        self._bar.set_postfix(loss=f"{values['loss']:.3f}", eer=shown_eer)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Writes and shows what a validation found."""
        assert self.trainer is not None and self.trainer.last_validation is not None
        epoch = float(state.epoch or 0.0)
        self.record_validation(self.trainer.last_validation, state.global_step, epoch)

    def record_validation(self, found: Validation, step: int, epoch: float) -> None:
        """Writes a validation's metrics and draws its batches."""
        metrics = found.metrics
        self._tracker.log_metrics(metrics, "validation", step, epoch)
        self._collapse.observe(metrics["mean_cosine"], metrics["effective_rank"], step)
        _logger.info(
            "step %d: validation EER %.2f %% [%.2f, %.2f], minDCF %.3f%s%s%s",
            *(step, 100 * metrics["eer"], 100 * metrics["eer_low"], 100 * metrics["eer_high"]),
            metrics["min_dcf"],
            _shown(metrics, "loss", ", loss {:.3f}"),
            _shown(metrics, "interpolated_eer", ", interpolated EER {:.2%}"),
            _shown(metrics, "reference_eer", ", reference EER {:.2%}"),
        )
        for number, (embeddings, indices) in enumerate(found.batches):
            suffix = f"_batch{number}" if number else ""
            self._plotter.submit(
                "umap",
                self._run.path / "plots" / f"val_umap_{step:06d}{suffix}.png",
                step=step,
                embeddings=embeddings,
                labels=[self._val_utterances[i].speaker_id for i in indices],
                annotations=self._annotations(self._val_utterances, indices),
                title=f"validation speakers, step {step}",
            )

    def _annotations(self, utterances: Sequence[Utterance], indices: list[int]) -> Any:
        if not self._config.annote_point:
            return None
        return [Path(utterances[i].path).name for i in indices]

    def _draw(self, batch: LastBatch, name: str, step: int, title: str) -> None:
        """Draws this process's part of a batch."""
        count = len(batch.utterances)
        self._plotter.submit(
            "umap",
            self._run.path / "plots" / f"{name}_{step:06d}.png",
            step=step,
            embeddings=batch.embeddings[:count].float().cpu().numpy(),
            labels=[self._train_utterances[i].speaker_id for i in batch.utterances],
            annotations=self._annotations(self._train_utterances, batch.utterances),
            title=f"{title}, step {step}",
        )

    def _log_audio(self, batch: LastBatch, step: int) -> None:
        waveforms = batch.input_values.float().cpu().numpy()
        for number, (waveform, index) in enumerate(zip(waveforms, batch.utterances, strict=True)):
            utterance = self._train_utterances[index]
            self._tracker.log_audio(
                waveform,
                self._sampling_rate,
                f"step_{step:06d}_{number:03d}.wav",
                step,
                {
                    "step": step,
                    "speaker": utterance.speaker_id,
                    "utterance": utterance.utterance_id,
                },
            )

    def _dump_explosion(self, batch: LastBatch, step: int) -> None:
        """Keeps the batch whose loss was many times that of the step before."""
        folder = self._run.path / "audio" / f"exploding_loss_{step:06d}"
        _logger.warning(
            "step %d: the loss jumped to %.3f; the batch is in %s and plots/",
            step,
            batch.loss,
            folder,
        )
        self._draw(batch, "exploding_loss_umap", step, "exploding loss")
        self._write_audio(batch, folder)
        self._log_audio(batch, step)

    def _write_audio(self, batch: LastBatch, folder: Path) -> None:
        import soundfile

        folder.mkdir(parents=True, exist_ok=True)
        waveforms: np.ndarray = batch.input_values.float().cpu().numpy()
        for number, (waveform, index) in enumerate(zip(waveforms, batch.utterances, strict=True)):
            speaker = self._train_utterances[index].speaker_id.replace("/", "_")
            soundfile.write(
                folder / f"{number:03d}_{speaker}.flac", waveform.clip(-1, 1), self._sampling_rate
            )

    def _send_pictures(self) -> None:
        """Logs the pictures that the drawing process has finished meanwhile."""
        for plot in self._plotter.finished():
            self._tracker.log_image(plot.path, plot.name, plot.step or 0)

    def log_interpolation(self, step: int) -> None:
        """Logs the curve between the untouched and the trained encoder."""
        path = self._run.path / "plots" / INTERPOLATION_PICTURE
        self._tracker.log_image(path, path.stem, step)

    def finish(self) -> None:
        """Closes the bar, waits for the pictures, and closes the record."""
        if self._bar is not None:
            self._bar.close()
        self._plotter.close()
        self._send_pictures()
        self._tracker.finish()


def _shown(metrics: dict[str, float], name: str, text: str) -> str:
    return text.format(metrics[name]) if name in metrics else ""

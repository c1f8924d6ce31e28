"""The record of a run: metrics.jsonl and TensorBoard always, Comet and wandb as wanted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speaker_encoder.training.tracking_comet import CometRecord, CometSettings
from speaker_encoder.training.tracking_files import (
    METRICS_FILE_NAME,
    TENSORBOARD_FOLDER,
    MetricsFile,
    TensorBoardRecord,
    read_metrics,
)
from speaker_encoder.training.tracking_wandb import WandbRecord

if TYPE_CHECKING:
    import os

    from speaker_encoder.training.config import TrainConfig

_logger = logging.getLogger(__name__)


class ExperimentTracker:
    """Records one run; used by the main process alone.

    Args:
        config: of the run; its key for Comet is used and never written.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._metrics: MetricsFile | None = None
        self._tensorboard: TensorBoardRecord | None = None
        self._comet: CometRecord | None = None
        self._wandb: WandbRecord | None = None

    def start(
        self,
        parameters: Mapping[str, Any],
        run_dir: str | os.PathLike[str],
        run_id: str,
        resume_step: int | None = None,
    ) -> None:
        """Opens the record.

        Args:
            parameters: of the run, without secrets.
            run_dir: where the record lies.
            run_id: name of the Comet experiment.
            resume_step: the step of the checkpoint that the run goes on from: what was recorded
                after it is dropped; None starts a new record.
        """
        folder = Path(run_dir)
        path = folder / METRICS_FILE_NAME
        self._metrics = MetricsFile(path, resume_step)
        self._tensorboard = TensorBoardRecord(folder / TENSORBOARD_FOLDER, resume_step)
        if self._config.comet != "off":
            settings = CometSettings(
                mode=self._config.comet,
                api_key=self._config.comet_api_key,
                project=self._config.comet_project,
                workspace=self._config.comet_workspace,
                name=run_id,
            )
            self._comet = CometRecord(settings, folder, resume=resume_step is not None)
            if self._comet.needs_replay:
                self._replay(path)
        if "wandb" in self._config.report_to:
            self._wandb = WandbRecord(run_id, folder, resume=resume_step is not None)
        self.log_parameters(parameters)

    def _replay(self, path: Path) -> None:
        """Logs the metrics of a killed offline run again, since its archive was never written."""
        assert self._comet is not None
        for line in read_metrics(path):
            step, epoch, split = line.pop("step"), line.pop("epoch", None), line.pop("split", "")
            values = {name: value for name, value in line.items() if value is not None}
            self._comet.log_metrics(values, split, step, epoch)

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Records settings and sizes of the run."""
        assert self._tensorboard is not None
        self._tensorboard.log_parameters(parameters)
        if self._comet is not None:
            self._comet.log_parameters(parameters)
        if self._wandb is not None:
            self._wandb.log_parameters(parameters)

    def log_metrics(self, values: Mapping[str, float], split: str, step: int, epoch: float) -> None:
        """Records metrics.

        Args:
            values: name -> figure.
            split: "train" or "validation".
            step: of the training.
            epoch: of the training, with its fraction.
        """
        assert self._metrics is not None and self._tensorboard is not None
        plain = {name: float(value) for name, value in values.items()}
        self._metrics.write(plain, split, step, epoch)
        self._tensorboard.log_metrics(plain, split, step)
        if self._comet is not None:
            self._comet.log_metrics(plain, split, step, epoch)
        if self._wandb is not None:
            self._wandb.log_metrics(plain, split, step, epoch)

    def log_image(self, path: str | os.PathLike[str], name: str, step: int) -> None:
        """Records an image file."""
        assert self._tensorboard is not None
        try:
            self._tensorboard.log_image(Path(path), name, step)
        except OSError as error:
            _logger.warning("the picture %s cannot be recorded: %s", path, error)
            return
        if self._comet is not None:
            self._comet.log_image(Path(path), name, step)
        if self._wandb is not None:
            self._wandb.log_image(Path(path), name, step)

    def log_audio(
        self,
        audio: np.ndarray | str | os.PathLike[str],
        sampling_rate: int,
        name: str,
        step: int,
        metadata: Mapping[str, Any],
    ) -> None:
        """Records an utterance on Comet and wandb; the files on disk would only grow by it.

        Args:
            audio: (T,) float in [-1, 1], or a file; louder samples are clipped.
            sampling_rate: in Hz.
            name: of the recording.
            step: of the training.
            metadata: step, speaker, utterance.
        """
        records = [record for record in (self._comet, self._wandb) if record is not None]
        if not records:
            return
        if isinstance(audio, np.ndarray):
            waveform = audio
        else:
            from speaker_encoder.audio import read_audio

            waveform = read_audio(audio, sampling_rate)
        waveform = np.clip(np.nan_to_num(waveform.astype(np.float32)), -1.0, 1.0)
        for record in records:
            record.log_audio(waveform, sampling_rate, name, step, metadata)

    def log_text(self, text: str, name: str = "text", step: int = 0) -> None:
        """Records a text."""
        assert self._tensorboard is not None
        self._tensorboard.log_text(text, name, step)
        if self._comet is not None:
            self._comet.log_text(text, name, step)

    def finish(self) -> None:
        """Closes the record; a second call does nothing."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
        if self._comet is not None:
            self._comet.close()
            self._comet = None
        if self._wandb is not None:
            self._wandb.close()
            self._wandb = None

"""The record on Weights & Biases: online with a key, else an offline folder."""

from __future__ import annotations

import json
import logging
import netrc
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_encoder.errors import UserError
from speaker_encoder.training.run_dir import write_atomically

if TYPE_CHECKING:
    import numpy as np

WANDB_FOLDER = "wandb"
_SESSION_FILE_NAME = "session.json"
_SERVER = "api.wandb.ai"
_PRIVATE: dict[str, Any] = {
    "console": "off",
    "silent": True,
    "host": "unnamed",
    "disable_git": True,
    "disable_code": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
"""Settings of wandb: nothing of the machine, the code or the terminal is recorded."""

_logger = logging.getLogger(__name__)


class WandbRecord:
    """One run of wandb.

    The key is wandb's own, WANDB_API_KEY or the one in ~/.netrc; WANDB_MODE, WANDB_PROJECT and
    WANDB_ENTITY are obeyed.

    Args:
        name: of the run.
        run_dir: its directory; the record lies in its folder `wandb`.
        resume: go on with the run that is recorded there.

    Raises:
        UserError: wandb is not installed.
    """

    def __init__(self, name: str, run_dir: Path, resume: bool) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                f"report_to: wandb cannot be imported ({error}). Install it: pip install wandb."
            ) from error
        self._folder = run_dir / WANDB_FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        known = {k: v for k, v in _PRIVATE.items() if k in wandb.Settings.model_fields}
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        self._is_offline = mode == "offline"
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "speaker-encoder",
            name=name,
            id=self._run_id(resume),
            dir=str(run_dir),
            mode=mode,
            resume="allow",
            settings=wandb.Settings(**known),
        )
        self._run.define_metric("*", step_metric="step")

    def _run_id(self, resume: bool) -> str:
        """Gives the id that a resumed run goes on with."""
        path = self._folder / _SESSION_FILE_NAME
        if resume and path.is_file():
            return str(json.loads(path.read_text(encoding="ascii"))["run_id"])
        run_id = uuid.uuid4().hex
        write_atomically(path, json.dumps({"run_id": run_id}) + "\n")
        return run_id

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Records settings and sizes of the run."""
        self._run.config.update(dict(parameters), allow_val_change=True)

    def log_metrics(self, values: Mapping[str, float], split: str, step: int, epoch: float) -> None:
        """Records each value as `<split>/<name>` over the key `step`."""
        named = {f"{split}/{name}": value for name, value in values.items()}
        self._run.log({**named, "step": step, "epoch": epoch})

    def log_image(self, path: Path, name: str, step: int) -> None:
        """Records an image file."""
        import wandb

        self._run.log({name: wandb.Image(str(path)), "step": step})

    def log_audio(
        self,
        waveform: np.ndarray,
        sampling_rate: int,
        name: str,
        step: int,
        metadata: Mapping[str, Any],
    ) -> None:
        """Records a waveform (T,) in [-1, 1]."""
        import wandb

        caption = ", ".join(f"{key} {value}" for key, value in metadata.items())
        audio = wandb.Audio(waveform, sample_rate=sampling_rate, caption=caption)
        self._run.log({f"audio/{name}": audio, "step": step})

    def close(self) -> None:
        """Sends what is left, or closes the offline folder."""
        self._run.finish()
        if self._is_offline:
            _logger.info("the wandb record is in %s; send it with: wandb sync", self._folder)


def _has_key() -> bool:
    """Is there a key of wandb, in the environment or where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(_SERVER) is not None
    except (OSError, netrc.NetrcParseError):
        return False

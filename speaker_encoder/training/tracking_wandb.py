"""The record on Weights & Biases: online with a key and a server, else an offline folder."""

from __future__ import annotations

import json
import logging
import netrc
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from speaker_encoder.errors import UserError
from speaker_encoder.training.run_files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from wandb.sdk.wandb_run import Run

WANDB_FOLDER = "wandb"
_SESSION_FILE_NAME = "session.json"
_SERVER = "api.wandb.ai"
_INIT_SECONDS = 20.0
"""What the server has to answer a new run."""
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
    WANDB_ENTITY are obeyed. A server that does not answer or refuses costs the run nothing: it is
    recorded offline, with a warning.

    Args:
        name: of the run.
        run_dir: its directory; the record lies in its folder `wandb`.
        resume: go on with the run that is recorded there.

    Raises:
        UserError: wandb is not installed, or WANDB_MODE is none of its modes.
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
        mode = _chosen_mode()
        run_id = self._run_id(resume)
        try:
            self._run = _start_run(name, run_id, run_dir, mode)
        except wandb.errors.Error as error:
            _logger.warning(
                "report_to: wandb cannot record %s (%s: %s); recording in an offline folder",
                *(mode, type(error).__name__, error),
            )
            mode = "offline"
            wandb.teardown()  # it holds on to the run's id
            self._run = _start_run(name, run_id, run_dir, mode)
        self._is_offline = mode in ("offline", "dryrun")
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


def _start_run(name: str, run_id: str, run_dir: Path, mode: Any) -> Run:
    import wandb

    known = {k: v for k, v in _PRIVATE.items() if k in wandb.Settings.model_fields}
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT") or "speaker-encoder",
        name=name,
        id=run_id,
        dir=str(run_dir),
        mode=mode,
        resume="allow",
        settings=wandb.Settings(init_timeout=_INIT_SECONDS, **known),
    )


def _chosen_mode() -> str:
    """Gives WANDB_MODE, else whether there is a key.

    Raises:
        UserError: wandb has no such mode.
    """
    import wandb

    mode: Any = os.environ.get("WANDB_MODE")
    if not mode:
        return "online" if _has_key() else "offline"
    try:
        wandb.Settings(mode=mode)
    except ValueError as error:
        raise UserError(
            f"report_to: the environment's WANDB_MODE is {mode!r}, which wandb does not know. Set "
            "it to online, offline or disabled, or unset it."
        ) from error
    return mode


def _has_key() -> bool:
    """Is there a key for wandb's server, in the environment or where `wandb login` puts it."""
    import wandb

    if os.environ.get("WANDB_API_KEY"):
        return True
    server = wandb.setup().settings.base_url
    hosts = [urlsplit(server).netloc]
    if server == wandb.Settings().base_url:  # what is not chosen had another name before
        hosts.append(_SERVER)
    path = os.environ.get("NETRC")
    try:
        known = netrc.netrc(os.path.expanduser(path) if path else None)
    except (OSError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(host) is not None for host in hosts)

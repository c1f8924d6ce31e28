"""The record on Comet: online with a key, else an offline archive."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import tempfile
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_encoder.training.run_files import write_atomically

if TYPE_CHECKING:
    import numpy as np

COMET_FOLDER = "comet"
_SESSION_FILE_NAME = "experiment.json"
_DEFAULT_SERVER = "https://www.comet.com"
_CONNECT_SECONDS = 3.0

_logger = logging.getLogger(__name__)


def quiet_comet() -> None:
    """Keeps comet_ml from reporting its own errors over the network.

    It decides that when it is imported, at random, and transformers imports it together with the
    Trainer; without a network its error reporter holds up the end of a process by minutes. So
    this is called before either of them is imported. A user's own setting is kept.
    """
    os.environ.setdefault("COMET_ERROR_TRACKING_ENABLE", "0")


@dataclass(frozen=True)
class CometSettings:
    """Where a run is recorded.

    Attributes:
        mode: "auto", "online" or "offline".
        api_key: None: there is none.
        project, workspace: of Comet; None is the key's own.
        name: of the experiment.
    """

    mode: str
    api_key: str | None
    project: str
    workspace: str | None
    name: str

    def __repr__(self) -> str:
        return f"CometSettings(mode={self.mode!r}, name={self.name!r})"


@dataclass(frozen=True)
class _Session:
    """What is remembered in the run directory so that a resumed run goes on in its experiment."""

    experiment_key: str
    is_online: bool
    is_closed: bool


class CometRecord:
    """One Comet experiment; nothing of the machine, the code or the command line is logged.

    Args:
        settings: where to.
        run_dir: of the run; the offline archive goes to its folder `comet`.
        resume: go on with the run's experiment.

    Attributes:
        is_online: the experiment is on Comet's server.
        needs_replay: the earlier part of an offline run was lost when it was killed, and its
            metrics should be logged again.
    """

    def __init__(self, settings: CometSettings, run_dir: Path, resume: bool) -> None:
        self._folder = run_dir / COMET_FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        before = self._read_session() if resume else None
        key = before.experiment_key if before else uuid.uuid4().hex
        self._experiment: Any = None
        self.is_online = False
        if _wants_online(settings):
            self._experiment = _start_online(settings, key)
            self.is_online = self._experiment is not None
        if self._experiment is None:
            self._experiment = _start(settings, key, offline_dir=self._folder)
        lost = before is not None and not before.is_online and not before.is_closed
        self.needs_replay = lost
        self._recordings = tempfile.TemporaryDirectory(prefix="comet_audio_")
        self._num_recordings = 0
        self._session = _Session(key, self.is_online, is_closed=False)
        self._write_session(self._session)

    def _read_session(self) -> _Session | None:
        path = self._folder / _SESSION_FILE_NAME
        try:
            return _Session(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, TypeError) as error:
            _logger.warning("%s is damaged, a new Comet experiment is started: %s", path, error)
            return None

    def _write_session(self, session: _Session) -> None:
        path = self._folder / _SESSION_FILE_NAME
        write_atomically(path, json.dumps(asdict(session)) + "\n")

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Logs the parameters of the run, objects inside flattened."""
        self._experiment.log_parameters(dict(parameters))

    def log_metrics(
        self, values: Mapping[str, float], split: str, step: int, epoch: float | None
    ) -> None:
        """Logs metrics in the context `split`."""
        with self._experiment.context_manager(split):
            self._experiment.log_metrics(dict(values), step=step, epoch=epoch)

    def log_image(self, path: Path, name: str, step: int) -> None:
        """Logs an image file."""
        self._experiment.log_image(str(path), name=name, step=step)

    def log_audio(
        self,
        waveform: np.ndarray,
        sampling_rate: int,
        name: str,
        step: int,
        metadata: Mapping[str, Any],
    ) -> None:
        """Logs a waveform (T,) in [-1, 1] as 16-bit WAV, at its own level."""
        import soundfile

        self._num_recordings += 1
        path = Path(self._recordings.name) / f"{self._num_recordings:06d}.wav"
        soundfile.write(path, waveform, sampling_rate, subtype="PCM_16")
        self._experiment.log_audio(
            str(path),  # read by comet_ml later, so it stays until the end
            sample_rate=sampling_rate,
            file_name=name,
            metadata={**metadata, "sample_rate": sampling_rate},
            step=step,
        )

    def log_text(self, text: str, name: str, step: int) -> None:
        """Logs a text."""
        self._experiment.log_text(text, step=step, metadata={"name": name})

    def close(self) -> None:
        """Sends what is left, or writes the archive."""
        with _comet_quiet():
            self._experiment.end()
        self._recordings.cleanup()
        session = _Session(self._session.experiment_key, self.is_online, is_closed=True)
        self._write_session(session)
        if not self.is_online:
            _logger.info(
                "the Comet archive is in %s; send it with: comet upload %s/*.zip",
                *(self._folder, self._folder),
            )


def _wants_online(settings: CometSettings) -> bool:
    if settings.mode == "online" and settings.api_key is None:
        _logger.warning(
            'comet is "online", and there is neither comet_key nor COMET_API_KEY; '
            "the experiment goes to an offline archive"
        )
    return settings.mode != "offline" and settings.api_key is not None


def _start_online(settings: CometSettings, key: str) -> Any:
    """Starts the experiment on the server; gives None, with a warning, when that fails."""
    import requests
    from comet_ml.exceptions import CometException

    try:
        _check_reachable()
        experiment = _start(settings, key)
    except (OSError, requests.RequestException, CometException, ValueError) as error:
        reason = str(error).replace(str(settings.api_key), "***")
        _logger.warning("Comet cannot be used online (%s), going on offline", reason)
        return None
    if not experiment.alive:
        _logger.warning("Comet did not accept the experiment, going on offline")
        return None
    return experiment


def _check_reachable() -> None:
    """Fails within seconds when nobody listens; comet_ml itself tries for half a minute.

    Raises:
        OSError: there is no connection, and no proxy that might give one.
    """
    server = urllib.parse.urlsplit(os.environ.get("COMET_URL_OVERRIDE") or _DEFAULT_SERVER)
    if server.hostname is None or server.scheme in urllib.request.getproxies():
        return
    port = server.port or (80 if server.scheme == "http" else 443)
    with socket.create_connection((server.hostname, port), timeout=_CONNECT_SECONDS):
        pass


def _start(settings: CometSettings, key: str, offline_dir: Path | None = None) -> Any:
    """Starts or goes on with an experiment, online where no folder is given."""
    quiet_comet()
    import comet_ml

    config = comet_ml.ExperimentConfig(
        disabled=False,
        log_code=False,
        log_graph=False,
        parse_args=False,
        display_summary_level=0,
        log_git_metadata=False,
        log_git_patch=False,
        log_env_details=False,
        log_env_gpu=False,
        log_env_host=False,
        log_env_cpu=False,
        log_env_network=False,
        log_env_disk=False,
        auto_output_logging=False,  # type: ignore[arg-type]
        auto_param_logging=False,
        auto_metric_logging=False,
        auto_log_co2=False,
        offline_directory=None if offline_dir is None else str(offline_dir),
        name=settings.name,
    )
    with _comet_quiet():
        return comet_ml.start(
            api_key=settings.api_key if offline_dir is None else None,
            workspace=settings.workspace,
            project_name=settings.project,
            experiment_key=key,
            mode="get_or_create",
            online=offline_dir is None,
            experiment_config=config,
        )


@contextlib.contextmanager
def _comet_quiet() -> Any:
    """Silences comet_ml's own messages, which may quote the key; ours say the same."""
    logger = logging.getLogger("comet_ml")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)

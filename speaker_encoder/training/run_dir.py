"""The directory of one run: what lies where, and how it appears whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from speaker_encoder.errors import UserError
from speaker_encoder.training.run_files import (
    is_disk_full,
    link_or_copy,
    sync,
    sync_folder,
    write_atomically,
)

LOSS_NAME = "loss.safetensors"
CHECKPOINT_PREFIX = "checkpoint-"
_STAGING = ".staging"
_BEST = ".best"
_LOCK = ".lock"
_LAUNCH = ".launch"
_CHECKPOINT_FILES = ("model.safetensors", "trainer_state.json", "progress.json")


@dataclass(frozen=True)
class RunDirectory:
    """`<output_dir>/<run_id>/` and the places in it; `title` is what the run is called."""

    path: Path
    title: str = ""

    @property
    def config_path(self) -> Path:
        """The config as resolved, without secrets."""
        return self.path / "train_config.json"

    @property
    def results_path(self) -> Path:
        """What a finished run found; its being there marks the run as finished."""
        return self.path / "results.json"

    @property
    def log_path(self) -> Path:
        """The package's messages."""
        return self.path / "train.log"

    @property
    def metrics_path(self) -> Path:
        """One line of JSON per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def model_dir(self) -> Path:
        """The best model so far."""
        return self.path / "model"

    @property
    def scores_dir(self) -> Path:
        """The validation embeddings of step 0 and of the best step."""
        return self.path / "validation"

    @property
    def pretrained_dir(self) -> Path:
        """The encoder that the run started from, where its weights were trained ones."""
        return self.path / "pretrained"

    @property
    def result_scores_path(self) -> Path:
        """The validation embeddings of the result, when it lies between two models."""
        return self.scores_dir / "result.npz"

    @property
    def average_scores_path(self) -> Path:
        """The validation embeddings of a mean of several steps' models, when it was taken."""
        return self.scores_dir / "average.npz"

    @property
    def is_started(self) -> bool:
        """Is there a run here, or what is left of one that was being cleared."""
        return self.config_path.is_file() or bool(self.checkpoints())

    @property
    def is_finished(self) -> bool:
        """Has a run ended here."""
        return self.results_path.is_file()

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Gives the complete checkpoints, oldest first, as (step, folder)."""
        found = []
        for folder in self.path.glob(f"{CHECKPOINT_PREFIX}*"):
            step = folder.name.removeprefix(CHECKPOINT_PREFIX)
            if step.isdigit() and all((folder / name).is_file() for name in _CHECKPOINT_FILES):
                found.append((int(step), folder))
        return sorted(found)

    def best_dir(self, step: int) -> Path:
        """Where the model of a step that was the best one is kept while the run goes on."""
        return self.path / _BEST / f"step_{step:06d}"

    def publish_best(self, step: int) -> None:
        """Makes `model/` the kept model of this step; the files are shared where that works.

        Where none is kept any more, the run had ended and `model/` is it.
        """
        kept = self.best_dir(step)
        if not kept.is_dir():
            return
        with self.staged(self.model_dir) as staging:
            for source in kept.iterdir():
                if source.name != LOSS_NAME:  # no part of what is published
                    link_or_copy(source, staging / source.name)
        if (self.best_dir(step) / LOSS_NAME).is_file():
            part = self.path / f".{LOSS_NAME}.part"
            part.unlink(missing_ok=True)
            link_or_copy(self.best_dir(step) / LOSS_NAME, part)
            sync(part)
            os.replace(part, self.path / LOSS_NAME)
            part.unlink(missing_ok=True)  # a rename between two names of one file does nothing

    def prune_best(self, steps: set[int]) -> None:
        """Removes the kept models of all other steps."""
        keep = {self.best_dir(step) for step in steps}
        for folder in (self.path / _BEST).glob("step_*"):
            if folder not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def staged(self, target: Path) -> Iterator[Path]:
        """Gives an empty folder that becomes `target` when the block ends without an error.

        `target` is the old folder, or absent, or the complete new one, at every moment.

        Raises:
            UserError: the disk is full; the message names the newest checkpoint, which is whole.
        """
        staging = self.path / _STAGING / target.name
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            yield staging
            sync_folder(staging)
        except BaseException as error:
            shutil.rmtree(staging, ignore_errors=True)
            if is_disk_full(error):
                raise self._disk_full(target) from error
            raise
        replaced = self.path / _STAGING / f"{target.name}.replaced"
        shutil.rmtree(replaced, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            os.replace(target, replaced)
        os.replace(staging, target)
        shutil.rmtree(self.path / _STAGING, ignore_errors=True)

    def recover(self) -> None:
        """Puts back a folder whose replacement was cut short, and clears what is half made."""
        for replaced in (self.path / _STAGING).glob("*.replaced"):
            name = replaced.name.removesuffix(".replaced")
            target = self.best_dir(int(name[5:])) if name.startswith("step_") else self.path / name
            if not target.exists():
                os.replace(replaced, target)
        shutil.rmtree(self.path / _STAGING, ignore_errors=True)
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)

    def _disk_full(self, target: Path) -> UserError:
        kept = self.checkpoints()
        last = (
            f"The newest complete checkpoint is {kept[-1][1]}." if kept else "None was saved yet."
        )
        return UserError(
            f"The disk is full: {target} could not be saved. {last} Free some space and run the "
            "same command with force_restart false to go on from there."
        )

    def create(self) -> None:
        """Makes the directory.

        Raises:
            UserError: it cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / _LOCK).touch()
        except OSError as error:
            raise UserError(
                f"output_dir: cannot write to {self.path} ({error.strerror}). Choose another "
                "output_dir."
            ) from error

    def prepare(self, *, force_restart: bool, overwrite: bool) -> None:
        """Recovers from a crash, and clears what is there if the user wants to start anew.

        Args:
            force_restart: start anew although there is something to resume.
            overwrite: start anew although there is a finished run.

        Raises:
            UserError: a finished run would be deleted, or there are files that are not of a run.
        """
        self.recover()
        started = self.is_started
        # all there is when the start was cut short, by a full disk say
        ours = (_LOCK, _LAUNCH, self.log_path.name)
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name not in ours)
        if foreign and not started:
            raise UserError(
                f"{self.path} holds files that are not of a run ({', '.join(foreign[:5])}). "
                "Choose another run_id or output_dir."
            )
        if not started or not (force_restart or overwrite):
            return
        if self.is_finished and not overwrite:
            raise UserError(
                f"{self.path} holds a finished run, and force_restart is true. Choose another "
                "run_id, set force_restart to false to see its results, or pass --overwrite to "
                "delete it."
            )
        # what marks the run as one goes last, so that an interrupted clearing is gone on with
        keep = {self.path / _LOCK, self.config_path}
        for entry in [*(p for p in self.path.iterdir() if p not in keep), self.config_path]:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)

    def note_launch(self, marks: Set[str]) -> None:
        """Writes down which launch begins the run, for its restarts; no launcher: nothing."""
        path = self.path / _LAUNCH
        if marks:
            write_atomically(path, "".join(f"{mark}\n" for mark in sorted(marks)))
        else:
            path.unlink(missing_ok=True)

    def launch_marks(self) -> set[str]:
        """Gives the marks of the launch that began the run, none where no launcher did."""
        try:
            return set((self.path / _LAUNCH).read_text(encoding="ascii", errors="replace").split())
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return set()  # `create` says what is wrong with the folder

    def prune(self, keep_backups: int, backup_every: int) -> None:
        """Keeps the newest checkpoint and the newest `keep_backups` of those made as backups."""
        checkpoints = self.checkpoints()
        backups = [step for step, _ in checkpoints if backup_every and step % backup_every == 0]
        keep = {checkpoints[-1][0]} if checkpoints else set()
        keep.update(backups[-keep_backups:] if keep_backups else [])
        for step, folder in checkpoints:
            if step not in keep:
                # the state file goes first: a half-deleted checkpoint is not one
                (folder / "trainer_state.json").unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for this process.

        Raises:
            UserError: another run is writing here.
        """
        with open(self.path / _LOCK, "a", encoding="utf-8") as file:
            try:
                # a record lock: workers, which outlive a killed trainer for seconds, do not hold it
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"Another training is writing to {self.path}. Wait for it, or choose "
                    "another run_id."
                ) from error
            yield

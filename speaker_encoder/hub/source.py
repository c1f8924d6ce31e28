"""What is pushed: an encoder's folder, and what is known of the run that it came from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from speaker_encoder.training.report import Results

_RESULTS = {
    *("before", "after", "steps", "num_train_utterances", "num_train_speakers", "train_hours"),
    *("num_val_speakers", "num_targets", "num_nontargets"),
}
_OF_RESULT = ("det.png", "interpolation.png")


@dataclass(frozen=True)
class Picture:
    """A picture of a run, and the step that it is of; None: not known."""

    path: Path
    step: int | None


@dataclass(frozen=True)
class ModelSource:
    """An encoder on disk.

    Attributes:
        model_dir: what ``from_pretrained`` loads.
        run_dir: the run that it came from; None: not known.
        is_best: it is the run's result, which the run's figures are of.
    """

    model_dir: Path
    run_dir: Path | None
    is_best: bool

    def train_config(self) -> dict[str, Any]:
        """Gives the run's config as it stands on disk; empty where there is none."""
        folders = [self.model_dir, *([self.run_dir] if self.run_dir else [])]
        for folder in folders:
            if (folder / "train_config.json").is_file():
                return _read(folder / "train_config.json")
        return {}

    def results(self) -> dict[str, Any]:
        """Gives what the finished run found; empty where that is not known.

        Raises:
            UserError: its file is damaged, or of another version.
        """
        if not self.is_best:
            return {}
        for folder in (self.run_dir, self.model_dir):
            if folder is not None and (folder / "results.json").is_file():
                found = _read(folder / "results.json")
                if not set(found) >= _RESULTS:
                    return {}  # another program's file of this name is none of ours
                as_results(found, str(folder / "results.json"))
                return found
        return {}

    def step(self) -> int | None:
        """Gives the training step that the weights are of, None where it is not known."""
        checkpoint = re.fullmatch(r"checkpoint-(\d+)", self.model_dir.resolve().name)
        if checkpoint is not None:
            return int(checkpoint[1])
        return (self.results().get("after") or {}).get("step")

    def pictures(self) -> dict[str, Picture]:
        """Gives a picture of each kind, of the weights' own step or the newest.

        Returns:
            Name in the repository -> the picture.
        """
        plots = (self.run_dir or self.model_dir) / "plots"
        found: dict[str, Picture] = {}
        for name, pattern in (
            ("umap.png", rf"val_umap_0*{self.step()}\.png"),
            ("umap.png", r"val_umap_\d+\.png"),
            ("umap.png", r"train_umap_\d+\.png"),
            ("umap.png", r"umap\.png"),
            ("det.png", r"det\.png"),
            ("interpolation.png", r"interpolation\.png"),
            ("curve.png", r"curve\.png"),
        ):
            pictures = [*plots.glob("*.png"), *self.model_dir.glob("interpolation.png")]
            paths = sorted(p for p in pictures if re.fullmatch(pattern, p.name))
            if name in _OF_RESULT and not self.results().get("after"):
                continue  # it is of the result of a finished run
            if paths and name not in found:
                step = re.search(r"\d+", paths[-1].name)
                found[name] = Picture(paths[-1], int(step[0]) if step else None)
        return found

    def loss_weights_path(self) -> Path | None:
        """Gives the checkpoint that holds the weights of the loss: the best step's, or the last."""
        if self.run_dir is None:
            return None
        paths = {
            int(path.parent.name.removeprefix("checkpoint-")): path
            for path in self.run_dir.glob("checkpoint-*/model.safetensors")
            if re.fullmatch(r"checkpoint-\d+", path.parent.name)
        }
        own = self.model_dir / "model.safetensors"
        if own in paths.values():
            return own
        best = self.step()
        return (paths.get(best) if best is not None else None) or paths.get(max(paths, default=-1))


def as_results(results: dict[str, Any], where: str = "results.json") -> Results | None:
    """Gives what a run found from what ``results.json`` holds; None where that is nothing.

    Args:
        results: as JSON gave them.
        where: the file, for the error.

    Raises:
        UserError: a part is missing, or not of its type.
    """
    from speaker_encoder.training.report import Results

    if not results:
        return None
    return Results.from_dict({"model_name": "", "seconds": None, **results}, where)


def find_source(folder: str | Path) -> ModelSource:
    """Gives what lies in a run's or a model's folder.

    Args:
        folder: a run, its ``model``, one of its checkpoints, or any folder that
            ``from_pretrained`` loads.

    Raises:
        UserError: there is no such folder, or no model in it.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"There is no folder {str(folder)!r}. Name a run or a model's folder.")
    if (path / "model" / "config.json").is_file():
        return ModelSource(path / "model", path, True)
    if (path / "config.json").is_file() or (path / "hyperparams.yaml").is_file():
        parent = path.resolve().parent
        is_of_run = (parent / "train_config.json").is_file()
        is_best = not is_of_run or path.resolve().name == "model"
        return ModelSource(path, parent if is_of_run else None, is_best)
    raise UserError(
        f"{str(folder)!r} holds no model: neither model/config.json, as a run has it, nor "
        "config.json. Name the folder of a run that has saved a model, or a model's folder."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}. Delete or repair it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object. Delete or repair it.")
    return content

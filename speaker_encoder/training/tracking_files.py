"""The record on disk: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from speaker_encoder.training.run_files import write_atomically

METRICS_FILE_NAME = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl; one that was cut off by a crash is left out."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line


class MetricsFile:
    """metrics.jsonl: a line per logged step, on disk when the call returns.

    Args:
        path: of the file.
        resume_step: keep the lines up to this step; None starts an empty file.
    """

    def __init__(self, path: Path, resume_step: int | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [] if resume_step is None else list(read_metrics(path))
        lines = [json.dumps(line) + "\n" for line in kept if line["step"] <= (resume_step or 0)]
        write_atomically(path, "".join(lines))
        self._file: IO[str] = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, values: Mapping[str, float], split: str, step: int, epoch: float) -> None:
        """Adds a line; values that are not finite are written as null."""
        finite = {name: _finite(value) for name, value in values.items()}
        line = {"step": step, "epoch": epoch, "split": split, **finite}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardRecord:
    """TensorBoard's event files.

    Args:
        folder: where they lie.
        resume_step: what was logged after this step is hidden; None hides all that was there.
    """

    def __init__(self, folder: Path, resume_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge_step = 0 if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def log_metrics(self, values: Mapping[str, float], split: str, step: int) -> None:
        """Logs each finite value under `<split>/<name>`."""
        for name, value in values.items():
            if _finite(value) is not None:
                self._writer.add_scalar(f"{split}/{name}", value, step)

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Logs the parameters as JSON."""
        text = json.dumps(parameters, indent=2, ensure_ascii=False, default=str)
        self._writer.add_text("parameters", f"```\n{text}\n```", 0)

    def log_image(self, path: Path, name: str, step: int) -> None:
        """Logs a PNG or JPEG file."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))  # (H, W, 3)
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def log_text(self, text: str, name: str, step: int) -> None:
        """Logs a text."""
        self._writer.add_text(name, text, step)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

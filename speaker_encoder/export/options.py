"""What an export is asked for, checked before anything is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from speaker_encoder.audio.trim import check_trim_method
from speaker_encoder.errors import UserError

AVERAGES = ("mean", "normalized", "robust")
DTYPES = ("float32", "bfloat16")
SPACES = ("own", "pretrained")
ENGINES = TORCH, ONNX, ONNX_INT8 = ("torch", "onnx", "onnx-int8")
AUTO = "auto"


@dataclass(frozen=True)
class ExportOptions:
    """One export.

    Attributes:
        model_name: names the encoder and its files: ``<utterance>.<model_name>_embedding``.
        dataset_dir: the corpus: a folder, a list file, or a Hugging Face dataset folder.
        dataset_name: its layout; ``auto`` recognises it.
        checkpoint: where the weights are; None takes the published ones of ``model_name``.
        model_device: ``cpu``, ``cuda``, ``cuda:1``, or ``best``.
        output_dir: where the files go, in the corpus's own tree; None: beside the audio.
        formats: names of ``FORMATS``.
        average: how a speaker's embedding is made of its utterances' embeddings.
        trim_silence: ``off``, ``energy`` or ``vad``.
        windows_seconds: length of the windows whose mean is the embedding; None: the whole
            utterance.
        hop_seconds: from one window to the next; None: no overlap.
        min_seconds: shorter utterances are left out.
        max_seconds: longer ones are left out; None: none.
        batch_seconds: audio of one batch; 0: one utterance at a time; None: what the device likes.
        num_workers: processes that decode; None: what the device likes; ``auto``: on a CPU, they
            and the threads as is measured to be fastest.
        dtype: what the encoder computes in; files are float32 always.
        engine: what computes it: ``torch``, or ONNX Runtime on a CPU: ``onnx``, ``onnx-int8``.
        space: ``own``, or ``pretrained``: mapped to that of the encoder before fine-tuning.
        overwrite: replace embeddings of another model or of other options.
        dry_run: say what would be done, write nothing.
        report_path: where the report goes; None: beside the output.
        show_progress: a progress bar on stderr; None: on a terminal only.
        multi_rec_session: a corpus of no known layout is ``speaker/session/file``.
    """

    model_name: str
    dataset_dir: str
    dataset_name: str = "auto"
    checkpoint: str | None = None
    model_device: str = "cpu"
    output_dir: str | None = None
    formats: tuple[str, ...] = ("pt",)
    average: str = "mean"
    trim_silence: str = "off"
    windows_seconds: float | None = None
    hop_seconds: float | None = None
    min_seconds: float = 0.0
    max_seconds: float | None = None
    batch_seconds: float | None = None
    num_workers: int | str | None = None
    dtype: str = "float32"
    engine: str = TORCH
    space: str = "own"
    overwrite: bool = False
    dry_run: bool = False
    report_path: str | None = None
    show_progress: bool | None = None
    multi_rec_session: bool = False

    def check(self) -> None:
        """Checks all values that can be checked alone.

        Raises:
            UserError: the first that is wrong.
        """
        from speaker_encoder.export.formats import FORMATS

        check_trim_method(self.trim_silence)
        check_choice("--average", self.average, AVERAGES)
        check_choice("--dtype", self.dtype, DTYPES)
        check_choice("--engine", self.engine, ENGINES)
        check_choice("--space", self.space, SPACES)
        if not self.formats:
            raise UserError(f"No format is asked for. Known: {', '.join(FORMATS)}.")
        for name in self.formats:
            check_choice("--format", name, FORMATS)
        self._check_numbers()

    def _check_numbers(self) -> None:
        problems = []
        if self.windows_seconds is not None and self.windows_seconds <= 0:
            problems.append(f"--windows must be more than 0 seconds, found {self.windows_seconds}.")
        if self.hop_seconds is not None:
            if self.windows_seconds is None:
                problems.append("--hop is the step from window to window; give --windows too.")
            elif not 0 < self.hop_seconds <= self.windows_seconds:
                problems.append(
                    f"--hop must be more than 0 and at most --windows ({self.windows_seconds:g}), "
                    f"found {self.hop_seconds:g}."
                )
        if self.min_seconds < 0:
            problems.append(f"--min_seconds must be at least 0, found {self.min_seconds:g}.")
        if self.max_seconds is not None and self.max_seconds <= self.min_seconds:
            problems.append(
                f"--max_seconds must be more than --min_seconds ({self.min_seconds:g}), found "
                f"{self.max_seconds:g}."
            )
        if self.batch_seconds is not None and self.batch_seconds < 0:
            problems.append(f"--batch_seconds must be at least 0, found {self.batch_seconds:g}.")
        workers = self.num_workers
        if workers not in (None, AUTO) and not (isinstance(workers, int) and workers >= 0):
            problems.append(f"--num_workers must be at least 0, or 'auto', found {workers!r}.")
        if self.engine != TORCH and self.dtype != "float32":
            problems.append(f"--dtype {self.dtype} is for --engine torch, found {self.engine}.")
        if self.engine == ONNX_INT8 and self.batch_seconds:
            problems.append(
                f"--engine {ONNX_INT8} embeds one utterance at a time, found --batch_seconds "
                f"{self.batch_seconds:g}: int8 has one scale for all numbers of a batch, so batch "
                "mates would change an embedding. Leave --batch_seconds out, or take --engine onnx."
            )
        if problems:
            raise UserError("\n".join(problems))

    @property
    def is_reference(self) -> bool:
        """Is it PyTorch in float32, which all else is compared with."""
        return self.engine == TORCH and self.dtype == "float32"

    def embedding_settings(self) -> dict[str, Any]:
        """What, beside the model and the audio, an utterance's embedding depends on."""
        return {
            "trim_silence": self.trim_silence,
            "windows_seconds": self.windows_seconds,
            "hop_seconds": self.hop_seconds,
            "dtype": self.dtype,
            "engine": self.engine,
            "space": self.space,
        }

    def speaker_settings(self) -> dict[str, Any]:
        """What a speaker's embedding depends on beside its utterances' embeddings."""
        return {
            "average": self.average,
            "min_seconds": self.min_seconds,
            "max_seconds": self.max_seconds,
        }


def check_choice(what: str, found: str, known: Iterable[str]) -> None:
    """Checks that a value is one of a few.

    Raises:
        UserError: it is not; the text lists the known ones and the nearest.
    """
    names = list(known)
    if found not in names:
        nearest = difflib.get_close_matches(found, names, n=1, cutoff=0)[0]
        raise UserError(
            f"Unknown {what} {found!r}. Known: {', '.join(names)}; nearest: {nearest!r}."
        )

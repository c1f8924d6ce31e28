"""ONNX export: from waveforms to embeddings, any batch size, any length, checked before it is used.

The check runs the written file in ONNX Runtime on several batches, padded and not, and compares it
with ``SpeakerEncoder.encode``, which embeds each utterance by itself.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from speaker_encoder.errors import UserError
from speaker_encoder.hub.check import check_utterances
from speaker_encoder.modeling import SpeakerEncoder

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

MODEL_FILE = "model.onnx"
TOLERANCE = 1e-4
"""Largest difference in any value of an L2-normalised embedding."""
CHECKED_SECONDS: tuple[tuple[float, ...], ...] = (
    (0.0,),
    (1.0,),
    (0.0, 1.0),
    (2.0, 2.0, 2.0),
    (7.3, 0.61, 1.6, 4.0, 2.777),
)
"""Batches of the check: seconds beyond the least length of each utterance."""
_EXPORTED_BATCH, _EXPORTED_SECONDS = 3, 2.581
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_MOST_BYTES_IN_ONE_FILE = 1_900_000_000
"""A protobuf message may have 2 GiB; weights beyond that lie in a file of their own."""


@dataclass(frozen=True)
class OnnxCheck:
    """One batch that ONNX Runtime and PyTorch embedded.

    Attributes:
        num_samples: Of each utterance.
        difference: Largest absolute difference of their L2-normalised embeddings.
    """

    num_samples: tuple[int, ...]
    difference: float


def write_onnx(encoder: SpeakerEncoder, folder: str | Path) -> list[OnnxCheck]:
    """Writes ``model.onnx`` and the feature extractor's settings, and checks the file.

    Inputs are what ``SpeakerEncoderFeatureExtractor`` gives with ``return_tensors="np"``:
    ``input_values`` (B, T) float32 and ``attention_mask`` (B, T) int32; the output is
    ``embeddings`` (B, D) float32, rows L2-normalised, as ``encode`` gives them.

    Args:
        encoder: It is not changed.
        folder: Made if need be.

    Returns:
        What was checked.

    Raises:
        UserError: a package is missing, the head is untrained, the family has no ONNX form, or the
            file gives other embeddings than PyTorch.
    """
    refuse_missing_packages()
    encoder.refuse_untrained_head()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    program = _export(encoder)
    num_bytes = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    program.save(path, external_data=num_bytes > _MOST_BYTES_IN_ONE_FILE)
    encoder.feature_extractor().save_pretrained(folder)
    return check_onnx(encoder, path)


def refuse_missing_packages() -> None:
    """Checks that what the export needs is installed.

    Raises:
        UserError: it is not.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX needs {', '.join(missing)}, which is not installed. Install it: "
            "pip install 'speaker-encoder[onnx]'"
        )


def check_onnx(
    encoder: SpeakerEncoder,
    path: Path,
    batches: Sequence[Sequence[float]] = CHECKED_SECONDS,
    tolerance: float = TOLERANCE,
) -> list[OnnxCheck]:
    """Compares an ONNX file with the encoder that it was made of.

    Args:
        encoder: The encoder.
        path: Of the ONNX file.
        batches: Seconds of each utterance of a batch, beyond the encoder's least length.
        tolerance: Largest difference in any value of an embedding.

    Returns:
        One entry of each batch.

    Raises:
        UserError: a difference is larger than the tolerance, or the file cannot be run.
    """
    session = open_session(path)
    checks = []
    with _on_the_cpu_in_float32(encoder):
        for seconds in batches:
            least = encoder.min_num_samples
            beyond = [least / encoder.sampling_rate + extra for extra in seconds]
            waveforms = check_utterances(encoder.sampling_rate, least, beyond)
            embeddings = embed_with_onnx(session, waveforms)
            expected = encoder.encode(waveforms, show_progress=False).numpy()
            difference = float(np.abs(embeddings - expected).max())
            checks.append(OnnxCheck(tuple(len(one) for one in waveforms), difference))
            if not difference <= tolerance:  # also where it is not a number
                raise UserError(
                    f"{path} gives other embeddings than PyTorch: the largest difference is "
                    f"{difference:.2g} on a batch of {len(waveforms)} utterances, allowed are "
                    f"{tolerance:.0e}. Do not use it. Other versions of torch, onnxscript and "
                    "onnxruntime may help: constraints.txt names those that were tested."
                )
    return checks


def open_session(path: Path, num_threads: int | None = None) -> Any:
    """Opens an ONNX file in ONNX Runtime on the CPU.

    Args:
        path: of the file.
        num_threads: that compute; 1: the one that calls; None: as many as torch has.

    Raises:
        UserError: the file is missing or damaged.
    """
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidProtobuf, NoSuchFile

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads or torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (Fail, InvalidProtobuf, NoSuchFile) as error:
        raise UserError(
            f"{path} cannot be run by ONNX Runtime: {error}. Export it anew."
        ) from error


def embed_with_onnx(session: Any, waveforms: Sequence[np.ndarray]) -> np.ndarray:
    """Embeds a batch, padded to its longest utterance.

    Args:
        session: Of ONNX Runtime.
        waveforms: (T,) float32 each.

    Returns:
        (N, D) float32, rows L2-normalised.
    """
    shape = (len(waveforms), max(len(waveform) for waveform in waveforms))
    input_values, attention_mask = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    for row, waveform in enumerate(waveforms):
        input_values[row, : len(waveform)] = waveform
        attention_mask[row, : len(waveform)] = 1
    inputs = {"input_values": input_values, "attention_mask": attention_mask}
    embeddings: np.ndarray = session.run(["embeddings"], inputs)[0]
    return embeddings


def _export(encoder: SpeakerEncoder) -> ONNXProgram:
    from speaker_encoder.hub.onnx_graphs import EncoderGraph

    with _on_the_cpu_in_float32(encoder):
        graph = EncoderGraph(encoder).eval()
    longest = encoder.min_num_samples + int(_EXPORTED_SECONDS * encoder.sampling_rate)
    input_values = torch.zeros(_EXPORTED_BATCH, longest)
    attention_mask = torch.ones(_EXPORTED_BATCH, longest, dtype=torch.int32)
    batch, num_samples = torch.export.Dim("batch"), torch.export.Dim("num_samples")
    axes = {0: batch, 1: num_samples}
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            graph,
            (input_values, attention_mask),
            dynamo=True,
            dynamic_shapes=(axes, axes),
            input_names=["input_values", "attention_mask"],
            output_names=["embeddings"],
            verbose=False,
        )
    assert program is not None
    program.model.producer_name = "speaker-encoder"
    program.model.metadata_props.update(_described(encoder))
    return program


def _described(encoder: SpeakerEncoder) -> dict[str, str]:
    """What someone who has the file alone must know."""
    described = {
        "encoder_kind": encoder.config.encoder_kind,
        "sampling_rate": encoder.sampling_rate,
        "min_num_samples": encoder.min_num_samples,
        "embedding_dim": encoder.embedding_dim,
        "base_model": encoder.config.base_model_name,
        "license": encoder.config.source_license,
    }
    return {name: str(value) for name, value in described.items() if value is not None}


@contextmanager
def _on_the_cpu_in_float32(encoder: SpeakerEncoder) -> Iterator[None]:
    """Lends the encoder's weights as float32 on the CPU, and puts it back where it was."""
    module: Any = encoder
    device, dtype = encoder.device, encoder.dtype
    was_training = encoder.training
    module.to(device="cpu", dtype=torch.float32).eval()
    try:
        yield
    finally:
        module.to(device=device, dtype=dtype).train(was_training)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keeps the exporter's notes on its own workings from the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

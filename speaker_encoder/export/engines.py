"""What computes the embeddings of an export: PyTorch, or ONNX Runtime in float32 or with int8."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from speaker_encoder.audio import AudioError
from speaker_encoder.errors import UserError
from speaker_encoder.export.decoding import UnitLoader, Waveform
from speaker_encoder.export.options import ONNX_INT8, TORCH, ExportOptions
from speaker_encoder.export.planning import Unit
from speaker_encoder.export.source import Source

if TYPE_CHECKING:
    import torch

    from speaker_encoder.modeling import SpeakerEncoder

Engine: TypeAlias = "Callable[[Sequence[Waveform]], torch.Tensor]"
"""(T_i,) waveforms in, (B, D) float32 embeddings on the CPU out, rows L2-normalised."""

_INT8_KINDS = ("wavlm",)
"""Families that int8 makes faster without ruin: docs/benchmarks.md has the figures."""
_NUM_COMPARED = 8
_LONGEST_COMPARED_SECONDS = 15
_LEAST_COSINE = 0.95

_logger = logging.getLogger(__name__)


def check_engine(encoder: SpeakerEncoder, options: ExportOptions, device: torch.device) -> None:
    """Checks that the engine that is asked for can compute this encoder here.

    Raises:
        UserError: it cannot.
    """
    if options.engine == TORCH:
        return
    if device.type != "cpu":
        raise UserError(
            f"--engine {options.engine} computes on a CPU, found --model_device {device.type}. "
            "Give --model_device cpu, or leave --engine out."
        )
    from speaker_encoder.hub.onnx import refuse_missing_packages
    from speaker_encoder.hub.onnx_graphs import GRAPHS

    refuse_missing_packages()
    known = _INT8_KINDS if options.engine == ONNX_INT8 else tuple(GRAPHS)
    if encoder.config.encoder_kind not in known:
        raise UserError(
            f"--engine {options.engine} is for {', '.join(known)} encoders; the "
            f"{encoder.config.encoder_kind} encoder would be slower, wrong or impossible with it. "
            f"Leave --engine out{', or give --dtype bfloat16' * (options.engine == ONNX_INT8)}."
        )


def open_engine(
    encoder: SpeakerEncoder, source: Source, units: Sequence[Unit], options: ExportOptions
) -> Engine:
    """Gives what embeds a batch, compared with PyTorch in float32 where it is something else.

    Args:
        encoder: on its device.
        source: the corpus.
        units: what it is to embed.
        options: of the export.

    Raises:
        UserError: the encoder has no ONNX form, or it gives other embeddings.
    """
    from speaker_encoder.modeling.encoding import encode_batch, frozen_encoder

    exact = partial(encode_batch, frozen_encoder(encoder))
    if not units or options.is_reference:
        return exact
    if options.engine == TORCH:
        engine, what = _lower(exact, encoder, options.dtype), f"--dtype {options.dtype}"
    else:
        engine, what = _onnx(encoder, options), f"--engine {options.engine}"
    loader = UnitLoader(source, units, options, encoder.sampling_rate, encoder.min_num_samples)
    some = _waveforms(loader, _spread(units), encoder.sampling_rate)
    _compare(engine, exact, some, what)
    return engine


def _onnx(encoder: SpeakerEncoder, options: ExportOptions) -> Engine:
    """ONNX Runtime, which computes in the thread that calls."""
    import torch

    from speaker_encoder.hub.onnx import MODEL_FILE, embed_with_onnx, open_session, write_onnx

    with tempfile.TemporaryDirectory() as folder:
        _logger.info("--engine %s: the encoder is written as ONNX and checked", options.engine)
        write_onnx(encoder, folder)
        path = Path(folder) / MODEL_FILE
        if options.engine == ONNX_INT8:
            from speaker_encoder.hub.onnx_int8 import quantize_onnx

            path = quantize_onnx(path)
        session = open_session(path, num_threads=1)

    def embed(waveforms: Sequence[Waveform]) -> torch.Tensor:
        assert options.engine != ONNX_INT8 or len(waveforms) == 1, "its scales are of a batch"
        return torch.from_numpy(embed_with_onnx(session, waveforms))

    return embed


def _lower(exact: Engine, encoder: SpeakerEncoder, dtype: str) -> Engine:
    """PyTorch in a lower precision."""
    import torch

    def embed(waveforms: Sequence[Waveform]) -> torch.Tensor:
        with torch.autocast(encoder.device.type, getattr(torch, dtype)):
            return exact(waveforms)

    return embed


def _spread(units: Sequence[Unit]) -> list[tuple[int, bool]]:
    """Utterances from the longest to the shortest: index, and whether only a part fits memory."""
    every = [(index, unit.is_long) for unit in units for index in unit.indices]
    count = min(_NUM_COMPARED, len(every))
    return [every[(2 * number + 1) * len(every) // (2 * count)] for number in range(count)]


def _waveforms(
    loader: UnitLoader, some: Sequence[tuple[int, bool]], rate: int
) -> Iterator[Waveform]:
    """What can be read of some items; the export meets the others again, and reports them."""
    most = _LONGEST_COMPARED_SECONDS * rate
    for index, is_long in some:
        with suppress(AudioError):
            yield loader.read(index, 0, most if is_long else None)[:most]


def _compare(engine: Engine, exact: Engine, waveforms: Iterable[Waveform], what: str) -> None:
    """Says how alike embeddings are.

    Raises:
        UserError: they are not alike enough to be used.
    """
    import torch

    with torch.inference_mode():
        cosines = [float((engine([one]) * exact([one])).sum()) for one in waveforms]
    if not cosines:
        _logger.warning(
            "%s: not compared with float32: none of the utterances picked for it can be embedded",
            what,
        )
        return
    least, mean = min(cosines), sum(cosines) / len(cosines)
    text = f"{what}: cosine with float32 on {len(cosines)} utterances: least {least:.5f}"
    if not least >= _LEAST_COSINE:  # also where it is not a number
        raise UserError(
            f"{text}; less than {_LEAST_COSINE} is another embedding. Leave {what} out."
        )
    _logger.info("%s, mean %.5f", text, mean)

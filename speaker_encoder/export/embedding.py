"""Embeds the utterances of a unit, several at once where the device likes that."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from speaker_encoder.audio import AudioError, resampled_num_samples
from speaker_encoder.errors import UserError
from speaker_encoder.export.decoding import UnitLoader, Waveform
from speaker_encoder.export.engines import Engine
from speaker_encoder.export.options import ExportOptions
from speaker_encoder.export.planning import Unit, plan_batches, plan_units
from speaker_encoder.export.source import Source

if TYPE_CHECKING:
    import torch

    from speaker_encoder.modeling import SpeakerEncoder

CUDA_BATCH_SECONDS = 240.0
_UNIT_SECONDS = 60.0
_SINGLE_UNIT_SECONDS = 10.0  # small, so that no lane is idle long while another ends
_LONG_BATCH_SECONDS = 60.0


@dataclass
class EmbeddedUnit:
    """What became of a unit.

    Attributes:
        vectors: index -> (D,) float32 L2-normalised.
        failures: index -> why there is none.
        figures: seconds of forward passes, frames computed and padded, ...
    """

    vectors: dict[int, Waveform] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def count(self, **figures: float) -> None:
        """Adds to the figures."""
        for name, value in figures.items():
            self.figures[name] = self.figures.get(name, 0.0) + value


class Embedder:
    """Embeds units with one encoder.

    Args:
        encoder: in eval mode, on its device.
        engine: computes its embeddings.
        loader: of the units.
        options: windows and batches.
    """

    def __init__(
        self, encoder: SpeakerEncoder, engine: Engine, loader: UnitLoader, options: ExportOptions
    ) -> None:
        self._engine = engine
        self._encoder = encoder
        self._loader = loader
        rate = encoder.sampling_rate
        self._batch_samples = int(batch_seconds_for(encoder, options) * rate)
        self._window = _samples(options.windows_seconds, rate)
        self._hop = _samples(options.hop_seconds, rate)

    def embed(
        self,
        unit: Unit,
        num_samples: int,
        loaded: tuple[dict[int, Waveform], dict[int, str]],
    ) -> EmbeddedUnit:
        """Embeds the utterances of a unit.

        Args:
            unit: the unit.
            num_samples: of its first utterance, which is the only one of a long unit.
            loaded: index -> waveform, and index -> why it cannot be used.
        """
        import torch

        result = EmbeddedUnit(failures=dict(loaded[1]))
        with torch.inference_mode():
            if unit.is_long:
                self._embed_long(unit.indices[0], num_samples, result)
            else:
                self._embed_loaded(loaded[0], result)
        return result

    def _embed_loaded(self, waveforms: dict[int, Waveform], result: EmbeddedUnit) -> None:
        import torch

        from speaker_encoder.modeling.windows import mean_embedding

        owners: list[int] = []
        segments: list[Waveform] = []
        for index, waveform in waveforms.items():
            for start, stop in self._plan(len(waveform)):
                owners.append(index)
                segments.append(waveform[start:stop])
        rows: dict[int, list[torch.Tensor]] = {index: [] for index in waveforms}
        embedded: dict[int, torch.Tensor] = {}
        for batch in plan_batches([len(segment) for segment in segments], self._batch_samples):
            output = self._forward([segments[number] for number in batch], result)
            embedded.update(zip(batch, output, strict=True))
        for number, index in enumerate(owners):
            rows[index].append(embedded[number])
        for index, parts in rows.items():
            _keep(result, index, mean_embedding(torch.stack(parts)).numpy())

    def _embed_long(self, index: int, num_samples: int, result: EmbeddedUnit) -> None:
        """Reads and embeds window after window, so that memory does not grow with the length."""
        import torch

        from speaker_encoder.modeling.windows import mean_embedding

        segments = self._plan(num_samples)
        most = max(1, int(_LONG_BATCH_SECONDS * self._encoder.sampling_rate) // self._length)
        parts: list[torch.Tensor] = []
        silent: AudioError | None = None
        for first in range(0, len(segments), most):
            group = []
            for start, stop in segments[first : first + most]:
                try:
                    group.append(self._loader.read(index, start, stop - start))
                except AudioError as error:
                    if error.reason not in ("only silence", "too short"):
                        result.failures[index] = error.reason
                        return
                    silent = error
            for batch in plan_batches([len(window) for window in group], self._batch_samples):
                parts.append(self._forward([group[number] for number in batch], result))
        if not parts:
            result.failures[index] = silent.reason if silent else "no audio"
            return
        _keep(result, index, mean_embedding(torch.cat(parts)).numpy())

    @property
    def _length(self) -> int:
        from speaker_encoder.modeling.windows import LONGEST_SECONDS

        longest = int(LONGEST_SECONDS * self._encoder.sampling_rate)
        return min(self._window or longest, longest)

    def _plan(self, num_samples: int) -> list[tuple[int, int]]:
        from speaker_encoder.modeling.windows import plan_segments

        return plan_segments(num_samples, self._encoder.sampling_rate, self._window, self._hop)

    def _forward(self, waveforms: list[Waveform], result: EmbeddedUnit) -> torch.Tensor:
        import torch

        start = time.perf_counter()
        try:
            rows = self._engine(waveforms)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"The device is out of memory with {len(waveforms)} utterances of up to "
                f"{max(map(len, waveforms)) / self._encoder.sampling_rate:.1f} s. Lower "
                "--batch_seconds and run it again: it goes on from here."
            ) from error
        longest = max(map(len, waveforms))
        result.count(
            forward_seconds=time.perf_counter() - start,
            computed_samples=float(longest * len(waveforms)),
            padded_samples=float(sum(longest - len(waveform) for waveform in waveforms)),
            batches=1.0,
        )
        return rows


def _keep(result: EmbeddedUnit, index: int, vector: Waveform) -> None:
    if np.isfinite(vector).all():
        result.vectors[index] = vector
    else:
        result.failures[index] = "the embedding is not finite"


def _samples(seconds: float | None, rate: int) -> int | None:
    return None if seconds is None else max(1, round(seconds * rate))


def batch_seconds_for(encoder: SpeakerEncoder, options: ExportOptions) -> float:
    """Audio of one batch: a GPU likes large ones, a CPU is as fast with one utterance."""
    if options.batch_seconds is not None:
        return options.batch_seconds
    return CUDA_BATCH_SECONDS if encoder.device.type == "cuda" else 0.0


def plan_export(source: Source, encoder: SpeakerEncoder, options: ExportOptions) -> list[Unit]:
    """Plans the whole corpus, whatever of it is done."""
    from speaker_encoder.modeling.windows import LONGEST_SECONDS

    rate = encoder.sampling_rate
    batch_seconds = batch_seconds_for(encoder, options)
    seconds = max(batch_seconds, _UNIT_SECONDS) if batch_seconds else _SINGLE_UNIT_SECONDS
    # What is trimmed is sorted again inside its unit.
    factor = 1 if options.trim_silence == "off" else 4
    return plan_units(
        num_samples_of(source, rate),
        int(seconds * factor * rate),
        int(LONGEST_SECONDS * rate),
        max_items=64 if encoder.device.type == "cpu" else 4096,
    )


def num_samples_of(source: Source, rate: int) -> list[int]:
    """The length of each item at a sampling rate."""
    return [
        resampled_num_samples(item.utterance.num_samples, item.utterance.sampling_rate, rate)
        for item in source.items
    ]

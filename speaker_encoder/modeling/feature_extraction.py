"""Turns waveforms into a padded batch for a speaker encoder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor

from speaker_encoder.errors import UserError

_logger = logging.getLogger(__name__)


class SpeakerEncoderFeatureExtractor(SequenceFeatureExtractor):
    """Pads mono waveforms at the model's sampling rate; all else is done inside the model.

    Args:
        feature_size: Always 1, a waveform has one value a sample.
        sampling_rate: Hz that the model was made for.
        padding_value: Value behind the end of a waveform; the model ignores it.
        **kwargs: Further fields of a ``preprocessor_config.json``.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012 (transformers' name)

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("return_attention_mask", True)
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            **kwargs,
        )

    def __call__(
        self,
        raw_speech: np.ndarray | Sequence[float] | Sequence[np.ndarray] | Sequence[Sequence[float]],
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Pads one or several waveforms to a batch.

        Args:
            raw_speech: One (T,) waveform or a list of them, float in [-1, 1].
            sampling_rate: Hz of the waveforms; give it, so that a wrong one is noticed.
            padding: As in transformers: True pads to the longest.
            max_length: Samples to pad or cut to.
            truncation: Cut what is longer than ``max_length``.
            return_tensors: "pt", "np" or None for lists.

        Returns:
            ``input_values`` (B, T) float32 and ``attention_mask`` (B, T).

        Raises:
            UserError: the sampling rate is not the model's, or a waveform is not mono.
        """
        if sampling_rate is None:
            _logger.warning(
                "Give sampling_rate to the feature extractor, so that a wrong one is noticed; this "
                "model was made for %d Hz.",
                self.sampling_rate,
            )
        elif sampling_rate != self.sampling_rate:
            raise UserError(
                f"This model was made for {self.sampling_rate} Hz and was given {sampling_rate} "
                f"Hz. Resample the waveforms to {self.sampling_rate} Hz."
            )
        features = BatchFeature({"input_values": _as_waveforms(raw_speech)})
        return self.pad(
            features,
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            return_tensors=return_tensors,
        )


def _as_waveforms(raw_speech: Any) -> list[np.ndarray]:
    """Gives a list of (T,) float32 waveforms.

    Raises:
        UserError: a waveform has more than one channel.
    """
    is_single = isinstance(raw_speech, np.ndarray) and raw_speech.ndim == 1
    is_single = is_single or (len(raw_speech) > 0 and np.ndim(raw_speech[0]) == 0)
    waveforms = [raw_speech] if is_single else list(raw_speech)
    arrays = [np.asarray(waveform, dtype=np.float32) for waveform in waveforms]
    for array in arrays:
        if array.ndim != 1:
            raise UserError(
                f"A waveform must be mono with shape (T,), found shape {array.shape}. Average its "
                "channels or choose one."
            )
    return arrays

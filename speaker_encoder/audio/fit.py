"""Brings short utterances to the length of a crop."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

ShortUtterances = Literal["repeat", "zero_pad"]


def fit_to_length(
    waveform: NDArray[np.float32],
    num_samples: int,
    short_utterances: ShortUtterances = "repeat",
) -> NDArray[np.float32]:
    """A waveform of exactly ``num_samples``, made longer where it is too short.

    Args:
        waveform: (T,) with 1 <= T <= num_samples.
        num_samples: the length wanted.
        short_utterances: ``"repeat"`` starts again from its first sample, ``"zero_pad"`` puts it
            in the middle of zeros, the odd zero behind it.

    Returns:
        (num_samples,), of the waveform's dtype.

    Raises:
        ValueError: the waveform is empty, longer than ``num_samples`` or not one-dimensional, or
            ``short_utterances`` is unknown.

    Source: the zeros as in the original trainer, ``left = difference // 2``; the repetition as
        ``numpy.pad(mode="wrap")`` in voxceleb_trainer.
    """
    if short_utterances not in get_args(ShortUtterances):
        known = ", ".join(repr(name) for name in get_args(ShortUtterances))
        raise ValueError(f"short_utterances must be one of {known}, found {short_utterances!r}.")
    if waveform.ndim != 1:
        raise ValueError(f"A waveform has one dimension, found shape {waveform.shape}.")
    missing = num_samples - len(waveform)
    if missing == 0:
        return waveform
    if missing < 0:
        raise ValueError(
            f"The waveform has {len(waveform)} samples, more than the {num_samples} it should "
            "fill. Crop it first."
        )
    if len(waveform) == 0:
        raise ValueError("The waveform is empty; it cannot be made longer.")
    if short_utterances == "repeat":
        return np.resize(waveform, num_samples)
    left = missing // 2
    return np.pad(waveform, (left, missing - left))

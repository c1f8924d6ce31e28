"""Short utterances are repeated or put in the middle of zeros."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speaker_encoder.audio import fit_to_length

WAVEFORM = np.array([1.0, 2.0, 3.0], dtype=np.float32)


def test_repeat_starts_again() -> None:
    np.testing.assert_array_equal(fit_to_length(WAVEFORM, 7, "repeat"), [1, 2, 3, 1, 2, 3, 1])


def test_zero_pad_is_centred_with_the_odd_zero_behind() -> None:
    np.testing.assert_array_equal(fit_to_length(WAVEFORM, 6, "zero_pad"), [0, 1, 2, 3, 0, 0])


def test_repeat_is_numpys_wrap_and_zero_pad_the_originals_padding() -> None:
    waveform = np.random.default_rng(0).standard_normal(1_000).astype(np.float32)
    wrapped = np.pad(waveform, (0, 2_345), mode="wrap")
    np.testing.assert_array_equal(fit_to_length(waveform, 3_345, "repeat"), wrapped)
    left = 2_345 // 2
    padded = np.pad(waveform, (left, 2_345 - left), mode="constant")
    np.testing.assert_array_equal(fit_to_length(waveform, 3_345, "zero_pad"), padded)


@given(st.integers(1, 50), st.integers(0, 200), st.sampled_from(["repeat", "zero_pad"]))
def test_the_length_and_dtype_are_those_wanted(length: int, more: int, how: str) -> None:
    waveform = np.arange(1, length + 1, dtype=np.float32)
    fitted = fit_to_length(waveform, length + more, how)
    assert fitted.shape == (length + more,)
    assert fitted.dtype == np.float32
    assert set(waveform) <= set(fitted)


def test_errors() -> None:
    with pytest.raises(ValueError, match="has 3 samples, more than the 2"):
        fit_to_length(WAVEFORM, 2)
    with pytest.raises(ValueError, match="empty"):
        fit_to_length(WAVEFORM[:0], 2)
    with pytest.raises(ValueError, match="one dimension"):
        fit_to_length(WAVEFORM[None], 5)
    with pytest.raises(ValueError, match="'repeat', 'zero_pad', found 'reflect'"):
        fit_to_length(WAVEFORM, 5, "reflect")

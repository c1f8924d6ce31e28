"""Windows that cover an utterance, and utterances too long to be embedded at once."""

from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from speaker_encoder.modeling.windows import (
    LONGEST_SECONDS,
    mean_embedding,
    plan_segments,
    plan_windows,
)


@given(st.integers(1, 5000), st.integers(1, 500), st.integers(1, 500))
def test_windows_cover_everything_and_have_one_length(num_samples, window, hop):
    hop = min(hop, window)
    windows = plan_windows(num_samples, window, hop)
    assert windows[0][0] == 0 and windows[-1][1] == num_samples
    assert {stop - start for start, stop in windows} == {min(window, num_samples)}
    for (start, stop), (next_start, _) in pairwise(windows):
        assert start < next_start <= stop and next_start - start <= hop


def test_windows_by_hand():
    assert plan_windows(10, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert plan_windows(11, 4, 4) == [(0, 4), (4, 8), (7, 11)]
    longest = int(LONGEST_SECONDS * 16000)
    assert plan_segments(longest, 16000) == [(0, longest)]
    assert len(plan_segments(longest + 1, 16000)) == 2


@pytest.mark.slow
def test_a_long_utterance_is_the_mean_of_its_windows(tmp_path, make_encoder, waveform):
    encoder = make_encoder("ecapa")
    samples = np.clip(waveform(int((LONGEST_SECONDS + 10) * 16000)), -0.99, 0.99)
    rows = encoder.encode([samples[a:b] for a, b in plan_segments(len(samples), 16000)])
    expected = mean_embedding(rows)
    assert torch.allclose(encoder.encode(samples)[0], expected, atol=1e-6)
    path = tmp_path / "long.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    both = encoder.encode([path, samples[:16000]])
    assert torch.allclose(both[0], expected, atol=1e-6)
    assert torch.allclose(both[1], encoder.encode(samples[:16000])[0], atol=1e-6)

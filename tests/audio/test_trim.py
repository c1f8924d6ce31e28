"""Silence that is left out, and speech that is not."""

import numpy as np
import pytest
import soundfile

from speaker_encoder.audio.trim import find_speech, trim_silence
from speaker_encoder.errors import UserError

RATE = 16000


def silence(seconds: float, level: float = 1e-4) -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, level, int(seconds * RATE))
    return noise.astype(np.float32)


@pytest.fixture
def speech(data_dir):
    path = next((data_dir / "vctk").rglob("*.flac"))
    return soundfile.read(path, dtype="float32")[0]


def test_energy_keeps_from_the_first_to_the_last_loud_sample_as_the_original(speech):
    recording = np.concatenate([silence(1), speech, silence(2), speech, silence(1)])
    loud = [i for i, x in enumerate(recording) if x * x > 0.001]
    trimmed = trim_silence(recording, RATE, "energy")
    np.testing.assert_array_equal(trimmed, recording[loud[0] : loud[-1] + 1])


@pytest.mark.parametrize("gain", [1.0, 0.05])
def test_vad_leaves_out_edges_and_long_pauses_at_any_level(speech, gain):
    recording = gain * np.concatenate([silence(1), speech, silence(2), speech, silence(1)])
    trimmed = trim_silence(recording.astype(np.float32), RATE, "vad")
    assert len(trimmed) / RATE < 2 * len(speech) / RATE + 1.0
    assert np.square(trimmed).sum() > 0.99 * np.square(recording).sum()


def test_off_keeps_all_and_silence_leaves_nothing():
    recording = silence(1)
    assert trim_silence(recording, RATE, "off") is not None
    assert len(trim_silence(recording, RATE, "off")) == RATE
    for method in ("energy", "vad"):
        assert len(trim_silence(np.zeros(RATE, np.float32), RATE, method)) == 0
        assert len(trim_silence(np.zeros(0, np.float32), RATE, method)) == 0


def test_spans_are_in_order_and_apart(speech):
    recording = np.concatenate([speech, silence(1), speech])
    spans = find_speech(recording, RATE, "vad")
    assert len(spans) >= 2
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges) and edges[-1] <= len(recording)


def test_an_unknown_method_is_named():
    with pytest.raises(UserError, match=r"Unknown trim_silence 'vda'.*nearest: 'vad'"):
        trim_silence(silence(1), RATE, "vda")

"""Codecs: aligned with what went in, at its level, and G.711 as libsndfile codes it."""

import io

import numpy as np
import pytest
import soundfile

from speaker_encoder.audio import codec
from speaker_encoder.audio.codec import CODECS, Codec, check_codecs, transcode
from speaker_encoder.errors import UserError

RATE = 16000


@pytest.fixture(scope="module")
def speech(data_dir):
    path = sorted((data_dir / "voxceleb" / "wav").glob("*/*/*"))[0]
    return soundfile.read(path, dtype="float32", frames=24000)[0]


def delay_and_likeness(before, after):
    """The delay in samples at which two waveforms are most alike, and their correlation there."""
    size = 1 << 16
    product = np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size))
    lag = int(np.argmax(np.abs(np.fft.irfft(product))))
    after = np.roll(after, -lag)[:-100]
    return lag, abs(np.corrcoef(before[:-100], after)[0, 1])


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_changes_speech_a_little_and_moves_it_by_10_ms_at_most(speech, name):
    for bit_rate in (CODECS[name].bit_rates[0], CODECS[name].bit_rates[-1]):
        coded = transcode(speech, RATE, name, bit_rate)
        assert coded.shape == speech.shape and coded.dtype == np.float32
        assert not np.array_equal(coded, speech)
        delay, likeness = delay_and_likeness(speech, coded)
        assert 0 <= delay <= 0.01 * RATE and likeness > (0.35 if name == "amr" else 0.9)
        np.testing.assert_array_equal(transcode(speech.copy(), RATE, name, bit_rate), coded)


@pytest.mark.parametrize(("name", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_g711_is_libsndfile_s(speech, name, subtype):
    file = io.BytesIO()
    soundfile.write(file, speech, 8000, format="WAV", subtype=subtype)
    file.seek(0)
    expected = soundfile.read(file, dtype="float32")[0]
    found = transcode(speech, 8000, name)
    # one step, a sixteenth, where they round differently
    np.testing.assert_allclose(found, expected, rtol=1 / 15, atol=5e-4)
    assert np.mean(found == expected) > 0.7 > 2 * np.mean(found == speech)


def test_lower_bit_rates_lose_more(speech):
    errors = [
        np.square(transcode(speech, RATE, "opus", bit_rate) - speech).mean()
        for bit_rate in (8000, 16000, 32000)
    ]
    assert errors[0] > errors[1] > errors[2] > 0


def test_loud_and_short_waveforms(speech):
    loud = 20 * speech
    for name in CODECS:
        level = np.sqrt(np.mean(transcode(loud, RATE, name) ** 2) / np.mean(loud**2))
        assert 0.7 < level < 1.1
    short = speech[5000:5799]
    np.testing.assert_array_equal(transcode(short, RATE, "mp3", 16000), short)
    for num_samples in (800, 801, 4321):
        for name in CODECS:
            assert transcode(speech[:num_samples], RATE, name).shape == (num_samples,)


def test_a_missing_encoder_is_named(monkeypatch):
    check_codecs(CODECS)
    monkeypatch.setitem(codec.CODECS, "gsm", Codec("libgsm_of_nobody", "wav", 8000))
    with pytest.raises(UserError, match=r"augment_codecs: .* no encoder for gsm \(libgsm_of_nobod"):
        check_codecs(["mp3", "gsm"])

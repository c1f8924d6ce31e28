"""Pitch shift: librosa's phase vocoder, and formants that stay where they are."""

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from speaker_encoder.audio.pitch import FRAME_SAMPLES, HOP_SAMPLES, resample_pitch, shift_pitch

RATE = 16000
FORMANTS = (700, 1200, 2600)


def vowel(hertz, seconds=2.0):
    """Pulses through three resonances."""
    pulses = np.zeros(int(seconds * RATE))
    pulses[np.arange(0, len(pulses), RATE / hertz).astype(int)] = 1
    for formant, width in zip(FORMANTS, (90, 110, 160), strict=True):
        radius = np.exp(-np.pi * width / RATE)
        angle = 2 * np.pi * formant / RATE
        pulses = scipy.signal.lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], pulses)
    return (0.3 * pulses / np.abs(pulses).max()).astype(np.float32)


def fundamental(waveform):
    """The lag at which the waveform is most like itself, as a frequency between 60 and 400 Hz."""
    spectrum = np.abs(np.fft.rfft(waveform, 2 * len(waveform))) ** 2
    likeness = np.fft.irfft(spectrum)
    lags = np.arange(RATE // 400, RATE // 60)
    return RATE / lags[np.argmax(likeness[lags])]


def formants(waveform):
    roots = np.roots(librosa.lpc(waveform.astype(np.float64), order=10))
    roots = roots[roots.imag > 0]
    found = np.angle(roots) * RATE / (2 * np.pi)
    narrow = (-np.log(np.abs(roots)) * RATE / np.pi < 500) & (found < 4000)
    return np.sort(found[narrow])


@pytest.mark.parametrize("semitones", [-5.0, -1.3, 2.0, 7.0])
def test_without_the_envelope_it_is_librosa_s_pitch_shift(data_dir, semitones):
    path = sorted((data_dir / "voxceleb" / "wav").glob("*/*/*"))[0]
    speech = soundfile.read(path, dtype="float32", frames=30000)[0]
    expected = librosa.effects.pitch_shift(
        speech,
        sr=RATE,
        n_steps=semitones,
        n_fft=FRAME_SAMPLES,
        hop_length=HOP_SAMPLES,
        res_type="soxr_hq",
    )
    found = resample_pitch(speech, RATE, semitones)
    # librosa adds its phases up in single precision, here in double
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("semitones", [-4.0, 3.0])
def test_the_pitch_moves_and_the_formants_stay(semitones):
    before = vowel(120)
    after = shift_pitch(before, RATE, semitones)
    moved = 12 * np.log2(fundamental(after) / fundamental(before))
    assert abs(moved - semitones) < 0.3
    np.testing.assert_allclose(formants(before), FORMANTS, rtol=0.02)
    np.testing.assert_allclose(formants(after), FORMANTS, rtol=0.08)
    # the oracle sees formants that move: without the envelope they go with the pitch
    moved_too = np.array(FORMANTS) * 2 ** (semitones / 12)
    np.testing.assert_allclose(
        formants(resample_pitch(before, RATE, semitones)), moved_too, rtol=0.06
    )


def test_length_level_and_bits_are_kept():
    generator = np.random.default_rng(0)
    for num_samples in (512, 513, 16000, 16001):
        waveform = generator.normal(0, 0.1, num_samples).astype(np.float32)
        before = torch.get_num_threads()
        shifted = shift_pitch(waveform, RATE, 1.7)
        assert torch.get_num_threads() == before
        assert shifted.dtype == np.float32 and shifted.shape == waveform.shape
        level = np.sqrt(np.mean(shifted**2) / np.mean(waveform**2))
        assert level == pytest.approx(1.0, abs=1e-3)
        np.testing.assert_array_equal(shift_pitch(waveform.copy(), RATE, 1.7), shifted)


def test_silence_and_what_is_shorter_than_a_frame_stay_as_they_are():
    silence = np.zeros(4000, dtype=np.float32)
    np.testing.assert_array_equal(shift_pitch(silence, RATE, 2.0), silence)
    short = np.ones(FRAME_SAMPLES - 1, dtype=np.float32)
    np.testing.assert_array_equal(shift_pitch(short, RATE, 2.0), short)
    np.testing.assert_array_equal(shift_pitch(vowel(120), RATE, 0.0), vowel(120))

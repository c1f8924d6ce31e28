"""Fingerprints: found again after what is done to recordings, and only then."""

import itertools

import numpy as np
import pytest
import soundfile
from corpora_on_disk import RATE, speech_like

from speaker_encoder.audio import read_audio
from speaker_encoder.audio.resample import resample
from speaker_encoder.doctor.fingerprint import (
    FRAME_SAMPLES,
    HOP_SAMPLES,
    NUM_BITS,
    _band_edges,
    _overlap,
    find_matches,
    fingerprint,
)


def words_of(waveform: np.ndarray) -> np.ndarray:
    return fingerprint(resample(waveform.astype(np.float32), RATE, 8000))


def test_words_equal_a_naive_loop():
    waveform = resample(speech_like(1, 0.5), RATE, 8000)
    energies = []
    edges = _band_edges()
    for start in range(0, len(waveform) - FRAME_SAMPLES + 1, HOP_SAMPLES):
        frame = waveform[start : start + FRAME_SAMPLES] * np.hanning(FRAME_SAMPLES)
        power = np.abs(np.fft.rfft(frame)) ** 2
        energies.append([power[a:b].sum() for a, b in itertools.pairwise(edges)])
    wanted = []
    for now, before in zip(energies[1:], energies[:-1], strict=True):
        word = 0
        for m in range(NUM_BITS):
            word = 2 * word + ((now[m] - now[m + 1]) - (before[m] - before[m + 1]) > 0)
        wanted.append(word)
    differing = np.bitwise_xor(fingerprint(waveform), np.array(wanted, dtype=np.uint32))
    assert sum(bin(word).count("1") for word in differing.tolist()) <= 2  # float32 rounding


def test_silence_and_short_sounds_have_nothing_to_compare():
    assert not fingerprint(np.zeros(8000, dtype=np.float32)).any()
    assert len(fingerprint(np.ones(100, dtype=np.float32))) == 0
    assert find_matches([]) == []
    silence = np.zeros(200, dtype=np.uint32)
    assert find_matches([silence, silence]) == []
    assert find_matches([np.zeros(0, dtype=np.uint32)] * 3) == []


def test_overlap_by_hand():
    a = np.arange(1, 101, dtype=np.uint32)
    assert _overlap(a, a[10:], 10) == (0.0, 90)
    b = a.copy()
    b[:50] ^= 0b11
    errors, count = _overlap(a[4:], b[4:], 0)
    assert (errors, count) == (pytest.approx(2 * 46 / (32 * 96)), 96)
    assert _overlap(a, a, 50) is None


@pytest.fixture(scope="module")
def utterances(data_dir):
    paths = sorted((data_dir / "speechocean762" / "WAVE").glob("*/*.flac"))[::31][:40]
    return [read_audio(path, RATE) for path in paths]


def as_mp3(waveform: np.ndarray, folder) -> np.ndarray:
    path = folder / "copy.mp3"
    soundfile.write(path, waveform, RATE)
    return read_audio(path, RATE)


@pytest.mark.parametrize("kind", ["level", "padded", "cut", "8 kHz", "mp3", "noise"])
def test_copies_of_real_speech_are_found_and_nothing_else(utterances, kind, tmp_path):
    generator = np.random.default_rng(0)
    silence = np.zeros(RATE // 3 + 7, dtype=np.float32)
    change = {
        "level": lambda x: 0.2 * x,
        "padded": lambda x: np.concatenate([silence, x, silence]),
        "cut": lambda x: x[int(0.15 * len(x)) : int(0.9 * len(x))],
        "8 kHz": lambda x: resample(resample(x, RATE, 8000), 8000, RATE),
        "mp3": lambda x: as_mp3(x, tmp_path),
        "noise": lambda x: x + 0.1 * x.std() * generator.standard_normal(len(x)),
    }[kind]
    words = [words_of(waveform) for waveform in utterances]
    found = find_matches([*words, *(words_of(change(waveform)) for waveform in utterances)])
    wanted = {(number, number + len(words)) for number in range(len(words))}
    pairs = {(match.first, match.second) for match in found}
    assert pairs <= wanted
    assert len(pairs) >= 0.97 * len(wanted)
    assert np.median([match.share for match in found]) > 0.9

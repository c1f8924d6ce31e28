"""Small corpora of synthetic sounds on disk, and embeddings of synthetic voices."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def speech_like(seed: int, seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """(T,) float32: coloured noise in syllables, with pauses; another one for each seed."""
    generator = np.random.default_rng(seed)
    num_samples = int(seconds * rate)
    time = np.arange(num_samples) / rate
    pieces = np.zeros(num_samples)
    for _ in range(12):
        start, length = generator.uniform(0, seconds), generator.uniform(0.1, 0.4)
        frequency = generator.uniform(120, 3500)
        envelope = np.exp(-0.5 * np.square((time - start) / (length / 2)))
        pieces += envelope * np.sin(2 * np.pi * frequency * time + generator.uniform(0, 6))
    pieces += 0.001 * generator.standard_normal(num_samples)
    return (0.3 * pieces / np.abs(pieces).max()).astype(np.float32)


def write(path: Path, waveform: np.ndarray, rate: int = RATE) -> Path:
    """Writes a sound with 16 bits, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.round(32767 * waveform).astype(np.int16), rate)
    return path


def plain_corpus(root: Path, num_speakers: int = 3, num_utterances: int = 4) -> Path:
    """A corpus without anything to find."""
    for speaker in range(num_speakers):
        for utterance in range(num_utterances):
            seed = 100 * speaker + utterance
            write(root / f"s{speaker}" / f"u{utterance}.wav", speech_like(seed))
    return root


def voices(
    num_speakers: int, num_utterances: int, seed: int = 0, spread: float = 0.6, dim: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) unit embeddings of well-separated speakers, and (N,) speakers."""
    generator = np.random.default_rng(seed)
    speakers = np.repeat(np.arange(num_speakers), num_utterances)
    centres = generator.standard_normal((num_speakers, dim)) + 0.5
    rows = centres[speakers] + spread * generator.standard_normal((len(speakers), dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), speakers

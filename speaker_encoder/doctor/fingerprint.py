"""A fingerprint of a recording that survives another level, encoding, padding and cutting.

Source: Haitsma & Kalker, "A highly robust audio fingerprinting system", ISMIR 2002: one 32-bit
word every few milliseconds, each bit the sign of an energy difference along frequency and time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLING_RATE = 8000
FRAME_SAMPLES, HOP_SAMPLES = 2048, 128
NUM_BITS = 32
LOWEST_HZ, HIGHEST_HZ = 300.0, 3000.0
MIN_OVERLAP = 64
"""Words of the shortest stretch that can be found again: 1.3 s of sound."""
MAX_BIT_ERROR_RATE = 0.3
"""Above it two stretches are never called the same. The paper takes 0.35; different speech over
the same noise reaches 0.33 at 10 dB."""
DEVIATIONS = 6.0

_MAX_OWNERS = 32
_MIN_HITS = 2
_NUM_CHANCE_PAIRS = 2000
_FRAMES_PER_BLOCK = 1024
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)  # of each byte

Words = NDArray[np.uint32]


def fingerprint(waveform: NDArray[np.float32]) -> Words:
    """The words of a recording.

    ``bit[m] = (E[n,m] - E[n,m+1]) - (E[n-1,m] - E[n-1,m+1]) > 0  (eq. 1)`` with the energy E of
    band m in frame n.

    Args:
        waveform: (T,) float32 at ``SAMPLING_RATE``.

    Returns:
        (W,) uint32, one for each 16 ms; 0 where there is no sound. Empty for less than 0.3 s.
    """
    num_frames = 1 + (len(waveform) - FRAME_SAMPLES) // HOP_SAMPLES
    if num_frames < 2:
        return np.zeros(0, dtype=np.uint32)
    from scipy.fft import rfft

    frames = np.lib.stride_tricks.sliding_window_view(waveform, FRAME_SAMPLES)[::HOP_SAMPLES]
    window = np.hanning(FRAME_SAMPLES).astype(np.float32)
    edges = _band_edges()
    energies = np.empty((num_frames, NUM_BITS + 1), dtype=np.float32)
    for start in range(0, num_frames, _FRAMES_PER_BLOCK):
        block = frames[start : start + _FRAMES_PER_BLOCK] * window
        power = np.square(np.abs(rfft(block, axis=1)))  # (F, bins)
        energies[start : start + len(block)] = np.add.reduceat(power, edges, axis=1)[:, :-1]
    slopes = energies[:, :-1] - energies[:, 1:]
    bits = np.diff(slopes, axis=0) > 0  # (W, 32)
    return np.packbits(bits, axis=1).view(">u4").astype(np.uint32)[:, 0]


def _band_edges() -> NDArray[np.intp]:
    """First bin of each of the 33 bands, and of what follows the last."""
    hertz = np.geomspace(LOWEST_HZ, HIGHEST_HZ, NUM_BITS + 2)
    return np.round(hertz * FRAME_SAMPLES / SAMPLING_RATE).astype(np.intp)


@dataclass(frozen=True)
class Match:
    """Two recordings that share sound.

    Attributes:
        first: number of a recording.
        second: number of a later one.
        seconds: of the shared stretch.
        share: of the shorter recording that is shared, by words with sound.
        bit_error_rate: over the shared stretch; 0.5 for unrelated sound.
    """

    first: int
    second: int
    seconds: float
    share: float
    bit_error_rate: float


def find_matches(words: list[Words], seed: int = 0) -> list[Match]:
    """All pairs of recordings that share a stretch of sound.

    Pairs with a few equal words at one offset are compared over their whole overlap. They match
    when their bit error rate is 6 deviations below that of unrelated recordings of this corpus,
    and not above 0.3 in any case.

    Args:
        words: fingerprint of each recording.
        seed: of the choice of unrelated pairs.
    """
    mean, deviation = chance_error_rate(words, seed)
    matches = []
    for first, second, offset in _candidates(words):
        overlap = _overlap(words[first], words[second], offset)
        if overlap is None:
            continue
        errors, count = overlap
        limit = min(MAX_BIT_ERROR_RATE, mean - DEVIATIONS * deviation / np.sqrt(count))
        if errors < limit:
            shorter = min(int(np.count_nonzero(words[i])) for i in (first, second))
            frames = (FRAME_SAMPLES - HOP_SAMPLES) / SAMPLING_RATE
            seconds = count * HOP_SAMPLES / SAMPLING_RATE + frames
            matches.append(Match(first, second, seconds, count / max(1, shorter), errors))
    return matches


def chance_error_rate(words: list[Words], seed: int) -> tuple[float, float]:
    """The bit error rate of unrelated stretches of these recordings.

    Returns:
        Its mean, and its robust deviation for one word: that of n words is 1 / sqrt(n) of it.
    """
    usable = [number for number, row in enumerate(words) if len(row) >= MIN_OVERLAP]
    generator = np.random.default_rng(seed)
    rates, scaled = [], []
    for _ in range(_NUM_CHANCE_PAIRS if len(usable) > 1 else 0):
        first, second = generator.choice(usable, 2, replace=False)
        a, b = words[first], words[second]
        offset = int(generator.integers(MIN_OVERLAP - len(b), len(a) - MIN_OVERLAP + 1))
        overlap = _overlap(a, b, offset)
        if overlap is not None:
            rates.append(overlap[0])
            scaled.append((overlap[0] - 0.5) * np.sqrt(overlap[1]))
    if not rates:
        return 0.5, 0.0
    return float(np.median(rates)), 1.4826 * float(np.median(np.abs(scaled - np.median(scaled))))


def _overlap(a: Words, b: Words, offset: int) -> tuple[float, int] | None:
    """Bit error rate and number of words with sound where b, moved by offset, covers a."""
    start, stop = max(0, offset), min(len(a), len(b) + offset)
    if stop - start < MIN_OVERLAP:
        return None
    left, right = a[start:stop], b[start - offset : stop - offset]
    has_sound = (left != 0) & (right != 0)
    count = int(np.count_nonzero(has_sound))
    if count < MIN_OVERLAP:
        return None
    differences = (left ^ right)[has_sound].view(np.uint8)
    errors = int(_ONES[differences].sum())
    return errors / (NUM_BITS * count), count


def _candidates(words: list[Words]) -> list[tuple[int, int, int]]:
    """(first, second, offset) of pairs with several equal words at about one offset."""
    lengths = [len(row) for row in words]
    values = np.concatenate([*words, np.zeros(0, dtype=np.uint32)])
    owners = np.repeat(np.arange(len(words), dtype=np.int64), lengths)
    positions = np.concatenate([np.arange(length) for length in [*lengths, 0]])
    order = np.argsort(values, kind="stable")
    order = order[values[order] != 0]
    values, owners, positions = values[order], owners[order], positions[order]
    ends = np.flatnonzero(np.diff(values, append=values[-1:] ^ 1)) + 1 if len(values) else order
    sizes = np.diff(ends, prepend=0)
    is_rare = np.repeat(sizes <= _MAX_OWNERS, sizes)
    group = np.repeat(np.arange(len(sizes)), sizes)
    hits = []
    for step in range(1, _MAX_OWNERS):  # words of one value are neighbours now
        same = is_rare[step:] & (group[step:] == group[:-step]) if step < len(group) else []
        at = np.flatnonzero(same)
        at = at[owners[at] != owners[at + step]]
        if len(at):
            a, b = owners[at], owners[at + step]
            hits.append(np.stack([a, b, positions[at] - positions[at + step]], axis=1))
    return _frequent(np.concatenate(hits)) if hits else []


def _frequent(hits: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """The best offset of each pair of recordings that was hit often enough."""
    rows, counts = np.unique(hits, axis=0, return_counts=True)  # owners are sorted in a group
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for (first, second, offset), count in zip(rows.tolist(), counts.tolist(), strict=True):
        if count >= _MIN_HITS and count > best.get((first, second), (0, 0))[0]:
            best[first, second] = (count, offset)
    return [(first, second, offset) for (first, second), (_, offset) in sorted(best.items())]

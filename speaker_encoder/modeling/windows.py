"""Cuts an utterance into windows and makes one embedding of theirs."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

LONGEST_SECONDS = 60.0
"""Longer utterances are embedded as the mean over windows of this length: memory stays bounded."""


def plan_windows(num_samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """Gives the windows that cover an utterance.

    They start every ``hop`` samples; the last one is moved back so that it ends where the
    utterance ends. All have the same length, so that none of them is padded.

    Args:
        num_samples: Of the utterance.
        window: Samples of a window.
        hop: Samples from one window to the next.

    Returns:
        (start, stop) of each; the whole utterance where it is no longer than one window.
    """
    if num_samples <= window:
        return [(0, num_samples)]
    starts = [*range(0, num_samples - window, hop), num_samples - window]
    return [(start, start + window) for start in starts]


def plan_segments(
    num_samples: int, sampling_rate: int, window: int | None = None, hop: int | None = None
) -> list[tuple[int, int]]:
    """Gives what is embedded of an utterance: all of it at once, or its windows.

    Args:
        num_samples: Of the utterance.
        sampling_rate: In Hz.
        window: Samples of a window; None: the whole utterance, or windows of
            ``LONGEST_SECONDS`` where it is longer.
        hop: Samples from one window to the next; None: no overlap.
    """
    longest = int(LONGEST_SECONDS * sampling_rate)
    window = min(window or longest, longest)
    return plan_windows(num_samples, window, min(hop or window, window))


def mean_embedding(embeddings: torch.Tensor) -> torch.Tensor:
    """Gives the L2-normalised mean of unit embeddings.

    Args:
        embeddings: (W, D) of the windows of one utterance, rows L2-normalised.

    Returns:
        (D,).
    """
    return embeddings[0] if len(embeddings) == 1 else normalize(embeddings.mean(dim=0), dim=-1)

"""Which utterances are decoded together, and which are embedded in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_PADDING = 0.05
"""Most of a batch's frames that may be padding."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Utterances that are decoded together and embedded in batches of their own.

    An export is planned over the whole corpus and a unit is embedded whole or not at all: what an
    utterance's batch mates are does not depend on what was done before.

    Attributes:
        indices: of the items, the longest first.
        is_long: one utterance that is read window by window.
    """

    indices: tuple[int, ...]
    is_long: bool = False


def plan_units(
    num_samples: Sequence[int], unit_samples: int, longest: int, max_items: int = 64
) -> list[Unit]:
    """Sorts utterances by length into units.

    Args:
        num_samples: of each utterance, at the model's rate.
        unit_samples: most samples of a unit with more than one utterance.
        longest: longer utterances have a unit of their own and are read in windows.
        max_items: most utterances of a unit.

    Returns:
        The units, the longest utterances first; each index appears once.
    """
    units: list[Unit] = []
    current: list[int] = []
    total = 0
    for index in sorted(range(len(num_samples)), key=lambda i: (-num_samples[i], i)):
        length = num_samples[index]
        if length > longest:
            units.append(Unit((index,), True))
            continue
        if current and (total + length > unit_samples or len(current) >= max_items):
            units.append(Unit(tuple(current)))
            current, total = [], 0
        current.append(index)
        total += length
    if current:
        units.append(Unit(tuple(current)))
    return units


def plan_batches(num_samples: Sequence[int], batch_samples: int) -> list[list[int]]:
    """Sorts waveforms by length into batches with at most ``MAX_PADDING`` of padding.

    Args:
        num_samples: of each waveform.
        batch_samples: most padded samples of a batch with more than one; 0: one at a time.

    Returns:
        Indices into ``num_samples``; each appears once.
    """
    batches: list[list[int]] = []
    longest = total = 0
    for index in sorted(range(len(num_samples)), key=lambda i: (-num_samples[i], i)):
        length = num_samples[index]
        padded = longest * (len(batches[-1]) + 1) if batches else 0
        fits = batches and padded <= batch_samples
        if fits and padded - (total + length) <= MAX_PADDING * padded:
            batches[-1].append(index)
            total += length
        else:
            batches.append([index])
            longest = total = length
    return batches

"""``--num_workers auto``: the division of the work that is fastest here, found while it is done."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence

from speaker_encoder.export.lanes import Division, Work, embed_units, usual_division
from speaker_encoder.export.options import AUTO, TORCH
from speaker_encoder.export.planning import Unit

_NUM_ROUNDS = 5  # the first warms up and does not count
_MAX_SECONDS = 5.0
"""After these no further round begins, once two have counted."""
_FEWEST_UNITS_AT_ONCE = 4
_MAX_SHARE = 0.25
"""A corpus is large enough to be measured on if this share of its units is."""
_LEAST_GAIN = 1.05
"""Chance alone does less; the usual division is kept then."""

_logger = logging.getLogger(__name__)


class Divided:
    """Embeds units, the work divided as is asked for, or as is fastest here.

    Candidates embed neighbouring units of the plan in turns, and what they embed is kept: nothing
    is computed twice. Embeddings do not depend on the division but for the order of summation.

    Args:
        work: what the units share.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self.lane_seconds = 0.0

    def embed(self, units: Sequence[Unit]) -> Division:
        """Embeds units.

        Returns:
            The division of all that was not measured on.
        """
        encoder, options = self._work.encoder, self._work.options
        division = usual_division(encoder, options)
        if options.num_workers == AUTO and encoder.device.type == "cpu":
            division, units = self._choose(division, units)
        self._run(division, units)
        return division

    def _choose(self, usual: Division, units: Sequence[Unit]) -> tuple[Division, Sequence[Unit]]:
        """The fastest division, and the units that are left."""
        candidates = candidates_beside(usual)
        if self._work.options.engine != TORCH:  # which computes in the thread of the lane
            candidates = [one for one in candidates if one.num_threads == 1]
        rounds = plan_rounds(units, len(candidates), max(_FEWEST_UNITS_AT_ONCE, usual.num_lanes))
        if not rounds:
            _logger.info("--num_workers auto: too little to embed to measure on; %s", usual)
            return usual, units
        rates: list[list[float]] = []  # of each round, in seconds of audio a second
        measured: set[Unit] = set()
        began = time.perf_counter()
        for number, pieces in enumerate(rounds):
            if number > 2 and time.perf_counter() - began > _MAX_SECONDS:
                break
            rates.append([])
            for candidate, piece in zip(candidates, pieces, strict=True):
                seconds = max(self._run(candidate, piece), 1e-9)
                measured.update(piece)
                rates[-1].append(sum(self._seconds(unit) for unit in piece) / seconds)
        chosen = choose(candidates, rates[1:])
        medians = map(statistics.median, zip(*rates[1:], strict=True))
        _logger.info(
            "--num_workers auto: %s; measured, in seconds of audio a second: %s",
            chosen,
            ", ".join(f"{one} {rate:.4g}" for one, rate in zip(candidates, medians, strict=True)),
        )
        return chosen, [unit for unit in units if unit not in measured]

    def _run(self, division: Division, units: Sequence[Unit]) -> float:
        began = time.perf_counter()
        seconds = embed_units(self._work, units, division)
        self.lane_seconds += (time.perf_counter() - began) * division.num_lanes
        return seconds

    def _seconds(self, unit: Unit) -> float:
        return sum(self._work.source.items[index].utterance.seconds for index in unit.indices)


def candidates_beside(usual: Division) -> list[Division]:
    """The usual division, fewer lanes of more threads each, and processes that decode."""
    candidates, threads = [usual], 2
    while threads <= usual.num_lanes:
        candidates.append(Division(usual.num_lanes // threads, threads, 0))
        threads *= 2
    return [*candidates, Division(usual.num_lanes, 1, max(1, usual.num_lanes // 4))]


def plan_rounds(
    units: Sequence[Unit], num_candidates: int, num_at_once: int
) -> list[list[list[Unit]]]:
    """Picks what is measured on, from all lengths of utterances.

    Args:
        units: of the export, sorted by length.
        num_candidates: to be measured.
        num_at_once: units that each embeds in a round.

    Returns:
        Rounds of one piece for each candidate, the pieces of a round of like lengths; none where
        the corpus is too small.
    """
    usable = [unit for unit in units if not unit.is_long]
    num_of_round = num_candidates * num_at_once
    if num_of_round * _NUM_ROUNDS > _MAX_SHARE * len(usable):
        return []
    rounds = []
    for number in range(_NUM_ROUNDS):
        middle = (2 * number + 1) * len(usable) // (2 * _NUM_ROUNDS)
        first = middle - num_of_round // 2
        group = usable[first : first + num_of_round]
        rounds.append([group[which::num_candidates] for which in range(num_candidates)])
    return rounds


def choose(candidates: Sequence[Division], rates: Sequence[Sequence[float]]) -> Division:
    """The fastest, or the first where no other is faster by more than chance.

    Other work on the machine slows a turn, not a candidate: each round is compared in itself.

    Args:
        candidates: the usual one first.
        rates: seconds of audio a second of each, round by round.
    """
    relative = [[rate / of_round[0] for rate in of_round] for of_round in rates]
    gains = [statistics.median(column) for column in zip(*relative, strict=True)]
    fastest = gains.index(max(gains))
    return candidates[fastest if gains[fastest] > _LEAST_GAIN else 0]

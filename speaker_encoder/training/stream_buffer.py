"""The utterances among which batches are drawn while a corpus of shards is read."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from speaker_encoder.corpora import Utterance

_CHOICE = 2
"""K are chosen, by their sessions, among so many times K, the oldest that were not used."""
_URGENT = 0.25
"""Who has an unused utterance in this oldest part of the buffer comes first."""
_NEVER = np.iinfo(np.int64).max


class StreamBuffer:
    """The utterances that came last of a stream; the oldest make room for those that come.

    Args:
        utterances: what indices refer to.
        groups: utterance index -> number of its speaker.
        sizes: (S,) utterances that each speaker has in all.
        batch: P and K.
        most: utterances in the buffer; at least P*K.
        generator: what is random is drawn from it.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        groups: Mapping[int, int],
        sizes: np.ndarray,
        batch: tuple[int, int],
        most: int,
        generator: np.random.Generator,
    ) -> None:
        self._utterances = utterances
        self._groups = groups
        self._needs = np.minimum(sizes, batch[1])
        self._batch = batch
        self._most = most
        self._generator = generator
        self._arrived: deque[int] = deque()
        self._number: dict[int, int] = {}
        self._num_arrived = 0
        self._members: list[list[int]] = [[] for _ in sizes]
        self._fresh: set[int] = set()
        self._num_held = np.zeros(len(sizes), dtype=np.int64)
        self._num_fresh = np.zeros(len(sizes), dtype=np.int64)
        self._oldest_fresh = np.full(len(sizes), _NEVER, dtype=np.int64)
        self._last_round = np.zeros(len(sizes), dtype=np.int64)
        self._round = 1
        self.num_speakers = 0

    def __len__(self) -> int:
        return len(self._arrived)

    @property
    def num_ready(self) -> int:
        """Speakers of whom there are K utterances, or all that they have."""
        return int((self._num_held >= self._needs).sum())

    def fill(self, stream: Iterator[int]) -> None:
        """Takes utterances until the buffer is full and has P speakers, or none are left."""
        for index in stream:
            self.admit((index,))
            if len(self) >= self._most and self.num_speakers >= self._batch[0]:
                return

    def admit(self, indices: Iterable[int]) -> None:
        """Takes utterances; where the buffer is full, as many leave it before."""
        for index in indices:
            if len(self) >= self._most:
                self._make_room()
            group = self._groups[index]
            self._arrived.append(index)
            self._number[index] = self._num_arrived
            self._num_arrived += 1
            self._members[group].append(index)
            self._fresh.add(index)
            if not self._num_fresh[group]:
                self._oldest_fresh[group] = self._number[index]
            self._num_fresh[group] += 1
            self._num_held[group] += 1
            self.num_speakers += int(self._num_held[group] == 1)

    def _make_room(self) -> None:
        """Lets the oldest utterance go.

        As long as there are no more than P speakers, none of them goes altogether: then it is the
        oldest one of who has most.
        """
        group = self._groups[self._arrived[0]]
        if self._num_held[group] > 1 or self.num_speakers > self._batch[0]:
            index = self._arrived.popleft()
        else:
            group = int(self._num_held.argmax())
            index = self._members[group][0]
            self._arrived.remove(index)
        self._members[group].remove(index)
        self._num_held[group] -= 1
        self.num_speakers -= int(self._num_held[group] == 0)
        if index in self._fresh:
            self._use(group, [index])

    def _use(self, group: int, indices: Sequence[int]) -> None:
        """Notes that utterances of a speaker are not new any more."""
        self._fresh.difference_update(indices)
        self._num_fresh[group] -= len(indices)
        oldest = next((index for index in self._members[group] if index in self._fresh), None)
        self._oldest_fresh[group] = _NEVER if oldest is None else self._number[oldest]

    def draw(self) -> list[int]:
        """Gives a batch: P runs of K utterances of one speaker each, all speakers different."""
        return [index for group in self._choose() for index in self._deal(group)]

    def _choose(self) -> list[int]:
        """Gives P speakers, at random of those who have enough and whose turn it is.

        It is the turn of who has an unused utterance that leaves the buffer soon, and then of
        each once before it is that of any again. Who has an unused one comes before who has none;
        where too few have enough, those are taken who have the most.
        """
        has_enough = self._num_held >= self._needs
        has_new = has_enough & (self._num_fresh > 0)
        wanted = self._batch[0]
        soon = self._num_arrived - len(self) + int(_URGENT * self._most)
        chosen = self._take(has_new & (self._oldest_fresh < soon), [], wanted)
        chosen += self._take(has_new & (self._last_round < self._round), chosen, wanted)
        if len(chosen) < wanted:
            self._round += 1
        for pool in (has_new, has_enough):
            chosen += self._take(pool, chosen, wanted)
        if len(chosen) < wanted:
            counts = self._num_held + self._generator.random(len(self._num_held))
            counts[chosen] = 0
            chosen += np.argsort(-counts)[: wanted - len(chosen)].tolist()
        self._last_round[chosen] = self._round
        return chosen

    def _take(self, pool: np.ndarray, chosen: list[int], wanted: int) -> list[int]:
        """Gives what is missing of P speakers, at random from a pool (S,)."""
        if len(chosen) == wanted:
            return []
        pool = pool.copy()
        pool[chosen] = False
        found = self._generator.permutation(np.flatnonzero(pool))
        return found[: wanted - len(chosen)].tolist()

    def _deal(self, group: int) -> list[int]:
        """Gives K utterances of a speaker: those not used yet first, repeated where too few."""
        wanted = self._batch[1]
        members = self._members[group]
        fresh = [index for index in members if index in self._fresh][: _CHOICE * wanted]
        fresh = self._spread(fresh)[:wanted]
        used = [index for index in members if index not in self._fresh]
        again = self._generator.permutation(np.array(used, dtype=np.int64)).tolist()
        self._use(group, fresh)
        return np.resize(fresh + self._spread(again)[: wanted - len(fresh)], wanted).tolist()

    def _spread(self, indices: Sequence[int]) -> list[int]:
        """Orders utterances so that their sessions take turns."""
        turns: Counter[str | None] = Counter()
        keyed = []
        for index in indices:
            session = self._utterances[index].session_id
            keyed.append((turns[session], index))
            turns[session] += 1
        return [index for _, index in sorted(keyed, key=lambda pair: pair[0])]

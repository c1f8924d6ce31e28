"""Which utterances make up each batch: P speakers x K utterances, from the seed alone."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from speaker_encoder.corpora import Utterance
from speaker_encoder.errors import UserError
from speaker_encoder.training.replay import mix

FEW_UTTERANCES = ("repeat", "drop", "error")
_SAMPLER_STREAM = 1  # sets these random numbers apart from those of crops and augmentation
_CAP_STREAM = 5
_REPLAY_STREAM = 6

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExampleKey:
    """One crop to be made: which utterance, and its number among all examples of the run.

    Everything random about the example is drawn from (seed, position).
    """

    utterance: int
    position: int


def group_by_speaker(utterances: Sequence[Utterance]) -> dict[str, list[int]]:
    """Gives each speaker's utterance indices, speakers and indices in sorted order."""
    speakers: dict[str, list[int]] = {}
    for index, utterance in enumerate(utterances):
        speakers.setdefault(utterance.speaker_id, []).append(index)
    return dict(sorted(speakers.items()))


def choose_speakers(
    utterances: Sequence[Utterance],
    speakers_per_batch: int,
    utterances_per_speaker: int,
    few_utterances: str,
    split: str,
) -> dict[str, list[int]]:
    """Gives the speakers that batches are drawn from, and says who has too few utterances.

    Args:
        utterances: all utterances of the split.
        speakers_per_batch: P.
        utterances_per_speaker: K.
        few_utterances: what happens to a speaker with fewer than K utterances: `repeat` them
            with other crops, `drop` the speaker, or `error`.
        split: "training", "replay" or "validation", for messages.

    Returns:
        Utterance indices by speaker.

    Raises:
        UserError: a speaker has too few utterances and that is an error, or fewer than P
            speakers are left.
    """
    speakers = group_by_speaker(utterances)
    few = {
        name: len(members)
        for name, members in speakers.items()
        if len(members) < utterances_per_speaker
    }
    if few:
        shown = ", ".join(f"{name} ({count})" for name, count in itertools.islice(few.items(), 20))
        rest = f" and {len(few) - 20} more" if len(few) > 20 else ""
        wanted = f"{len(few)} {split} speakers have fewer than {utterances_per_speaker} utterances"
        if few_utterances == "error":
            raise UserError(
                f"{wanted}: {shown}{rest}. Add recordings, lower utterances_per_speaker, or set "
                'few_utterances to "repeat" or "drop".'
            )
        _logger.info("%s (few_utterances: %s): %s%s", wanted, few_utterances, shown, rest)
        if few_utterances == "drop":
            speakers = {name: members for name, members in speakers.items() if name not in few}
    if len(speakers) < speakers_per_batch:
        keys = {"validation": "val_speakers_per_batch", "replay": "replay_share"}
        raise UserError(
            f"A {split} batch needs {speakers_per_batch} different speakers, found "
            f"{len(speakers)}. Add speakers, or lower {keys.get(split, 'speakers_per_batch')}."
        )
    return speakers


class _Cycler:
    """Deals items one by one: each once per round, in a new order each round."""

    def __init__(self, groups: Sequence[Sequence[int]], generator: np.random.Generator) -> None:
        self._groups = groups
        self._generator = generator
        self._queue: deque[int] = deque()
        self._size = sum(len(group) for group in groups)

    def _shuffled(self) -> list[int]:
        """Gives one round; members of the same group (session) are spread as far as they go."""
        rows = [list(self._generator.permutation(group)) for group in self._groups]
        order = self._generator.permutation(len(rows))
        turns = itertools.zip_longest(*(rows[i] for i in order))
        return [int(item) for turn in turns for item in turn if item is not None]

    def deal(self, count: int) -> list[int]:
        """Gives `count` items, all different as far as there are that many."""
        dealt: list[int] = []
        postponed: list[int] = []
        while len(dealt) < count:
            if not self._queue:
                self._queue.extend(self._shuffled())
            item = self._queue.popleft()
            if dealt.count(item) > len(dealt) // self._size:
                postponed.append(item)
            else:
                dealt.append(item)
        self._queue.extendleft(reversed(postponed))
        return dealt


def _sessions(utterances: Sequence[Utterance], members: Sequence[int]) -> list[list[int]]:
    """Gives the utterance indices of one speaker by session; one group when none is known."""
    sessions: dict[str, list[int]] = {}
    for index in members:
        sessions.setdefault(utterances[index].session_id or "", []).append(index)
    return [sessions[name] for name in sorted(sessions)]


def plan_batches(
    utterances: Sequence[Utterance],
    speakers: dict[str, list[int]],
    speakers_per_batch: int,
    utterances_per_speaker: int,
    generator: np.random.Generator,
) -> Iterator[list[int]]:
    """Gives batch after batch without end: utterance indices, P runs of K of one speaker each.

    All speakers come up once before any comes up again, and so do all utterances of a speaker;
    a speaker never comes up twice in a batch.
    """
    members = list(speakers.values())
    speaker_cycler = _Cycler([range(len(members))], generator)
    utterance_cyclers: dict[int, _Cycler] = {}

    def deal(speaker: int) -> list[int]:
        if len(members[speaker]) == 1:
            return members[speaker] * utterances_per_speaker
        if speaker not in utterance_cyclers:
            sessions = _sessions(utterances, members[speaker])
            utterance_cyclers[speaker] = _Cycler(sessions, generator)
        return utterance_cyclers[speaker].deal(utterances_per_speaker)

    while True:
        dealt = speaker_cycler.deal(speakers_per_batch)
        yield [index for speaker in dealt for index in deal(speaker)]


class SpeakerBatchSampler(Sampler[ExampleKey]):
    """A flat sampler whose order is P x K groups, for a DataLoader with batch size P*K or a part.

    An epoch is `num_utterances // (P*K)` batches, at least one. With a replay corpus a batch has R
    speakers of it, its last ones, and an epoch, which is one of the training corpus, is
    `num_utterances // ((P-R)*K)` batches. What comes in epoch e is a
    function of the seed and e; an epoch that is not the next one is reached by dealing again from
    the start, which costs microseconds per batch.

    Args:
        utterances: what indices refer to.
        speakers: utterance indices by speaker; of views, by utterance.
        speakers_per_batch: P.
        utterances_per_speaker: K.
        seed: of the run.
        max_utterances_per_speaker: of one epoch, rounded down to a multiple of K; which ones is
            drawn anew for each epoch. None: no limit.
        is_of_views: each "speaker" is one utterance, which comes up once an epoch, K times in
            its batch.
        replayed: which of `speakers` are of the replay corpus.
        replay_per_batch: R.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        speakers: dict[str, list[int]],
        speakers_per_batch: int,
        utterances_per_speaker: int,
        seed: int,
        max_utterances_per_speaker: int | None = None,
        is_of_views: bool = False,
        replayed: frozenset[str] = frozenset(),
        replay_per_batch: int = 0,
    ) -> None:
        self._utterances = utterances
        self._speakers = {n: members for n, members in speakers.items() if n not in replayed}
        self._replayed = {n: members for n, members in speakers.items() if n in replayed}
        self._size = (speakers_per_batch - replay_per_batch, utterances_per_speaker)
        self._replay_size = (replay_per_batch, utterances_per_speaker)
        self._seed = seed
        self._cap = None
        if max_utterances_per_speaker is not None:
            rounds = max(1, max_utterances_per_speaker // utterances_per_speaker)
            self._cap = rounds * utterances_per_speaker
        self.batch_size = speakers_per_batch * utterances_per_speaker
        counts = [len(members) for members in self._speakers.values()]
        if is_of_views:
            counts = [utterances_per_speaker] * len(counts)
        num_examples = sum(min(count, self._cap or count) for count in counts)
        self.batches_per_epoch = max(1, num_examples // (self._size[0] * self._size[1]))
        self._epoch = 0
        self._plan = self._plan_from(0)
        self._next_batch = 0

    def __len__(self) -> int:
        return self.batches_per_epoch * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration gives."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[ExampleKey]:
        first = self._epoch * self.batches_per_epoch
        if self._cap is not None or first != self._next_batch:
            self._plan = self._plan_from(first)
        self._next_batch = -1  # an iteration that is left half-way must not be gone on from
        for batch in range(first, first + self.batches_per_epoch):
            for place, utterance in enumerate(next(self._plan)):
                yield ExampleKey(utterance, batch * self.batch_size + place)
        self._next_batch = first + self.batches_per_epoch

    def _plan_from(self, first: int) -> Iterator[list[int]]:
        """Gives the batches from number `first` on; with a limit, those of the epoch alone."""
        batches = self._plan_training(first)
        if not self._replayed:
            return batches
        generator = np.random.default_rng([self._seed, _REPLAY_STREAM])
        parts = plan_batches(self._utterances, self._replayed, *self._replay_size, generator)
        return mix(batches, itertools.islice(parts, first, None))

    def _plan_training(self, first: int) -> Iterator[list[int]]:
        if self._cap is None:
            generator = np.random.default_rng([self._seed, _SAMPLER_STREAM])
            plan = plan_batches(self._utterances, self._speakers, *self._size, generator)
            return itertools.islice(plan, first, None)
        generator = np.random.default_rng([self._seed, _CAP_STREAM, self._epoch])
        chosen = self._chosen(generator)
        return plan_batches(self._utterances, chosen, *self._size, generator)

    def _chosen(self, generator: np.random.Generator) -> dict[str, list[int]]:
        """Gives the utterances of an epoch, where a speaker has a limit of them."""
        return {
            name: generator.permutation(members)[: self._cap].tolist()
            for name, members in self._speakers.items()
        }

"""The order of P x K batches from shards: nearly as the shards are read, mixed in a buffer."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from speaker_encoder.audio.member import Member, find_member
from speaker_encoder.corpora import Utterance
from speaker_encoder.training.sampler import SpeakerBatchSampler
from speaker_encoder.training.stream_buffer import StreamBuffer

RUN_UTTERANCES = 128
"""Neighbours in a tar that are read one after the other; of a parquet file, a row group."""
_STREAM = 7  # sets these random numbers apart from those of other samplers, crops, augmentation
_FEWEST_TURNS = 2

_logger = logging.getLogger(__name__)


def is_streamed(utterances: Sequence[Utterance], indices: Sequence[int]) -> bool:
    """Whether all of these recordings lie in shards.

    Args:
        utterances: what indices refer to.
        indices: of those that are meant.
    """
    return all(find_member(utterances[index].path) is not None for index in indices)


def runs_of(utterances: Sequence[Utterance], indices: Sequence[int]) -> list[list[int]]:
    """Gives utterances in the order of their shards, in runs that lie one behind the other.

    Args:
        utterances: what indices refer to; all in shards.
        indices: of those wanted.
    """
    placed: list[tuple[Member, int]] = []
    for index in indices:
        member = find_member(utterances[index].path)
        assert member is not None
        placed.append((member, index))
    runs: list[list[int]] = []
    group: tuple[str, int] | None = None
    for member, index in sorted(placed):
        own = (member.shard, member.first if member.is_row else -1)
        if own != group or (not member.is_row and len(runs[-1]) == RUN_UTTERANCES):
            runs.append([])
            group = own
        runs[-1].append(index)
    return runs


class StreamedBatchSampler(SpeakerBatchSampler):
    """P x K batches of utterances in shards, from a buffer through which the corpus is moved.

    An epoch moves all runs of the shards, in an order of its own, through a buffer of so many
    utterances; a batch is drawn from the speakers in it. The buffer holds no audio: it says how
    near to each other in the shards the utterances of neighbouring batches are. An epoch is a
    function of (utterances, seed, epoch) alone, and has as many batches as one from memory.

    Args:
        utterances: what indices refer to; those that are not replayed lie in shards.
        speakers: as of `SpeakerBatchSampler`.
        speakers_per_batch: P.
        utterances_per_speaker: K.
        seed: of the run.
        shuffle_buffer: most utterances in the buffer, at least P*K.
        keywords: the others of `SpeakerBatchSampler`.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        speakers: dict[str, list[int]],
        speakers_per_batch: int,
        utterances_per_speaker: int,
        seed: int,
        *,
        shuffle_buffer: int,
        **keywords: Any,
    ) -> None:
        self._buffer_size = shuffle_buffer
        super().__init__(
            utterances, speakers, speakers_per_batch, utterances_per_speaker, seed, **keywords
        )
        members = [index for group in self._speakers.values() for index in group]
        self._runs = runs_of(utterances, members)
        self._groups = {
            index: number for number, group in enumerate(self._speakers.values()) for index in group
        }

    def _plan_training(self, first: int) -> Iterator[list[int]]:
        for epoch in itertools.count(first // self.batches_per_epoch):
            yield from self.plan_epoch(epoch)

    def plan_epoch(self, epoch: int) -> Iterator[list[int]]:
        """Gives the batches of an epoch: utterance indices, P runs of K of one speaker each.

        Args:
            epoch: its number, from 0.
        """
        buffer, stream, length = self._start(epoch)
        step = -(-length // self.batches_per_epoch)
        for number in range(1, self.batches_per_epoch + 1):
            yield buffer.draw()
            # The first ones stay as long as the others: half of a buffer is used before it moves.
            num_passed = number * step - self._buffer_size // 2
            buffer.admit(itertools.islice(stream, max(0, min(step, num_passed))))

    def _start(self, epoch: int) -> tuple[StreamBuffer, Iterator[int], int]:
        """Gives the filled buffer, what comes after it, and how long both are together."""
        generator = np.random.default_rng([self._seed, _STREAM, epoch])
        kept = set(self._groups)
        if self._cap is not None:
            kept = set(itertools.chain(*self._chosen(generator).values()))
        order = generator.permutation(len(self._runs))
        stream = (
            index
            for run in order
            for index in generator.permutation(self._runs[run]).tolist()
            if index in kept
        )
        sizes = np.array([len(members) for members in self._speakers.values()])
        buffer = StreamBuffer(
            self._utterances, self._groups, sizes, self._size, self._buffer_size, generator
        )
        buffer.fill(stream)
        return buffer, stream, len(kept)

    def explain(self) -> None:
        """Says in the log how well the buffer mixes, and what to do where it does not."""
        buffer, _, length = self._start(0)
        size, num_utterances = self._size
        found, ready = buffer.num_speakers, buffer.num_ready
        _logger.info(
            "shuffle_buffer: %d of %d utterances, %d of %d speakers at a time, %d of them with "
            "%d utterances",
            *(len(buffer), length, found, len(self._speakers), ready, num_utterances),
        )
        if ready >= _FEWEST_TURNS * size:
            return
        wanted = length
        if ready:
            wanted = min(length, _FEWEST_TURNS * self._buffer_size * size // ready)
        in_runs = [len({self._groups[index] for index in run}) for run in self._runs]
        _logger.warning(
            "shuffle_buffer %d holds %d speakers with %d utterances, a batch has %d: batches "
            "will be much alike, or repeat utterances. %d neighbours in a shard are of %.1f "
            "speakers on average. Raise shuffle_buffer to about %d, or write the shards anew with "
            "`speaker-encoder prepare folders --shards`, which mixes them.",
            *(self._buffer_size, ready, num_utterances, size),
            *(max(map(len, self._runs)), float(np.mean(in_runs)), wanted),
        )

"""Embeds units side by side: lanes that embed, and processes that decode for them."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from speaker_encoder.audio import resampled_num_samples
from speaker_encoder.export.decoding import UnitLoader
from speaker_encoder.export.embedding import EmbeddedUnit, Embedder
from speaker_encoder.export.engines import Engine
from speaker_encoder.export.options import ExportOptions
from speaker_encoder.export.planning import Unit
from speaker_encoder.export.source import Source

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder


@dataclass(frozen=True)
class Work:
    """What all units of an export share.

    Attributes:
        encoder: on its device.
        engine: computes its embeddings.
        source: the corpus.
        options: of the export.
        consume: called in the caller's thread with each unit and its result.
    """

    encoder: SpeakerEncoder
    engine: Engine
    source: Source
    options: ExportOptions
    consume: Callable[[Unit, EmbeddedUnit], None]


@dataclass(frozen=True, slots=True)
class Division:
    """How the work of an export is divided over the processors.

    Attributes:
        num_lanes: units that are embedded side by side, by one process and with one encoder.
        num_threads: torch's in each lane.
        num_workers: processes that decode; 0: the lanes decode for themselves.
    """

    num_lanes: int
    num_threads: int
    num_workers: int

    def __str__(self) -> str:
        def count(number: int, what: str, more: str) -> str:
            return f"{number} {what if number == 1 else more}"

        text = count(self.num_lanes, "lane", "lanes")
        text += f" of {count(self.num_threads, 'thread', 'threads')}"
        if self.num_workers:
            text += f" and {count(self.num_workers, 'process', 'processes')} that decode"
        return text


def usual_division(encoder: SpeakerEncoder, options: ExportOptions) -> Division:
    """The division that is taken unmeasured.

    On a CPU, lanes of one thread each embed side by side: two threads on two utterances are
    faster than two threads on one, and what a lane computes does not depend on how many there are.
    """
    import torch

    num_threads = torch.get_num_threads()
    is_cpu = encoder.device.type == "cpu"
    lanes, threads = (num_threads, 1) if is_cpu else (1, num_threads)
    if isinstance(options.num_workers, int):
        return Division(lanes, threads, options.num_workers)
    if is_cpu:
        return Division(lanes, threads, 0)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return Division(lanes, threads, max(1, min(8, (os.cpu_count() or 1) // local - 1)))


def embed_units(work: Work, units: Sequence[Unit], division: Division) -> float:
    """Embeds units and hands each result over, in their order.

    Args:
        work: what they share.
        units: what to embed.
        division: of the work.

    Returns:
        Seconds from the first unit that is there to be embedded to the last that is consumed.
    """
    rate = work.encoder.sampling_rate
    least = work.encoder.min_num_samples
    loader = UnitLoader(work.source, units, work.options, rate, least)
    embedder = Embedder(work.encoder, work.engine, loader, work.options)
    with (
        _threads_of_a_lane(division.num_threads),
        ThreadPoolExecutor(division.num_lanes) as pool,
    ):

        def start(number: int, loaded: Any) -> Future[EmbeddedUnit]:
            """Gives a unit to the next lane that is free."""

            def embed() -> EmbeddedUnit:
                """Embeds it there, and loads it before where no process has."""
                _, waveforms, failures = loader[number] if loaded is None else loaded
                longest = work.source.items[units[number].indices[0]].utterance
                length = resampled_num_samples(longest.num_samples, longest.sampling_rate, rate)
                return embedder.embed(units[number], length, (waveforms, failures))

            return pool.submit(embed)

        pending: deque[tuple[int, Future[EmbeddedUnit]]] = deque()
        arriving = _load(loader, division.num_workers)
        first = list(islice(arriving, 1))
        began = time.perf_counter()
        for number, loaded in chain(first, arriving):
            pending.append((number, start(number, loaded)))
            while len(pending) > division.num_lanes + 1:
                done, future = pending.popleft()
                work.consume(units[done], future.result())
        for done, future in pending:
            work.consume(units[done], future.result())
        return time.perf_counter() - began


def _load(loader: UnitLoader, num_workers: int) -> Iterator[tuple[int, Any]]:
    """(number of the unit, what was loaded of it); None where the lane shall load it itself."""
    if num_workers == 0:
        yield from ((number, None) for number in range(len(loader)))
        return
    from torch.utils.data import DataLoader

    batches: Iterable[Any] = DataLoader(
        loader,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        prefetch_factor=2,
    )
    for loaded in batches:
        yield loaded[0], loaded


def _as_it_is(loaded: Any) -> Any:
    return loaded


@contextmanager
def _threads_of_a_lane(num_threads: int) -> Iterator[None]:
    """Says how many of torch's threads compute for each thread that is started inside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

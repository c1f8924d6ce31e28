"""How far an export is: utterances a second, times real time, time left."""

from __future__ import annotations

import logging
import sys
import time

from speaker_encoder.export.options import ExportOptions
from speaker_encoder.export.planning import Unit
from speaker_encoder.export.processes import Processes
from speaker_encoder.export.source import Source
from speaker_encoder.export.store import Store

_logger = logging.getLogger(__name__)


class Progress:
    """Utterances a second, times real time, time left."""

    def __init__(self, total: int, is_shown: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc="embedding", unit="utt", disable=not is_shown)
        self._seconds = 0.0
        self._start = time.perf_counter()

    def advance(self, count: int, seconds: float) -> None:
        """Counts utterances and their audio."""
        self._seconds += seconds
        wall = max(time.perf_counter() - self._start, 1e-6)
        self._bar.set_postfix_str(f"{self._seconds / wall:.0f}x real time", refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


def progress_bar(
    source: Source, left: list[Unit], store: Store, options: ExportOptions, processes: Processes
) -> Progress:
    """Says what is there already, and gives the bar of the main process."""
    is_shown = sys.stderr.isatty() if options.show_progress is None else options.show_progress
    total = sum(len(unit.indices) for unit in left)
    done = sum(store.has(item) for item in source.items)
    if processes.is_main:
        _logger.info(
            "%d utterances, layout %s; %d are there already",
            len(source.items), source.layout, done,
        )  # fmt: skip
    return Progress(total, is_shown and processes.is_main)

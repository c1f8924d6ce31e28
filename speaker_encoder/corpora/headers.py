"""Reads the headers of many audio files in parallel, through the cache."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from speaker_encoder.audio import AudioError, read_info
from speaker_encoder.corpora.cache import Header, HeaderCache
from speaker_encoder.corpora.layouts import Candidate

DEFAULT_NUM_WORKERS = 8
_FILES_PER_TASK = 64
# What may change without a trace in the size and the time of the file.
_NOT_CACHED = ("no permission to read it", "no such file", "broken link", "cannot be read")


def read_headers(
    candidates: Sequence[Candidate],
    cache: HeaderCache | None,
    *,
    num_workers: int | None = None,
    show_progress: bool | None = None,
) -> list[Header]:
    """The header of each candidate, in their order.

    Args:
        candidates: the files.
        cache: where headers are looked up and stored; None reads them all.
        num_workers: threads; reading waits for the disk more than it computes.
        show_progress: a progress bar on stderr; None shows it on a terminal only.
    """
    headers: list[Header | None] = [
        cache.get(file.path, file.size, file.mtime_ns) if cache else None for file in candidates
    ]
    missing = [index for index, header in enumerate(headers) if header is None]
    tasks = [missing[i : i + _FILES_PER_TASK] for i in range(0, len(missing), _FILES_PER_TASK)]

    def read_task(indices: list[int]) -> list[Header]:
        return [_read_header(candidates[index].path) for index in indices]

    from tqdm import tqdm

    if show_progress is None:
        show_progress = sys.stderr.isatty()
    with (
        ThreadPoolExecutor(num_workers or DEFAULT_NUM_WORKERS) as pool,
        tqdm(total=len(missing), desc="Reading headers", unit="file", disable=not show_progress)
        as progress,
    ):  # fmt: skip
        for indices, read in zip(tasks, pool.map(read_task, tasks), strict=True):
            for index, header in zip(indices, read, strict=True):
                headers[index] = header
                file = candidates[index]
                if cache and header.reason not in _NOT_CACHED:
                    cache.put(file.path, file.size, file.mtime_ns, header)
            progress.update(len(indices))
    if cache:
        cache.save()
    return [header for header in headers if header is not None]


def _read_header(path: str) -> Header:
    try:
        return Header(read_info(path))
    except AudioError as error:
        return Header(None, error.reason, error.detail)

"""Embeds the utterances of trials, each once, as a protocol says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio import (
    AudioError,
    AudioInfo,
    fit_to_length,
    read_audio,
    read_info,
    resampled_num_samples,
)
from speaker_encoder.errors import UserError
from speaker_encoder.verification.embedding_cache import EmbeddingCache
from speaker_encoder.verification.protocols import Protocol

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

_NUM_READERS = 2
_MAX_SHOWN = 5
_READ_WHOLE_SECONDS = 60.0
Waveform = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class UtteranceVectors:
    """The embeddings of U utterances.

    Attributes:
        vectors: (U, K, D) float32, each (D,) L2-normalised; K is 1 but for several crops.
        seconds: (U,) length of each utterance; None where it is not known.
        norms: (U,) L2 norm of the embedding as the model gives it, the mean over the parts of an
            utterance; None where it is not known.
        num_computed: how many were not in the cache.
    """

    vectors: NDArray[np.float32]
    seconds: NDArray[np.float64] | None
    norms: NDArray[np.float64] | None
    num_computed: int = 0

    def means(self) -> NDArray[np.float32]:
        """(U, D): one embedding of each utterance, not normalised where there are several crops."""
        return self.vectors.mean(axis=1)


def embed_files(
    encoder: SpeakerEncoder,
    paths: Sequence[str],
    *,
    protocol: Protocol,
    batch_size: int = 16,
    cache: EmbeddingCache | None = None,
    label: Callable[[int], str] | None = None,
    show_progress: bool | None = None,
) -> UtteranceVectors:
    """Embeds audio files.

    Args:
        encoder: in eval mode, on its device.
        paths: U files.
        protocol: what of an utterance is embedded.
        batch_size: parts embedded at once; it does not change the embeddings.
        cache: of this model and protocol, with rows of ``row_width``.
        label: how an error names a file, by its position; None: its path.
        show_progress: a progress bar on stderr; None: on a terminal only.

    Returns:
        The embeddings in the order of ``paths``.

    Raises:
        UserError: files that cannot be read, or are too short for the encoder.
    """
    num_vectors = protocol.num_crops
    rows = np.empty((len(paths), row_width(encoder, protocol)), dtype=np.float32)
    known = cache.get(paths) if cache is not None else {}
    for index, row in known.items():
        rows[index] = row
    missing = [index for index in range(len(paths)) if index not in known]
    if missing:
        work = _Work(encoder, paths, protocol, batch_size, label or (lambda index: paths[index]))
        for part in work.run(missing, show_progress):
            for index, row in part:
                rows[index] = row
            if cache is not None:
                cache.add((paths[index], row) for index, row in part)
        if cache is not None:
            cache.close()
    vectors = rows[:, 2:].reshape(len(paths), num_vectors, encoder.embedding_dim)
    seconds, norms = rows[:, 0].astype(np.float64), rows[:, 1].astype(np.float64)
    return UtteranceVectors(vectors, seconds, norms, len(missing))


def row_width(encoder: SpeakerEncoder, protocol: Protocol) -> int:
    """Values that are kept of an utterance: seconds, norm and K embeddings."""
    return 2 + protocol.num_crops * encoder.embedding_dim


class _Work:
    """Reads and embeds files that are not cached."""

    def __init__(
        self,
        encoder: SpeakerEncoder,
        paths: Sequence[str],
        protocol: Protocol,
        batch_size: int,
        label: Callable[[int], str],
    ) -> None:
        if batch_size < 1:
            raise UserError(f"--batch_size must be at least 1, found {batch_size}.")
        self._encoder = encoder
        self._paths = paths
        self._protocol = protocol
        self._batch_size = batch_size
        self._label = label
        self._rate = encoder.sampling_rate
        self._lengths: dict[int, int] = {}
        self._seconds: dict[int, float] = {}
        least = protocol.seconds
        if 0 < least * self._rate < encoder.min_num_samples:
            raise UserError(
                f"--protocol {protocol}: this encoder needs at least "
                f"{encoder.min_num_samples / self._rate:.3f} s, found {least:g} s."
            )

    def run(
        self, indices: Sequence[int], show_progress: bool | None
    ) -> Iterator[list[tuple[int, NDArray[np.float32]]]]:
        """Gives the rows of a few files after the other."""
        import torch
        from tqdm.auto import tqdm

        from speaker_encoder.modeling.encoding import MAX_BATCH_SECONDS, plan_batches

        self._read_headers(indices)
        lengths = [self._lengths[index] for index in indices]
        longest = int(MAX_BATCH_SECONDS * self._rate)
        groups = [
            [indices[i] for i in batch]
            for batch in plan_batches(lengths, self._batch_size, longest)
        ]
        is_shown = sys.stderr.isatty() if show_progress is None else show_progress
        with (
            tqdm(
                total=len(indices), desc="embedding", unit="utterance", disable=not is_shown
            ) as bar,
            ThreadPoolExecutor(_NUM_READERS) as pool,
            torch.inference_mode(),
        ):
            for group, parts in _ahead(pool, self._read_group, groups):
                yield self._embed_group(group, parts)
                bar.update(len(group))

    def _read_headers(self, indices: Sequence[int]) -> None:
        """Learns the lengths; everything that is wrong with the files comes in one message.

        Raises:
            UserError: a file cannot be read or is too short.
        """
        problems = []
        with ThreadPoolExecutor(8) as pool:
            for index, found in zip(indices, pool.map(self._header, indices), strict=True):
                if isinstance(found, str):
                    problems.append(f"{self._label(index)}: {found}")
                    continue
                samples = resampled_num_samples(found.num_samples, found.sampling_rate, self._rate)
                self._lengths[index] = samples
                self._seconds[index] = found.seconds
                needed = self._encoder.min_num_samples
                if samples < needed and not self._protocol.crop_samples(self._rate):
                    problems.append(
                        f"{self._label(index)}: {samples / self._rate:.3f} s, but this encoder "
                        f"needs at least {needed / self._rate:.3f} s"
                    )
        if problems:
            shown = problems[:_MAX_SHOWN]
            if len(problems) > len(shown):
                shown.append(f"and {len(problems) - len(shown)} more")
            raise UserError(
                f"{len(problems)} audio files cannot be embedded:\n  " + "\n  ".join(shown)
            )

    def _header(self, index: int) -> AudioInfo | str:
        try:
            return read_info(self._paths[index])
        except AudioError as error:
            return error.reason + (f" ({error.detail})" if error.detail else "")

    def _read_group(self, group: Sequence[int]) -> list[list[Waveform]]:
        return [self._read(index) for index in group]

    def _read(self, index: int) -> list[Waveform]:
        """The parts of a file that are embedded, each (T,)."""
        path, num_samples = self._paths[index], self._lengths[index]
        try:
            if num_samples > _READ_WHOLE_SECONDS * self._rate:
                segments = self._protocol.segments(num_samples, self._rate)
                parts = [
                    read_audio(path, self._rate, start=start, num_samples=stop - start)
                    for start, stop in segments
                ]
            else:
                waveform = read_audio(path, self._rate)
                segments = self._protocol.segments(len(waveform), self._rate)
                parts = [waveform[start:stop] for start, stop in segments]
        except AudioError as error:
            raise UserError(f"{self._label(index)}: {error}") from error
        crop = self._protocol.crop_samples(self._rate)
        parts = [fit_to_length(p, crop, "repeat") if 0 < len(p) < crop else p for p in parts]
        if min(map(len, parts)) < self._encoder.min_num_samples:
            raise UserError(f"{self._label(index)}: too short for this encoder.")
        return parts

    def _embed_group(
        self, group: Sequence[int], parts: list[list[Waveform]]
    ) -> list[tuple[int, NDArray[np.float32]]]:
        import torch
        from torch.nn.functional import normalize

        from speaker_encoder.modeling.encoding import (
            MAX_BATCH_SECONDS,
            forward_batch,
            plan_batches,
        )
        from speaker_encoder.modeling.windows import mean_embedding

        flat = [segment for segments in parts for segment in segments]
        raw = torch.empty(len(flat), self._encoder.embedding_dim)
        longest = int(MAX_BATCH_SECONDS * self._rate)
        for batch in plan_batches([len(s) for s in flat], self._batch_size, longest):
            raw[batch] = forward_batch(self._encoder, [flat[i] for i in batch]).cpu()
        unit, norms = normalize(raw, dim=-1), raw.norm(dim=-1)
        rows, start = [], 0
        for index, segments in zip(group, parts, strict=True):
            own = slice(start, start + len(segments))
            start += len(segments)
            if not bool(torch.isfinite(raw[own]).all()):
                raise UserError(f"{self._label(index)}: the encoder's embedding is not finite.")
            if self._protocol.kind == "crops":
                vectors = unit[own].expand(self._protocol.num_crops, -1).numpy()
            else:
                vectors = mean_embedding(unit[own]).numpy()
            head = np.array([self._seconds[index], float(norms[own].mean())], dtype=np.float32)
            rows.append((index, np.concatenate([head, vectors.reshape(-1)]).astype(np.float32)))
        return rows


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[Sequence[int]], Any], groups: Sequence[list[int]]
) -> Iterator[tuple[list[int], Any]]:
    """Gives each group with what was read of it, while the next ones are being read."""
    waiting: list[tuple[list[int], Future[Any]]] = []
    for group in groups:
        waiting.append((group, pool.submit(read, group)))
        if len(waiting) > _NUM_READERS:
            first, future = waiting.pop(0)
            yield first, future.result()
    for group, future in waiting:
        yield group, future.result()

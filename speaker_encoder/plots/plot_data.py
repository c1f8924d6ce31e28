"""What `speaker-encoder plot` draws: embeddings with their speakers and, where known, audio."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from speaker_encoder.corpora import Corpus
    from speaker_encoder.verification.sources import StoredEmbeddings


@dataclass(frozen=True, eq=False)
class PlotData:
    """Embeddings of utterances.

    Attributes:
        utterance_ids: N.
        speaker_ids: N.
        paths: N paths of audio, each None where there is none.
        embeddings: (N, D) float32, finite.
        left_out: reason -> number of utterances that could not be used.
    """

    utterance_ids: list[str]
    speaker_ids: list[str]
    paths: list[str | None]
    embeddings: NDArray[np.float32]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.utterance_ids)

    @property
    def speakers(self) -> list[str]:
        """The speakers, sorted."""
        return sorted(set(self.speaker_ids))

    def take(self, positions: Sequence[int]) -> PlotData:
        """Some of the utterances."""
        return replace(
            self,
            utterance_ids=[self.utterance_ids[i] for i in positions],
            speaker_ids=[self.speaker_ids[i] for i in positions],
            paths=[self.paths[i] for i in positions],
            embeddings=self.embeddings[np.array(positions, dtype=np.int64)],
        )


def embed_corpus_for_plot(
    model: str,
    data_root: str,
    *,
    layout: str = "auto",
    device: str = "best",
    batch_size: int = 16,
    max_speakers: int | None = None,
    max_utterances: int | None = None,
    seed: int = 42,
) -> PlotData:
    """Embeds a corpus, or a sample of its speakers and utterances; embeddings are cached.

    Args:
        model: name, Hub id or place of an encoder.
        data_root: the corpus.
        layout: of `corpora.LAYOUTS`, or auto.
        device: cpu, cuda, cuda:<number> or best.
        batch_size: utterances embedded at once.
        max_speakers: the most speakers; None for all.
        max_utterances: the most utterances of a speaker; None for all.
        seed: of the sample.

    Returns:
        The embeddings, sorted by utterance.

    Raises:
        UserError: no corpus, no such model, or nothing that is long enough for it.
    """
    from speaker_encoder.corpora import scan
    from speaker_encoder.verification.systems import EncoderSource

    corpus = scan(data_root, layout)
    left_out = dict(corpus.summary().exclusions)
    source = EncoderSource(model, device=device, batch_size=batch_size)
    least_seconds = source.encoder.min_num_samples / source.encoder.sampling_rate
    utterances = [item for item in corpus.utterances if item.seconds >= least_seconds]
    if not utterances:
        raise UserError(
            f"All {len(corpus.utterances)} utterances of {data_root} are shorter than the "
            f"{least_seconds:.3f} s that {model} needs."
        )
    if len(utterances) < len(corpus.utterances):
        left_out["too short for the model"] = len(corpus.utterances) - len(utterances)
    chosen = choose(
        [item.speaker_id for item in utterances], max_speakers, max_utterances, seed=seed
    )
    utterances = [utterances[i] for i in chosen]
    paths = [item.path for item in utterances]
    vectors = source.embed(paths, paths, lambda index: paths[index])
    return _finite(
        PlotData(
            [item.utterance_id for item in utterances],
            [item.speaker_id for item in utterances],
            list(paths),
            vectors.means(),
            left_out,
        )
    )


def read_for_plot(
    path: str,
    data_root: str | None = None,
    *,
    layout: str = "auto",
    max_speakers: int | None = None,
    max_utterances: int | None = None,
    seed: int = 42,
) -> PlotData:
    """Reads embeddings that `speaker-encoder embed` wrote.

    Args:
        path: as `verification.sources.read_embeddings` takes it.
        data_root: the corpus, for speakers and audio that the file does not tell.
        layout: of the corpus.
        max_speakers: the most speakers; None for all.
        max_utterances: the most utterances of a speaker; None for all.
        seed: of the sample.

    Returns:
        The embeddings, in the order of the file.

    Raises:
        UserError: no embeddings, or nothing tells who speaks.
    """
    from speaker_encoder.verification.sources import read_embeddings

    stored = read_embeddings(path)
    nothing: list[str | None] = [None] * len(stored)
    speakers, files = list(stored.speaker_ids or nothing), list(stored.paths or nothing)
    if data_root is not None:
        from speaker_encoder.corpora import scan

        _complete(stored, scan(data_root, layout), speakers, files)
    known = [i for i, speaker in enumerate(speakers) if speaker is not None]
    if not known:
        raise UserError(
            f"Nothing tells who speaks in the {len(stored)} utterances of {path}. Give the corpus "
            "that they come from with --data_root, or another format of `speaker-encoder embed`."
        )
    left_out = (
        {"of an unknown speaker": len(stored) - len(known)} if len(known) < len(stored) else {}
    )
    data = PlotData(
        list(stored.utterance_ids),
        [str(speaker) for speaker in speakers],
        [name if name is not None and os.path.isfile(name) else None for name in files],
        stored.embeddings,
        left_out,
    ).take(known)
    return _finite(data.take(choose(data.speaker_ids, max_speakers, max_utterances, seed=seed)))


def choose(
    speaker_ids: Sequence[str],
    max_speakers: int | None,
    max_utterances: int | None,
    *,
    seed: int,
) -> list[int]:
    """Positions of a sample of utterances; all of them where nothing limits it.

    Args:
        speaker_ids: (N,).
        max_speakers: the most speakers, drawn at random.
        max_utterances: the most utterances of a speaker, drawn at random.
        seed: of the draws.

    Returns:
        Ascending positions.

    Raises:
        UserError: a limit below 1.
    """
    for name, limit in (("--max_speakers", max_speakers), ("--max_utterances", max_utterances)):
        if limit is not None and limit < 1:
            raise UserError(f"{name} must be at least 1, found {limit}.")
    members: dict[str, list[int]] = {}
    for position, speaker in enumerate(speaker_ids):
        members.setdefault(speaker, []).append(position)
    rng = np.random.default_rng(seed)
    speakers = sorted(members)
    if max_speakers is not None and max_speakers < len(speakers):
        drawn = rng.choice(len(speakers), size=max_speakers, replace=False)
        speakers = [speakers[i] for i in sorted(drawn.tolist())]
    chosen: list[int] = []
    for speaker in speakers:
        own = members[speaker]
        if max_utterances is not None and max_utterances < len(own):
            drawn = rng.choice(len(own), size=max_utterances, replace=False)
            own = [own[i] for i in drawn.tolist()]
        chosen += own
    return sorted(chosen)


def _complete(
    stored: StoredEmbeddings,
    corpus: Corpus,
    speakers: list[str | None],
    files: list[str | None],
) -> None:
    """Fills in, from the corpus, what the stored embeddings do not tell."""
    from speaker_encoder.verification.systems import find_rows

    names = [item.utterance_id for item in corpus.utterances]
    for item, row in zip(corpus.utterances, find_rows(stored, names), strict=True):
        if row is not None:
            speakers[row] = speakers[row] or item.speaker_id
            if files[row] is None or not os.path.isfile(str(files[row])):
                files[row] = item.path


def _finite(data: PlotData) -> PlotData:
    kept = np.flatnonzero(np.isfinite(data.embeddings).all(axis=1)).tolist()
    if len(kept) == len(data):
        return data
    if not kept:
        raise UserError(f"None of the {len(data)} embeddings to plot is finite.")
    left_out = data.left_out | {"embedding not finite": len(data) - len(kept)}
    return replace(data.take(kept), left_out=left_out)

"""How far a run moved the space of embeddings, and the map back to the one it started from.

TTS and voice cloning models were trained on embeddings of the old space. A rotation, fitted on the
training corpus, maps those of the fine-tuned encoder to it. It changes no norm and no cosine among
what is mapped, so error rates within the new space stay exactly what they are; what it changes is
how the new embeddings agree with old ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.audio import AudioError
from speaker_encoder.corpora import Utterance
from speaker_encoder.errors import UserError
from speaker_encoder.training.speech import SpeechReader
from speaker_encoder.training.trial_set import read_middle
from speaker_encoder.verification.cross_space import Rate, cross_space_rates
from speaker_encoder.verification.procrustes import fit_rotation, row_cosines

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.verification import Trials

_UTTERANCES_PER_DIMENSION = 2
"""That a rotation is fitted to; more of them cost time and change it little."""
_CHUNK = 32  # utterances in memory at once

_Any = TypeVar("_Any")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpaceFacts:
    """What is known of the old and the new space; cosines are means over utterances.

    Attributes:
        num_utterances: of training that the map was fitted to; 0: the encoders are the same.
        num_speakers: of these.
        training_cosine: of mapped and old embeddings of these utterances.
        cosine_to_pretrained: of new and old embeddings of the validation utterances, as they are;
            None without validation data, and so all that follows.
        mapped_cosine: the same of mapped and old embeddings.
        old_old: EER of trials between old embeddings.
        new_new: between new ones, mapped or not.
        old_new: of enrolment by the old encoder and test by the new one, as they are.
        old_mapped: of enrolment by the old encoder and test by the new one, mapped.
    """

    num_utterances: int
    num_speakers: int
    training_cosine: float
    cosine_to_pretrained: float | None = None
    mapped_cosine: float | None = None
    old_old: Rate | None = None
    new_new: Rate | None = None
    old_new: Rate | None = None
    old_mapped: Rate | None = None


@dataclass(frozen=True, eq=False)
class ValidationRows:
    """The same N utterances by both encoders, and trials of them.

    Attributes:
        old: (N, D) by the encoder that the run started from.
        new: (N, D) by the result.
        trials: with labels.
        speaker_ids: (N,).
    """

    old: NDArray[np.float32]
    new: NDArray[np.float32]
    trials: Trials
    speaker_ids: Sequence[str]


def measure_space(
    pretrained: str | Path,
    model_dir: str | Path,
    utterances: Sequence[Utterance],
    *,
    validation: ValidationRows | None = None,
    device: str = "cpu",
    max_seconds: float = 30.0,
    trim_silence: str = "off",
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> SpaceFacts:
    """Fits the map from a model's space to that of the encoder it was trained from, and keeps it.

    It is written into `model_dir`, where `embed --space pretrained` and `push` find it. One process
    does all of it.

    Args:
        pretrained: name or folder of the encoder before training.
        model_dir: folder of the result.
        utterances: of training; at most two for each dimension, spread over speakers, are used.
        validation: what the spaces are compared on; None: on nothing.
        device: of both encoders.
        max_seconds: longer utterances are cut to their middle.
        trim_silence: as of the crops of training.
        num_bootstrap: draws of speakers for the intervals.
        seed: of these draws.

    Raises:
        UserError: the encoders are of different dimensions, or not one utterance can be used.
    """
    from speaker_encoder.export.model import weights_digest
    from speaker_encoder.export.pretrained_space import PretrainedSpace
    from speaker_encoder.modeling import SpeakerEncoder

    old, new = (SpeakerEncoder.from_pretrained(place).eval() for place in (pretrained, model_dir))
    if old.embedding_dim != new.embedding_dim or old.sampling_rate != new.sampling_rate:
        raise UserError(
            f"{pretrained} gives {old.embedding_dim} dimensions at {old.sampling_rate} Hz, "
            f"{model_dir} {new.embedding_dim} at {new.sampling_rate} Hz: no rotation maps one to "
            "the other. Name the encoder that the training started from."
        )
    digests = weights_digest(new), weights_digest(old)
    rotation, num_used, num_speakers, cosine = np.eye(old.embedding_dim), 0, 0, 1.0
    if digests[0] != digests[1]:
        chosen = spread_sample(utterances, _UTTERANCES_PER_DIMENSION * old.embedding_dim)
        reader = SpeechReader(chosen, new.sampling_rate, trim_silence)
        used, (old_rows, new_rows) = _embed_both(reader, (old, new), max_seconds, device)
        rotation = fit_rotation(new_rows, old_rows)
        num_used = len(used)
        num_speakers = len({chosen[place].speaker_id for place in used})
        cosine = float(row_cosines(new_rows @ rotation, old_rows).mean())
    space = PretrainedSpace(rotation.astype(np.float32), *digests)
    space.save(Path(model_dir))
    facts = SpaceFacts(num_used, num_speakers, cosine)
    if validation is None:
        return facts
    return _compared(facts, validation, space.map(validation.new), num_bootstrap, seed)


def spread_sample(utterances: Sequence[Utterance], max_utterances: int) -> list[Utterance]:
    """At most so many utterances, from as many speakers as possible and the same number of each.

    The same ones every time: of a speaker those at even distances in the order of their ids, of too
    many speakers those at even distances. Copies at another speed are left out.

    Args:
        utterances: of a corpus.
        max_utterances: at least 1.
    """
    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in sorted(utterances, key=lambda utterance: utterance.utterance_id):
        if utterance.speed == 1:
            by_speaker.setdefault(utterance.speaker_id, []).append(utterance)
    speakers = _evenly(sorted(by_speaker), max_utterances)
    quotas = dict.fromkeys(speakers, 0)
    left = min(max_utterances, sum(len(by_speaker[speaker]) for speaker in speakers))
    while left:
        for speaker in speakers:
            if left and quotas[speaker] < len(by_speaker[speaker]):
                quotas[speaker] += 1
                left -= 1
    return [u for speaker in speakers for u in _evenly(by_speaker[speaker], quotas[speaker])]


def _evenly(values: Sequence[_Any], count: int) -> list[_Any]:
    """`count` of the values at even distances, or all of fewer."""
    if count >= len(values):
        return list(values)
    return [values[(2 * place + 1) * len(values) // (2 * count)] for place in range(count)]


def _embed_both(
    reader: SpeechReader,
    encoders: tuple[SpeakerEncoder, SpeakerEncoder],
    max_seconds: float,
    device: str,
) -> tuple[list[int], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The utterances that can be used, and their embeddings (N, D) by each encoder.

    Raises:
        UserError: there is none.
    """
    from torch import nn

    for encoder in encoders:
        nn.Module.to(encoder, device)
    used: list[int] = []
    rows: tuple[list[NDArray[np.float32]], ...] = ([], [])
    for places, waveforms in _chunks(reader, encoders[1], max_seconds):
        used += places
        for encoder, some in zip(encoders, rows, strict=True):
            some.append(encoder.encode(waveforms, show_progress=False).numpy())
    if not used:
        raise UserError(
            "Not one utterance of the training corpus can be read: the map to the pretrained "
            "encoder's space cannot be fitted."
        )
    num_left_out = len(reader.utterances) - len(used)
    if num_left_out:
        _logger.warning(
            "%d of %d utterances cannot be used to fit the map to the pretrained encoder's space",
            num_left_out,
            len(reader.utterances),
        )
    return used, (np.concatenate(rows[0]), np.concatenate(rows[1]))


def _chunks(
    reader: SpeechReader, encoder: SpeakerEncoder, max_seconds: float
) -> Iterator[tuple[list[int], list[NDArray[np.float32]]]]:
    """The utterances that can be read, a few at a time so that memory is bounded."""
    places: list[int] = []
    waveforms: list[NDArray[np.float32]] = []
    for place in range(len(reader.utterances)):
        try:
            waveform = read_middle(
                reader, place, max_seconds, encoder.sampling_rate, encoder.min_num_samples
            )
        except AudioError as error:
            _logger.debug("left out of the map: %s", error)
            continue
        places.append(place)
        waveforms.append(waveform)
        if len(places) == _CHUNK:
            yield places, waveforms
            places, waveforms = [], []
    if places:
        yield places, waveforms


def _compared(
    facts: SpaceFacts,
    validation: ValidationRows,
    mapped: NDArray[np.float32],
    num_bootstrap: int,
    seed: int,
) -> SpaceFacts:
    """Adds what the validation utterances say; all error rates are of the same draws."""
    old, new = validation.old, validation.new
    rates = cross_space_rates(
        [(old, old), (new, new), (old, new), (old, mapped)],
        validation.trials,
        validation.speaker_ids,
        num_bootstrap=num_bootstrap,
        seed=seed,
    )
    return replace(
        facts,
        cosine_to_pretrained=float(row_cosines(new, old).mean()),
        mapped_cosine=float(row_cosines(mapped, old).mean()),
        old_old=rates[0],
        new_new=rates[1],
        old_new=rates[2],
        old_mapped=rates[3],
    )


def space_text(facts: SpaceFacts) -> str | None:
    """What the map does to embeddings of speakers that were not trained on; None: not known."""
    if facts.mapped_cosine is None or not facts.num_utterances:
        return None
    text = f"A rotation to its space makes it {facts.mapped_cosine:.3f}."
    if facts.old_old and facts.old_new and facts.old_mapped:
        text += (
            f" EER of old with old embeddings {facts.old_old.eer:.2%}, of old with new ones "
            f"{facts.old_new.eer:.2%}, of old with mapped ones {facts.old_mapped.eer:.2%}."
        )
    return text

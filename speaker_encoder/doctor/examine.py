"""Examines a corpus before it is trained on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from speaker_encoder.corpora import Corpus
from speaker_encoder.doctor.audio_checks import check_audio
from speaker_encoder.doctor.audio_facts import measure_all
from speaker_encoder.doctor.duplicates import describe_copies, disputed, find_copies, redundant
from speaker_encoder.doctor.findings import KINDS, Finding
from speaker_encoder.doctor.recordings import Recordings
from speaker_encoder.doctor.voices import VoiceExamination, Voices, audible, embed

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        data: the corpus.
        evaluation: what it was compared to.
        model_name: of the encoder; None where voices were not compared.
        findings: in the order of ``KINDS``.
        notes: what could not be judged, and why.
    """

    data: Corpus
    evaluation: Corpus | None
    model_name: str | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = field(default=())

    def of_kind(self, kind: str) -> list[Finding]:
        """The findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]


def examine(
    data: Corpus,
    encoder: SpeakerEncoder | None = None,
    *,
    evaluation: Corpus | None = None,
    model_name: str | None = None,
    batch_size: int = 16,
    num_workers: int | None = None,
    show_progress: bool | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Looks for what ruins a training; reads all audio once, and again with an encoder.

    Args:
        data: the corpus to train on.
        encoder: in eval mode; None: only what can be found without voices.
        evaluation: a corpus that must have none of the speakers and recordings of ``data``.
        model_name: what the report calls the encoder.
        batch_size: utterances embedded at once.
        num_workers: threads that decode.
        show_progress: bars on stderr; None shows them on a terminal only.
        seed: of the random halves that tell what is usual within a speaker.

    Returns:
        The findings. A file that cannot be read is one of them.
    """
    utterances = [*data.utterances, *(evaluation.utterances if evaluation else ())]
    facts = measure_all(utterances, num_workers=num_workers, show_progress=show_progress)
    recordings = Recordings.of(data, evaluation, facts)
    copies = find_copies(recordings)
    voices = Voices()
    if encoder is None:
        voices.notes.append(
            "Without a model, voices are not compared: no wrong speakers, no same persons."
        )
    else:
        extra = redundant(recordings, copies)
        indices = [index for index in audible(recordings, encoder) if index not in extra]
        _logger.info("embedding %d of %d recordings", len(indices), len(utterances))
        embeddings = embed(recordings, indices, encoder, batch_size, show_progress)
        argued = disputed(recordings, copies)
        voices = VoiceExamination(recordings, indices, embeddings, argued, seed).examine()
    findings = [
        *check_audio(recordings, data.excluded),
        *describe_copies(recordings, copies, voices.wrong),
        *_named_in_both(recordings, data, evaluation),
        *voices.findings,
    ]
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    return Diagnosis(
        data, evaluation, (model_name or "a model") if encoder is not None else None,
        tuple(findings), tuple(voices.notes),
    )  # fmt: skip


def _named_in_both(
    recordings: Recordings, data: Corpus, evaluation: Corpus | None
) -> Sequence[Finding]:
    shared = sorted(set(data.speakers) & set(evaluation.speakers)) if evaluation else []
    findings = []
    for name in shared:
        assert evaluation is not None
        first = data.utterances[data.speakers[name][0]].path
        second = evaluation.utterances[evaluation.speakers[name][0]].path
        counts = f"{len(data.speakers[name])} and {len(evaluation.speakers[name])} utterances"
        findings.append(
            Finding(
                "speaker_in_evaluation",
                (first, second),
                (name, f"{name} (evaluation)"),
                f"in both, with {counts}",
                suspects=recordings.files[False, name],
                examples=(("in the data", first), ("in the evaluation data", second)),
            )
        )
    return findings

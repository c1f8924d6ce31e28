"""What a comparison of two sets of embeddings of the same utterances, A and B, found."""

from __future__ import annotations

from dataclasses import dataclass, field

from speaker_encoder.verification.cross_space import Rate


@dataclass(frozen=True)
class SetFacts:
    """One of the two sets, as it is.

    Attributes:
        num_utterances: all that it has.
        embedding_dim: D.
        norms: (mean, lowest, highest) of the matched embeddings.
    """

    num_utterances: int
    embedding_dim: int
    norms: tuple[float, float, float]


@dataclass(frozen=True)
class CosineFacts:
    """Cosines of the two embeddings of each matched utterance.

    Attributes:
        mean: of all.
        lowest: of all.
        worst_utterances: (id, cosine), the lowest first.
        worst_speakers: (speaker, mean cosine, number of utterances), the lowest first; empty where
            speakers are not known.
    """

    mean: float
    lowest: float
    worst_utterances: list[tuple[str, float]]
    worst_speakers: list[tuple[str, float, int]]


@dataclass(frozen=True)
class Agreement:
    """How the cosines of pairs in one set go with those of the same pairs in the other.

    Attributes:
        pearson: correlation in [-1, 1].
        spearman: the same of ranks.
        num_utterances: whose pairs were taken.
    """

    pearson: float
    spearman: float
    num_utterances: int


@dataclass(frozen=True)
class ErrorRates:
    """EER between embeddings of each kind, on the same trials.

    Attributes:
        first: A with A.
        second: B with B.
        across: enrolment from A, test from B; None for different dimensions.
        rotated: enrolment from A, test from rotated B; None where no rotation was fitted.
        num_speakers: of the trials.
        num_targets: of them.
        num_nontargets: of them.
    """

    first: Rate
    second: Rate
    across: Rate | None
    rotated: Rate | None
    num_speakers: int
    num_targets: int
    num_nontargets: int


@dataclass(frozen=True)
class EmbeddingComparison:
    """Two sets of embeddings, A and B.

    Attributes:
        first: A.
        second: B.
        num_matched: utterances that are in both.
        only_first: ids of those only in A.
        only_second: ids of those only in B.
        num_other_speakers: matched utterances of which the two sets name different speakers.
        cosine: of A and B as they are; None for different dimensions.
        rotated: of A and of B under a rotation (the smaller one padded with zeros) that was fitted
            without the half of the speakers that an utterance belongs to; None for fewer than 8
            utterances.
        agreement: of similarities within A and within B; None for fewer than 3 utterances.
        error_rates: None where they cannot be measured.
        why_no_error_rates: the reason then.
    """

    first: SetFacts
    second: SetFacts
    num_matched: int
    only_first: list[str] = field(default_factory=list)
    only_second: list[str] = field(default_factory=list)
    num_other_speakers: int = 0
    cosine: CosineFacts | None = None
    rotated: CosineFacts | None = None
    agreement: Agreement | None = None
    error_rates: ErrorRates | None = None
    why_no_error_rates: str | None = None

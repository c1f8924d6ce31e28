"""The table of `compare-embeddings` for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from speaker_encoder.verification.comparison_records import (
    CosineFacts,
    EmbeddingComparison,
    ErrorRates,
    SetFacts,
)

_MAX_SHOWN = 5


def format_comparison(found: EmbeddingComparison, places: tuple[str, str]) -> str:
    """The comparison as text.

    Args:
        found: what was measured.
        places: of A and B, as the user names them.

    Returns:
        Lines for a terminal.
    """
    lines = [
        f"{letter}  {place}: {_set_line(facts)}"
        for letter, place, facts in zip("AB", places, (found.first, found.second), strict=True)
    ]
    lines.append(f"{found.num_matched} utterances are in both")
    for letter, names in (("A", found.only_first), ("B", found.only_second)):
        if names:
            lines.append(f"{len(names)} only in {letter}: {_shown(names)}")
    if found.num_other_speakers:
        lines.append(
            f"of {found.num_other_speakers} of these A and B name different speakers; A's are taken"
        )
    lines += ["", *_cosine_lines(found), ""]
    if found.error_rates is None:
        lines.append(f"no error rates: {found.why_no_error_rates}")
    else:
        lines += _rate_lines(found.error_rates)
    worst = found.cosine or found.rotated
    if worst is not None:
        lines += ["", *_worst_lines(worst, "" if found.cosine else " (B rotated)")]
    return "\n".join(lines)


def _set_line(facts: SetFacts) -> str:
    mean, low, high = facts.norms
    return (
        f"{facts.num_utterances} utterances, {facts.embedding_dim} dimensions, norm {mean:.3f} "
        f"[{low:.3f}, {high:.3f}]"
    )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_SHOWN]) + (", ..." if len(names) > _MAX_SHOWN else "")


def _cosine_lines(found: EmbeddingComparison) -> list[str]:
    rows: list[tuple[str, str]] = []
    if found.cosine is None:
        rows.append(("cosine of A and B", "none: they have different dimensions"))
    else:
        rows.append(("cosine of A and B", _cosine_text(found.cosine)))
    if found.rotated is not None:
        rows.append(("cosine of A and rotated B", _cosine_text(found.rotated)))
    if found.agreement is not None:
        agreement = found.agreement
        rows.append(
            (
                "similarities in A and in B",
                f"Pearson {agreement.pearson:.3f}, Spearman {agreement.spearman:.3f} "
                f"(all pairs of {agreement.num_utterances} utterances)",
            )
        )
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {text}" for name, text in rows]


def _cosine_text(facts: CosineFacts) -> str:
    return f"mean {facts.mean:.3f}, lowest {facts.lowest:.3f}"


def _rate_lines(rates: ErrorRates) -> list[str]:
    lines = [
        f"EER of {rates.num_targets} target and {rates.num_nontargets} nontarget trials, "
        f"{rates.num_speakers} speakers; in brackets 95 % intervals"
    ]
    named = {
        "A with A": rates.first,
        "B with B": rates.second,
        "A with B": rates.across,
        "A with rotated B": rates.rotated,
    }
    for name, rate in named.items():
        if rate is not None:
            low, high = rate.interval
            lines.append(f"  {name:16}  {rate.eer:>7.2%}  [{low:.2%}, {high:.2%}]")
    return lines


def _worst_lines(facts: CosineFacts, kind: str) -> list[str]:
    lines = [f"least alike{kind}"]
    lines += [f"  {cosine:6.3f}  {name}" for name, cosine in facts.worst_utterances]
    if facts.worst_speakers:
        lines.append(f"speakers that are least alike{kind}")
        lines += [
            f"  {cosine:6.3f}  {name} ({count} utterances)"
            for name, cosine, count in facts.worst_speakers
        ]
    return lines

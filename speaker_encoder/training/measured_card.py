"""What a model card says was measured: a run's own card, and that of a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speaker_encoder.training.findings import (
    choice_text,
    cosine_text,
    difference_text,
    forgotten_text,
    untouched_text,
)

if TYPE_CHECKING:
    from speaker_encoder.training.report import Results

INTERPOLATION_CAPTION = "Error rates against alpha: 0 is the untouched encoder, 1 the trained one"


def trials_text(results: Results) -> str:
    """What the error rates are of."""
    return (
        f"{results.num_val_speakers} speakers that were not trained on, {results.num_targets} "
        f"target and {results.num_nontargets} nontarget trials"
    )


def measured_section(
    results: Results | None,
    *,
    is_pretrained: bool,
    place: str,
    forgetting_tolerance: float,
) -> list[str]:
    """The table before and after with the reference, what changed, and what it means.

    Args:
        results: of the run; None: not known.
        is_pretrained: it started from trained weights.
        place: what holds the model: "this folder", "this repository".
        forgetting_tolerance: of the run.

    Returns:
        Paragraphs of Markdown.
    """
    interval = results.eer_difference_interval if results else None
    if not results or results.before is None or results.after is None or interval is None:
        return ["Not measured: it is not known how well this model tells unseen speakers apart."]
    reference = results.reference
    also = (
        f" The reference, speech that must not get worse: {reference.num_speakers} other speakers, "
        f"{reference.num_targets} target and {reference.num_nontargets} nontarget trials."
        if reference
        else ""
    )
    paragraphs = [
        f"{trials_text(results)}; scored by cosine. In brackets 95 % bootstrap intervals over "
        f"speakers.{also}",
        "\n".join(["| | step | EER | minDCF(0.01) |", "|---|---|---|---|", *_rows(results)]),
    ]
    if untouched := untouched_text(results, is_pretrained=is_pretrained, place=place):
        return [f"**{untouched}**", *paragraphs]
    change = difference_text(results.eer_difference or 0.0, interval, results.verdict)
    chosen = "step and alpha were" if results.interpolation else "step was"
    paragraphs.append(
        f"{change}. The {chosen} chosen on these trials, so its figure is a little optimistic."
    )
    texts = [
        forgotten_text(reference) + "." if reference else None,
        choice_text(results, forgetting_tolerance),
        cosine_text(results),
    ]
    return [*paragraphs, *(text for text in texts if text)]


def _rows(results: Results) -> list[str]:
    before, after, reference = results.before, results.after, results.reference
    assert before is not None and after is not None
    mixed = results.interpolation is not None or bool(results.averaged_steps)
    names = {"before": before, f"after, {results.after_name}" if mixed else "after": after}
    if results.is_untouched:
        names = {"untouched": before}
    rows = []
    for name, row in names.items():
        low, high = row.min_dcf_interval
        dcf = f"{row.min_dcf:.3f} [{low:.3f}, {high:.3f}]"
        rows.append(f"| {name} | {row.step} | {_eer(row.eer, row.eer_interval)} | {dcf} |")
    if reference is None:
        return rows
    rows.append(
        f"| reference, {'untouched' if results.is_untouched else 'before'} | {before.step} | "
        f"{_eer(reference.before_eer, reference.before_interval)} | |"
    )
    if not results.is_untouched:
        rows.append(
            f"| reference, after | {after.step} | "
            f"{_eer(reference.after_eer, reference.after_interval)} | |"
        )
    return rows


def _eer(eer: float, interval: tuple[float, float]) -> str:
    return f"{eer:.2%} [{interval[0]:.2%}, {interval[1]:.2%}]"

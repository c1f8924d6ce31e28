"""The report of a run as a page: what it found, what that means, and its pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_encoder.training.findings import (
    choice_text,
    cosine_text,
    difference_text,
    forgotten_text,
    untouched_text,
    what_to_try,
)
from speaker_encoder.training.measured_card import INTERPOLATION_CAPTION, trials_text

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.report import Results
    from speaker_encoder.training.run_dir import RunDirectory

REPORT_NAME = "report.html"
_STYLE = "code { white-space: nowrap; }"
_CAPTIONS = {
    "interpolation.png": INTERPOLATION_CAPTION,
    "curve.png": "Training and validation over the steps",
    "det.png": "Detection error trade-off on the validation trials",
}


def write_run_report(config: TrainConfig, run: RunDirectory, results: Results) -> Path:
    """Writes `report.html`, with the pictures in `plots/` inside it.

    Args:
        config: of the run.
        run: with its pictures.
        results: what it found.

    Returns:
        The page.
    """
    from speaker_encoder.plots.page import escape, inline_image, make_page, write_page
    from speaker_encoder.plots.tables import show_section

    parts = [_paragraph(text) for text in _summary(config, results)]
    if rows := _rows(results):
        parts.append(show_section(rows))
        parts.append('<p class="note">In brackets 95 % bootstrap intervals over speakers.</p>')
    parts += [_paragraph(text) for text in _meaning(config, results)]
    if results.is_untouched and (tips := what_to_try(config, results)):
        items = "".join(f"<li>{escape(tip)}</li>" for tip in tips)
        parts.append(f"<h2>What may help</h2><ul>{items}</ul>")
    for name, caption in _CAPTIONS.items():
        if (run.path / "plots" / name).is_file():
            parts.append(
                f"<figure>{inline_image(run.path / 'plots' / name, caption)}"
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
    page = make_page(f"Run {config.run_id}", "\n".join(parts), style=_STYLE)
    return write_page(run.path / REPORT_NAME, page)


def _summary(config: TrainConfig, results: Results) -> list[str]:
    found = (
        f"{results.model_name}: {results.steps} steps on {results.num_train_utterances} utterances "
        f"of {results.num_train_speakers} speakers, {results.train_hours:.2f} hours."
    )
    untouched = untouched_text(results, is_pretrained=config.pretrained, place="model/")
    if results.before is None:
        return [found, "No validation data: nothing is known about unseen speakers."]
    if untouched:
        return [f"{untouched} Pushing it needs --allow_worse.", found]
    return [found]


def _rows(results: Results) -> list[dict[str, Any]]:
    """The error rates, as `tables.show_section` takes them."""
    before, after, reference = results.before, results.after, results.reference
    if before is None or after is None:
        return []
    measured = {"before": before, f"after ({results.after_name})": after}
    if results.is_untouched:
        measured = {"untouched": before}
    rows: list[dict[str, Any]] = [
        {
            "trials": "validation",
            "encoder": name,
            "eer": row.eer,
            "eer_interval": row.eer_interval,
            "min_dcf": row.min_dcf,
            "min_dcf_interval": row.min_dcf_interval,
        }
        for name, row in measured.items()
    ]
    if reference is None:
        return rows
    ends = (
        (reference.before_eer, reference.before_interval),
        (reference.after_eer, reference.after_interval),
    )
    rows += [
        {"trials": "reference", "encoder": name, "eer": eer, "eer_interval": interval}
        for name, (eer, interval) in zip(measured, ends, strict=False)
    ]
    return rows


def _paragraph(text: str) -> str:
    from speaker_encoder.plots.page import escape

    shown = re.sub("`(.+?)`", r"<code>\1</code>", escape(text))
    return f"<p>{shown}</p>"


def _meaning(config: TrainConfig, results: Results) -> list[str]:
    """The trials, the differences, the choice, and how far embeddings moved."""
    if results.before is None or results.eer_difference_interval is None:
        return []
    reference = results.reference
    texts: list[str | None] = [f"Validation: {trials_text(results)}."]
    if reference is not None:
        texts.append(
            f"Reference: {reference.num_speakers} speakers, {reference.num_targets} target and "
            f"{reference.num_nontargets} nontarget trials."
        )
    if not results.is_untouched:
        change = difference_text(
            results.eer_difference or 0.0, results.eer_difference_interval, results.verdict
        )
        texts.append(f"{change}.")
        texts.append(forgotten_text(reference) + "." if reference is not None else None)
        texts += [choice_text(results, config.forgetting_tolerance), cosine_text(results)]
    return [text for text in texts if text]

"""A model that is no better than the one it was trained from is not published by itself."""

from __future__ import annotations

from dataclasses import replace

from speaker_encoder.errors import UserError
from speaker_encoder.hub.failures import command_of
from speaker_encoder.hub.push_options import PushOptions
from speaker_encoder.hub.source import ModelSource, as_results


def refuse_no_better(source: ModelSource, options: PushOptions, place: str) -> None:
    """Checks what the run of a model found; a model that nothing is known of is let through.

    Args:
        source: of the model.
        options: of the push.
        place: the folder as the user named it.

    Raises:
        UserError: the model is the one that the run started from, or a worse one, or, of a run
            that started from a trained one, not better beyond noise; the text gives the figures and
            the command that pushes it all the same.
    """
    from speaker_encoder.training.findings import (
        beats_untouched,
        difference_text,
        has_trained_start,
    )

    found = as_results(source.results())
    if found is None or found.before is None or found.after is None:
        return
    if found.is_untouched:
        low, high = found.before.eer_interval
        what = (
            "nothing that its run trained beat the encoder that it started from, so it is that "
            f"one: EER {100 * found.before.eer:.2f} % [{100 * low:.2f}, {100 * high:.2f}] on "
            f"{found.num_val_speakers} unseen speakers"
        )
    elif found.verdict == "worse" or (has_trained_start(found) and not beats_untouched(found)):
        change = difference_text(
            found.eer_difference or 0.0, found.eer_difference_interval or (0.0, 0.0), found.verdict
        )
        than = "worse than" if found.verdict == "worse" else "not better beyond noise than"
        what = f"it is {than} the encoder that its run started from: {change}"
    else:
        return
    report = None if source.run_dir is None else source.run_dir / "report.html"
    hint = f" What may help is in {report}." if report is not None and report.is_file() else ""
    command = command_of(replace(options, allow_worse=True), place)
    raise UserError(f"{place} was not pushed: {what}.{hint} To push it all the same:\n  {command}")

"""What an interpolation found: a table, a JSON file, a plot, and the encoder."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from speaker_encoder import __version__
from speaker_encoder.errors import UserError
from speaker_encoder.export.files import (
    check_writable,
    explained_full_disk,
    staged_files,
    write_bytes_atomically,
)
from speaker_encoder.training.interpolation_run import Interpolation, InterpolationOptions
from speaker_encoder.verification.evaluate import Comparison
from speaker_encoder.verification.result_table import align
from speaker_encoder.verification.trial_data import TrialData

RESULTS_VERSION = 1
RESULTS_NAME = "interpolation.json"
PLOT_NAME = "interpolation.png"
MODEL_NAME = "model"


def format_interpolation(found: Interpolation) -> str:
    """The curve, the choice and what it changes, as lines for a terminal."""
    rows = [["", "alpha", "validation EER", ""]]
    if found.reference is not None:
        rows[0] += ["reference EER", ""]
    for point in found.curve:
        mark = "*" if point.alpha == found.choice.alpha else ""
        row = [mark, f"{point.alpha:g}", *_cells(point.eer, point.eer_interval)]
        if point.reference_eer is not None and point.reference_interval is not None:
            row += _cells(point.reference_eer, point.reference_interval)
        rows.append(row)
    lines = [f"alpha 1: {found.ends[0]}"]
    if len(found.ends) > 1:
        lines = ["alpha 1: the mean of", *(f"  {end}" for end in found.ends)]
    lines.append(_describe("validation", found.validation))
    if found.reference is not None:
        lines.append(_describe("reference", found.reference))
    lines += ["in brackets 95 % intervals, draws of speakers", "", *align(rows), ""]
    lines += [f"alpha {found.choice.alpha:g} is chosen: {found.choice.reason}"]
    if found.choice.alpha == 0:
        lines.append(
            "It is the pretrained encoder itself. Trials of more speakers show smaller gains; "
            "--allow_worse chooses among all alphas."
        )
        return "\n".join(lines)
    lines.append("against the pretrained encoder:")
    lines.append(f"  validation {_change(found.validation_change)}")
    if found.reference_change is not None:
        lines.append(f"  reference  {_change(found.reference_change)}")
    return "\n".join(lines)


def _describe(what: str, data: TrialData) -> str:
    num_targets = _num_targets(data)
    return (
        f"{what}: {num_targets} target and {len(data.trials) - num_targets} nontarget trials of "
        f"{len(set(data.speaker_ids or ()))} speakers"
    )


def _num_targets(data: TrialData) -> int:
    assert data.trials.labels is not None
    return int(data.trials.labels.sum())


def _cells(eer: float, interval: tuple[float, float]) -> list[str]:
    low, high = interval
    return [f"{100 * eer:.2f} %", f"[{100 * low:.2f}, {100 * high:.2f}]"]


def _change(change: Comparison) -> str:
    low, high = change.eer_difference_interval
    return (
        f"EER {100 * change.eer_difference:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]: "
        f"{change.verdict}"
    )


def check_output(folder: Path) -> None:
    """Checks that an interpolation may be written into a folder.

    Raises:
        UserError: it cannot be written to, or holds a model that is no interpolation.
    """
    check_writable(folder, "the output folder")
    is_ours = (folder / RESULTS_NAME).exists()
    for place in (folder / MODEL_NAME, folder):
        if (place / "config.json").exists() and not is_ours:
            raise UserError(
                f"{place} holds a model already, which this command did not write. Give another "
                "--output_dir."
            )


def write_interpolation(found: Interpolation, options: InterpolationOptions, folder: Path) -> None:
    """Writes ``interpolation.json``, ``interpolation.png`` and the encoder in ``model/``.

    Raises:
        UserError: the disk is full.
    """
    from speaker_encoder.plots.interpolation import plot_interpolation

    with explained_full_disk():
        text = json.dumps(_as_json(found, options), indent=2, ensure_ascii=False) + "\n"
        write_bytes_atomically(folder / RESULTS_NAME, text.encode("utf-8", "surrogateescape"))
        plot_interpolation(found, folder / PLOT_NAME)
        with staged_files(folder / MODEL_NAME) as staging:
            found.encoder.save_pretrained(staging)


def _as_json(found: Interpolation, options: InterpolationOptions) -> dict[str, Any]:
    return {
        "version": RESULTS_VERSION,
        "speaker_encoder": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "pretrained": options.pretrained,
        "finetuned": list(options.finetuned),
        "finetuned_taken": [asdict(end) for end in found.ends],
        "validation": _trials_as_json(found.validation),
        "reference": None if found.reference is None else _trials_as_json(found.reference),
        "forgetting_tolerance": options.forgetting_tolerance,
        "allow_worse": options.allow_worse,
        "curve": [asdict(point) for point in found.curve],
        "choice": asdict(found.choice),
        "weights_sha256": found.weights_sha256,
        "validation_change": asdict(found.validation_change),
        "reference_change": None
        if found.reference_change is None
        else asdict(found.reference_change),
    }


def _trials_as_json(data: TrialData) -> dict[str, Any]:
    num_targets = _num_targets(data)
    return {
        "source": data.source,
        "num_targets": num_targets,
        "num_nontargets": len(data.trials) - num_targets,
        "num_utterances": len(data.names),
        "num_speakers": len(set(data.speaker_ids or ())),
        "speakers_from": data.speakers_from,
        "unreadable": data.unreadable,
    }

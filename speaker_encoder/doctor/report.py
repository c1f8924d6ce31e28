"""What was found, for a terminal and as JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speaker_encoder.doctor.examine import Diagnosis
from speaker_encoder.doctor.findings import KINDS, Finding
from speaker_encoder.export.files import write_bytes_atomically

VERSION = 1


def as_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """A diagnosis as plain JSON data; paths of the data are below its root."""
    data, evaluation = diagnosis.data, diagnosis.evaluation
    summary = data.summary()
    return {
        "version": VERSION,
        "data_root": data.root,
        "eval_root": evaluation.root if evaluation else None,
        "layout": data.layout,
        "model": diagnosis.model_name,
        "num_utterances": summary.num_utterances,
        "num_speakers": summary.num_speakers,
        "hours": summary.hours,
        "counts": {kind: len(diagnosis.of_kind(kind)) for kind in KINDS},
        "notes": list(diagnosis.notes),
        "findings": [_finding_as_dict(finding, data.root) for finding in diagnosis.findings],
    }


def _finding_as_dict(finding: Finding, root: str) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "paths": [path_below(path, root) for path in finding.paths],
        "speakers": list(finding.speakers),
        "detail": finding.detail,
        "figures": _finite(finding.figures),
        "suspects": [path_below(path, root) for path in finding.suspects],
    }


def _finite(figures: Mapping[str, float | str]) -> dict[str, float | str | None]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in figures.items()
    }


def path_below(path: str, root: str) -> str:
    """A path relative to the corpus; as it is where it lies elsewhere."""
    relative = os.path.relpath(path, root)
    return path if relative.startswith("..") else relative


def write_json(diagnosis: Diagnosis, path: Path) -> None:
    """Writes the report whole or not at all; bytes of names that are no text are escaped."""
    text = json.dumps(as_dict(diagnosis), indent=2, allow_nan=False)
    write_bytes_atomically(path, text.encode("ascii"))


def as_text(diagnosis: Diagnosis, max_shown: int = 3) -> str:
    """A diagnosis for a terminal.

    Args:
        diagnosis: what was found.
        max_shown: findings of each kind that are shown.
    """
    summary = diagnosis.data.summary()
    heard = f"voices by {diagnosis.model_name}" if diagnosis.model_name else "voices not compared"
    lines = [
        f"{summary.num_utterances} recordings of {summary.num_speakers} speakers, "
        f"{summary.hours:.2f} hours, layout {diagnosis.data.layout}; {heard}"
    ]
    nothing = []
    for kind, what in KINDS.items():
        found = diagnosis.of_kind(kind)
        if not found:
            nothing.append(kind)
            continue
        lines.append(f"{len(found):6d}  {what.title} [{kind}]")
        lines += [f"        {_line(finding, diagnosis)}" for finding in found[:max_shown]]
        if len(found) > max_shown:
            lines.append(f"        ... and {len(found) - max_shown} more in the report")
    lines.append(f"nothing of: {', '.join(nothing)}" if nothing else "something of every kind")
    lines += [f"note: {note}" for note in diagnosis.notes]
    return "\n".join(lines)


def _line(finding: Finding, diagnosis: Diagnosis) -> str:
    """A finding on one line."""
    if finding.kind in ("same_person", "voice_in_evaluation"):
        what = " = ".join(finding.speakers)
    elif finding.kind == "speaker_in_evaluation":
        what = finding.speakers[0]
    else:
        paths = [path_below(path, diagnosis.data.root) for path in finding.paths]
        what = " = ".join(paths[:3]) + (f" = {len(paths) - 3} more" if len(paths) > 3 else "")
    return " ".join(f"{what}: {finding.detail}".split())

"""The list of what to keep: a corpus without what was found, for a training to read."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from speaker_encoder.doctor.examine import Diagnosis
from speaker_encoder.doctor.findings import KINDS
from speaker_encoder.errors import UserError
from speaker_encoder.export.files import write_bytes_atomically


@dataclass(frozen=True)
class KeepList:
    """What stays of a corpus.

    Attributes:
        lines: ``speaker path``, the path below the root of the corpus.
        num_left_out: how many utterances do not stay.
        unlisted: paths that no list can hold, because a line ends in them.
        num_speakers: how many speakers stay.
    """

    lines: tuple[str, ...]
    num_left_out: int
    unlisted: tuple[str, ...]
    num_speakers: int


def choose_kinds(leave_out: Collection[str] = (), keep: Collection[str] = ()) -> set[str]:
    """The kinds of findings whose files are left out.

    Args:
        leave_out: kinds besides those that are by default.
        keep: kinds that are not, though they are by default.

    Raises:
        UserError: an unknown kind, or one in both.
    """
    for kind in (*leave_out, *keep):
        if kind not in KINDS:
            raise UserError(f"Unknown kind of finding {kind!r}. Known: {', '.join(KINDS)}.")
    if both := sorted(set(leave_out) & set(keep)):
        raise UserError(f"To be left out and to be kept: {', '.join(both)}. Choose one.")
    usual = {name for name, kind in KINDS.items() if kind.is_left_out}
    return (usual | set(leave_out)) - set(keep)


def make_keep_list(diagnosis: Diagnosis, kinds: Collection[str], join: bool = False) -> KeepList:
    """The utterances to train on.

    Args:
        diagnosis: what was found.
        kinds: of findings whose suspects are left out.
        join: give two speakers that are likely one person the first one's name.
    """
    suspects = {
        os.path.normpath(path)
        for finding in diagnosis.findings
        if finding.kind in kinds
        for path in finding.suspects
    }
    names = _joined_names(diagnosis) if join else {}
    lines, unlisted, speakers, num_left_out = [], [], set(), 0
    for utterance in diagnosis.data.utterances:
        path = os.path.relpath(utterance.path, diagnosis.data.root)
        if os.path.normpath(utterance.path) in suspects:
            num_left_out += 1
        elif len(path.splitlines()) > 1 or path != path.strip():
            unlisted.append(utterance.path)
        else:
            speaker = names.get(utterance.speaker_id, utterance.speaker_id)
            speaker = "_".join(speaker.split())  # a list has no room for spaces in a name
            speakers.add(speaker)
            lines.append(f"{speaker} {path}")
    return KeepList(tuple(lines), num_left_out, tuple(unlisted), len(speakers))


def _joined_names(diagnosis: Diagnosis) -> dict[str, str]:
    """Speaker -> the first name of that person."""
    names: dict[str, str] = {}
    for finding in diagnosis.of_kind("same_person"):
        first, second = (names.get(name, name) for name in finding.speakers)
        kept, other = sorted((first, second))
        names = {name: kept if target == other else target for name, target in names.items()}
        names[other] = kept
    return names


def write_keep_list(keep_list: KeepList, path: Path) -> None:
    """Writes the list whole or not at all."""
    text = "".join(f"{line}\n" for line in keep_list.lines)
    write_bytes_atomically(path, text.encode("utf-8", errors="surrogateescape"))

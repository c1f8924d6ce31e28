"""Trial lists and score files as text: who is compared with whom, and on which line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.verification.trials import Trials

LABELS = {"1": True, "0": False, "target": True, "nontarget": False}
UNKNOWN_LABEL = "-"
FORMS = {
    "voxceleb": "label path1 path2",
    "kaldi": "utterance1 utterance2 target|nontarget",
    "unlabelled": "path1 path2",
    "scores": "score label path1 path2",
}
"""Form of a file -> how its lines look."""
_NUM_FIELDS = {"voxceleb": 3, "kaldi": 3, "unlabelled": 2, "scores": 4}
_MAX_SHOWN = 5


@dataclass(frozen=True, eq=False)
class TrialFile:
    """The lines of a trial list or of a score file.

    Attributes:
        path: of the file.
        form: a key of ``FORMS``.
        names: the paths or ids as they are written, each once, in the order of their first line.
        trials: N pairs of positions in ``names``; without labels where the file has none.
        lines: (N,) the number of each trial's line, from 1.
        scores: (N,) of a score file, else None.
    """

    path: Path
    form: str
    names: list[str]
    trials: Trials
    lines: NDArray[np.int64]
    scores: NDArray[np.float64] | None = None

    def first_lines(self) -> NDArray[np.int64]:
        """The first line of each name."""
        first = np.full(len(self.names), np.iinfo(np.int64).max)
        np.minimum.at(first, self.trials.enrolment, self.lines)
        np.minimum.at(first, self.trials.test, self.lines)
        return first


@dataclass
class _Parsed:
    """What the lines gave so far."""

    positions: dict[str, int]
    enrolment: list[int]
    test: list[int]
    labels: list[bool | None]
    lines: list[int]
    scores: list[float]
    problems: list[tuple[int, str]]

    def add(self, number: int, first: str, second: str, label: bool | None) -> None:
        """Takes a trial in."""
        positions = self.positions
        self.enrolment.append(positions.setdefault(first, len(positions)))
        self.test.append(positions.setdefault(second, len(positions)))
        self.labels.append(label)
        self.lines.append(number)


def read_trial_file(
    path: str | os.PathLike[str],
    *,
    is_scores: bool = False,
    is_known: Callable[[str], bool] | None = None,
) -> TrialFile:
    """Reads a trial list (VoxCeleb, Kaldi, or without labels), or a file of scores.

    The form is that of the first line. Columns are separated by spaces or tabs; empty lines are
    passed over.

    Args:
        path: the file, UTF-8.
        is_scores: the lines are ``score label path1 path2``; label ``-`` where it is not known.
        is_known: is there such a file; tells where a path with spaces ends.

    Returns:
        The trials in the order of the file.

    Raises:
        UserError: the file is missing, not text or empty, or lines that are no trials, with their
            numbers.
    """
    parsed, form = parse_trial_file(path, is_scores=is_scores, is_known=is_known)
    if parsed.problems:
        raise UserError(explain_lines(path, FORMS[form], parsed.problems))
    labels = None
    if None not in parsed.labels:
        labels = np.array(parsed.labels, dtype=np.bool_)
    elif any(label is not None for label in parsed.labels):
        number = parsed.lines[parsed.labels.index(None)]
        raise UserError(f"{path} has trials with and without a label; the first without: {number}.")
    return TrialFile(
        Path(path),
        form,
        list(parsed.positions),
        Trials(
            np.array(parsed.enrolment, dtype=np.int64),
            np.array(parsed.test, dtype=np.int64),
            labels,
        ),
        np.array(parsed.lines, dtype=np.int64),
        np.array(parsed.scores) if is_scores else None,
    )


def parse_trial_file(
    path: str | os.PathLike[str],
    *,
    is_scores: bool = False,
    is_known: Callable[[str], bool] | None = None,
) -> tuple[_Parsed, str]:
    """Reads the lines of a file and keeps what is wrong with some of them.

    Returns:
        The trials and the problems ``(line, what)``, and the form.

    Raises:
        UserError: the file is missing, not text or empty.
    """
    what = "score file" if is_scores else "trial list"
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"Cannot read the {what} {path}: {error.strerror}.") from error
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), None)
    if first is None or "\0" in first:
        found = "is empty" if first is None else "is not text"
        wanted = FORMS["scores"] if is_scores else FORMS["voxceleb"]
        raise UserError(f"The {what} {path} {found}; wanted lines `{wanted}`.")
    form = "scores" if is_scores else _form_of(first)
    parsed = _Parsed({}, [], [], [], [], [], [])
    for number, line in enumerate(lines, start=1):
        if line.strip():
            _parse_line(line, number, form, parsed, is_known)
    return parsed, form


def _form_of(line: str) -> str:
    words = line.split()
    if words[0].lower() in LABELS and len(words) > 2:
        return "voxceleb"
    if words[-1].lower() in LABELS and len(words) > 2:
        return "kaldi"
    if len(words) == 2 and words[0].lower() in LABELS:
        return "voxceleb"  # a path is missing
    if len(words) == 2 and words[-1].lower() in LABELS:
        return "kaldi"
    is_pair = len(words) == 2 or len([part for part in line.split("\t") if part.strip()]) == 2
    return "unlabelled" if is_pair else "voxceleb"


def _parse_line(
    line: str,
    number: int,
    form: str,
    parsed: _Parsed,
    is_known: Callable[[str], bool] | None,
) -> None:
    words = line.split()
    if len(words) < _NUM_FIELDS[form]:
        what = f"wanted {_NUM_FIELDS[form]} columns `{FORMS[form]}`, found {len(words)}"
        parsed.problems.append((number, what))
        return
    label: bool | None = None
    if form == "scores":
        score = _as_score(words[0])
        if score is None:
            parsed.problems.append((number, f"the score {words[0]!r} is not a finite number"))
            return
        word, rest = words[1], words[2:]
    elif form == "voxceleb":
        word, rest = words[0], words[1:]
    elif form == "kaldi":
        word, rest = words[-1], words[:-1]
    else:
        word, rest = UNKNOWN_LABEL, words
    if word != UNKNOWN_LABEL or form not in ("scores", "unlabelled"):
        label = LABELS.get(word.lower())
        if label is None:
            what = f"the label {word!r} is not 1 or 0 (or target, nontarget)"
            parsed.problems.append((number, what))
            return
    pair = (rest[0], rest[1]) if len(rest) == 2 else _split_pair(line, form, is_known)
    if pair is None:
        what = f"wanted {_NUM_FIELDS[form]} columns `{FORMS[form]}`, found {len(words)}"
        parsed.problems.append((number, what))
        return
    if form == "scores" and score is not None:
        parsed.scores.append(score)
    parsed.add(number, *pair, label)


def _as_score(word: str) -> float | None:
    try:
        score = float(word)
    except ValueError:
        return None
    return score if np.isfinite(score) else None


def _split_pair(
    line: str, form: str, is_known: Callable[[str], bool] | None
) -> tuple[str, str] | None:
    """The two paths of a line in which a path has spaces: by tabs, or by the files there are."""
    text = line.strip()
    for _ in range({"scores": 2, "voxceleb": 1}.get(form, 0)):
        text = text.split(None, 1)[1]
    if form == "kaldi":
        text = text.rsplit(None, 1)[0]
    if "\t" in text:
        parts = [part.strip() for part in text.split("\t") if part.strip()]
        return (parts[0], parts[1]) if len(parts) == 2 else None
    words = text.split(" ")
    ways = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    if is_known is not None:
        for first, second in ways:
            if is_known(first.strip()) and is_known(second.strip()):
                return first.strip(), second.strip()
    return None


def explain_lines(
    path: str | os.PathLike[str], wanted: str, problems: Sequence[tuple[int, str]]
) -> str:
    """Says what is wrong with lines of a list; the first few of them."""
    shown = [f"  line {number}: {what}" for number, what in sorted(problems)[:_MAX_SHOWN]]
    if len(problems) > len(shown):
        shown.append(f"  and {len(problems) - len(shown)} more")
    count = "1 line" if len(problems) == 1 else f"{len(problems)} lines"
    return f"{path} has {count} that cannot be used (wanted: `{wanted}`):\n" + "\n".join(shown)

"""Trial lists on disk: lines `label path1 path2`, as VoxCeleb's."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speaker_encoder.errors import UserError
from speaker_encoder.verification.trials import Trials

if TYPE_CHECKING:
    from speaker_encoder.corpora import Utterance

LABELS = {"1": True, "0": False, "target": True, "nontarget": False}
MAX_SHOWN = 5


def read_trials(
    path: str | os.PathLike[str],
    utterances: "Sequence[Utterance]",
    root: str | os.PathLike[str],
) -> Trials:
    """Trials of a list file over the given utterances.

    Each line is `label path1 path2`, separated by spaces or tabs, label 1 or `target` for the
    same speaker and 0 or `nontarget` for different ones. Paths are relative to `root` (or, where
    there is no such utterance, to the list's own folder), or absolute. Empty lines are skipped.
    A path may contain spaces.

    Args:
        path: the list, UTF-8.
        utterances: N utterances; the trials hold positions in this sequence.
        root: the folder that the paths are relative to.

    Returns:
        The trials in the order of the list.

    Raises:
        UserError: the list is missing, is not text, or is empty, or has lines that are not
            trials or name files that are not among the utterances; with the line numbers.
    """
    list_path = Path(path)
    try:
        lines = list_path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the trial list {list_path}: {error}") from error
    positions = {_absolute(utterance.path): i for i, utterance in enumerate(utterances)}
    finder = _Finder(positions, (os.fspath(root), os.fspath(list_path.parent)))
    parsed: list[tuple[int, int, bool]] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        trial = finder.parse(line)
        if isinstance(trial, str):
            problems.append(f"  line {number}: {trial}")
        else:
            parsed.append(trial)
    if problems:
        shown = problems[:MAX_SHOWN]
        if len(problems) > len(shown):
            shown.append(f"  and {len(problems) - len(shown)} more lines.")
        raise UserError(
            f"The trial list {list_path} has {len(problems)} lines that cannot be used "
            f"(wanted: `label path1 path2`, label 1 or 0, paths relative to {root}):\n"
            + "\n".join(shown)
        )
    if not parsed:
        raise UserError(f"The trial list {list_path} is empty; wanted lines `label path1 path2`.")
    enrolment, test, labels = zip(*parsed, strict=True)
    return Trials(
        np.array(enrolment, dtype=np.int64),
        np.array(test, dtype=np.int64),
        np.array(labels, dtype=np.bool_),
    )


class _Finder:
    """Looks up the utterances that lines of a trial list name."""

    def __init__(self, positions: dict[str, int], folders: tuple[str, ...]) -> None:
        self._positions = positions
        self._real_positions: dict[str, int] | None = None
        self._folders = folders
        self._known: dict[str, int | None] = {}

    def parse(self, line: str) -> tuple[int, int, bool] | str:
        """(enrolment, test, label) of a line, or what is wrong with it."""
        label_word, *rest = line.strip().split(None, 1)
        label = LABELS.get(label_word.lower())
        if label is None:
            return f"the label {label_word!r} is not one of {', '.join(LABELS)}"
        splits = _ways_to_split(rest[0] if rest else "")
        if not splits:
            return f"a label and two paths were wanted, found {line.strip()!r}"
        for first, second in splits:
            enrolment, test = self._find(first), self._find(second)
            if enrolment is not None and test is not None:
                return enrolment, test, label
        if len(splits) > 1:
            return f"no way to read {rest[0]!r} as two paths gives two utterances of the data"
        missing = next(name for name in splits[0] if self._find(name) is None)
        return f"{missing!r} is not an utterance of the data"

    def _find(self, name: str) -> int | None:
        if name not in self._known:
            candidates = [_absolute(os.path.join(folder, name)) for folder in self._folders]
            found = [self._positions[path] for path in candidates if path in self._positions]
            self._known[name] = found[0] if found else self._find_real(candidates)
        return self._known[name]

    def _find_real(self, candidates: list[str]) -> int | None:
        """The same with links followed, which costs file-system calls."""
        if self._real_positions is None:
            self._real_positions = {os.path.realpath(p): i for p, i in self._positions.items()}
        found = (self._real_positions.get(os.path.realpath(path)) for path in candidates)
        return next((position for position in found if position is not None), None)


def _absolute(path: str) -> str:
    return os.path.normpath(os.path.join(os.getcwd(), path))


def _ways_to_split(text: str) -> list[tuple[str, str]]:
    """All ways to read a line's rest as two paths: one, unless paths contain spaces."""
    if "\t" in text:
        parts = [part.strip() for part in text.split("\t") if part.strip()]
        return [(parts[0], parts[1])] if len(parts) == 2 else []
    words = text.split(" ")
    ways = [
        (" ".join(words[:i]).strip(), " ".join(words[i:]).strip()) for i in range(1, len(words))
    ]
    return [(first, second) for first, second in dict.fromkeys(ways) if first and second]

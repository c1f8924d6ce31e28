"""Archives: whole, in parts, and compared with their published sums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speaker_encoder.corpora.prepare.published import KnownArchive
from speaker_encoder.errors import UserError

_PART = re.compile(r"(?P<whole>.+)_part(?P<number>[a-z]{2})$")
_PIECE = 1 << 20

Progress = Callable[[str, int, int], None]
"""(what, bytes done, bytes in all)."""


@dataclass(frozen=True)
class Archive:
    """An archive of one file, or of several that follow each other (`..._partaa`, `..._partab`)."""

    name: str
    paths: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Gives the size of all its files."""
        return sum(path.stat().st_size for path in self.paths)

    @property
    def fingerprint(self) -> list[list[object]]:
        """Gives what tells this archive from a changed one: names, sizes and times."""
        return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in self.paths]


def group_parts(paths: Sequence[Path], known: dict[str, KnownArchive]) -> list[Archive]:
    """Puts the parts of split archives together.

    Args:
        paths: of the files.
        known: the archives with published sums; they say how many parts there are.

    Raises:
        UserError: a part is missing or there twice, or an archive is there whole and in parts.
    """
    whole: dict[str, list[Path]] = {}
    for path in sorted(paths, key=lambda path: path.name):
        match = _PART.match(path.name)
        whole.setdefault(f"{match['whole']}.zip" if match else path.name, []).append(path)
    for name, members in whole.items():
        names = [member.name for member in members]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise UserError(f"The archive {twice[0]} is there more than once. Keep one of them.")
        matches = [match for member in names if (match := _PART.match(member))]
        if not matches:
            continue
        if len(matches) < len(names):
            raise UserError(
                f"{name} is there whole and in parts. Give one of them: --archives FILE ..."
            )
        match = matches[0]
        wanted = sorted(n for n in known if n.startswith(f"{match['whole']}_part"))
        count = len(names)
        by_letters = [f"{match['whole']}_parta{chr(ord('a') + i)}" for i in range(min(count, 26))]
        missing = [n for n in wanted or by_letters if n not in names]
        if missing:
            raise UserError(
                f"Of the split archive {name} the parts {', '.join(names)} are there; missing: "
                f"{', '.join(missing)}. Download them into the same folder."
            )
    return [Archive(name, tuple(members)) for name, members in whole.items()]


def check_sums(archive: Archive, known: dict[str, KnownArchive], progress: Progress) -> bool:
    """Compares each file of an archive with its published sum.

    Returns:
        Whether there was a sum to compare with for all of them.

    Raises:
        UserError: a file is not what was published.
    """
    is_known = True
    for path in archive.paths:
        if path.name not in known:
            is_known = False
            continue
        wanted = known[path.name]
        digest = hashlib.new(wanted.algorithm)
        total, done = path.stat().st_size, 0
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                done += len(piece)
                progress(f"checking {path.name}", done, total)
        if digest.hexdigest() != wanted.digest:
            raise UserError(
                f"{path} is damaged or another file of that name: its {wanted.algorithm} sum is "
                f"{digest.hexdigest()}, published is {wanted.digest}. Delete it and download it "
                "again, or use --no_check."
            )
    return is_known

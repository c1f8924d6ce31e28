"""A list file with one line ``speaker path`` for each recording."""

import os
from collections import Counter

from speaker_encoder.audio import AUDIO_EXTENSIONS
from speaker_encoder.audio.member import find_member
from speaker_encoder.corpora.layouts.layout import Candidate, Collected, Layout
from speaker_encoder.corpora.records import ExcludedFile
from speaker_encoder.errors import UserError

_PROBLEMS_SHOWN = 10


class ListFile(Layout):
    """Lines ``speaker path``, the path below the root; as the train lists of VoxCeleb's trainers.

    A path may be that of a recording in a shard. The session is the folder of the file where
    ``multi_rec_session`` says so, or where the path is of the form ``.../speaker/session/file``.
    """

    pattern = "a text file with lines 'speaker path'"

    def collect(self) -> Collected:
        """All listed files with their speakers; reads no headers.

        Raises:
            UserError: the list cannot be read, a line is not of the form, a speaker has a path
                separator, or a file has two speakers.
        """
        collected = Collected(ignored=Counter())
        speakers: dict[str, str] = {}
        for speaker_id, path in self._read_lines():
            full_path = os.path.join(self.request.root, path)
            identity = os.path.normpath(full_path)
            if speakers.setdefault(identity, speaker_id) != speaker_id:
                raise UserError(
                    f"{self.request.list_path}: {path!r} is listed for speaker "
                    f"{speakers[identity]!r} and for speaker {speaker_id!r}. Keep one of them."
                )
            collected.speaker_paths.setdefault(speaker_id, full_path)
            self._collect_file(speaker_id, path, full_path, collected)
        return collected

    def _read_lines(self) -> list[tuple[str, str]]:
        list_path = self.request.list_path
        if list_path is None:
            raise UserError(
                "Layout 'list' needs a list file: give list_path, or the file itself as the root."
            )
        try:
            with open(list_path, encoding="utf-8-sig", errors="surrogateescape") as file:
                lines = file.read().splitlines()
        except OSError as error:
            raise UserError(f"The list {list_path} cannot be read: {error.strerror}.") from error
        records, problems = [], []
        for number, line in enumerate(lines, start=1):
            fields = line.strip().split(maxsplit=1)
            if not fields:
                continue
            if len(fields) == 2 and "/" not in fields[0] and os.sep not in fields[0]:
                records.append((fields[0], fields[1]))
            else:
                problems.append(f"  line {number}: {line.strip()[:80]!r}")
        if problems:
            hidden = len(problems) - _PROBLEMS_SHOWN
            shown = problems[:_PROBLEMS_SHOWN] + ([f"  and {hidden} more"] if hidden > 0 else [])
            raise UserError(
                f"{list_path}: wanted lines 'speaker path', the speaker without a path separator; "
                "found\n" + "\n".join(shown)
            )
        return records

    def _collect_file(
        self, speaker_id: str, path: str, full_path: str, collected: Collected
    ) -> None:
        if os.path.splitext(path)[1].lower() not in AUDIO_EXTENSIONS:
            collected.excluded.append(ExcludedFile(full_path, "not an audio file"))
            return
        member = find_member(full_path)
        try:
            status = os.stat(full_path if member is None else member.shard)
        except OSError as error:
            reason = "broken link" if os.path.islink(full_path) else "listed but not there"
            collected.excluded.append(ExcludedFile(full_path, reason, str(error.strerror)))
            return
        parts = os.path.normpath(path).split(os.sep)
        has_session = self.request.multi_rec_session or parts[-3:-2] == [speaker_id]
        collected.candidates.append(
            Candidate(
                os.path.splitext(os.path.normpath(path))[0],
                speaker_id,
                parts[-2] if has_session and len(parts) > 1 else None,
                full_path,
                status.st_size,
                status.st_mtime_ns,
            )
        )

"""A list file with one line ``speaker path`` for each recording."""

import os
from collections import Counter

from speaker_encoder.audio import AUDIO_EXTENSIONS, AudioInfo
from speaker_encoder.audio.member import find_member
from speaker_encoder.corpora.layouts.layout import Candidate, Collected, Layout
from speaker_encoder.corpora.records import ExcludedFile
from speaker_encoder.errors import UserError

_PROBLEMS_SHOWN = 10


class ListFile(Layout):
    """Lines ``speaker path``, the path below the root; as the train lists of VoxCeleb's trainers.

    The session is the folder of the file where ``multi_rec_session`` says so, or where the path is
    of the form ``.../speaker/session/file``. A path may be that of a recording in a shard, whose
    index then tells the session and the length.
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
        self._ask_shards(collected)
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

    def _ask_shards(self, collected: Collected) -> None:
        """Takes what the shards know of their recordings; lengths, if they know all of them."""
        from speaker_encoder.corpora.shards import read_indexes

        members = [find_member(file.path) for file in collected.candidates]
        shards = sorted({member.shard for member in members if member is not None})
        if not shards:
            return
        request = self.request
        indexes = read_indexes(
            shards,
            cache_dir=request.cache_dir,
            use_cache=request.use_cache,
            show_progress=request.show_progress,
        )
        known = {
            (shard, entry.first, entry.second): entry
            for shard, index in indexes.items()
            for entry in index.entries
        }
        entries = [member and known.get(member[:3]) for member in members]
        for number, entry in enumerate(entries):
            file = collected.candidates[number]
            if entry is not None and entry.session_id is not None:
                collected.candidates[number] = file._replace(session_id=entry.session_id)
        if None not in entries:
            collected.infos.update(
                (file.path, AudioInfo(entry.num_samples, entry.sampling_rate, 1))
                for file, entry in zip(collected.candidates, entries, strict=True)
                if entry is not None
            )

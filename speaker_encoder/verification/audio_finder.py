"""Finds the audio and the speakers that trial lists and cohorts name."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from speaker_encoder.audio.member import find_member
from speaker_encoder.corpora import Corpus
from speaker_encoder.corpora.shards import folder_of, is_address
from speaker_encoder.errors import UserError


class AudioFinder:
    """Finds the audio that trial lists name.

    Args:
        root: of the audio; may be a Kaldi data folder with ``wav.scp``, or a corpus of which ids
            are used; a corpus of shards may be given by its address.
        list_path: the list; names may also be relative to its folder.
    """

    def __init__(self, root: str | os.PathLike[str], list_path: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)
        self._is_address = _is_address(self.root)
        if not self._is_address and not os.path.isdir(self.root):
            raise UserError(f"--data_root {self.root}: there is no such folder.")
        self._folders = (_folder(self.root), os.path.dirname(os.fspath(list_path)) or ".")
        self._known: dict[str, str | None] = {}

    def find(self, name: str) -> str | None:
        """The path of an audio file, or None where there is none."""
        if name not in self._known:
            paths = (os.path.join(folder, name) for folder in self._folders)
            found = next((path for path in paths if _is_recording(path)), None)
            if found is None:
                found = self._kaldi.get(name)
                if found is None:
                    found = self._find_in_corpus(name)
                if found is not None and found.endswith("|"):
                    raise UserError(
                        f"wav.scp: {name} is the output of a command; wanted audio files. Write "
                        "them with Kaldi's wav-copy, or give a trial list of paths."
                    )
            self._known[name] = found
        return self._known[name]

    def _find_in_corpus(self, name: str) -> str | None:
        """A recording by its id; in shards, where no files are, also by its id and extension."""
        key, extension = os.path.splitext(name)
        if not extension or name in self._corpus:
            return self._corpus.get(name)
        found = self._corpus.get(key)
        return None if found is None or find_member(found) is None else found

    def is_known(self, name: str) -> bool:
        """Is there such a file."""
        return self.find(name) is not None

    @cached_property
    def _kaldi(self) -> dict[str, str]:
        """Utterance -> file of a ``wav.scp``, whose paths may be relative to several folders."""
        found: dict[str, str] = {}
        for folder in self._folders:
            scp = os.path.join(folder, "wav.scp")
            if not os.path.isfile(scp):
                continue
            with open(scp, encoding="utf-8", errors="surrogateescape") as file:
                lines = [line.split(None, 1) for line in file if line.strip()]
            for fields in lines:
                if len(fields) != 2:
                    continue
                key, place = fields[0], fields[1].strip()
                if place.endswith("|"):
                    found.setdefault(key, place)
                    continue
                roots = (folder, self.root, ".", os.path.dirname(os.path.dirname(folder)))
                tried = (os.path.join(base, place) for base in roots)
                path = next((path for path in tried if os.path.isfile(path)), None)
                if path is not None:
                    found.setdefault(key, path)
        return found

    @cached_property
    def _corpus(self) -> dict[str, str]:
        """Utterance id, and file name without extension where it is unique -> file."""
        from speaker_encoder.corpora import scan
        from speaker_encoder.export.names import flat_id

        if self._kaldi:
            return {}
        try:
            utterances = scan(self.root).utterances
        except UserError:  # no corpus: its names are paths
            if self._is_address:
                raise
            return {}
        found: dict[str, str] = {}
        stems: dict[str, list[str]] = {}
        for utterance in utterances:
            found[utterance.utterance_id] = utterance.path
            found[flat_id(utterance.utterance_id)] = utterance.path
            stems.setdefault(os.path.basename(utterance.utterance_id), []).append(utterance.path)
        return {**{stem: paths[0] for stem, paths in stems.items() if len(paths) == 1}, **found}


def _is_address(text: str) -> bool:
    return is_address(text) and not os.path.isdir(text)


def _folder(root: str) -> str:
    """What names are relative to."""
    return folder_of(root) if _is_address(root) else root


def _is_recording(path: str) -> bool:
    """Whether there is such a file, or the shard that a path in one names."""
    member = find_member(path)
    return os.path.isfile(path if member is None else member.shard)


def scan_corpus_or_list(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None
) -> Corpus:
    """A corpus by its folder, or by a list with lines ``speaker path``.

    Args:
        path: the folder, the address of shards, or the list.
        root: what the paths of the list are relative to, if its first file is there; else they
            are relative to the list's folder.

    Raises:
        UserError: there is none.
    """
    from speaker_encoder.corpora import scan

    if root is not None and os.path.isfile(path) and not _is_address(os.fspath(path)):
        root = _folder(os.fspath(root))
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            first = next((line.split(None, 1) for line in file if line.strip()), [])
        if len(first) == 2 and _is_recording(os.path.join(root, first[1].strip())):
            return scan(root, "list", list_path=path)
    return scan(path)


def kaldi_speakers(
    root: str | os.PathLike[str], list_path: str | os.PathLike[str]
) -> dict[str, str]:
    """``utt2spk`` of a Kaldi data folder, or of the folder of the list."""
    for folder in (Path(root), Path(list_path).absolute().parent):
        if (folder / "utt2spk").is_file():
            lines = (folder / "utt2spk").read_text(encoding="utf-8", errors="surrogateescape")
            pairs = (line.split(None, 1) for line in lines.splitlines())
            return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    return {}

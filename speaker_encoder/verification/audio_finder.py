"""Finds the audio and the speakers that trial lists and cohorts name."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from speaker_encoder.corpora import Corpus
from speaker_encoder.errors import UserError


class AudioFinder:
    """Finds the audio that trial lists name.

    Args:
        root: of the audio; may be a Kaldi data folder with ``wav.scp``, or a corpus of which ids
            are used.
        list_path: the list; names may also be relative to its folder.
    """

    def __init__(self, root: str | os.PathLike[str], list_path: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root)
        if not os.path.isdir(self.root):
            raise UserError(f"--data_root {self.root}: there is no such folder.")
        self._folders = (self.root, os.path.dirname(os.fspath(list_path)) or ".")
        self._known: dict[str, str | None] = {}

    def find(self, name: str) -> str | None:
        """The path of an audio file, or None where there is none."""
        if name not in self._known:
            paths = (os.path.join(folder, name) for folder in self._folders)
            found = next((path for path in paths if os.path.isfile(path)), None)
            if found is None:
                found = self._kaldi.get(name)
                if found is None and not os.path.splitext(name)[1]:
                    found = self._corpus.get(name)
                if found is not None and found.endswith("|"):
                    raise UserError(
                        f"wav.scp: {name} is the output of a command; wanted audio files. Write "
                        "them with Kaldi's wav-copy, or give a trial list of paths."
                    )
            self._known[name] = found
        return self._known[name]

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
            return {}
        found: dict[str, str] = {}
        stems: dict[str, list[str]] = {}
        for utterance in utterances:
            found[utterance.utterance_id] = utterance.path
            found[flat_id(utterance.utterance_id)] = utterance.path
            stems.setdefault(os.path.basename(utterance.utterance_id), []).append(utterance.path)
        return {**{stem: paths[0] for stem, paths in stems.items() if len(paths) == 1}, **found}


def scan_corpus_or_list(
    path: str | os.PathLike[str], root: str | os.PathLike[str] | None
) -> Corpus:
    """A corpus by its folder, or by a list with lines ``speaker path``.

    Args:
        path: the folder or the list.
        root: what the paths of the list are relative to, if its first file is there; else they
            are relative to the list's folder.

    Raises:
        UserError: there is none.
    """
    from speaker_encoder.corpora import scan

    if root is not None and os.path.isfile(path):
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            first = next((line.split(None, 1) for line in file if line.strip()), [])
        if len(first) == 2 and os.path.isfile(os.path.join(root, first[1].strip())):
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

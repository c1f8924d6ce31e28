"""Kaldi data folders."""

import os
from collections import Counter

from speaker_encoder.audio import AUDIO_EXTENSIONS
from speaker_encoder.corpora.kaldi import read_kaldi_folder
from speaker_encoder.corpora.layouts.layout import Candidate, Collected, Layout, ScanRequest
from speaker_encoder.corpora.records import ExcludedFile
from speaker_encoder.errors import UserError


class Kaldi(Layout):
    """``wav.scp`` and ``utt2spk``; the recordings lie anywhere."""

    pattern = "a Kaldi data folder (wav.scp, utt2spk)"

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """Both files lie at the root."""
        names = ("wav.scp", "utt2spk")
        return all(os.path.isfile(os.path.join(request.root, name)) for name in names)

    def collect(self) -> Collected:
        """All utterances with their speakers; reads no headers.

        Raises:
            UserError: the folder has `segments`, or its files do not fit together.
        """
        root = self.request.root
        if os.path.exists(os.path.join(root, "segments")):
            raise UserError(
                f"{root} has `segments`: its utterances are parts of recordings. Cut them into "
                "files first: speaker-encoder prepare kaldi --archives "
                f"{root} --output_dir FOLDER"
            )
        collected = Collected(ignored=Counter())
        for utterance in read_kaldi_folder(root):
            if utterance.path is None:
                reason = utterance.problem or "no recording"
                collected.excluded.append(ExcludedFile(utterance.utterance_id, reason))
                continue
            collected.speaker_paths.setdefault(utterance.speaker_id, utterance.path)
            if os.path.splitext(utterance.path)[1].lower() not in AUDIO_EXTENSIONS:
                collected.excluded.append(ExcludedFile(utterance.path, "not an audio file"))
                continue
            try:
                status = os.stat(utterance.path)
            except OSError as error:
                reason = "listed but not there"
                collected.excluded.append(ExcludedFile(utterance.path, reason, str(error.strerror)))
                continue
            collected.candidates.append(
                Candidate(
                    utterance.utterance_id,
                    utterance.speaker_id,
                    None,
                    utterance.path,
                    status.st_size,
                    status.st_mtime_ns,
                )
            )
        return collected

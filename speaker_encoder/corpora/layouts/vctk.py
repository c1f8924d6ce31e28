"""VCTK 0.80 and 0.92, as they are and as other corpora imitate them."""

import os
import re
from collections.abc import Sequence

from speaker_encoder.corpora.layouts.layout import FolderLayout, Place, ScanRequest

# The best copy first: VCTK 0.92 may lie beside one that somebody converted.
AUDIO_FOLDERS = ("wav48_silence_trimmed", "wav48", "wav")
_MICROPHONE = re.compile(r"(?P<utterance>.+)_mic(?P<number>\d)$")
_SPEAKER_FILE = re.compile(r"[ps]\d{3,}_\d{3,}(_mic\d)?\.")


class Vctk(FolderLayout):
    """``wav48_silence_trimmed/speaker/file``, or ``wav48`` or ``wav``; one microphone of two."""

    pattern = "wav48_silence_trimmed/speaker/file (or wav48, or wav)"

    def __init__(self, request: ScanRequest) -> None:
        super().__init__(request)
        with_audio = {
            folder.parts[0]
            for folder in request.tree.audio_folders()
            if len(folder.parts) == 2 and folder.parts[0] in AUDIO_FOLDERS
        }
        chosen = next((name for name in AUDIO_FOLDERS if name in with_audio), None)
        self._base: tuple[str, ...] = () if chosen is None else (chosen,)
        self._other_copies = with_audio - {chosen}

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """VCTK's folder names, or its file names in folders of speakers."""
        for folder in request.tree.audio_folders():
            parts, name = folder.parts, folder.files[0].name
            if len(parts) == 2 and parts[0] in AUDIO_FOLDERS[:2]:
                return True
            if len(parts) == 2 and parts[0] == "wav" and _SPEAKER_FILE.match(name):
                return True
            if len(parts) == 1 and _SPEAKER_FILE.match(name):
                return True
        return False

    def place(self, parts: tuple[str, ...]) -> Place | str:
        """The folder below ``wav48_silence_trimmed`` (or its substitutes) is the speaker."""
        depth = len(self._base)
        if parts[:depth] == self._base and len(parts) == depth + 1:
            return Place(parts[-1])
        if parts and parts[0] in self._other_copies:
            return f"another copy of what {self._base[0]} holds"
        return "not in the folder of a speaker"

    def leave_out(self, names: Sequence[str]) -> dict[str, str]:
        """The second microphone, where there is the first of the same sentence."""
        microphones: dict[str, list[tuple[str, str]]] = {}
        for name in names:
            match = _MICROPHONE.match(os.path.splitext(name)[0])
            if match:
                microphones.setdefault(match["utterance"], []).append((match["number"], name))
        return {
            name: "another microphone of the same sentence"
            for recordings in microphones.values()
            for _, name in sorted(recordings)[1:]
            if os.path.splitext(name)[0] != os.path.splitext(sorted(recordings)[0][1])[0]
        }

"""LibriSpeech."""

import re
from typing import ClassVar

from speaker_encoder.corpora.layouts.layout import FolderLayout, Place, ScanRequest


class LibriSpeech(FolderLayout):
    """``speaker/chapter/file``, directly or in parts such as ``train-clean-100``."""

    pattern = "speaker/chapter/file (also in train-clean-100, ...)"
    file_name: ClassVar[re.Pattern[str]] = re.compile(r"\d+-\d+-\d+\.")

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """Folders of numbers with files that repeat those numbers."""
        return any(
            _is_chapter(folder.parts) and cls.file_name.match(folder.files[0].name) is not None
            for folder in request.tree.audio_folders()
        )

    def place(self, parts: tuple[str, ...]) -> Place | str:
        """The session is the chapter; the part of the corpus does not matter."""
        if _is_chapter(parts):
            return Place(parts[-2], parts[-1])
        return "not in the folder of a speaker's chapter"

    def speaker_of(self, parts: tuple[str, ...]) -> str | None:
        """Every folder of a number that is not in another one."""
        if parts and parts[-1].isdecimal() and not any(part.isdecimal() for part in parts[:-1]):
            return parts[-1]
        return None


def _is_chapter(parts: tuple[str, ...]) -> bool:
    return len(parts) >= 2 and parts[-1].isdecimal() and parts[-2].isdecimal()

"""The CMU Arctic databases."""

import re

from speaker_encoder.corpora.layouts.layout import FolderLayout, Place, ScanRequest

_DATABASE = re.compile(r"cmu_us_(?P<speaker>[A-Za-z0-9]+)_arctic")


class CmuArctic(FolderLayout):
    """``cmu_us_SPEAKER_arctic/wav/file``; ``orig`` and other folders beside ``wav`` are not."""

    pattern = "cmu_us_SPEAKER_arctic/wav/file"

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """A database's folder with recordings in its ``wav``."""
        return any(
            len(folder.parts) == 2
            and folder.parts[1] == "wav"
            and _DATABASE.match(folder.parts[0]) is not None
            for folder in request.tree.audio_folders()
        )

    def place(self, parts: tuple[str, ...]) -> Place | str:
        """The speaker is the third part of the database's name."""
        match = _DATABASE.match(parts[0]) if parts else None
        if match is None:
            return "not in a folder cmu_us_SPEAKER_arctic"
        if parts[1:] != ("wav",):
            return "not in the folder wav of its database"
        return Place(match["speaker"].lower())

    def speaker_of(self, parts: tuple[str, ...]) -> str | None:
        """Every database's folder."""
        match = _DATABASE.match(parts[0]) if len(parts) == 1 else None
        return match["speaker"].lower() if match else None

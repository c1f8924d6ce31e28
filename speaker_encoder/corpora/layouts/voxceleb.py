"""VoxCeleb1 and VoxCeleb2, wav and m4a."""

import re

from speaker_encoder.corpora.layouts.layout import FolderLayout, Place, ScanRequest

_SPEAKER = re.compile(r"id\d{5}$")


class VoxCeleb(FolderLayout):
    """``idNNNNN/video/file``, directly or in folders such as ``wav`` and ``dev/aac``."""

    pattern = "idNNNNN/video/file (also in wav, dev/aac, ...)"

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """Folders with VoxCeleb's speaker numbers and folders of videos in them."""
        return any(
            len(folder.parts) >= 2 and _SPEAKER.match(folder.parts[-2]) is not None
            for folder in request.tree.audio_folders()
        )

    def place(self, parts: tuple[str, ...]) -> Place | str:
        """The session is the video."""
        if len(parts) >= 2 and _SPEAKER.match(parts[-2]):
            return Place(parts[-2], parts[-1])
        return "not in a folder idNNNNN/video"

    def speaker_of(self, parts: tuple[str, ...]) -> str | None:
        """Every folder named like a speaker."""
        return parts[-1] if parts and _SPEAKER.match(parts[-1]) else None

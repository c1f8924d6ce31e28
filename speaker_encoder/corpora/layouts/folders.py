"""A folder of recordings for each speaker."""

from speaker_encoder.corpora.layouts.layout import FolderLayout, Place, ScanRequest


class Folders(FolderLayout):
    """``speaker/file``; also the native layout of speechocean762 below its ``WAVE``."""

    pattern = "speaker/file"

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """Any folder with audio in it; this layout is the last that is tried."""
        return any(request.tree.audio_folders())

    def place(self, parts: tuple[str, ...]) -> Place | str:
        """The first folder is the speaker."""
        if not parts:
            return "not in the folder of a speaker"
        return Place(parts[0]) if len(parts) == 1 else "deeper than speaker/file"

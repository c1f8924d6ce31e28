"""A folder for each speaker, and in it one for each recording session."""

from speaker_encoder.corpora.layouts.layout import FolderLayout, Place, ScanRequest


class Sessions(FolderLayout):
    """``speaker/session/file``; what ``multi_rec_session`` means."""

    pattern = "speaker/session/file"

    @classmethod
    def recognises(cls, request: ScanRequest) -> bool:
        """Audio two folders below the root, and none in the folders of speakers themselves."""
        depths = {len(folder.parts) for folder in request.tree.audio_folders()}
        return 2 in depths and 1 not in depths

    def place(self, parts: tuple[str, ...]) -> Place | str:
        """The first folder is the speaker, the second the session."""
        if len(parts) == 2:
            return Place(*parts)
        if len(parts) < 2:
            return "not in the folder of a session"
        return "deeper than speaker/session/file"

    def speaker_of(self, parts: tuple[str, ...]) -> str | None:
        """Every folder directly below the root."""
        return parts[0] if len(parts) == 1 else None

"""Writes the embeddings of a corpus in the form that TTS systems read."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speaker_encoder.export.options import ExportOptions
    from speaker_encoder.export.pretrained_space import PretrainedSpace, load_space
    from speaker_encoder.export.run import ExportOutcome, embed_corpus

__all__ = ["ExportOptions", "ExportOutcome", "PretrainedSpace", "embed_corpus", "load_space"]


def __getattr__(name: str) -> object:
    """Imports what is asked for when it is; torch is heavy."""
    if name == "ExportOptions":
        from speaker_encoder.export import options

        return options.ExportOptions
    if name in ("PretrainedSpace", "load_space"):
        from speaker_encoder.export import pretrained_space

        return getattr(pretrained_space, name)
    if name in ("ExportOutcome", "embed_corpus"):
        from speaker_encoder.export import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

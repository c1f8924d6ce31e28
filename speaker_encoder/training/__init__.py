"""Training: the JSON config, the P x K sampler, the Trainer subclass, the callbacks."""

from typing import TYPE_CHECKING

from speaker_encoder.training.tracking_comet import quiet_comet

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.run import TrainOutcome, train

__all__ = ["TrainConfig", "TrainOutcome", "train"]

quiet_comet()  # before transformers' Trainer is imported, which imports comet_ml


def __getattr__(name: str) -> object:
    """Imports the config without torch, and the training only when it is asked for."""
    if name == "TrainConfig":
        from speaker_encoder.training.config import TrainConfig

        return TrainConfig
    if name in ("train", "TrainOutcome"):
        from speaker_encoder.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

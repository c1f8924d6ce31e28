"""The keys of the training config: kind, default and meaning of each, and nothing else.

This is the one source of the config's checks, its defaults, its JSON schema and its table in the
documentation. A section is a dataclass; `TrainConfig` is made of all of them. A type says what the
key holds once the config is read, which is never null where null means "follows from other keys".
"""

from speaker_encoder.training.keys.augmentation import AugmentationKeys
from speaker_encoder.training.keys.closeness import ClosenessKeys
from speaker_encoder.training.keys.data import DataKeys
from speaker_encoder.training.keys.field import REQUIRED
from speaker_encoder.training.keys.model import ModelKeys
from speaker_encoder.training.keys.optimisation import OptimisationKeys
from speaker_encoder.training.keys.record import RecordKeys

__all__ = [
    "REQUIRED",
    "AugmentationKeys",
    "ClosenessKeys",
    "DataKeys",
    "ModelKeys",
    "OptimisationKeys",
    "RecordKeys",
]

"""Fine-tune speaker encoders on your own voices, and use what came out.

>>> from speaker_encoder import SpeakerEncoder
>>> encoder = SpeakerEncoder.from_pretrained("ecapa")
>>> embeddings = encoder.encode(["a.wav", "b.wav"])  # (2, 192), rows L2-normalised
"""

from typing import TYPE_CHECKING

from speaker_encoder.compat import make_torchaudio_extension_optional
from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from speaker_encoder.modeling import (
        SpeakerEncoder,
        SpeakerEncoderConfig,
        SpeakerEncoderFeatureExtractor,
    )

__version__ = "0.1.0"
__all__ = [
    "SpeakerEncoder",
    "SpeakerEncoderConfig",
    "SpeakerEncoderFeatureExtractor",
    "UserError",
    "__version__",
]

make_torchaudio_extension_optional()


def __getattr__(name: str) -> object:
    """Imports the model classes when they are first asked for; torch is heavy."""
    if name in ("SpeakerEncoder", "SpeakerEncoderConfig", "SpeakerEncoderFeatureExtractor"):
        from speaker_encoder import modeling

        return getattr(modeling, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The speaker encoder as a transformers model, one file for each family of backbones.

Importing this package makes ``AutoConfig``, ``AutoModel``, ``AutoModelForAudioXVector`` and
``AutoFeatureExtractor`` know the model.
"""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioXVector

from speaker_encoder.modeling.configuration import SpeakerEncoderConfig
from speaker_encoder.modeling.encoder import SpeakerEncoder
from speaker_encoder.modeling.feature_extraction import SpeakerEncoderFeatureExtractor
from speaker_encoder.modeling.output import SpeakerEncoderOutput

AutoConfig.register(SpeakerEncoderConfig.model_type, SpeakerEncoderConfig, exist_ok=True)
AutoModel.register(SpeakerEncoderConfig, SpeakerEncoder, exist_ok=True)
AutoModelForAudioXVector.register(SpeakerEncoderConfig, SpeakerEncoder, exist_ok=True)
AutoFeatureExtractor.register(SpeakerEncoderConfig, SpeakerEncoderFeatureExtractor, exist_ok=True)

__all__ = [
    "SpeakerEncoder",
    "SpeakerEncoderConfig",
    "SpeakerEncoderFeatureExtractor",
    "SpeakerEncoderOutput",
]

"""From the config to what is done to training examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from speaker_encoder.training.config_data_checks import shifts_views
from speaker_encoder.training.selection import person_of
from speaker_encoder.training.spec_augment import MaskSizes, SpecAugment

if TYPE_CHECKING:
    from speaker_encoder.audio.augment import Augmenter, Policy
    from speaker_encoder.audio.voice_bank import VoiceBank
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.data import Split

TRAINING_VOICES = "training"


def build_augmenter(config: TrainConfig, split: Split, sampling_rate: int) -> Augmenter | None:
    """Gives the augmentation of waveforms, None when it is off.

    Args:
        config: of the run.
        split: the training data, whose voices babble is made of.
        sampling_rate: in Hz, of the model.

    Raises:
        UserError: a folder of noises, music, voices or impulse responses holds nothing usable, or
            a codec is missing.
    """
    if not config.use_data_augmentation:
        return None
    from speaker_encoder.audio.augment import AugmentConfig, Augmenter

    options = AugmentConfig(
        noise_paths=config.augment_noises_paths,
        music_paths=config.augment_musics_paths,
        reverb_paths=config.augment_reverbs_paths,
        noise_p=config.augment_noise_p,
        music_p=config.augment_music_p,
        reverb_p=config.augment_reverb_p,
        babble_p=config.augment_babble_p,
        pitch_p=config.augment_pitch_p,
        codec_p=config.augment_codec_p,
        noise_snr_db=config.augment_noise_snr_db,
        music_snr_db=config.augment_music_snr_db,
        babble_snr_db=config.augment_babble_snr_db,
        babble_voices=config.augment_babble_voices,
        pitch_semitones=config.augment_pitch_semitones,
        codecs=config.augment_codecs,
        bank_seconds=config.augment_bank_seconds,
        policy=cast("Policy", config.augment_policy),
        num_views=config.utterances_per_speaker if shifts_views(vars(config)) else 0,
    )
    voices = _load_voices(config, split, sampling_rate)
    device = augmentation_device(config)
    augmenter = Augmenter(options, sampling_rate, device, config.seed, voices)
    return augmenter if augmenter.kinds else None


def _load_voices(config: TrainConfig, split: Split, sampling_rate: int) -> VoiceBank | None:
    sources = config.augment_babbles_paths
    if not sources or not config.augment_babble_p:
        return None
    from speaker_encoder.audio.voice_bank import load_voices

    recordings = []
    if TRAINING_VOICES in sources:
        recordings = [(utterance.path, person_of(utterance)) for utterance in split.utterances]
    return load_voices(
        recordings,
        [path for path in sources if path != TRAINING_VOICES],
        sampling_rate,
        most_voices=config.augment_babble_voices[1],
        max_seconds=config.augment_bank_seconds,
        seed=config.seed,
    )


def augmentation_device(config: TrainConfig) -> str:
    """Gives "cpu", where the loader's processes augment, or the CUDA device of the main one."""
    if config.aug_device == "cpu" or config.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return "cuda"  # the only one that this process sees


def build_spec_augment(config: TrainConfig, model: SpeakerEncoder) -> SpecAugment | None:
    """Gives the masks of the model's mel features, attached to it; None when they are off.

    Raises:
        UserError: the model has no mel features.
    """
    has_masks = config.spec_augment_time_masks or config.spec_augment_mel_masks
    if not config.use_data_augmentation or not has_masks:
        return None
    sizes = MaskSizes(
        config.spec_augment_time_masks,
        config.spec_augment_time_frames,
        config.spec_augment_mel_masks,
        config.spec_augment_mel_bands,
    )
    masks = SpecAugment(sizes, config.seed)
    masks.attach(model.backbone, model.config.encoder_kind)
    return masks

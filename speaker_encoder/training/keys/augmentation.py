"""Keys of the config: what is done to training examples."""

from __future__ import annotations

from dataclasses import dataclass

from speaker_encoder.training.config_compound import NumberOrRange, PathList
from speaker_encoder.training.config_kinds import Boolean, Number
from speaker_encoder.training.keys.field import device, key

_AT_MOST_ONE = Number(least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class AugmentationKeys:
    """Music, then noise, then impulse responses, on training batches."""

    use_data_augmentation: bool = key(
        Boolean(nullable=True),
        None,
        "Augment training batches; null: when any augment_*_paths is given.",
    )
    augment_noises_paths: tuple[str, ...] = key(
        PathList(), None, "Folders or files of background noise."
    )
    augment_musics_paths: tuple[str, ...] = key(PathList(), None, "Folders or files of music.")
    augment_reverbs_paths: tuple[str, ...] = key(
        PathList(), None, "Folders or files of room impulse responses."
    )
    augment_music_p: float = key(_AT_MOST_ONE, 0.6, "Probability that an example gets music.")
    augment_noise_p: float = key(_AT_MOST_ONE, 0.6, "Probability that an example gets noise.")
    augment_reverb_p: float = key(
        _AT_MOST_ONE, 0.6, "Probability that an example gets an impulse response."
    )
    augment_snr_db: tuple[float, float] = key(
        NumberOrRange(Number(least=-100, most=100), always_range=True),
        [10, 15],
        "Signal-to-noise ratio in dB of music and noise, [least, most], uniform.",
    )
    augment_bank_seconds: float = key(
        Number(above=0), 600.0, "Seconds of audio kept in memory for each kind, at most."
    )
    aug_device: str = key(
        device(allows_best=True),
        "cpu",
        "Where augmentation is computed; cpu: in the processes that read audio.",
    )

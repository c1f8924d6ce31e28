"""Keys of the config: what is done to training examples."""

from __future__ import annotations

from dataclasses import dataclass

from speaker_encoder.training.config_compound import NumberOrRange, PathList
from speaker_encoder.training.config_kinds import Boolean, Number, choice, integer
from speaker_encoder.training.config_lists import ChoiceList, IntegerRange
from speaker_encoder.training.config_tables import known_codecs
from speaker_encoder.training.keys.field import device, key

_AT_MOST_ONE = Number(least=0, most=1)
_DECIBEL = Number(least=-100, most=100)


@dataclass(frozen=True, kw_only=True)
class AugmentationKeys:
    """Pitch, music, noise, babble, rooms, codecs, and masks of the spectrogram."""

    use_data_augmentation: bool = key(
        Boolean(nullable=True),
        None,
        "Augment training batches; null: when any kind of augmentation is given.",
    )
    augment_policy: str = key(
        choice("each", "one_of", "stacked"),
        "each",
        "each: every kind with its own probability, in the order pitch, music, noise, babble, "
        "room, codec. one_of: one of the kinds that are given, or none, all with the same chance. "
        "stacked: pitch, room, one background (music, noise or babble), codec; the largest of the "
        "three probabilities is that of a background, which is drawn in proportion to them.",
    )
    augment_noises_paths: tuple[str, ...] = key(
        PathList(), None, "Folders or files of background noise."
    )
    augment_musics_paths: tuple[str, ...] = key(PathList(), None, "Folders or files of music.")
    augment_reverbs_paths: tuple[str, ...] = key(
        PathList(), None, "Folders or files of room impulse responses."
    )
    augment_babbles_paths: tuple[str, ...] = key(
        PathList(words=("training",)),
        None,
        'Voices that babble is mixed of: "training", the other speakers of the training corpus, or '
        "folders or files of speech, each file a speaker.",
    )
    augment_music_p: float = key(_AT_MOST_ONE, 0.6, "Probability that an example gets music.")
    augment_noise_p: float = key(_AT_MOST_ONE, 0.6, "Probability that an example gets noise.")
    augment_reverb_p: float = key(
        _AT_MOST_ONE, 0.6, "Probability that an example gets an impulse response."
    )
    augment_babble_p: float = key(_AT_MOST_ONE, 0.6, "Probability that an example gets babble.")
    augment_pitch_p: float = key(
        _AT_MOST_ONE, 0.0, "Probability that an example is shifted in pitch; its formants stay."
    )
    augment_codec_p: float = key(
        _AT_MOST_ONE, 0.0, "Probability that an example goes through a codec."
    )
    augment_snr_db: tuple[float, float] = key(
        NumberOrRange(_DECIBEL, always_range=True),
        [10, 15],
        "Signal-to-noise ratio in dB of music and noise, [least, most], uniform.",
    )
    augment_music_snr_db: tuple[float, float] = key(
        NumberOrRange(_DECIBEL, always_range=True, nullable=True),
        None,
        "The same of music alone; null: augment_snr_db.",
    )
    augment_noise_snr_db: tuple[float, float] = key(
        NumberOrRange(_DECIBEL, always_range=True, nullable=True),
        None,
        "The same of noise alone; null: augment_snr_db.",
    )
    augment_babble_snr_db: tuple[float, float] = key(
        NumberOrRange(_DECIBEL, always_range=True),
        [13, 20],
        "The same of each voice of a babble by itself, as in Kaldi.",
    )
    augment_babble_voices: tuple[int, int] = key(
        IntegerRange(1), [3, 7], "Voices in a babble, [least, most], all of different speakers."
    )
    augment_pitch_semitones: tuple[float, float] = key(
        NumberOrRange(Number(least=-24, most=24), always_range=True),
        [-2, 2],
        "Shift of the pitch in semitones, [lowest, highest], uniform.",
    )
    augment_codecs: tuple[str, ...] = key(
        ChoiceList(known_codecs()),
        ["mp3", "opus", "aac", "mulaw", "alaw"],
        "Codecs of which one is drawn for an example, with one of its bit rates.",
    )
    augment_bank_seconds: float = key(
        Number(above=0), 600.0, "Seconds of audio kept in memory for each kind, at most."
    )
    spec_augment_time_masks: int = key(
        integer(0), 0, "SpecAugment: masks over time, for encoders with a mel spectrogram."
    )
    spec_augment_time_frames: int = key(
        integer(1), 10, "Longest of these masks, in frames (of 10 ms in most encoders)."
    )
    spec_augment_mel_masks: int = key(integer(0), 0, "SpecAugment: masks over mel bands.")
    spec_augment_mel_bands: int = key(integer(1), 8, "Widest of these masks, in mel bands.")
    aug_device: str = key(
        device(allows_best=True),
        "cpu",
        "Where augmentation is computed; cpu: in the processes that read audio.",
    )

"""What must hold between the keys of a config about the examples: batches and augmentation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from speaker_encoder.training.config_kinds import shown
from speaker_encoder.training.replay import num_replay_speakers

Values = Mapping[str, Any]

AUGMENTATIONS = (
    "augment_noises_paths",
    "augment_musics_paths",
    "augment_reverbs_paths",
    "augment_babbles_paths",
    "augment_pitch_p",
    "augment_codec_p",
    "spec_augment_time_masks",
    "spec_augment_mel_masks",
)
"""Keys that each switch a kind of augmentation on."""


def shifts_views(values: Values) -> bool:
    """Do the views of an utterance hold pitch-shifted ones: halves, and each of them again."""
    return values["views"] == "halves" and values["utterances_per_speaker"] == 4


def is_augmented(values: Values) -> bool:
    """Is any kind of augmentation given."""
    return shifts_views(values) or any(values[name] for name in AUGMENTATIONS)


def _check_augmentation(values: Values) -> str | None:
    if values["use_data_augmentation"] and not is_augmented(values):
        return (
            f"use_data_augmentation: true, and none of {', '.join(AUGMENTATIONS)} is given. Give "
            "at least one, or set it to false"
        )
    return None


def _check_views(values: Values) -> str | None:
    views, num_views = values["views"], values["utterances_per_speaker"]
    if views == "halves" and num_views not in (2, 4):
        return (
            f'utterances_per_speaker: found {num_views} with views "halves", possible is 2, the '
            "halves, or 4, the halves and each of them pitch-shifted"
        )
    if shifts_views(values) and values["augment_pitch_p"]:
        return (
            'augment_pitch_p: given with views "halves" and utterances_per_speaker 4, where the '
            "third and fourth view are shifted and the others are not. Leave it out"
        )
    if shifts_views(values) and values["use_data_augmentation"] is False:
        return (
            'use_data_augmentation: false, and the third and fourth view of views "halves" are '
            "shifted in pitch. Set it to true or null, or utterances_per_speaker to 2"
        )
    return None


def _check_cap(values: Values) -> str | None:
    cap, num_utterances = values["max_utterances_per_speaker"], values["utterances_per_speaker"]
    if cap is None:
        return None
    if values["views"] != "speaker":
        return (
            "max_utterances_per_speaker: given with views "
            f"{shown(values['views'])}, where batches are not made of speakers. Leave it out"
        )
    if cap < num_utterances:
        return (
            f"max_utterances_per_speaker: found {cap}, a batch alone has {num_utterances} "
            "utterances of a speaker (utterances_per_speaker). Raise it, or leave it out"
        )
    return None


def _check_max_speakers(values: Values) -> str | None:
    speakers = values["max_speakers"]
    wanted = values["speakers_per_batch"] - num_replay_speakers(values)
    if speakers is None or values["views"] != "speaker":
        return None
    found = speakers * (1 + len(values["speed_perturbation"]))
    if found < wanted:
        return (
            f"max_speakers: {speakers} makes {found} speakers with speed_perturbation, a batch has "
            f"{wanted} of them (speakers_per_batch). Raise it, or lower speakers_per_batch"
        )
    return None


def _check_shuffle_buffer(values: Values) -> str | None:
    batch = values["speakers_per_batch"] * values["utterances_per_speaker"]
    if values["shuffle_buffer"] < batch:
        return (
            f"shuffle_buffer: found {values['shuffle_buffer']}, a batch alone has {batch} "
            "utterances (speakers_per_batch x utterances_per_speaker). Raise it"
        )
    return None


_VIEW_KEYS = ("views", "utterances_per_speaker")

DATA_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Values], str | None]], ...] = (
    (("use_data_augmentation", *_VIEW_KEYS, *AUGMENTATIONS), _check_augmentation),
    ((*_VIEW_KEYS, "augment_pitch_p", "use_data_augmentation"), _check_views),
    (("max_utterances_per_speaker", *_VIEW_KEYS), _check_cap),
    (
        ("shuffle_buffer", "speakers_per_batch", "utterances_per_speaker"),
        _check_shuffle_buffer,
    ),
    (
        (
            *("max_speakers", "speed_perturbation", "speakers_per_batch", "views"),
            *("replay_data_root", "replay_share"),
        ),
        _check_max_speakers,
    ),
)
"""Keys that a check looks at, and the check."""

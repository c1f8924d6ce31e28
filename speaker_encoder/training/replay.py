"""Replay: speakers of a second corpus in every batch, so that they are not forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from speaker_encoder.training.data import Split


def num_replay_speakers(values: Mapping[str, Any]) -> int:
    """Gives how many of a batch's P speakers are of the replay corpus.

    Args:
        values: of the config's keys.

    Returns:
        `replay_share` of P rounded, halves up, from 1 to P - 1; 0 without a replay corpus.
    """
    if values["replay_data_root"] is None:
        return 0
    size = values["speakers_per_batch"]
    return max(1, min(size - 1, int(values["replay_share"] * size + 0.5)))


def with_replay(training: Split, replay: Split | None) -> Split:
    """Gives what training batches are made of: both corpora, with labels over both.

    Labels are the places of all speakers' names in sorted order, as of one corpus. Of views, whose
    names may be in both, those of the replay corpus begin with `replay/`.

    Args:
        training: utterances of the training corpus.
        replay: those of the other; None: there is none.

    Raises:
        UserError: a speaker is in both.
    """
    if replay is None:
        return training
    both = sorted(set(training.speakers) & set(replay.speakers))
    if both:
        shown = ", ".join(both[:20]) + (f" and {len(both) - 20} more" if len(both) > 20 else "")
        raise UserError(
            f"{len(both)} speakers are in both training and replay data: {shown}. Take them out of "
            "one, with a replay_list say; where they are other people of the same name, rename one."
        )
    first = len(training.utterances)
    is_of_views = training.groups is not training.speakers
    speakers, groups = (
        {name: [first + place for place in members] for name, members in found.items()}
        for found in (replay.speakers, replay.groups)
    )
    if is_of_views:
        groups = {f"replay/{name}": members for name, members in groups.items()}
    return replace(
        training,
        utterances=(*training.utterances, *replay.utterances),
        speakers=dict(sorted({**training.speakers, **speakers}.items())),
        groups=dict(sorted({**training.groups, **groups}.items())),
        replayed=frozenset(groups),
    )


def mix(batches: Iterator[list[int]], replayed: Iterator[list[int]]) -> Iterator[list[int]]:
    """Gives batch after batch of the training corpus with the replay corpus's part behind it."""
    return ([*batch, *part] for batch, part in zip(batches, replayed, strict=True))

"""Who speaks, for trials whose list does not say it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from speaker_encoder.errors import UserError
from speaker_encoder.verification.trials import Trials


class InferredSpeakers(NamedTuple):
    """Speakers that labelled trials agree with.

    Attributes:
        speaker_ids: for each utterance; unique to the utterance where nothing is known.
        source: what they were inferred from.
    """

    speaker_ids: list[str]
    source: Literal["folders", "target trials"]


def infer_speakers(trials: Trials, paths: Sequence[str]) -> InferredSpeakers:
    """The speaker of each utterance, from its folders or else from the target trials.

    The folders are used when there is a depth at which both utterances of every target trial lie
    in the same folder and those of every nontarget trial in different ones, as
    `<speaker>/<video>/<utterance>.wav` of VoxCeleb or `wav48/<speaker>/<utterance>.wav` of VCTK.
    Otherwise utterances that target trials connect are one speaker (`speakers_of_targets`).

    Args:
        trials: with labels.
        paths: of the utterances that the trials point to, relative to one root, `/` between parts.

    Returns:
        The speakers and where they come from.

    Raises:
        UserError: trials without labels.
    """
    if trials.labels is None:
        raise UserError("These trials have no labels; they do not tell who speaks.")
    folders = [path.split("/")[:-1] for path in paths]
    for depth in range(1, max(map(len, folders), default=0) + 1):
        prefixes = ["/".join(parts[:depth]) for parts in folders]
        _, numbers = np.unique(prefixes, return_inverse=True)
        if np.array_equal(numbers[trials.enrolment] == numbers[trials.test], trials.labels):
            return InferredSpeakers(prefixes, "folders")
    return InferredSpeakers(speakers_of_targets(trials, len(paths)), "target trials")


def speakers_of_targets(trials: Trials, num_utterances: int | None = None) -> list[str]:
    """Groups of utterances that target trials connect, directly or through others.

    Two groups may be one person whom no target trial connects; intervals over such speakers are
    somewhat too narrow.

    Args:
        trials: with labels.
        num_utterances: that the trials point to; None for the highest one in the trials.

    Returns:
        A name for each utterance.

    Raises:
        UserError: trials without labels.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if trials.labels is None:
        raise UserError("These trials have no labels; they do not tell who speaks.")
    if num_utterances is None:
        positions = np.concatenate([trials.enrolment, trials.test])
        num_utterances = int(positions.max(initial=-1)) + 1
    if not num_utterances:
        return []
    ends = trials.enrolment[trials.labels], trials.test[trials.labels]
    graph = coo_array((np.ones(len(ends[0])), ends), (num_utterances, num_utterances))
    _, numbers = connected_components(graph, directed=False)
    return [f"speaker {number}" for number in numbers]

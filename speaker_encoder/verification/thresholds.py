"""The score at or above which two utterances count as one speaker, and where it comes from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from speaker_encoder.errors import UserError


@dataclass(frozen=True)
class Threshold:
    """A threshold on cosine scores.

    Attributes:
        value: accepted at or above it.
        source: where it comes from, for people.
    """

    value: float
    source: str


PUBLISHED = {
    "ecapa": Threshold(0.25, "the default of SpeechBrain's SpeakerRecognition.verify_files"),
    "wavlm-base-sv": Threshold(0.86, "the example on the model card of microsoft/wavlm-base-sv"),
    "wavlm-base-plus-sv": Threshold(
        0.86, "the example on the model card of microsoft/wavlm-base-plus-sv"
    ),
    "dvector": Threshold(
        0.71,
        "the equal error rate (5.98%) of our own 5,600 trials of speechocean762, 40 speakers who "
        "read English as a second language; see docs/verification.md",
    ),
}
"""Name of an encoder -> the threshold to take when the user knows no better one."""


def published_threshold(name: str) -> Threshold | None:
    """The threshold of a published encoder, by its name or Hub id."""
    from speaker_encoder.modeling.registry import NAMES

    for known, threshold in PUBLISHED.items():
        if name in (known, NAMES[known].hub_id):
            return threshold
    return None


def threshold_of_results(
    path: str | os.PathLike[str], weights_sha256: str, false_accept_rate: float | None = None
) -> Threshold:
    """The threshold that an evaluation of the same model found.

    Args:
        path: a ``results.json`` of `speaker-encoder evaluate`.
        weights_sha256: of the model.
        false_accept_rate: one that the evaluation was asked for; None: the equal error rate.

    Raises:
        UserError: it is no such file, or has no plain cosine scores of this model on whole
            utterances, or no threshold for that rate.
    """
    from speaker_encoder.verification.results import read_results

    results = read_results(path)
    systems = [
        system
        for system in results["systems"]
        if system.get("weights_sha256") == weights_sha256
        and not system.get("normalisation")
        and not system.get("calibration")
        and system.get("score") == "cosine"
        and system.get("protocol") == "full"
    ]
    if not systems or "eer" not in systems[0]:
        names = ", ".join(str(system.get("name")) for system in results["systems"])
        raise UserError(
            f"{path} has no threshold for this model: wanted its cosine scores on whole "
            f"utterances, found those of {names}. Evaluate this very model on labelled trials."
        )
    return _choose(systems[0], results["trials"], path, false_accept_rate)


def _choose(
    system: dict[str, Any],
    trials: dict[str, Any],
    path: str | os.PathLike[str],
    rate: float | None,
) -> Threshold:
    where = f"{trials['num_trials']} trials of {trials['source']} ({path})"
    if rate is None:
        eer = system["eer"]
        return Threshold(
            eer["threshold"], f"the equal error rate ({100 * eer['value']:.2f}%) of {where}"
        )
    rates = [entry["wanted_false_accept_rate"] for entry in system["thresholds"]]
    if rate not in rates:
        known = ", ".join(f"{entry:g}" for entry in rates)
        raise UserError(
            f"{path} has no threshold for a false-accept rate of {rate:g}; it has those for "
            f"{known}. Evaluate with --false_accept_rate {rate:g}."
        )
    entry = system["thresholds"][rates.index(rate)]
    return Threshold(
        entry["threshold"],
        f"{100 * entry['false_accept_rate']:.2f}% false accepts and "
        f"{100 * entry['miss_rate']:.2f}% misses on {where}",
    )

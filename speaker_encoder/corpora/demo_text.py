"""Sentences for the demonstration corpus: training and validation share no word but the small."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """The words that sentences are made of."""

    adjectives: tuple[str, ...]
    people: tuple[str, ...]
    verbs: tuple[str, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]


def make_sentence(words: Words, generator: random.Random) -> str:
    """A sentence of about three seconds.

    Args:
        words: the lists to choose from.
        generator: advanced by a fixed number of choices.
    """
    columns = (
        words.adjectives,
        words.people,
        words.verbs,
        words.adjectives,
        words.things,
        words.places,
        words.times,
    )
    adjective, person, verb, other, thing, place, when = map(generator.choice, columns)
    return f"The {adjective} {person} {verb} a {other} {thing} {place} {when}."


TRAIN_WORDS = Words(
    (
        "old",
        "tired",
        "happy",
        "silent",
        "clever",
        "broken",
        "heavy",
        "golden",
        "narrow",
        "lonely",
        "patient",
        "green",
    ),
    (
        "sailor",
        "teacher",
        "doctor",
        "gardener",
        "painter",
        "soldier",
        "farmer",
        "singer",
        "baker",
        "pilot",
    ),
    (
        "carried",
        "found",
        "painted",
        "borrowed",
        "dropped",
        "repaired",
        "wanted",
        "counted",
        "followed",
        "sold",
    ),
    (
        "basket",
        "window",
        "lantern",
        "bicycle",
        "letter",
        "hammer",
        "pillow",
        "camera",
        "ladder",
        "kettle",
        "violin",
    ),
    (
        "near the harbour",
        "behind the market",
        "under the bridge",
        "in the village",
        "across the river",
        "beside the church",
        "on the mountain",
        "at the station",
    ),
    (
        "before the rain came",
        "on Monday morning",
        "after the long winter",
        "without a single word",
        "while the children slept",
        "just before midnight",
        "for the second time",
    ),
)

VAL_WORDS = Words(
    (
        "young",
        "nervous",
        "polite",
        "careful",
        "hungry",
        "wooden",
        "shining",
        "ancient",
        "purple",
        "modest",
        "quick",
    ),
    (
        "lawyer",
        "captain",
        "student",
        "shepherd",
        "dancer",
        "merchant",
        "cousin",
        "neighbour",
        "engineer",
    ),
    (
        "opened",
        "purchased",
        "polished",
        "measured",
        "delivered",
        "admired",
        "noticed",
        "hid",
        "described",
    ),
    (
        "blanket",
        "mirror",
        "compass",
        "guitar",
        "saddle",
        "package",
        "helmet",
        "notebook",
        "ribbon",
        "trumpet",
    ),
    (
        "inside the museum",
        "along the coast",
        "outside the palace",
        "between the fields",
        "around the corner",
        "above the valley",
        "by the garden wall",
    ),
    (
        "during the festival",
        "late last Thursday",
        "until the music stopped",
        "with both hands",
        "since nobody objected",
        "early in September",
    ),
)

"""What must hold between the keys of a config about what the result is, and what it must keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, Any]


def _check_reference(values: Values) -> str | None:
    for key in ("reference_list", "reference_trials"):
        if values[key] and values["reference_data_root"] is None:
            return f"{key}: given without reference_data_root, what its paths are relative to"
    if values["reference_data_root"] and values["val_data_root"] is None:
        return "reference_data_root: given without validation data. Set val_data_root"
    return None


def _check_interpolation(values: Values) -> str | None:
    if values["interpolate_at"] == "validation" and values["val_data_root"] is None:
        return 'interpolate_at: found "validation" and no validation data. Set val_data_root'
    if values["interpolate_at"] == "validation" and values["interpolate"] != "auto":
        return 'interpolate_at: "validation" is for interpolate "auto"'
    if not values["pretrained"] and isinstance(values["interpolate"], float):
        return (
            f"interpolate: found {values['interpolate']:g} with pretrained false; between random "
            'and trained weights there is nothing. Set it to "auto" or "off"'
        )
    if values["val_data_root"] is None and isinstance(values["interpolate"], float):
        return (
            f"interpolate: found {values['interpolate']:g} and no validation data to measure it "
            "on. Set val_data_root"
        )
    if values["interpolate_at"] == "validation" and values["average_best"]:
        return (
            'interpolate_at: found "validation" with average_best; steps are compared by what '
            'interpolation makes of them, their mean is not. Set it to "end"'
        )
    return None


def _check_push_of_saves(values: Values) -> str | None:
    is_pushed_early = values["push_to_hub"] and values["hub_strategy"] == "every_save"
    is_compared = values["pretrained"] and values["val_data_root"] is not None
    if is_pushed_early and is_compared and not values["allow_worse"]:
        return (
            'hub_strategy: found "every_save" with allow_worse false; whether a model beats the '
            "pretrained one is known at the end of the run, and it would be pushed before that. "
            'Set it to "end", or allow_worse to true'
        )
    return None


_REFERENCE_KEYS = ("reference_data_root", "reference_list", "reference_trials", "val_data_root")

RESULT_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Values], str | None]], ...] = (
    (_REFERENCE_KEYS, _check_reference),
    (
        ("interpolate", "interpolate_at", "pretrained", "val_data_root", "average_best"),
        _check_interpolation,
    ),
    (
        ("push_to_hub", "hub_strategy", "pretrained", "val_data_root", "allow_worse"),
        _check_push_of_saves,
    ),
)
"""Keys that a check looks at, and the check."""

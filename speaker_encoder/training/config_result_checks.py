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
    return None


_REFERENCE_KEYS = ("reference_data_root", "reference_list", "reference_trials", "val_data_root")

RESULT_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Values], str | None]], ...] = (
    (_REFERENCE_KEYS, _check_reference),
    (("interpolate", "interpolate_at", "pretrained", "val_data_root"), _check_interpolation),
)
"""Keys that a check looks at, and the check."""

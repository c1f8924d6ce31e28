"""The stages of a recipe: which keys each may say, and the config of each as a run of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

NEW_ENCODER: dict[str, Any] = {
    "pretrained": True,
    "encoder_config": None,
    "enlarge_head": False,
    "head": None,
    "layers": None,
}
"""What makes the encoder that the first stage starts from -> what the stages after it have."""

OF_THE_WHOLE = (
    *("model_name", *NEW_ENCODER, "seed", "stages", "recipe"),
    *("val_data_root", "val_list", "val_trials", "layout", "multi_rec_session", "trim_silence"),
    *("reference_data_root", "reference_list", "reference_trials"),
    *("interpolate", "interpolate_at", "forgetting_tolerance", "allow_worse"),
    *("allow_speaker_overlap", "min_utterance_seconds", "val_max_seconds", "val_max_trials"),
    *("output_dir", "run_id", "force_restart", "cache_dir", "device", "data_parallel"),
    *("comet", "comet_key", "comet_project", "comet_workspace", "report_to"),
    *("push_to_hub", "hub_model_id", "hub_private", "hub_strategy", "hub_token"),
)
"""Keys that a stage cannot say: what all of them share, as the trials of before and after."""


def stage_folder(run_dir: Path, number: int) -> Path:
    """Gives the run directory of a stage, counted from 1, within that of the whole."""
    return run_dir / f"stage_{number}"


def stage_values(values: Mapping[str, Any], run_dir: Path, *, chained: bool) -> list[dict]:
    """Gives the config of each stage: that of the whole with what the stage says.

    Args:
        values: of all keys, before values that follow from others are filled in.
        run_dir: of the whole.
        chained: the stages after the first start from the model before; False: all from the first
            encoder, to be checked before there is any other.
    """
    stages = []
    for number, stage in enumerate(values["stages"], 1):
        own = {**values, **stage, "stages": (), "push_to_hub": False, "force_restart": False}
        own |= {"output_dir": str(run_dir), "run_id": stage_folder(run_dir, number).name}
        if chained and number > 1:
            own |= {key: value for key, value in NEW_ENCODER.items() if key in values}
            own["model_name"] = str(stage_folder(run_dir, number - 1) / "model")
        stages.append(own)
    return stages

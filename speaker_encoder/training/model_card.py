"""The model card of a trained encoder, from the run itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_encoder.losses import loss_title
from speaker_encoder.training.measured_card import INTERPOLATION_CAPTION, measured_section

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.report import Results

INTERPOLATION_PICTURE = "interpolation.png"
"""Beside the card, of a run that interpolated."""
_HEADER = """---
library_name: speaker-encoder
pipeline_tag: feature-extraction
tags:
- speaker-verification
- speaker-embeddings
- {model_tag}
---
"""

_USE = """
## Use

```python
import speaker_encoder
from speaker_encoder import SpeakerEncoder

encoder = SpeakerEncoder.from_pretrained("path/to/this/folder")
embeddings = encoder.encode(["a.wav", "b.wav"])  # (2, {dim}), rows L2-normalised
encoder.similarity(embeddings[:1], embeddings[1:])
```
"""


def model_card(config: TrainConfig, results: Results, embedding_dim: int | str = "D") -> str:
    """Gives the README.md of a model folder: how to use it, and what was measured."""
    name = _public_name(config.model_name)
    start = f"`{name}`" if config.pretrained else f"a random `{name}`"
    how = "The result of a run" if results.is_untouched else "Trained"
    lines = [
        _HEADER.format(model_tag=name.split("/")[-1]),
        f"# Speaker encoder {config.run_id}",
        "",
        f"{how} from {start} with the {_losses(config)} loss on "
        f"{results.num_train_utterances} utterances of {results.num_train_speakers} speakers "
        f"({results.train_hours:.2f} hours{_in_stages(config)}), {results.steps} steps."
        + _replayed(results.num_replay_speakers),
        _USE.format(dim=embedding_dim),
        "## Measured on unseen speakers",
        "",
        *_measured(config, results),
        "## Config",
        "",
        "```json",
        json.dumps(_public(config), indent=2, ensure_ascii=False),
        "```",
        "",
        *_source_of_loss(config),
    ]
    return "\n".join(lines)


def _losses(config: TrainConfig) -> str:
    """Gives the loss, or those of the stages one after the other."""
    losses = [stage.loss for stage in config.stage_configs()] or [config.loss]
    return ", then ".join(dict.fromkeys(loss_title(loss) for loss in losses))


def _in_stages(config: TrainConfig) -> str:
    return f" in the last of {len(config.stages)} stages" if config.stages else ""


def _source_of_loss(config: TrainConfig) -> list[str]:
    if "ge2e" not in _losses(config):
        return []
    return [
        "GE2E: L. Wan, Q. Wang, A. Papir, I. Lopez Moreno, Generalized End-to-End Loss for "
        "Speaker Verification, ICASSP 2018.",
        "",
    ]


def _public(config: TrainConfig) -> dict:
    """Gives what was chosen, without paths, which say nothing elsewhere and may name a user."""
    hidden = ("path", "root", "_dir", "list", "trials", "device", "comet", "run_id")
    values = config.to_dict()
    values["model_name"] = _public_name(config.model_name)
    return {key: value for key, value in values.items() if not any(h in key for h in hidden)}


def _replayed(num_speakers: int) -> str:
    if not num_speakers:
        return ""
    return f" Every batch had some of {num_speakers} speakers of another corpus in it (replay)."


def _public_name(name: str) -> str:
    """Gives an encoder's name, of a folder only the last part."""
    folder = Path(name).expanduser()
    return folder.resolve().name if folder.is_dir() else name


def _measured(config: TrainConfig, results: Results) -> list[str]:
    paragraphs = measured_section(
        results,
        is_pretrained=config.pretrained,
        place="this folder",
        forgetting_tolerance=config.forgetting_tolerance,
    )
    if results.interpolation is not None:
        paragraphs.append(f"![{INTERPOLATION_CAPTION}]({INTERPOLATION_PICTURE})")
    return [line for paragraph in paragraphs for line in (paragraph, "")]

"""The model card of a trained encoder, from the run itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_encoder.losses import loss_title

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.report import Measured, Results

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
    lines = [
        _HEADER.format(model_tag=name.split("/")[-1]),
        f"# Speaker encoder {config.run_id}",
        "",
        f"Trained from {start} with the {_losses(config)} loss on "
        f"{results.num_train_utterances} utterances of {results.num_train_speakers} speakers "
        f"({results.train_hours:.2f} hours{_in_stages(config)}), {results.steps} steps.",
        _USE.format(dim=embedding_dim),
        *_measured(results),
        "",
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


def _public_name(name: str) -> str:
    """Gives an encoder's name, of a folder only the last part."""
    folder = Path(name).expanduser()
    return folder.resolve().name if folder.is_dir() else name


def _measured(results: Results) -> list[str]:
    lines = ["## Measured on unseen speakers", ""]
    if results.before is None or results.after is None or results.eer_difference_interval is None:
        return [*lines, "Not measured: the run had no validation data."]
    name = f"after, {results.after_name}" if results.averaged_steps else "after"
    rows = (("before", results.before), (name, results.after))
    low, high = results.eer_difference_interval
    return [
        *lines,
        f"{results.num_val_speakers} speakers, {results.num_targets} target and "
        f"{results.num_nontargets} nontarget trials, cosine; in brackets 95 % bootstrap intervals "
        "over speakers.",
        "",
        "| | step | EER | minDCF(0.01) |",
        "|---|---|---|---|",
        *(_row(name, row) for name, row in rows),
        "",
        f"EER difference {100 * (results.eer_difference or 0):+.2f} points "
        f"[{100 * low:+.2f}, {100 * high:+.2f}]: {results.verdict}. The best step was chosen on "
        "these trials, so its figure is a little optimistic.",
    ]


def _row(name: str, row: Measured) -> str:
    eer = f"{row.eer:.2%} [{row.eer_interval[0]:.2%}, {row.eer_interval[1]:.2%}]"
    dcf = f"{row.min_dcf:.3f} [{row.min_dcf_interval[0]:.3f}, {row.min_dcf_interval[1]:.3f}]"
    return f"| {name} | {row.step} | {eer} | {dcf} |"

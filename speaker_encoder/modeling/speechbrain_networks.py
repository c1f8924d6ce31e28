"""Which of SpeechBrain's networks are known here, and which of them a folder holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_EMBEDDING_MODEL = re.compile(r"^embedding_model:\s*!new:([\w.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Network:
    """One of SpeechBrain's embedding networks.

    Attributes:
        class_name: Its class.
        example: A repository of the Hub that holds one.
        num_mels_argument: Its argument that says how many mels a frame has.
        activation: The activation that the class takes by default.
    """

    class_name: str
    example: str
    num_mels_argument: str = "input_size"
    activation: str = "torch.nn.ReLU"


NETWORKS: dict[str, Network] = {
    "ecapa": Network(
        "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
        "speechbrain/spkrec-ecapa-voxceleb",
    ),
    "xvector": Network(
        "speechbrain.lobes.models.Xvector.Xvector",
        "speechbrain/spkrec-xvect-voxceleb",
        num_mels_argument="in_channels",
        activation="torch.nn.LeakyReLU",
    ),
    "resnet": Network(
        "speechbrain.lobes.models.ResNet.ResNet",
        "speechbrain/spkrec-resnet-voxceleb",
    ),
}
"""Family -> SpeechBrain's class of it."""


def family_of(folder: Path) -> str | None:
    """Gives the family of a SpeechBrain folder, None where it is no such folder.

    A folder whose network is not known is an ECAPA-TDNN's: its reader says what was found.
    """
    path = folder / "hyperparams.yaml"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    named = {match[1] for match in _EMBEDDING_MODEL.finditer(text)}
    return next((kind for kind in NETWORKS if NETWORKS[kind].class_name in named), "ecapa")

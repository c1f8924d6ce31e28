"""What is known of the encoders that others start from: repository and licence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoderConfig


@dataclass(frozen=True)
class License:
    """A licence as the Hub writes it.

    Attributes:
        identifier: of the Hub's list; "other" for one that is not on it.
        name: of the other one.
        link: where its text is; of one on the list, where it was found.
    """

    identifier: str
    name: str | None = None
    link: str | None = None

    @classmethod
    def of_config(cls, config: SpeakerEncoderConfig) -> License | None:
        """Gives the licence that an encoder's config carries, None where it carries none."""
        if not config.source_license:
            return None
        return cls(config.source_license, config.source_license_name, config.source_license_link)

    @property
    def text(self) -> str:
        """What people call it."""
        return self.name or self.identifier


_APACHE = License("apache-2.0")
_SPEECHBRAIN = {
    f"speechbrain/spkrec-{network}-voxceleb" for network in ("ecapa", "xvect", "resnet")
}
_UNISPEECH = License(
    "cc-by-sa-3.0", link="https://github.com/microsoft/UniSpeech/blob/main/LICENSE"
)
"""Of the repository that WavLM and UniSpeech-SAT come from."""


def hub_repository(base_model_name: str | None) -> str | None:
    """Gives the Hub repository of an encoder that was started from; None: it has none."""
    from speaker_encoder.modeling.registry import NAMES

    if base_model_name in NAMES:
        return NAMES[base_model_name].hub_id
    is_hub_id = base_model_name is not None and base_model_name.count("/") == 1
    return base_model_name if is_hub_id else None


def license_of_base(base_model_name: str | None, carried: License | None) -> License | None:
    """Gives the licence of the weights that were started from, None where it is not known.

    Args:
        base_model_name: a name of ``NAMES``, a Hub id, or the name of a folder.
        carried: the licence that came with the weights.
    """
    repository = hub_repository(base_model_name)
    if repository is not None and repository.startswith(
        ("microsoft/wavlm", "microsoft/unispeech-sat")
    ):
        return _UNISPEECH
    if base_model_name == "dvector" or repository in _SPEECHBRAIN:
        return _APACHE
    return carried

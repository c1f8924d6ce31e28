"""What is known of the encoders that others start from: repository, licence, citation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoderConfig

_WAVLM_CITATION = """\
@article{chen2022wavlm,
  title = {{WavLM}: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing},
  author = {Chen, Sanyuan and Wang, Chengyi and Chen, Zhengyang and others},
  journal = {IEEE Journal of Selected Topics in Signal Processing},
  year = {2022}
}"""
_ECAPA_CITATION = """\
@inproceedings{desplanques2020ecapa,
  title = {{ECAPA-TDNN}: Emphasized Channel Attention, Propagation and Aggregation in {TDNN} Based
           Speaker Verification},
  author = {Desplanques, Brecht and Thienpondt, Jenthe and Demuynck, Kris},
  booktitle = {Interspeech},
  year = {2020}
}
@misc{speechbrain,
  title = {{SpeechBrain}: A General-Purpose Speech Toolkit},
  author = {Ravanelli, Mirco and others},
  year = {2021},
  eprint = {2106.04624},
  archivePrefix = {arXiv}
}"""
_GE2E_CITATION = """\
@inproceedings{wan2018ge2e,
  title = {Generalized End-to-End Loss for Speaker Verification},
  author = {Wan, Li and Wang, Quan and Papir, Alan and Lopez Moreno, Ignacio},
  booktitle = {ICASSP},
  year = {2018}
}"""

CITATIONS = {
    "ecapa": _ECAPA_CITATION,
    "wavlm": _WAVLM_CITATION,
    "dvector": _GE2E_CITATION,
    "ge2e": _GE2E_CITATION,
}
"""Family of encoders, or loss, -> BibTeX."""


@dataclass(frozen=True)
class License:
    """A licence as the Hub writes it.

    Attributes:
        identifier: of the Hub's list; "other" for one that is not on it.
        name: of the other one.
        link: where its text is.
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
_WAVLM = License("other", "unispeech", "https://github.com/microsoft/UniSpeech/blob/main/LICENSE")


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
    if repository is not None and repository.startswith("microsoft/wavlm"):
        return _WAVLM
    if base_model_name == "dvector" or repository in _SPEECHBRAIN:
        return _APACHE
    return carried

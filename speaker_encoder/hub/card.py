"""The model card of a repository: from the run's own config and results, nothing made up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_encoder.hub.card_texts import LIMITS, OWN_USE, SPACE_USE, UPSTREAM_USE
from speaker_encoder.hub.citations import ENCODER_CITATIONS, LOSS_CITATIONS
from speaker_encoder.hub.origins import License, hub_repository, license_of_base
from speaker_encoder.hub.source import as_results
from speaker_encoder.hub.upstream_forms import TRANSFORMERS_SUBFOLDER
from speaker_encoder.training.measured_card import (
    INTERPOLATION_CAPTION,
    measured_section,
    trials_text,
)

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

    from speaker_encoder.training.report import Results

PIPELINE_TAG = "feature-extraction"
LIBRARY_NAME = "speaker-encoder"


@dataclass(frozen=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        repo_id: ``owner/name``.
        encoder_kind: family of the encoder.
        embedding_dim: D.
        base_model_name: what it started from: a name, a Hub id, or the name of a folder.
        source_license: the licence that came with the base model's weights.
        license: the one that the user names, where the base model's is not known.
        datasets: Hub ids or names of the training data.
        config: public training config; empty: not known.
        results: public results; empty: not measured.
        pictures: names in ``plots/``.
        umap_step: of the embeddings in ``umap.png``; None: not known.
        has_upstream: the upstream library's form is there.
        has_space: there is a map to the pretrained encoder's space, which is another one.
    """

    repo_id: str
    encoder_kind: str
    embedding_dim: int
    base_model_name: str | None = None
    source_license: License | None = None
    license: License | None = None
    datasets: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    results: dict[str, Any] | None = None
    pictures: tuple[str, ...] = ()
    umap_step: int | None = None
    has_upstream: bool = False
    has_space: bool = False

    @property
    def is_pretrained(self) -> bool:
        """It started from trained weights."""
        return (self.config or {}).get("pretrained") is not False

    @property
    def forgetting_tolerance(self) -> float:
        """Of its run."""
        from speaker_encoder.training.interpolation import FORGETTING_TOLERANCE

        tolerance = (self.config or {}).get("forgetting_tolerance")
        return tolerance if isinstance(tolerance, int | float) else FORGETTING_TOLERANCE

    @property
    def found(self) -> Results | None:
        """What the run found; None: not known."""
        return as_results(self.results or {})

    @property
    def base_repository(self) -> str | None:
        """The Hub repository that it started from; None: none, or this one itself."""
        repository = hub_repository(self.base_model_name) if self.is_pretrained else None
        return repository if repository != self.repo_id else None


def write_card(path: Path, facts: CardFacts) -> None:
    """Writes the README.md of a repository."""
    path.write_text(card_text(facts), encoding="utf-8")


def card_text(facts: CardFacts) -> str:
    """Gives the card: the Hub's YAML header, then the text.

    Raises:
        UserError: the licence contradicts the base model's.
    """
    header = card_header(facts).to_yaml(line_break="\n").rstrip("\n")
    return f"---\n{header}\n---\n\n{_body(facts)}\n"


def chosen_license(facts: CardFacts) -> License | None:
    """Gives the licence of the base model, which is kept, else what the user names.

    Raises:
        UserError: the user names another one than the base model's.
    """
    from speaker_encoder.errors import UserError

    if not facts.is_pretrained:  # the weights are the user's own
        return facts.license or facts.source_license
    known = license_of_base(facts.base_model_name, facts.source_license)
    if known is None or facts.license is None:
        return known or facts.license
    if facts.license.identifier not in (known.identifier, known.name):
        raise UserError(
            f"license: found {facts.license.text!r}, but the weights started from "
            f"{facts.base_model_name or 'others'}, whose licence is {known.text!r}; it is kept. "
            "Leave license out."
        )
    return known


def card_header(facts: CardFacts) -> ModelCardData:
    """Gives what the Hub reads of the card.

    Raises:
        UserError: the licence contradicts the base model's.
    """
    from huggingface_hub import ModelCardData

    licence = chosen_license(facts)
    results = _eval_results(facts)
    return ModelCardData(
        base_model=facts.base_repository,
        datasets=[name for name in facts.datasets if "/" in name] or None,
        eval_results=results or None,
        library_name=LIBRARY_NAME,
        license=licence.identifier if licence else None,
        license_name=licence.name if licence else None,
        license_link=licence.link if licence else None,
        model_name=facts.repo_id.split("/")[-1] if results else None,
        pipeline_tag=PIPELINE_TAG,
        tags=_tags(facts),
    )


def _tags(facts: CardFacts) -> list[str]:
    tags = ["speaker-verification", "speaker-recognition", "speaker-embedding", "speech"]
    tags.append({"ecapa": "ecapa-tdnn"}.get(facts.encoder_kind, facts.encoder_kind))
    tags += _loss_names(facts)
    library = {"ecapa": "speechbrain", "wavlm": "transformers"}.get(facts.encoder_kind)
    return [*tags, library] if facts.has_upstream and library else tags


def _eval_results(facts: CardFacts) -> list[EvalResult]:
    """Gives EER and minDCF of the pushed model, for the Hub's `model-index`."""
    from huggingface_hub import EvalResult

    found = facts.found
    if found is None or found.after is None:
        return []
    common: dict[str, Any] = {
        "task_type": PIPELINE_TAG,
        "task_name": "Speaker verification",
        # The trials are the run's own; they are not of the training data that `datasets` names.
        "dataset_type": "unseen-speakers",
        "dataset_name": trials_text(found),
    }
    return [
        EvalResult(
            metric_type="eer",
            metric_name="EER (%)",
            metric_value=round(100 * found.after.eer, 3),
            **common,
        ),
        EvalResult(
            metric_type="min_dcf",
            metric_name="minDCF (p_target 0.01)",
            metric_value=round(found.after.min_dcf, 4),
            **common,
        ),
    ]


def _stage_losses(facts: CardFacts) -> list[list[str]]:
    """Gives the names of the losses of each stage; of a run without stages there is one."""
    config = facts.config or {}
    stages = config.get("stages") or [{}]
    return [_names_in(stage.get("loss", config.get("loss"))) for stage in stages]


def _loss_names(facts: CardFacts) -> list[str]:
    return list(dict.fromkeys(name for names in _stage_losses(facts) for name in names))


def _names_in(loss: Any) -> list[str]:
    loss = loss or []
    parts = loss if isinstance(loss, list) else [loss]
    return [part["name"] if isinstance(part, dict) else part for part in parts]


def _body(facts: CardFacts) -> str:
    name = facts.repo_id.split("/")[-1]
    sections = [f"# {name}", _summary(facts), "## Use", OWN_USE, ""]
    if facts.has_upstream:
        sections += [UPSTREAM_USE[facts.encoder_kind], ""]
    sections += [SPACE_USE, ""] if facts.has_space else []
    sections += ["## Training data", _training_data(facts), ""]
    measured = measured_section(
        facts.found,
        is_pretrained=facts.is_pretrained,
        place="this repository",
        forgetting_tolerance=facts.forgetting_tolerance,
    )
    sections += ["## Measured on unseen speakers", *measured, ""]
    if facts.pictures:
        sections += ["## Pictures", *(_picture(name, facts) for name in facts.pictures), ""]
    sections += ["## Limits", LIMITS, ""]
    text = "\n\n".join(section for section in sections if section)
    for name, value in (
        ("{repo_id}", facts.repo_id),
        ("{dim}", str(facts.embedding_dim)),
        ("{subfolder}", TRANSFORMERS_SUBFOLDER),
    ):
        text = text.replace(name, value)
    config = json.dumps(facts.config, indent=2, ensure_ascii=False) if facts.config else None
    if config:
        text += f"\n\n## Config\n\nPaths are left out.\n\n```json\n{config}\n```"
    return f"{text}\n\n## Citation\n\n```bibtex\n{_citations(facts)}\n```"


def _summary(facts: CardFacts) -> str:
    repository = facts.base_repository
    kept = facts.found is not None and facts.found.is_untouched
    tuned = "unchanged" if kept else "fine-tuned"
    if not facts.is_pretrained:
        start = f"trained from random weights ({facts.encoder_kind})"
    elif repository:
        start = f"{tuned} from [{repository}](https://huggingface.co/{repository})"
    elif facts.base_model_name and facts.base_model_name != facts.repo_id:
        start = f"{tuned} from `{facts.base_model_name}`"
    else:
        start = f"of the family {facts.encoder_kind}"
    losses = dict.fromkeys(" + ".join(names).upper() for names in _stage_losses(facts))
    loss = ", then ".join(name for name in losses if name)
    loss_text = f" with the {loss} loss" if loss else ""
    how = "" if kept and facts.is_pretrained else f"{loss_text} by speaker-encoder"
    return (
        f"A speaker encoder, {start}{how}: it gives a {facts.embedding_dim}-dimensional embedding "
        "of the voice in an utterance (16 kHz, mono), for speaker verification, voice cloning and "
        "TTS."
    )


def _training_data(facts: CardFacts) -> str:
    results = facts.results
    if not results:
        return "Not known."
    named = f" ({', '.join(facts.datasets)})" if facts.datasets else ""
    text = (
        f"{results['num_train_utterances']} utterances of {results['num_train_speakers']} speakers"
        f"{named}, {results['train_hours']:.2f} hours; {results['steps']} steps."
    )
    if replayed := results.get("num_replay_speakers"):
        text += f" Every batch had some of {replayed} speakers of another corpus in it (replay)."
    unusable = results.get("num_unusable_files")
    return f"{text} {unusable} files could not be used." if unusable else text


def _picture(name: str, facts: CardFacts) -> str:
    at_step = f" at step {facts.umap_step}" if facts.umap_step is not None else ""
    captions = {
        "umap.png": f"Embeddings of speakers{at_step}, UMAP",
        "det.png": "Detection error trade-off on the trials above",
        "interpolation.png": INTERPOLATION_CAPTION,
        "curve.png": "Training and validation over the steps",
    }
    return f"![{captions.get(name, name)}](plots/{name})"


def _citations(facts: CardFacts) -> str:
    texts = [ENCODER_CITATIONS.get(facts.encoder_kind)]
    texts += [LOSS_CITATIONS.get(name) for name in _loss_names(facts)]
    return "\n".join(dict.fromkeys(text for text in texts if text))

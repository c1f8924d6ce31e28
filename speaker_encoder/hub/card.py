"""The model card of a repository: from the run's own config and results, nothing made up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speaker_encoder.hub.card_texts import LIMITS, OWN_USE, UPSTREAM_USE
from speaker_encoder.hub.citations import ENCODER_CITATIONS, LOSS_CITATIONS
from speaker_encoder.hub.origins import (
    License,
    hub_repository,
    license_of_base,
)
from speaker_encoder.hub.upstream_forms import TRANSFORMERS_SUBFOLDER

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

PIPELINE_TAG = "feature-extraction"
LIBRARY_NAME = "speaker-encoder"
_LEAST_VERDICT = "not measured"


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

    @property
    def is_pretrained(self) -> bool:
        """It started from trained weights."""
        return (self.config or {}).get("pretrained") is not False

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

    after = (facts.results or {}).get("after")
    if not after:
        return []
    common: dict[str, Any] = {
        "task_type": PIPELINE_TAG,
        "task_name": "Speaker verification",
        # The trials are the run's own; they are not of the training data that `datasets` names.
        "dataset_type": "unseen-speakers",
        "dataset_name": _trials_text(facts.results or {}),
    }
    return [
        EvalResult(
            metric_type="eer",
            metric_name="EER (%)",
            metric_value=round(100 * after["eer"], 3),
            **common,
        ),
        EvalResult(
            metric_type="min_dcf",
            metric_name="minDCF (p_target 0.01)",
            metric_value=round(after["min_dcf"], 4),
            **common,
        ),
    ]


def _trials_text(results: dict[str, Any]) -> str:
    return (
        f"{results['num_val_speakers']} speakers that were not trained on, "
        f"{results['num_targets']} target and {results['num_nontargets']} nontarget trials"
    )


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
    sections += ["## Training data", _training_data(facts), ""]
    sections += ["## Measured on unseen speakers", *_measured(facts), ""]
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
    if not facts.is_pretrained:
        start = f"trained from random weights ({facts.encoder_kind})"
    elif repository:
        start = f"fine-tuned from [{repository}](https://huggingface.co/{repository})"
    elif facts.base_model_name and facts.base_model_name != facts.repo_id:
        start = f"fine-tuned from `{facts.base_model_name}`"
    else:
        start = f"of the family {facts.encoder_kind}"
    losses = dict.fromkeys(" + ".join(names).upper() for names in _stage_losses(facts))
    loss = ", then ".join(name for name in losses if name)
    loss_text = f" with the {loss} loss" if loss else ""
    return (
        f"A speaker encoder, {start}{loss_text} by "
        f"speaker-encoder: it gives a {facts.embedding_dim}-dimensional embedding of the voice in "
        "an utterance (16 kHz, mono), for speaker verification, voice cloning and TTS."
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
    unusable = results.get("num_unusable_files")
    return f"{text} {unusable} files could not be used." if unusable else text


def _measured(facts: CardFacts) -> list[str]:
    """Gives the table of the untouched and the best model, with intervals."""
    results = facts.results or {}
    before, after = results.get("before"), results.get("after")
    interval = results.get("eer_difference_interval")
    if not before or not after or not interval:
        return ["Not measured: it is not known how well this model tells unseen speakers apart."]
    difference = results.get("eer_difference") or 0.0
    kept = after["step"] == 0
    lines = [
        f"{_trials_text(results)}; scored by cosine. In brackets 95 % bootstrap intervals over "
        "speakers.",
        "\n".join(
            [
                "| | step | EER | minDCF(0.01) |",
                "|---|---|---|---|",
                _row("before", before),
                _row("after", after),
            ]
        ),
        f"EER difference {100 * difference:+.2f} points [{100 * interval[0]:+.2f}, "
        f"{100 * interval[1]:+.2f}]: {results.get('verdict') or _LEAST_VERDICT}. The step was "
        "chosen on these trials, so its figure is a little optimistic.",
    ]
    if kept:
        lines.append("No step was better than the untouched model: this is the untouched model.")
    return lines


def _row(name: str, measured: dict[str, Any]) -> str:
    low, high = measured["eer_interval"]
    eer = f"{measured['eer']:.2%} [{low:.2%}, {high:.2%}]"
    low, high = measured["min_dcf_interval"]
    dcf = f"{measured['min_dcf']:.3f} [{low:.3f}, {high:.3f}]"
    return f"| {name} | {measured['step']} | {eer} | {dcf} |"


def _picture(name: str, facts: CardFacts) -> str:
    at_step = f" at step {facts.umap_step}" if facts.umap_step is not None else ""
    captions = {
        "umap.png": f"Embeddings of speakers{at_step}, UMAP",
        "det.png": "Detection error trade-off on the trials above",
        "curve.png": "Training and validation over the steps",
    }
    return f"![{captions.get(name, name)}](plots/{name})"


def _citations(facts: CardFacts) -> str:
    texts = [ENCODER_CITATIONS.get(facts.encoder_kind)]
    texts += [LOSS_CITATIONS.get(name) for name in _loss_names(facts)]
    return "\n".join(dict.fromkeys(text for text in texts if text))

"""The model card: what the Hub reads of it, and what stands in it."""

import pytest
from huggingface_hub import ModelCard

from speaker_encoder.errors import UserError
from speaker_encoder.hub.card import CardFacts, card_text

MEASURED = {
    "step": 0,
    "eer": 0.0312,
    "eer_interval": [0.021, 0.043],
    "min_dcf": 0.2511,
    "min_dcf_interval": [0.2, 0.31],
}
RESULTS = {
    "num_train_utterances": 1200,
    "num_train_speakers": 40,
    "train_hours": 1.5,
    "steps": 300,
    "num_unusable_files": 2,
    "num_val_speakers": 12,
    "num_targets": 500,
    "num_nontargets": 9000,
    "before": MEASURED,
    "after": {**MEASURED, "step": 250, "eer": 0.0154, "min_dcf": 0.1322},
    "eer_difference": -0.0158,
    "eer_difference_interval": [-0.025, -0.008],
    "verdict": "better",
}
CONFIG = {"model_name": "ecapa", "loss": {"name": "ge2e"}, "max_steps": 300}


def facts(**changes) -> CardFacts:
    values = {
        "repo_id": "someone/mine",
        "encoder_kind": "ecapa",
        "embedding_dim": 192,
        "base_model_name": "ecapa",
        "source_license": "apache-2.0",
        "config": CONFIG,
        "results": RESULTS,
        "pictures": ("umap.png", "det.png"),
        "has_upstream": True,
    }
    return CardFacts(**{**values, **changes})


def test_header_of_a_fine_tuned_ecapa():
    card = ModelCard(card_text(facts(datasets=("someone/voices", "tapes"))))
    data = card.data
    assert data.license == "apache-2.0"
    assert data.base_model == "speechbrain/spkrec-ecapa-voxceleb"
    assert data.library_name == "speaker-encoder"
    assert data.pipeline_tag == "feature-extraction"
    assert data.datasets == ["someone/voices"]
    assert {"speaker-verification", "ecapa-tdnn", "ge2e", "speechbrain"} <= set(data.tags)
    eer, min_dcf = data.eval_results
    assert (eer.metric_type, eer.metric_value) == ("eer", 1.54)
    assert (min_dcf.metric_type, min_dcf.metric_value) == ("min_dcf", 0.1322)
    assert eer.dataset_name.startswith("12 speakers that were not trained on, 500 target and 9000")
    assert eer.dataset_type == "unseen-speakers"  # not that of the training data


def test_text_says_what_was_measured_and_how_to_use_it():
    text = card_text(facts())
    for wanted in (
        'SpeakerEncoder.from_pretrained("someone/mine")',
        'EncoderClassifier.from_hparams(source="someone/mine")',
        "1200 utterances of 40 speakers, 1.50 hours; 300 steps. 2 files could not be used.",
        "| before | 0 | 3.12% [2.10%, 4.30%] | 0.251 [0.200, 0.310] |",
        "| after | 250 | 1.54% [2.10%, 4.30%] | 0.132 [0.200, 0.310] |",
        "EER difference -1.58 points [-2.50, -0.80]: better.",
        "![Detection error trade-off on the trials above](plots/det.png)",
        "desplanques2020ecapa",
        "wan2018ge2e",
        '"max_steps": 300',
    ):
        assert wanted in text, wanted
    assert "{" not in text.split("## Config")[0].split("---")[2].replace("```", "")


def test_wavlm_keeps_the_license_of_its_repository():
    card = ModelCard(
        card_text(facts(encoder_kind="wavlm", base_model_name="wavlm-large", source_license=None))
    )
    assert card.data.license == "other"
    assert card.data.license_name == "unispeech"
    assert card.data.license_link.endswith("microsoft/UniSpeech/blob/main/LICENSE")
    assert card.data.base_model == "microsoft/wavlm-large"
    assert 'WavLMForXVector.from_pretrained("someone/mine", **where)' in card.content


def test_license_of_an_unknown_base():
    unknown = {"base_model_name": "folder", "source_license": None}
    assert ModelCard(card_text(facts(**unknown))).data.license is None
    assert ModelCard(card_text(facts(**unknown, license="mit"))).data.license == "mit"
    assert ModelCard(card_text(facts(license="apache-2.0"))).data.license == "apache-2.0"
    with pytest.raises(UserError, match=r"found 'mit', but .*'apache-2.0'; it is kept"):
        card_text(facts(license="mit"))


def test_without_a_run_nothing_is_made_up():
    text = card_text(facts(config={}, results={}, pictures=()))
    assert "Not measured" in text and "## Config" not in text and "## Pictures" not in text
    assert not ModelCard(text).data.eval_results

"""The model card: what the Hub reads of it, and what stands in it."""

import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from speaker_encoder.errors import UserError
from speaker_encoder.hub.card import CardFacts, card_header, card_text
from speaker_encoder.hub.citations import ENCODER_CITATIONS, LOSS_CITATIONS
from speaker_encoder.hub.origins import License
from speaker_encoder.hub.own_card import read_own_card
from speaker_encoder.losses import LOSSES
from speaker_encoder.modeling.registry import BACKBONES

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
UNKNOWN_BASE = {"base_model_name": "folder", "source_license": None}
CONFIG = {"model_name": "ecapa", "loss": {"name": "ge2e"}, "max_steps": 300}


def facts(**changes) -> CardFacts:
    values = {
        "repo_id": "someone/mine",
        "encoder_kind": "ecapa",
        "embedding_dim": 192,
        "base_model_name": "ecapa",
        "source_license": License("apache-2.0"),
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


@pytest.mark.parametrize(
    ("loss", "cited"),
    [
        ("aam_softmax", {"deng2019arcface"}),
        ([{"name": "softmax"}, {"name": "triplet", "weight": 0.5}],
         {"snyder2018xvectors", "schroff2015facenet"}),
    ],
)  # fmt: skip
def test_the_losses_of_a_run_are_cited_and_no_other(loss, cited):
    config = {**CONFIG, "loss": loss, "stages": [{}, {"loss": "sup_con"}]}
    text = card_text(facts(config=config))
    found = set(re.findall(r"@\w+\{(\w+),", text))
    assert found == {*cited, "khosla2020supervised", "desplanques2020ecapa", "speechbrain"}


def test_every_encoder_and_loss_has_a_citation():
    assert set(ENCODER_CITATIONS) == set(BACKBONES) and set(LOSS_CITATIONS) == set(LOSSES)
    for text in (*ENCODER_CITATIONS.values(), *LOSS_CITATIONS.values()):
        assert text.count("{") == text.count("}") and text.startswith("@")


def test_wavlm_keeps_the_license_of_its_repository():
    card = ModelCard(
        card_text(facts(encoder_kind="wavlm", base_model_name="wavlm-large", source_license=None))
    )
    assert card.data.license == "cc-by-sa-3.0"
    assert card.data.license_name is None
    assert card.data.license_link.endswith("microsoft/UniSpeech/blob/main/LICENSE")
    assert card.data.base_model == "microsoft/wavlm-large"
    assert 'WavLMForXVector.from_pretrained("someone/mine", **where)' in card.content


def test_license_of_an_unknown_base():
    assert ModelCard(card_text(facts(**UNKNOWN_BASE))).data.license is None
    assert ModelCard(card_text(facts(**UNKNOWN_BASE, license=License("mit")))).data.license == "mit"
    same = facts(license=License("apache-2.0"))
    assert ModelCard(card_text(same)).data.license == "apache-2.0"
    with pytest.raises(UserError, match=r"found 'mit', but .*'apache-2.0'; it is kept"):
        card_text(facts(license=License("mit")))


def test_license_that_came_with_a_pulled_model():
    carried = License("other", "voices-1.0", "https://example.org/license")
    pulled = {"base_model_name": "someone/first", "source_license": carried}
    data = ModelCard(card_text(facts(**pulled))).data
    assert data.base_model == "someone/first"
    assert (data.license, data.license_name) == ("other", "voices-1.0")
    assert data.license_link == "https://example.org/license"
    with pytest.raises(UserError, match=r"someone/first, whose licence is 'voices-1\.0'; it is"):
        card_text(facts(**pulled, license=License("mit")))
    own = facts(**pulled, license=License("mit"), config={"pretrained": False})
    assert ModelCard(card_text(own)).data.license == "mit"  # random weights are one's own


def test_a_repository_is_not_its_own_base():
    card = ModelCard(card_text(facts(base_model_name="someone/mine")))
    assert card.data.base_model is None and card.data.license == "apache-2.0"
    assert "fine-tuned from" not in card.content


def test_step_of_the_embeddings_in_the_picture():
    assert "![Embeddings of speakers at step 200, UMAP]" in card_text(facts(umap_step=200))
    assert "![Embeddings of speakers, UMAP]" in card_text(facts())


@pytest.mark.parametrize("name", ["1e3", "null", "0x1F", "1.5", "on"])
def test_names_that_yaml_takes_for_something_else(name):
    made = facts(
        repo_id=f"someone/{name}",
        base_model_name=f"{name}/{name}",
        source_license=License("other", name, "https://example.org/#a: b"),
        datasets=(f"{name}/{name}", "someone/a: b # c"),
    )
    data = ModelCard(card_text(made)).data
    assert data.model_name == name and data.base_model == f"{name}/{name}"
    assert data.license_name == name and data.license_link == "https://example.org/#a: b"
    assert data.datasets == [f"{name}/{name}", "someone/a: b # c"]


def own_card(folder, content: bytes, **changes) -> str:
    """Completes a README.md as a push does."""
    (folder / "README.md").write_bytes(content)
    own = read_own_card(folder / "README.md")
    made = facts(config={}, results={}, pictures=(), **changes)
    made = replace(made, license=own.license(made.license))
    return own.completed(card_header(made), made.datasets)


def test_own_card_gets_what_it_lacks(tmp_path):
    text = own_card(tmp_path, b"# Mine\n\n---\nSaid.\n", datasets=("someone/voices",))
    data = ModelCard(text).data
    assert text.endswith("---\n\n# Mine\n\n---\nSaid.\n")
    assert (data.license, data.library_name) == ("apache-2.0", "speaker-encoder")
    assert data.base_model == "speechbrain/spkrec-ecapa-voxceleb"
    assert data.datasets == ["someone/voices"]


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_own_card_keeps_what_it_has(tmp_path, line_break):
    header = "---\n# my comment\nlanguage: [de]\npipeline_tag: audio-classification\n"
    content = (header + "---\n# Mine\n").replace("\n", line_break)
    text = own_card(tmp_path, content.encode(), license=License("apache-2.0"))
    assert text.startswith(header.replace("\n", line_break))
    assert text.endswith(f"---{line_break}# Mine{line_break}")
    assert "\n" not in text.replace(line_break, "")
    data = ModelCard(text).data
    assert data.pipeline_tag == "audio-classification" and data.license == "apache-2.0"
    assert own_card(tmp_path, text.encode()) == text  # nothing lacks any more


def test_own_card_names_the_license_of_an_unknown_base(tmp_path):
    content = b"---\nlicense: other\nlicense_name: mine-1\n---\n"
    text = own_card(tmp_path, content, **UNKNOWN_BASE, license=License("mine-1"))
    assert ModelCard(text).data.license_name == "mine-1"
    two = own_card(tmp_path, b"---\nlicense: [mit, cc0-1.0]\n---\n", **UNKNOWN_BASE)
    assert ModelCard(two).data.license == ["mit", "cc0-1.0"]


@pytest.mark.parametrize(
    ("header", "changes", "message"),
    [
        ("license: mit", {**UNKNOWN_BASE, "license": License("gpl")},
         r"license: found 'gpl', but the folder's README\.md says 'mit'"),
        ("license: mit", {}, r"found 'mit', but the weights .* whose licence is 'apache-2.0'"),
        ("datasets: [a/b]", {"datasets": ("c/d",)}, r"dataset: found 'c/d', .* names \['a/b'\]"),
        ("{tags: [a]}", {}, "nothing can be added to its YAML header"),
        ("a: [", {}, r"README\.md cannot be read: while parsing .* Repair its YAML header"),
        ("- a", {}, "its YAML header, between the lines '---', has no keys"),
    ],
)  # fmt: skip
def test_own_card_that_contradicts_or_is_damaged(tmp_path, header, changes, message):
    with pytest.raises(UserError, match=message):
        own_card(tmp_path, f"---\n{header}\n---\n# Mine\n".encode(), **changes)


def test_without_a_run_nothing_is_made_up():
    text = card_text(facts(config={}, results={}, pictures=()))
    assert "Not measured" in text and "## Config" not in text and "## Pictures" not in text
    assert not ModelCard(text).data.eval_results

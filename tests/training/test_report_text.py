"""What people read at the end of a run: terminal, page and card, of results made by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
from results_by_hand import NOTHING, REFERENCE, better, curve, untouched

from speaker_encoder.training.config import TrainConfig
from speaker_encoder.training.findings import what_to_try
from speaker_encoder.training.interpolation import Choice
from speaker_encoder.training.model_card import model_card
from speaker_encoder.training.pretrained_space import SpaceFacts
from speaker_encoder.training.report import Interpolated, Measured, Results
from speaker_encoder.training.report_page import write_run_report
from speaker_encoder.training.report_text import format_results
from speaker_encoder.training.run_dir import RunDirectory

CONFIG = TrainConfig(model_name="dvector", train_data_root="demo", run_id="mine")
NOWHERE = RunDirectory(Path("nowhere"))


def shown(results: Results, config: TrainConfig = CONFIG) -> str:
    text = format_results(config, NOWHERE, results)
    assert max(map(len, text.splitlines())) <= 110
    return " ".join(text.split())


def test_the_end_of_a_run_that_gained():
    space = SpaceFacts(1870, 170, 0.954, cosine_to_pretrained=0.931, mapped_cosine=0.953)
    text = shown(better(pretrained_space=space))
    for wanted in (
        "150 steps on 1870 utterances of 170 speakers, 2 min 31 s",
        "before (step 0) 5.98% [3.58%, 8.46%] 0.431",
        "after (alpha 0.4 of step 100) 4.98% [2.90%, 6.95%] 0.380",
        "EER difference -1.00 points [-2.32, -0.16]: better",
        "reference: 32 speakers, 588 target and 16248 nontarget trials",
        "before 2.04% [0.67%, 3.28%] after 2.22% [0.84%, 3.52%]",
        "Reference EER difference +0.18 points [-0.54, +1.01]: no difference beyond noise "
        "(9 % more errors)",
        "Alpha 0.4 of the way from the untouched encoder to step 100: the lowest validation EER",
        "embeddings: 0.931. A rotation to its space makes it 0.953.",
        "For a TTS model trained on old ones: `speaker-encoder embed --space pretrained`",
    ):
        assert wanted in text, wanted
    assert "--allow_worse" not in text and "What may help" not in text


def test_what_is_not_known_is_not_said():
    plain = better(interpolation=None, reference=None, cosine_to_pretrained=None, seconds=None)
    text = shown(plain)
    assert "after (step 100, best) 4.98%" in text and "of 170 speakers 40 unseen" in text
    for word in ("reference", "alpha", "cosine", "tts"):
        assert word not in text.lower()
    taken = better(interpolation=Interpolated(100, curve(), Choice(0.4, "a reason")))
    assert "a reason. It does not beat the untouched encoder beyond noise; allow_worse" in shown(
        taken
    )
    averaged = shown(better(averaged_steps=[50, 100]))
    assert "(alpha 0.4 of mean of steps 50, 100)" in averaged
    unmeasured = shown(Results("ecapa", 2, 61.0, 3, 4, 0.5))
    assert "of 3 speakers, 1 min 01 s No validation data" in unmeasured


def test_the_end_of_a_run_where_nothing_was_better():
    text = shown(untouched())
    for wanted in (
        "untouched (step 0) 5.98% [3.58%, 8.46%]",
        "Nothing beat the untouched encoder beyond noise: model/ holds the pretrained weights. "
        f"N{NOTHING[1:]} (alpha 1: step 100). Pushing it needs --allow_worse.",
        "What may help: - more validation speakers: the EER of these 40 is known to about 2.4",
        "- more training speakers: 10 are few",
    ):
        assert wanted in text, wanted
    assert "after" not in text and "EER difference" not in text
    scratch = TrainConfig(model_name="dvector", train_data_root="demo", pretrained=False)
    text = shown(untouched(interpolation=None, reference=None), scratch)
    assert "model/ holds the untrained weights. Pushing it needs" in text
    assert "distillation" not in text
    new_head = shown(untouched(interpolation=None, reference=None))
    assert "model/ holds the weights that the run started from. Pushing" in new_head
    assert "distillation" not in new_head and "recipe" not in new_head


@pytest.mark.parametrize(
    ("eers", "step", "wanted", "unwanted"),
    [
        ((0.0598, 0.0585, 0.0641), 100, "learning_rate_init", "more steps"),
        ((0.0598, 0.0585, 0.0570), 150, "more steps", "learning_rate_init"),
        ((0.0598, 0.0585, 0.0570), 100, "distillation", "more steps"),
    ],
)
def test_what_to_try_is_picked_from_what_the_run_had(eers, step, wanted, unwanted):
    line = Interpolated(step, curve(eers), Choice(0.0, NOTHING, 0.0224))
    tips = " ".join(what_to_try(CONFIG, untouched(interpolation=line, num_train_speakers=170)))
    assert wanted in tips and unwanted not in tips and "training speakers" not in tips
    distilled = TrainConfig(model_name="dvector", train_data_root="demo", distillation=5.0)
    narrow = Measured(0, 0.0598, (0.052, 0.068), 0.4, (0.3, 0.5))
    tips = " ".join(what_to_try(distilled, untouched(interpolation=line, before=narrow)))
    assert "distillation" not in tips and "validation speakers" not in tips
    assert "10 are few" in tips


def test_what_is_better_but_forgets():
    line = Interpolated(100, curve(better=(3, 4)), Choice(0.0, "every alpha forgets", 0.0224))
    results = untouched(interpolation=line)
    assert "Nothing that keeps the reference beat the untouched encoder" in shown(results)
    assert any('"forgetting_tolerance" above 0.1' in tip for tip in what_to_try(CONFIG, results))
    faultless = curve(reference_eers=(0.0, 0.0, 0.0, 0.01, 0.02, 0.03), better=(3, 4))
    line = Interpolated(100, faultless, Choice(0.0, "every alpha forgets", 0.0))
    tips = " ".join(what_to_try(CONFIG, untouched(interpolation=line)))
    assert "reference trials of more speakers" in tips and 'tolerance" above' not in tips


@pytest.mark.parametrize(
    ("changes", "not_advised"),
    [
        ({"stages": ({"distillation": 3.0, "max_steps": 5},)}, ("distillation", "recipe")),
        ({"stages": ({"max_steps": 5},)}, ("recipe",)),
        ({"views": "utterance", "utterances_per_speaker": 2}, ("recipe",)),
        ({"recipe": "auto", "distillation": 2.0}, ("distillation", "recipe")),
        ({}, ()),
    ],
)
def test_what_is_not_possible_is_not_advised(changes, not_advised):
    tips = " ".join(what_to_try(replace(CONFIG, **changes), untouched()))
    for name in ("distillation", "recipe"):
        assert (f'"{name}"' in tips) == (name not in not_advised), tips


def test_a_reference_that_was_only_looked_at():
    forgets = replace(REFERENCE, after_eer=0.0286, eer_difference=0.0082)
    fixed = Interpolated(100, curve(better=(2,)), Choice(0.4, "interpolate 0.4"))
    wanted = "Its reference EER, 2.86 %, is above the 2.24 % that a forgetting_tolerance of 0.1"
    results = better(interpolation=fixed, reference=forgets)
    assert wanted in shown(results) and wanted in model_card(CONFIG, results)
    lenient = replace(CONFIG, forgetting_tolerance=0.5)
    for kept, config in (
        (better(interpolation=fixed), CONFIG),
        (better(reference=forgets), CONFIG),  # interpolate auto kept to its limit
        (results, lenient),
    ):
        assert "Its reference EER" not in shown(kept, config)


def test_results_come_back_from_disk(tmp_path):
    for results in (better(), untouched(), better(interpolation=None, reference=None)):
        results.save(tmp_path / "results.json")
        loaded = Results.load(tmp_path / "results.json")
        assert format_results(CONFIG, NOWHERE, loaded) == format_results(CONFIG, NOWHERE, results)
        assert loaded.is_untouched == results.is_untouched
    old = {"model_name": "ecapa", "steps": 1, "seconds": 1.0, "num_train_speakers": 3}
    old |= {"num_train_utterances": 4, "train_hours": 0.5, "before": None, "later": 1}
    assert Results.from_dict(old).interpolation is None


def test_the_card_of_the_run():
    text = model_card(CONFIG, better())
    for wanted in (
        "| before | 0 | 5.98% [3.58%, 8.46%] | 0.431 [0.310, 0.552] |",
        "| after, alpha 0.4 of step 100 | 100 | 4.98% [2.90%, 6.95%] |",
        "| reference, before | 0 | 2.04% [0.67%, 3.28%] | |",
        "| reference, after | 100 | 2.22% [0.84%, 3.52%] | |",
        "The step and alpha were chosen on these trials",
        "](interpolation.png)",
    ):
        assert wanted in text, wanted
    text = model_card(CONFIG, untouched())
    assert "**Nothing beat the untouched encoder beyond noise: this folder holds the" in text
    assert "The result of a run from `dvector` with the ge2e loss" in text
    assert "| untouched | 0 |" in text and "| after" not in text
    assert "interpolation.png" not in model_card(CONFIG, better(interpolation=None))


def test_the_page_of_the_run(tmp_path):
    run = RunDirectory(tmp_path)
    page = write_run_report(CONFIG, run, better()).read_text()
    for wanted in (
        "<td>after (alpha 0.4 of step 100)</td>",
        "2.22 % (0.84 to 3.52)",
        "<code>speaker-encoder embed --space pretrained</code>",
    ):
        assert wanted in page, wanted
    assert "<img" not in page and "What may help" not in page
    page = write_run_report(CONFIG, run, untouched()).read_text()
    assert "beyond noise: model/ holds the pretrained weights" in page
    assert "<li>more training speakers: 10 are few</li>" in page and ">after" not in page
    assert "5.98 % (3.58 to 8.46)" in page

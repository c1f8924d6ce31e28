"""A model that its run found no better than what it started from: refused, said, or pushed."""

import json
import re
from dataclasses import asdict, replace

import pytest
from huggingface_hub import ModelCard
from results_by_hand import UNTOUCHED, better, curve, untouched

from speaker_encoder.errors import UserError
from speaker_encoder.hub.card import CardFacts, card_text
from speaker_encoder.hub.no_better import refuse_no_better
from speaker_encoder.hub.push import PushOptions, push_folder
from speaker_encoder.hub.source import as_results, find_source
from speaker_encoder.training.interpolation import Choice
from speaker_encoder.training.pretrained_space import SpaceFacts
from speaker_encoder.training.report import Interpolated
from speaker_encoder.verification.cross_space import Rate

OPTIONS = PushOptions("someone/mine", private=True, license="mit")
WORSE = {"verdict": "worse", "eer_difference": 0.012, "eer_difference_interval": (0.002, 0.022)}


@pytest.fixture
def make_run(tmp_path):
    """The folder of a run with a model's config, and results where they are given."""

    def make(results):
        run = tmp_path / "run"
        (run / "model").mkdir(parents=True, exist_ok=True)
        for folder in (run, run / "checkpoint-1", run / "model"):
            folder.mkdir(exist_ok=True)
            (folder / "train_config.json").write_text("{}")
        for name in ("model", "checkpoint-1"):
            (run / name / "config.json").write_text("{}")
        results.save(run / "results.json")
        return run

    return make


@pytest.mark.parametrize(
    ("results", "what"),
    [
        (untouched(), r"it is that one: EER 5\.98 % \[3\.58, 8\.46\] on 40 unseen speakers"),
        (
            better(**WORSE),
            r"it is worse .* EER difference \+1\.20 points \[\+0\.20, \+2\.20\]: worse",
        ),
        (better(interpolation=None, **WORSE), r"it is worse than the encoder that its run started"),
        (
            better(verdict="no difference beyond noise"),
            r"it is not better beyond noise than .* EER difference -1\.00 points .*: no difference",
        ),
        (  # as a run with allow_worse takes it
            better(interpolation=Interpolated(100, curve(), Choice(0.4, "interpolate 0.4"))),
            "it is not better beyond noise than",
        ),
    ],
)
def test_run_and_model_folder_are_refused(make_run, results, what):
    run = make_run(results)
    for folder in (run, run / "model"):  # before anything is loaded: there are no weights
        with pytest.raises(UserError, match=what) as refused:
            push_folder(folder, OPTIONS)
        assert str(refused.value).endswith(
            f"To push it all the same:\n  speaker-encoder push {folder} --repo_id someone/mine "
            "--private --license mit --allow_worse"
        )
        assert "report.html" not in str(refused.value)
    (run / "report.html").touch()
    with pytest.raises(UserError, match=re.escape(f"What may help is in {run / 'report.html'}.")):
        push_folder(run, OPTIONS)


def test_what_is_better_or_not_known_is_let_through(make_run):
    noise = better(verdict="no difference beyond noise", interpolation=None)  # a new head
    unmeasured = replace(better(), before=None, after=None)
    for results in (better(), noise, unmeasured):
        refuse_no_better(find_source(make_run(results)), OPTIONS, "run")
    run = make_run(untouched())
    refuse_no_better(find_source(run / "checkpoint-1"), OPTIONS, "checkpoint")
    (run / "results.json").unlink()
    refuse_no_better(find_source(run), OPTIONS, "run")


_LINE = asdict(better())["interpolation"]
_SPACE = asdict(SpaceFacts(1870, 170, 0.954, old_old=Rate(0.1, (0.05, 0.2))))


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ({"before": 5}, "before: an object was looked for, found 5"),
        ({"after": {"step": 1}}, "after: it has no 'eer'"),
        ({"before": {**asdict(UNTOUCHED), "eer": "5 %"}}, "before, eer: float .* found '5 %'"),
        ({"before": {**asdict(UNTOUCHED), "eer_interval": [0]}}, "eer_interval: .* found"),
        ({"steps": float("inf")}, "steps: int was looked for, found inf"),
        ({"num_val_speakers": True}, "num_val_speakers: int was looked for, found True"),
        ({"reference": {"a": 1}}, "reference: it has no 'before_eer'"),
        ({"interpolation": [1]}, "interpolation: an object was looked for"),
        ({"interpolation": {"curve": []}}, "interpolation: it has no 'step'"),
        ({"interpolation": {**_LINE, "curve": [3]}}, r"curve\[0\]: an object was looked for"),
        ({"interpolation": {**_LINE, "curve": []}}, "no point at alpha 0.4"),
        ({"pretrained_space": {"x": {}}}, "pretrained_space: it has no 'num_utterances'"),
        ({"pretrained_space": {**_SPACE, "old_old": {"eer": 1}}}, "old_old: it has no 'interval'"),
    ],
)
def test_results_that_are_not_right_are_one_error(make_run, part, what):
    run = make_run(better())
    (run / "results.json").write_text(json.dumps({**asdict(better()), **part}))
    with pytest.raises(
        UserError, match=f"^{re.escape(str(run / 'results.json'))}.*{what}.* repair"
    ):
        push_folder(run, OPTIONS)


def test_results_of_another_version(make_run):
    run = make_run(better())
    values = asdict(better()) | {"pretrained_space": {**_SPACE, "later": 1}, "later": {}}
    for part in (values["before"], values["reference"], values["interpolation"]):
        part["later"] = {"a": 1}
    values["interpolation"]["curve"][2]["later"] = values["interpolation"]["choice"]["later"] = 1
    values["before"]["eer"] = "0.0598"
    (run / "results.json").write_text(json.dumps(values))
    found = as_results(find_source(run).results())
    assert replace(found, pretrained_space=None) == better()
    assert found.pretrained_space.old_old == Rate(0.1, (0.05, 0.2))
    (run / "results.json").write_text('{"before": ' * 100_000)
    with pytest.raises(UserError, match=r"results\.json cannot be read"):
        find_source(run).results()


def _card(results) -> ModelCard:
    facts = CardFacts(
        repo_id="someone/mine",
        encoder_kind="dvector",
        embedding_dim=256,
        base_model_name="dvector",
        config={"model_name": "dvector", "loss": "ge2e"},
        results=asdict(results),
        pictures=("interpolation.png", "curve.png"),
    )
    return ModelCard(card_text(facts))


def test_card_of_what_gained_and_of_what_did_not():
    card = _card(better())
    for wanted in (
        "| before | 0 | 5.98% [3.58%, 8.46%] |",
        "| after, alpha 0.4 of step 100 | 100 | 4.98% [2.90%, 6.95%] |",
        "| reference, before | 0 | 2.04% [0.67%, 3.28%] | |",
        "| reference, after | 100 | 2.22% [0.84%, 3.52%] | |",
        "Alpha 0.4 of the way from the untouched encoder to step 100",
        "](plots/interpolation.png)",
    ):
        assert wanted in card.content, wanted
    metrics = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert metrics == {"eer": 4.98, "min_dcf": 0.38}
    card = _card(untouched())
    assert (
        "**Nothing beat the untouched encoder beyond noise: this repository holds" in card.content
    )
    assert "| untouched | 0 | 5.98%" in card.content and "| after" not in card.content
    assert "A speaker encoder, unchanged from `dvector`: it gives" in card.content
    assert card.data.eval_results[0].metric_value == 5.98

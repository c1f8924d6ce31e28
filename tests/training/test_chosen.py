"""What a run leaves: between the untouched and the trained encoder, and never a worse one."""

import json
import shutil
import signal
from dataclasses import asdict

import pytest
import torch
from conftest import TINY_ECAPA, TINY_WAVLM

from speaker_encoder import SpeakerEncoder
from speaker_encoder.corpora import scan
from speaker_encoder.errors import UserError
from speaker_encoder.training import TrainConfig, chosen, train
from speaker_encoder.training.choosing import Chooser
from speaker_encoder.training.interpolation import interpolate_state
from speaker_encoder.training.report import Results
from speaker_encoder.training.trial_set import TrialSet
from speaker_encoder.verification import make_trials


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """An encoder that counts as trained."""
    torch.manual_seed(3)
    encoder = SpeakerEncoder.from_name("ecapa", pretrained=False, encoder_config=TINY_ECAPA)
    encoder.config.untrained_head = False
    folder = tmp_path_factory.mktemp("start")
    encoder.save_pretrained(folder)
    return folder


@pytest.fixture
def make_tuned(make_run, start):
    def make(name="a", **keys):
        base = {"model_name": str(start), "pretrained": True, "encoder_config": None}
        return make_run(name, **{**base, **keys})

    return make


@pytest.fixture
def reference(data_dir):
    return {"reference_data_root": str(data_dir / "vctk")}


def weights(folder):
    return SpeakerEncoder.from_pretrained(folder).state_dict()


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def results_of(run):
    values = run.results()
    values.pop("seconds")
    return values


def test_the_result_is_on_the_line_and_measured_there(make_tuned, start, reference):
    run = make_tuned(allow_worse=True, forgetting_tolerance=100, **reference)
    outcome = train(TrainConfig.from_json(run.config_path))
    results, line = outcome.results, outcome.results.interpolation
    assert_same(weights(run.path / "pretrained"), weights(start))
    alpha = line.choice.alpha
    assert [point.alpha for point in line.curve] == [tenth / 10 for tenth in range(11)]
    assert alpha > 0 and line.step in (3, 6)
    best = outcome.run.best_dir(line.step)
    wanted = interpolate_state(weights(start), weights(best), alpha)
    assert_same(weights(outcome.run.model_dir), wanted)
    point = next(point for point in line.curve if point.alpha == alpha)
    assert results.after.eer == point.eer <= results.before.eer == line.curve[0].eer
    assert results.reference.before_eer == line.curve[0].reference_eer
    assert results.reference.after_eer == point.reference_eer
    space = results.pretrained_space
    assert 0 < results.cosine_to_pretrained < 1
    assert space.mapped_cosine is not None and space.old_old.eer == results.before.eer
    measured = run.metrics("validation")
    assert measured[0]["forgetting"] == 0
    for one in measured:
        rise = one["reference_eer"] - measured[0]["reference_eer"]
        assert one["forgetting"] == pytest.approx(rise)
    trained = next(one for one in measured if one["step"] == line.step)
    assert trained["eer"] == pytest.approx(line.curve[-1].eer)
    assert trained["reference_eer"] == pytest.approx(line.curve[-1].reference_eer)
    records = list((outcome.run.path / "tensorboard").iterdir())
    assert any(b"interpolation" in record.read_bytes() for record in records)
    assert (outcome.run.path / "plots" / "interpolation.png").is_file()
    card = (outcome.run.model_dir / "README.md").read_text()
    assert (
        "](interpolation.png)" in card and (outcome.run.model_dir / "interpolation.png").is_file()
    )
    assert f"alpha {alpha:g}" in (outcome.run.path / "report.html").read_text().lower()
    again = Results.load(outcome.run.results_path)
    assert json.dumps(asdict(again)) == json.dumps(asdict(results))
    assert again.interpolation.choice == line.choice and again.pretrained_space.old_old


@pytest.mark.parametrize("interpolate", ["auto", "off", 0.5])
def test_what_is_not_better_beyond_noise_is_not_taken(make_tuned, start, interpolate):
    run = make_tuned(learning_rate_init=1e-9, max_steps=3, interpolate=interpolate)
    outcome = train(TrainConfig.from_json(run.config_path))
    assert outcome.results.is_untouched and outcome.results.after.step == 0
    assert "beat the untouched encoder beyond noise" in outcome.message
    kept = (outcome.run.model_dir / "model.safetensors").read_bytes()
    assert kept == (start / "model.safetensors").read_bytes()
    assert outcome.results.cosine_to_pretrained == 1
    curve = outcome.results.interpolation.curve
    count = {"auto": 11, "off": 2, 0.5: 2}[interpolate]
    assert len(curve) == count and curve[-1].alpha == (0.5 if interpolate == 0.5 else 1)


def test_a_worse_one_is_taken_where_it_is_allowed(make_tuned, start):
    keys = {"learning_rate_init": 1e-9, "max_steps": 3, "allow_worse": True}
    run = make_tuned(**keys, interpolate=0.5)
    outcome = train(TrainConfig.from_json(run.config_path))
    assert not outcome.results.is_untouched and "alpha 0.5 of step 3" in outcome.message
    best = weights(outcome.run.best_dir(3))
    assert_same(weights(outcome.run.model_dir), interpolate_state(weights(start), best, 0.5))


def test_without_interpolation_and_with_everything_allowed_the_best_step_is_left(make_tuned):
    run = make_tuned(allow_worse=True, interpolate="off")
    outcome = train(TrainConfig.from_json(run.config_path))
    assert outcome.results.interpolation is None
    best = min(run.metrics("validation"), key=lambda one: (one["eer"], one["min_dcf"]))
    assert outcome.results.after.step == best["step"]


def test_each_validation_looks_at_the_line_when_it_is_wanted(make_tuned):
    run = make_tuned(interpolate_at="validation", allow_worse=True)
    outcome = train(TrainConfig.from_json(run.config_path))
    measured = run.metrics("validation")
    assert "interpolated_eer" not in measured[0]
    rows = [(one["interpolated_eer"], one["interpolated_min_dcf"]) for one in measured[1:]]
    assert len(rows) == 2
    line = outcome.results.interpolation
    best = measured[1:][rows.index(min(rows))]
    assert line.step == best["step"]
    point = next(p for p in line.curve if p.alpha == best["interpolated_alpha"])
    assert point.eer == pytest.approx(best["interpolated_eer"])
    assert all(one["interpolated_eer"] <= measured[0]["eer"] for one in measured[1:])


def test_a_crash_while_choosing_changes_nothing(make_tuned, monkeypatch):
    keys = {"allow_worse": True, "interpolate": 0.5}
    whole, cut = make_tuned("whole", **keys), make_tuned("cut", **keys)
    train(TrainConfig.from_json(whole.config_path))

    def fail(*_, **__):
        raise RuntimeError("the machine went down")

    with monkeypatch.context() as context:  # model/ is the result by then, results.json is not
        context.setattr(chosen, "measure_space", fail)
        with pytest.raises(RuntimeError, match="went down"):
            train(TrainConfig.from_json(cut.config_path))
    assert not cut.results_exist()
    train(TrainConfig.from_json(cut.config_path))
    for name in ("model/model.safetensors", "model/pretrained_space.safetensors"):
        assert cut.bytes_of(name) == whole.bytes_of(name)
    assert results_of(cut) == results_of(whole)


@pytest.mark.slow
def test_a_killed_run_chooses_as_one_that_was_not(make_tuned):
    keys = {"allow_worse": True}
    whole, killed = make_tuned("whole", **keys), make_tuned("killed", **keys)
    whole.run()
    killed.run_until(4, signal.SIGKILL)
    killed.run()
    assert killed.bytes_of("model/model.safetensors") == whole.bytes_of("model/model.safetensors")
    found, wanted = (json.loads(run.bytes_of("results.json")) for run in (killed, whole))
    assert found["interpolation"] == wanted["interpolation"]


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_choose_as_one(make_tuned):
    keys = {"allow_worse": True, "interpolate": 0.5, "freeze_batch_norm": True, "max_steps": 3}
    sgd = {"optimizer": "sgd", "learning_rate_init": 0.05, "lr_schedule": "constant"}
    one = make_tuned("one", **keys, **sgd)
    two = make_tuned("two", **keys, **sgd, data_parallel=[0, 1])
    one.run()
    two.run()
    found, wanted = (run.results()["interpolation"] for run in (two, one))
    assert found["choice"]["alpha"] == wanted["choice"]["alpha"] == 0.5
    assert found["step"] == wanted["step"]
    for name, tensor in weights(one.path / "model").items():
        torch.testing.assert_close(weights(two.path / "model")[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_recipe_is_held_against_its_beginning(make_tuned, start, reference):
    stages = [{"freeze": ["backbone.network.blocks.*"], "max_steps": 3}, {"max_steps": 3}]
    run = make_tuned(stages=stages, allow_worse=True, interpolate=0.4, **reference)
    outcome = train(TrainConfig.from_json(run.config_path))
    line = outcome.results.interpolation
    assert line.choice.alpha == 0.4
    last = weights(outcome.run.path / "stage_2" / "model")
    assert_same(weights(outcome.run.model_dir), interpolate_state(weights(start), last, 0.4))
    assert outcome.results.after.eer == line.curve[-1].eer
    for number in (1, 2):
        assert_same(weights(run.path / f"stage_{number}" / "pretrained"), weights(start))
    forgetting = [one["forgetting"] for one in run.metrics("validation")]
    assert forgetting[0] == 0 and len(forgetting) == 3


def test_what_is_no_better_pretrained_stays_also_after_stages(make_tuned, start):
    stages = [{"max_steps": 3}, {"max_steps": 3}]
    run = make_tuned(stages=stages, learning_rate_init=1e-9, interpolate="off")
    outcome = train(TrainConfig.from_json(run.config_path))
    assert outcome.results.is_untouched
    assert_same(weights(outcome.run.model_dir), weights(start))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"interpolate": 0.5, "val_data_root": None, "reference_data_root": None}, "no validation"),
        ({"interpolate": 0.5, "pretrained": False}, "between random and trained"),
        ({"interpolate": 1.5}, "found 1.5, possible is a number at least 0 and at most 1"),
        ({"val_data_root": None}, "reference_data_root: given without validation data"),
        ({"reference_data_root": None, "reference_trials": __file__}, "reference_trials: given"),
        ({"interpolate_at": "validation", "interpolate": "off"}, 'is for interpolate "auto"'),
    ],
)
def test_what_cannot_be_interpolated_is_said(make_tuned, reference, keys, text):
    run = make_tuned(**{**reference, **keys})
    with pytest.raises(UserError, match=text):
        train(TrainConfig.from_json(run.config_path))


def test_reference_speakers_are_not_trained_on(make_tuned, data_dir):
    run = make_tuned(reference_data_root=str(data_dir / "voxceleb" / "wav"))
    with pytest.raises(UserError, match="speakers are in both training and reference data"):
        train(TrainConfig.from_json(run.config_path))


def test_random_weights_have_nothing_to_go_back_to(make_run):
    run = make_run()
    outcome = train(TrainConfig.from_json(run.config_path))
    assert outcome.results.interpolation is None and outcome.results.pretrained_space is None
    assert not (run.path / "pretrained").exists()


def test_looking_at_the_line_draws_no_random_numbers(tmp_path, data_dir):
    torch.manual_seed(0)
    encoder = SpeakerEncoder.from_name(
        "wavlm-base-plus-sv", pretrained=False, encoder_config=TINY_WAVLM
    )
    encoder.config.untrained_head = False
    encoder.save_pretrained(tmp_path / "start")
    utterances = scan(data_dir / "vctk").utterances[::5]
    trials = TrialSet("validation", utterances, make_trials(utterances), 2.0)
    config = TrainConfig(model_name="x", train_data_root=str(data_dir), comet="off")
    before = torch.get_rng_state()
    found = Chooser(config, tmp_path / "start", trials, None).look(encoder)
    assert torch.equal(torch.get_rng_state(), before)
    assert found["interpolated_alpha"] == 0  # the same weights all along


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_what_it_began_with(make_tuned, start, tmp_path):
    """Where the name of the encoder leads has changed meanwhile."""
    keys = {"distillation": 5.0, "l2_sp": 1.0, "allow_worse": True, "interpolate": 0.5}
    whole, cut = tmp_path / "one", tmp_path / "two"
    for folder in (whole, cut):
        shutil.copytree(start, folder)
    runs = [
        make_tuned(f"of_{folder.name}", model_name=str(folder), **keys) for folder in (whole, cut)
    ]
    runs[0].run()
    runs[1].run_until(2, signal.SIGTERM)
    assert not runs[1].results_exist()
    moved = SpeakerEncoder.from_pretrained(cut)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.mul_(1.5)
    moved.save_pretrained(cut)
    runs[1].run()
    for name in ("model/model.safetensors", "pretrained/model.safetensors"):
        assert runs[0].bytes_of(name) == runs[1].bytes_of(name)


def test_more_steps_are_chosen_from_too(make_tuned, start):
    run = make_tuned(max_steps=3, learning_rate_init=1e-9)
    assert train(TrainConfig.from_json(run.config_path)).results.is_untouched
    values = json.loads(run.config_path.read_text())
    values |= {"max_steps": 6, "allow_worse": True, "interpolate": 0.5}
    run.config_path.write_text(json.dumps(values))
    outcome = train(TrainConfig.from_json(run.config_path))
    step = outcome.results.interpolation.step
    best = weights(outcome.run.best_dir(step))
    assert outcome.results.interpolation.choice.alpha == 0.5
    assert_same(weights(outcome.run.model_dir), interpolate_state(weights(start), best, 0.5))

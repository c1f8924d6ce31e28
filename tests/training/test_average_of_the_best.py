"""The mean of the best models, and when it is taken."""

import torch
from conftest import TINY_ECAPA

from speaker_encoder import SpeakerEncoder
from speaker_encoder.training.averaging import mean_encoder


def test_the_mean_is_the_formula_also_for_batch_norm(tmp_path):
    folders, states = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        model = SpeakerEncoder.from_name("ecapa", pretrained=False, encoder_config=TINY_ECAPA)
        model.train()(torch.randn(4, 12000))
        folders.append(tmp_path / str(seed))
        model.save_pretrained(folders[-1])
        states.append(model.state_dict())
    found = mean_encoder(folders).state_dict()
    assert any("running_var" in name for name in found)
    for name, tensor in found.items():
        if tensor.is_floating_point():
            naive = (states[0][name] + states[1][name] + states[2][name]) / 3
            torch.testing.assert_close(tensor, naive, msg=name)
        else:
            assert torch.equal(tensor, states[0][name])


def test_a_mean_with_the_encoder_before_training_is_a_trained_one(tmp_path):
    model = SpeakerEncoder.from_name("ecapa", pretrained=False, encoder_config=TINY_ECAPA)
    assert model.config.untrained_head
    model.save_pretrained(tmp_path / "0")
    model.config.untrained_head = False
    model.save_pretrained(tmp_path / "1")
    mean_encoder([tmp_path / "0", tmp_path / "1"]).save_pretrained(tmp_path / "mean")
    assert not SpeakerEncoder.from_pretrained(tmp_path / "mean").config.untrained_head
    assert mean_encoder([tmp_path / "0"]).config.untrained_head


def test_a_worse_mean_is_not_taken_and_a_better_one_is(make_run, monkeypatch):
    from speaker_encoder.training import TrainConfig, train
    from speaker_encoder.training.validation import Validator

    measured = iter([(0.2, 0.5), (0.1, 0.5), (0.3, 0.5), (0.1, 0.6), (0.1, 0.5)])
    validate = Validator.__call__

    def pretend(self, *arguments, **keywords):
        found = validate(self, *arguments, **keywords)
        eer, min_dcf = next(measured)
        found.metrics.update(eer=eer, min_dcf=min_dcf)
        return found

    monkeypatch.setattr(Validator, "__call__", pretend)
    outcomes = {}
    for name in ("worse", "as_good"):
        keys = {"max_steps": 2, "val_every": 1, "average_best": 2, "run_id": name}
        run = make_run(name, **keys)
        if name == "as_good":
            measured = iter([(0.2, 0.5), (0.1, 0.5), (0.3, 0.5), (0.1, 0.5)])
        outcomes[name] = train(TrainConfig.from_json(run.config_path))
    assert outcomes["worse"].results.averaged_steps == []
    best = outcomes["worse"].run
    model = SpeakerEncoder.from_pretrained(best.model_dir)
    assert "step 1, best" in outcomes["worse"].message
    assert outcomes["as_good"].results.averaged_steps == [0, 1]
    assert "mean of steps 0, 1" in outcomes["as_good"].message
    folders = [outcomes["as_good"].run.best_dir(step) for step in (0, 1)]
    mean = mean_encoder(folders).state_dict()
    taken = SpeakerEncoder.from_pretrained(outcomes["as_good"].run.model_dir).state_dict()
    assert all(torch.equal(mean[name], taken[name]) for name in mean)
    alone = SpeakerEncoder.from_pretrained(best.best_dir(1)).state_dict()
    assert all(torch.equal(alone[name], tensor) for name, tensor in model.state_dict().items())

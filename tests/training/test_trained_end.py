"""What `interpolate` takes of a run whose result lies between, on a real run."""

import json
import shutil

import pytest
import torch

from speaker_encoder.errors import UserError
from speaker_encoder.export.model import weights_digest
from speaker_encoder.training import TrainConfig, train
from speaker_encoder.training.interpolation_run import InterpolationOptions, Line
from speaker_encoder.training.trained_end import find_trained_end
from speaker_encoder.verification.systems import load_any_encoder


def end_of(line_start, run):
    """The weights at alpha 1, by the run's name, and what is said of it."""
    end = find_trained_end(str(run))
    line = Line(InterpolationOptions(line_start, (str(run),), use_cache=False), [end])
    line.go_to(1)
    return line.source.encoder.state_dict(), str(end)


def is_same(state, folder):
    other = load_any_encoder(str(folder)).state_dict()
    return state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


def test_the_trained_model_of_a_run_is_found(make_run, trained_start):
    config = {"interpolate": 0.5, "allow_worse": True, "max_steps": 2, "val_every": 2}
    config |= {"max_speakers": 4, "val_max_seconds": 1}
    run = train(TrainConfig.from_json(make_run(**trained_start, **config).config_path)).run
    start, model = trained_start["model_name"], run.model_dir
    checkpoint = run.path / "checkpoint-2"
    assert weights_digest(load_any_encoder(str(run.path))) != weights_digest(
        load_any_encoder(str(checkpoint))
    )
    state, said = end_of(start, run.path)
    assert is_same(state, checkpoint)
    assert said == (
        f"{run.path}: the trained model of step 2, as its model/ is at alpha 0.5 already"
    )
    # what names one model is that model
    state, said = end_of(start, checkpoint)
    assert is_same(state, checkpoint) and said == str(checkpoint)
    state, said = end_of(start, model)
    assert is_same(state, model) and said == f"{model}: itself the encoder at alpha 0.5 of its run"

    results = json.loads(run.results_path.read_text())

    def say(**changes):
        run.results_path.write_text(json.dumps({**results, **changes}))

    # the mean of several steps, all of which a run with average_best keeps
    shutil.copytree(start, run.best_dir(1))
    say(averaged_steps=[1, 2])
    state, said = end_of(start, run.path)
    assert "the mean of the trained models of steps 1, 2" in said
    ends = [load_any_encoder(str(run.best_dir(step))).state_dict() for step in (1, 2)]
    for name in (name for name, tensor in state.items() if tensor.is_floating_point()):
        assert torch.allclose(state[name], (ends[0][name] + ends[1][name]) / 2)
    shutil.rmtree(run.best_dir(1))
    with pytest.raises(UserError) as caught:
        find_trained_end(str(run.path))
    assert "at alpha 0.5, is already a mixture with the encoder that it began" in str(caught.value)
    assert str(caught.value).endswith(f"Name one of its checkpoints: {checkpoint}.")
    say(interpolation={**results["interpolation"], "choice": {"alpha": "much"}})
    with pytest.raises(UserError, match=r"results\.json"):
        find_trained_end(str(run.path))

    # of a recipe of stages, the last one's model, which lies between nothing
    say()
    stages = json.loads(run.config_path.read_text())
    run.config_path.write_text(json.dumps({**stages, "stages": [{}, {}]}))
    shutil.copytree(checkpoint, run.path / "stage_2" / "model")
    shutil.rmtree(run.best_dir(2))
    state, said = end_of(start, run.path)
    assert is_same(state, checkpoint) and "the model of stage 2" in said

    # the trained model is the result, or there is no line
    choice = {**results["interpolation"]["choice"], "alpha": 1}
    for line in (None, {**results["interpolation"], "choice": choice}):
        say(interpolation=line)
        assert str(find_trained_end(str(run.path))) == str(run.path)

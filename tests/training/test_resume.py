"""A crash never changes a result: killed and resumed, the weights are the same bytes."""

import contextlib
import json
import signal

import pytest
from conftest import TINY_WAVLM

from speaker_encoder.errors import UserError
from speaker_encoder.training.callbacks import Progress
from speaker_encoder.training.config import TrainConfig
from speaker_encoder.training.resume import open_run
from speaker_encoder.training.run_dir import RunDirectory

LAST = "checkpoint-6"


def augmentation(data_dir):
    return {
        "augment_noises_paths": [str(data_dir / "noise")],
        "augment_musics_paths": [str(data_dir / "music")],
        "augment_reverbs_paths": [str(data_dir / "rirs")],
        "augment_bank_seconds": 20,
    }


def assert_same_result(run, undisturbed):
    for name in ("model/model.safetensors", f"{LAST}/model.safetensors", f"{LAST}/optimizer.pt"):
        assert run.bytes_of(name) == undisturbed.bytes_of(name), name
    wanted = [line["loss"] for line in undisturbed.metrics("train")]
    assert [line["loss"] for line in run.metrics("train")] == wanted
    assert [line["step"] for line in run.metrics("train")] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in run.metrics("validation")] == [0, 3, 6]
    assert run.results()["after"] == undisturbed.results()["after"]


@pytest.mark.slow
def test_killed_at_any_step_with_augmentation_and_any_number_of_workers(make_run, data_dir):
    undisturbed = make_run("undisturbed", num_workers=0, **augmentation(data_dir))
    undisturbed.run()
    # Fresh interpreters have other orders of sets than the process that the rest is forked from.
    for step, workers, is_fresh in ((1, 0, True), (3, 2, False), (5, 1, False)):
        run = make_run(f"killed_at_{step}", num_workers=workers, **augmentation(data_dir))
        assert run.run_until(step, signal.SIGKILL, is_fresh=is_fresh) == -signal.SIGKILL
        assert not run.results_exist()
        run.run(is_fresh=is_fresh)
        assert_same_result(run, undisturbed)
    assert run.results()["seconds"] is None and undisturbed.results()["seconds"] > 0


@pytest.mark.slow
def test_dropout_goes_on_where_it_was_also_at_an_epoch_boundary(make_run, data_dir):
    wavlm = {
        "model_name": "wavlm-base",
        "encoder_config": {**TINY_WAVLM, "hidden_dropout": 0.3, "layerdrop": 0.3},
        "train_data_root": str(data_dir / "libritts"),
        "val_data_root": str(data_dir / "voxceleb" / "wav"),
        "speakers_per_batch": 4,
        "utterances_per_speaker": 6,  # 48 utterances: an epoch is 2 steps, as is save_every
        "num_workers": 1,
    }
    undisturbed = make_run("undisturbed", **wavlm)
    undisturbed.run()
    for step in (2, 5):
        run = make_run(f"killed_at_{step}", **wavlm)
        assert run.run_until(step, signal.SIGKILL) == -signal.SIGKILL
        run.run()
        assert_same_result(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_clean_and_the_result_is_the_same(make_run, number):
    undisturbed = make_run("undisturbed", max_steps=6)
    undisturbed.run()
    run = make_run("stopped", max_steps=6)
    process = run.start()
    while not run.metrics("train"):
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "stopped at step" in out and "goes on from there" in out
    assert not run.results_exist()
    resumed = run.run()
    assert "resuming from" in resumed.stderr
    assert_same_result(run, undisturbed)


@pytest.mark.slow
def test_a_finished_run_is_shown_not_repeated_and_never_deleted_by_force_restart(make_run):
    run = make_run(max_steps=2, val_every=2)
    first = run.run()
    before = run.bytes_of("model/model.safetensors")
    again = run.run()
    assert "is finished" in again.stderr
    assert first.stdout.split("\n")[1:] == again.stdout.split("\n")[1:]
    refused = run.run("--override", "force_restart=true", expect=2)
    assert "--overwrite" in refused.stderr
    assert run.bytes_of("model/model.safetensors") == before
    run.run("--override", "force_restart=true", "--override", "seed=5", "--overwrite")
    assert run.bytes_of("model/model.safetensors") != before


@pytest.mark.slow
def test_more_steps_go_on_from_a_finished_run(make_run):
    whole = make_run("whole", max_steps=6)
    whole.run(is_fresh=True)  # the others of this test are forked
    parts = make_run("parts", max_steps=3)
    parts.run()
    parts.run("--override", "max_steps=6")
    assert_same_result(parts, whole)


@pytest.mark.slow
def test_another_model_is_not_resumed(make_run):
    run = make_run(max_steps=2)
    run.run()
    refused = run.run("--override", "max_steps=4", "--override", "seed=3", expect=2)
    assert "started with another config" in refused.stderr and "seed" in refused.stderr


# Keys that the first versions did not have, and the one that they wrote in another form.
NEWER_KEYS = (
    *("stages", "head", "layers", "freeze", "lora", "layer_lr_decay", "lr_schedule", "ema_decay"),
    *("average_best", "views", "speed_perturbation", "max_speakers", "report_to"),
    *("augment_policy", "augment_music_snr_db", "augment_noise_snr_db", "augment_codecs"),
)


@pytest.fixture
def old_run(tmp_path):
    """Gives the config of a run that the first version was stopped in, or has finished."""

    def make(*, is_finished):
        values = {
            "model_name": "ecapa",
            "train_data_root": "demo",
            "val_data_root": "demo",
            "output_dir": str(tmp_path),
            "max_steps": 6,
        }
        stored = TrainConfig.from_dict(values).to_dict()
        stored = {key: value for key, value in stored.items() if key not in NEWER_KEYS}
        run = RunDirectory(tmp_path / "ecapa_run")
        folder = run.path / "checkpoint-6"
        folder.mkdir(parents=True)
        run.config_path.write_text(json.dumps({**stored, "optimizer": "adam"}))
        for name in ("model.safetensors", "trainer_state.json"):
            (folder / name).write_text("{}")
        progress = {
            **{"best_step": 3, "best_eer": 0.25, "best_min_dcf": 0.5},
            **{"num_validations_without_gain": 1, "previous_loss": 2.5},
            **{"is_validation_pending": False, "has_stopped_early": False},
            "unusable_files": {"a.wav": "empty"},
        }
        (folder / "progress.json").write_text(json.dumps(progress))
        if is_finished:
            run.results_path.write_text("{}")
        return values, run

    return make


def opened(values):
    with contextlib.ExitStack() as stack:
        return open_run(TrainConfig.from_dict(values), overwrite=False, stack=stack)


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_run_of_an_older_version_is_gone_on_with(old_run, caplog, is_finished):
    values, run = old_run(is_finished=is_finished)
    before = run.config_path.read_bytes()
    assert opened(values).is_finished == is_finished
    assert "changed from" not in caplog.text and "choose another" not in caplog.text
    if is_finished:
        assert run.config_path.read_bytes() == before
    else:
        assert json.loads(run.config_path.read_text())["optimizer"]["name"] == "adam"
    for change in ({"optimizer": "sgd"}, {"freeze": ["fc.*"]}, {"max_speakers": 50}):
        with pytest.raises(UserError, match=f"another config .{next(iter(change))}: was"):
            opened({**values, **change})
    opened({**values, "learning_rate_init": 1.0})
    assert "learning_rate_init" in caplog.text
    progress = Progress.load(run.path / "checkpoint-6")
    assert (progress.ranking, progress.best_step) == ([(0.25, 0.5, 3)], 3)
    assert progress.unusable_files == {"a.wav": "empty"} and progress.previous_loss == 2.5
    progress.save(run.path)
    assert Progress.load(run.path) == progress


def test_progress_of_an_older_version_without_a_validation(tmp_path):
    old = '{"best_step": null, "best_eer": Infinity, "best_min_dcf": Infinity}'
    (tmp_path / "progress.json").write_text(old)
    assert Progress.load(tmp_path) == Progress()


def test_more_steps_are_seen_in_the_config_of_an_older_version(old_run):
    values, run = old_run(is_finished=True)
    assert not opened({**values, "max_steps": 8}).is_finished
    assert json.loads(run.config_path.read_text())["max_steps"] == 8


@pytest.mark.parametrize("is_finished", [False, True])
def test_stages_are_not_given_to_a_run_without(old_run, is_finished):
    values, run = old_run(is_finished=is_finished)
    before = run.config_path.read_bytes()
    with pytest.raises(UserError, match=r"a run without stages.*now has 2 stages"):
        opened({**values, "stages": [{}, {"max_steps": 2}]})
    assert run.is_finished == is_finished and run.config_path.read_bytes() == before

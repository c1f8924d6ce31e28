"""A crash never changes a result: killed and resumed, the weights are the same bytes."""

import signal

import pytest
from conftest import TINY_WAVLM

pytestmark = pytest.mark.slow

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


def test_more_steps_go_on_from_a_finished_run(make_run):
    whole = make_run("whole", max_steps=6)
    whole.run(is_fresh=True)  # the others of this test are forked
    parts = make_run("parts", max_steps=3)
    parts.run()
    parts.run("--override", "max_steps=6")
    assert_same_result(parts, whole)


def test_another_model_is_not_resumed(make_run):
    run = make_run(max_steps=2)
    run.run()
    refused = run.run("--override", "max_steps=4", "--override", "seed=3", expect=2)
    assert "started with another config" in refused.stderr and "seed" in refused.stderr

"""The main job end to end, through the real command on real speech."""

import json
import zipfile

import numpy as np
import pytest
import torch
from conftest import TINY_ECAPA, TINY_WAVLM
from PIL import Image
from safetensors.torch import load_file

from speaker_encoder import SpeakerEncoder, UserError
from speaker_encoder.training import TrainConfig, train
from speaker_encoder.verification import equal_error_rate

pytestmark = pytest.mark.slow


def test_a_run_leaves_a_model_plots_and_a_record(make_run, data_dir):
    run = make_run(
        max_steps=4,
        val_every=2,
        comet="auto",
        vis_train_art_every=2,
        vis_val_art_every=1,
        comet_key=None,
        num_workers=1,
        annote_point=True,
    )
    done = run.run(is_fresh=True)
    assert "before (step 0)" in done.stdout and "unseen speakers" in done.stdout
    assert str(run.path / "model") in done.stdout
    assert done.stderr.count("validation EER") == 3

    values = [line["loss"] for line in run.metrics("train")]
    assert len(values) == 4 and all(np.isfinite(values))
    for name in ("eer", "learning_rate", "grad_norm", "mean_cosine", "effective_rank"):
        assert name in run.metrics("train")[0]
    for name in ("eer", "eer_low", "eer_high", "min_dcf", "loss", "batch_eer"):
        assert name in run.metrics("validation")[0]

    pictures = {path.name for path in (run.path / "plots").iterdir()}
    assert {"train_umap_000002.png", "val_umap_000004.png", "curve.png"} <= pictures
    for name in pictures:
        with Image.open(run.path / "plots" / name) as picture:
            assert min(picture.size) > 300

    with zipfile.ZipFile(next((run.path / "comet").glob("*.zip"))) as archive:
        messages = archive.read("messages.json").decode()
        assert "train_umap_000002" in messages and "step_000002_000.wav" in messages
        assert "speakers_per_batch" in messages
    assert any((run.path / "tensorboard").iterdir())

    assert {path.name for path in (run.path / "model").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "results.json",
        "preprocessor_config.json",
        "train_config.json",
    }
    assert not any("loss_fn" in name for name in load_file(run.path / "model/model.safetensors"))
    assert any("loss_fn" in name for name in load_file(run.path / "checkpoint-4/model.safetensors"))
    files = sorted((data_dir / "libritts").glob("*/*/*.wav"))[:6]
    for folder in ("model", "checkpoint-4"):
        embeddings = SpeakerEncoder.from_pretrained(run.path / folder).encode(files)
        assert embeddings.shape == (6, TINY_ECAPA["lin_neurons"])


def test_the_reported_eer_is_that_of_the_model_that_comes_back(make_run, data_dir):
    run = make_run(max_steps=4, val_every=2)
    run.run()
    results = run.results()
    files = sorted((data_dir / "libritts").glob("*/*/*.wav"))
    model = SpeakerEncoder.from_pretrained(run.path / "model")
    embeddings = model.encode(files, allow_untrained_head=True)
    first, second = np.triu_indices(len(files), 1)
    scores = (embeddings @ embeddings.T).numpy()[first, second]
    speakers = np.array([path.parent.parent.name for path in files])
    sessions = np.array([path.parent.name for path in files])
    keep = sessions[first] != sessions[second]  # same-session pairs are left out
    labels = speakers[first] == speakers[second]
    eer, _ = equal_error_rate(scores[keep], labels[keep])
    assert eer == pytest.approx(results["after"]["eer"], abs=1e-6)
    assert results["num_targets"] == labels[keep].sum()


def test_validation_changes_nothing_in_the_model(make_run):
    often = make_run("often", val_every=1, max_steps=3)
    often.run()
    never = make_run("never", val_data_root=None, max_steps=3)
    done = never.run()
    assert "No validation data" in done.stdout
    name = "checkpoint-3/model.safetensors"
    assert often.bytes_of(name) == never.bytes_of(name)


def test_epochs_are_whole_and_the_last_step_is_saved(make_run):
    # 96 utterances in batches of 4 x 3: 8 steps an epoch
    run = make_run(max_steps=None, num_epochs=2, val_every=0, save_every=0, window_size_s=[0.5, 1])
    run.run()
    assert [line["step"] for line in run.metrics("train")] == list(range(1, 17))
    assert run.metrics("train")[-1]["epoch"] == pytest.approx(2.0)
    assert [line["step"] for line in run.metrics("validation")] == [0, 16]
    assert (run.path / "checkpoint-16").is_dir()


def test_an_untouched_model_that_is_better_is_what_is_left(make_run):
    run = make_run(learning_rate_init=0.3, max_steps=2, val_every=2)
    done = run.run()
    assert run.metrics("validation")[-1]["eer"] > run.metrics("validation")[0]["eer"]
    assert run.results()["after"]["step"] == 0 and run.results()["eer_difference"] == 0
    assert "beyond noise: model/ holds the untrained weights." in " ".join(done.stdout.split())
    model = load_file(run.path / "model/model.safetensors")
    last = load_file(run.path / "checkpoint-2/model.safetensors")
    assert any(not torch.equal(value, last[name]) for name, value in model.items())


def test_the_schedule_is_stepped_and_early_stopping_stops(make_run):
    run = make_run(
        learning_rate_init=1e-9,  # nothing gets better
        max_steps=40,
        val_every=1,
        scheduler_metrics="val_loss",
        scheduler_patience=0,
        scheduler_factor=0.5,
        early_stopping_patience=6,
    )
    done = run.run()
    rates = [line["learning_rate"] for line in run.metrics("train")]
    assert rates[-1] < rates[0]
    assert "stopping early" in done.stderr and len(rates) < 40


def test_diverged_weights_are_said_at_the_validation(make_run):
    run = make_run(learning_rate_init=1e4, max_steps=2, val_every=2)
    failed = run.run(expect=2)
    assert "not finite" in failed.stderr and "learning_rate_init" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_loss_that_is_not_finite_stops_with_the_files(make_run):
    run = make_run(learning_rate_init=1e30, max_steps=30, val_data_root=None, save_every=1)
    failed = run.run(expect=2)
    assert "The loss is nan at step" in failed.stderr or "The loss is inf" in failed.stderr
    assert "Last good checkpoint" in failed.stderr and ".wav" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_accumulation_warm_up_bf16_adamw_and_verbatim_arguments(make_run):
    run = make_run(
        gradient_accumulation_steps=2,
        warmup_steps=2,
        precision="bf16",
        optimizer="adamw",
        weight_decay=0.1,
        max_steps=3,
        training_arguments={"adam_beta2": 0.9, "lr_scheduler_type": "linear"},
    )
    run.run()
    assert len(run.metrics("train")) == 3
    state = torch.load(run.path / "checkpoint-3/optimizer.pt", weights_only=True)
    decays = {group["weight_decay"] for group in state["param_groups"]}
    assert decays == {0.0, 0.1}


def test_only_the_head_of_wavlm_is_trained(make_run):
    run = make_run(
        model_name="wavlm-base", encoder_config=TINY_WAVLM, train_only_head=True, max_steps=2
    )
    run.run()
    first = load_file(run.path / "checkpoint-2/model.safetensors")
    torch.manual_seed(0)
    start = SpeakerEncoder.from_name("wavlm-base", pretrained=False, encoder_config=TINY_WAVLM)
    changed = {n for n, v in start.state_dict().items() if not torch.equal(v, first[n])}
    head = ("backbone.projector.", "backbone.tdnn.", "backbone.feature_extractor.")
    assert changed and all(name.startswith(head) for name in changed)


def test_validate_only_trains_nothing(make_run):
    run = make_run()
    shown = run.run("--validate_only")
    assert json.loads(shown.stdout[: shown.stdout.rindex("}") + 1])["max_steps"] == 6
    assert "24 speakers, 96 utterances" in shown.stdout and "trials:" in shown.stdout
    assert not run.path.exists()


def test_the_python_call_does_the_same(make_run):
    run = make_run(max_steps=2, val_every=2)
    outcome = train(TrainConfig.from_json(run.config_path))
    assert outcome.exit_code == 0 and outcome.results.after is not None
    with pytest.raises(UserError, match="finished run"):
        train(TrainConfig.from_json(run.config_path, ["force_restart=true"]))


def test_a_folder_of_transformers_and_then_a_checkpoint_are_fine_tuned(make_run, tmp_path):
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    upstream = tmp_path / "wavlm-sv"
    torch.manual_seed(1)
    WavLMForXVector(WavLMConfig(**TINY_WAVLM)).save_pretrained(upstream)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(upstream)
    first = make_run("first", model_name=str(upstream), pretrained=True, encoder_config=None)
    first.run()
    config = json.loads((first.path / "model" / "config.json").read_text())
    assert config["do_normalize"] is True and config["untrained_head"] is False
    again = make_run(
        *("again",),
        model_name=str(first.path / "checkpoint-6"),
        pretrained=True,
        encoder_config=None,
        max_steps=1,
    )
    again.run()
    checkpoint = SpeakerEncoder.from_pretrained(first.path / "checkpoint-6").eval()
    waveform = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)) / 10
    before = SpeakerEncoder.from_pretrained(upstream)(waveform).embeddings
    assert not torch.allclose(before, checkpoint(waveform).embeddings, atol=1e-6)
    assert again.metrics("train")[0]["loss"] == pytest.approx(
        first.metrics("train")[-1]["loss"], abs=1
    )

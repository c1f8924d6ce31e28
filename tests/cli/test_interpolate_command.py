"""`speaker-encoder interpolate` on small encoders and real speech: figures, files, refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from speaker_encoder import SpeakerEncoder
from speaker_encoder.export.model import weights_digest
from speaker_encoder.training.interpolation import interpolate_state, mean_state
from speaker_encoder.training.run_dir import RunDirectory
from speaker_encoder.verification import equal_error_rate
from speaker_encoder.verification.systems import load_any_encoder


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory) -> Path:
    """A tiny d-vector with random weights that says it was trained."""
    torch.manual_seed(1)
    tiny = {"hidden_size": 32, "num_layers": 2, "embedding_size": 24}
    encoder = SpeakerEncoder.from_name("dvector", pretrained=False, encoder_config=tiny)
    encoder.config.untrained_head = False
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    encoder.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def finetuned(pretrained, tmp_path_factory) -> list[Path]:
    """Three encoders near the pretrained one, as after fine-tuning; each the folder of a run."""
    folders = []
    for seed in range(3):
        encoder = SpeakerEncoder.from_pretrained(pretrained)
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in encoder.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        folders.append(tmp_path_factory.mktemp("runs") / f"seed{seed}")
        encoder.save_pretrained(folders[-1] / "model")
    return folders


@pytest.fixture
def few(few) -> Path:
    """Three utterances of each of the four speakers."""
    kept: dict[str, set[str]] = {}
    for line in few.read_text().splitlines():
        for name in line.split()[1:]:
            of_speaker = kept.setdefault(name.split("/")[0], set())
            if len(of_speaker) < 3:
                of_speaker.add(name)
    names = set().union(*kept.values())
    lines = [line for line in few.read_text().splitlines() if names.issuperset(line.split()[1:])]
    few.write_text("\n".join(lines) + "\n")
    return few


@pytest.fixture
def trials(few, data_dir):
    return "--trials", few, "--data_root", data_dir / "libritts"


def reference(few, data_dir):
    return "--reference_trials", few, "--reference_data_root", data_dir / "libritts"


def state_of(folder) -> dict[str, torch.Tensor]:
    return SpeakerEncoder.from_pretrained(folder).state_dict()


def is_same(state, other) -> bool:
    return state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


def measured_eer(folder, trials) -> float:
    """By the encoder's own `encode` and a cosine for each line."""
    lines = [line.split() for line in trials[1].read_text().splitlines()]
    names = sorted({name for _, *pair in lines for name in pair})
    rows = load_any_encoder(str(folder)).encode([trials[3] / name for name in names])
    row_of = dict(zip(names, rows, strict=True))
    scores = [float(row_of[a] @ row_of[b]) for _, a, b in lines]
    return equal_error_rate(scores, [label == "1" for label, *_ in lines])[0]


def test_the_curve_is_that_of_evaluate_and_the_model_is_the_chosen_one(
    command, pretrained, finetuned, trials, few, data_dir, tmp_path
):
    out = tmp_path / "between"
    shown = command(
        "interpolate", pretrained, finetuned[0], *trials, *reference(few, data_dir),
        "--alphas", "0.5", "--forgetting_tolerance", 0.5, "--allow_worse", "--output_dir", out,
    )  # fmt: skip
    assert shown.code == 0, shown.err
    results = json.loads((out / "interpolation.json").read_text())
    curve = results["curve"]
    assert [point["alpha"] for point in curve] == [0, 0.5, 1]
    for point in curve:  # the same trials, so the same figures
        assert point["reference_eer"] == point["eer"]
        assert point["reference_interval"] == point["eer_interval"]
        assert f"{100 * point['eer']:.2f} %" in shown.out
        assert point["eer_interval"][0] <= point["eer"] <= point["eer_interval"][1]
    for folder, point in ((pretrained, curve[0]), (finetuned[0], curve[-1])):
        assert point["eer"] == pytest.approx(measured_eer(folder, trials))
    choice = results["choice"]
    assert choice["alpha"] == min(curve, key=lambda point: (point["eer"], point["alpha"]))["alpha"]
    assert f"alpha {choice['alpha']:g} is chosen: {choice['reason']}" in shown.out
    assert choice["reference_limit"] == pytest.approx(1.5 * curve[0]["eer"])
    ends = state_of(pretrained), state_of(finetuned[0] / "model")
    assert is_same(state_of(out / "model"), interpolate_state(*ends, choice["alpha"]))
    # the folder is found as that of a run
    assert weights_digest(load_any_encoder(str(out))) == results["weights_sha256"]
    chosen = next(point for point in curve if point["alpha"] == choice["alpha"])
    assert chosen["eer"] == pytest.approx(measured_eer(out, trials))
    change = results["validation_change"]
    assert change["eer_difference"] == pytest.approx(chosen["eer"] - curve[0]["eer"])
    assert results["reference_change"] == change
    assert (out / "interpolation.png").read_bytes().startswith(b"\x89PNG")
    assert results["validation"]["num_targets"] == 12


def test_transformers_loads_the_result(command, pretrained, finetuned, trials, tmp_path):
    from transformers import AutoModel

    shown = command(
        "interpolate", pretrained, finetuned[1], *trials, "--alphas", "1", "--output_dir", tmp_path
    )
    assert shown.code == 0, shown.err
    results = json.loads((tmp_path / "interpolation.json").read_text())
    assert results["reference"] is None and results["choice"]["reference_limit"] is None
    alphas = [p["alpha"] for p in results["curve"] if p["against_best"] != "worse"]
    assert results["choice"]["alpha"] == alphas[0]
    model = AutoModel.from_pretrained(tmp_path / "model").eval()
    speech = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) / 10
    with torch.inference_mode():
        found = model(speech).embeddings
        expected = SpeakerEncoder.from_pretrained(
            pretrained if not alphas[0] else finetuned[1] / "model"
        )(speech).embeddings
    assert torch.equal(found, expected)
    # again into the same folder, of which it says that it wrote it
    again = command(
        "interpolate", pretrained, finetuned[1], *trials, "--alphas", "1", "--output_dir", tmp_path
    )
    assert again.code == 0 and again.out == shown.out


def test_the_mean_of_several_runs(command, pretrained, finetuned, trials, tmp_path):
    shown = command(
        "interpolate", pretrained, *finetuned, "--average", *trials, "--alphas", "0,1",
        *("--reference_data_root", trials[3], "--forgetting_tolerance", 100),
        "--output_dir", tmp_path,
    )  # fmt: skip
    assert shown.code == 0, shown.err
    results = json.loads((tmp_path / "interpolation.json").read_text())
    assert results["finetuned"] == [str(folder) for folder in finetuned]
    # without a list: the pairs of the corpus that are not of one session
    assert "pairs of utterances" in results["reference"]["source"]
    mean = mean_state([state_of(folder / "model") for folder in finetuned])
    SpeakerEncoder.from_pretrained(pretrained).save_pretrained(tmp_path / "soup", state_dict=mean)
    assert results["curve"][1]["eer"] == pytest.approx(measured_eer(tmp_path / "soup", trials))
    assert np.isfinite(results["curve"][1]["reference_eer"])


def test_of_a_run_that_left_an_encoder_between_the_trained_one_is_taken(
    command, pretrained, finetuned, trials, tmp_path
):
    """One run left a mixture, another the pretrained encoder; both keep what they trained."""
    ends = [state_of(folder / "model") for folder in finetuned[:2]]
    for number, (alpha, end) in enumerate(zip((0.3, 0), ends, strict=True)):
        run = RunDirectory(tmp_path / f"run{number}")
        encoder = SpeakerEncoder.from_pretrained(pretrained)
        for folder, place in ((run.model_dir, alpha), (run.best_dir(60), 1)):
            encoder.load_state_dict(interpolate_state(state_of(pretrained), end, place))
            encoder.save_pretrained(folder)
        choice = {"alpha": alpha, "reason": "", "reference_limit": None}
        line = {"step": 60, "curve": [], "choice": choice}
        run.results_path.write_text(json.dumps({"interpolation": line, "averaged_steps": []}))
    runs = [tmp_path / "run0", tmp_path / "run1"]
    shown = command(
        "interpolate", pretrained, *runs, "--average", *trials, "--alphas", "1",
        "--output_dir", tmp_path / "out",
    )  # fmt: skip
    assert shown.code == 0, shown.err
    assert f"{runs[0]}: the trained model of step 60, as its model/ is at alpha 0.3" in shown.out
    results = json.loads((tmp_path / "out" / "interpolation.json").read_text())
    taken = [one["models"] for one in results["finetuned_taken"]]
    assert taken == [[str(RunDirectory(run).best_dir(60))] for run in runs]
    assert results["finetuned"] == [str(run) for run in runs]
    SpeakerEncoder.from_pretrained(pretrained).save_pretrained(
        tmp_path / "soup", state_dict=mean_state(ends)
    )
    assert results["curve"][-1]["eer"] == pytest.approx(measured_eer(tmp_path / "soup", trials))
    shown = command("interpolate", pretrained, finetuned[0], *trials, "--alphas", "1")
    assert f"alpha 1: {finetuned[0]}\n" in shown.out
    shutil.rmtree(tmp_path / "run1" / ".best")
    shown = command("interpolate", pretrained, *runs, "--average", *trials)
    assert shown.code == 2 and not shown.out
    assert "does not have its trained model any more, and its model/, at alpha 0, is" in shown.err


def test_what_is_refused(command, pretrained, finetuned, trials, few, tmp_path):
    def refused(*arguments) -> str:
        shown = command("interpolate", *arguments)
        assert shown.code == 2 and not shown.out
        return shown.err

    some = finetuned[0]
    torch.manual_seed(0)
    tiny = {"hidden_size": 32, "num_layers": 2, "embedding_size": 24}
    untrained = SpeakerEncoder.from_name("dvector", pretrained=False, encoder_config=tiny)
    untrained.save_pretrained(tmp_path / "untrained")
    tiny = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 24}
    other = SpeakerEncoder.from_name("ecapa", pretrained=False, encoder_config=tiny)
    other.config.untrained_head = False
    other.save_pretrained(tmp_path / "other")
    for pair in ((tmp_path / "untrained", some), (pretrained, tmp_path / "untrained")):
        text = refused(*pair, *trials)
        assert f"two trained encoders; '{tmp_path / 'untrained'}' is none" in text
        assert "random weights" in text and "allow_untrained_head" not in text
    assert "encoder_kind is 'dvector' and 'ecapa'" in refused(
        pretrained, tmp_path / "other", *trials
    )
    assert "'nowhere/at_all' is none" in refused("nowhere/at_all", some, *trials)
    assert "add --average" in refused(pretrained, *finetuned, *trials)
    assert "two or more fine-tuned encoders, found 1" in refused(
        pretrained, some, "--average", *trials
    )
    assert "such as 0,0.25,0.5; found '0;1'" in refused(
        pretrained, some, *trials, "--alphas", "0;1"
    )
    assert "between 0 and 1, found 1.5" in refused(pretrained, some, *trials, "--alphas", "0,1.5")
    assert "found -1.0" in refused(pretrained, some, *trials, "--forgetting_tolerance", -1)
    assert "Give --trials with --data_root" in refused(pretrained, some)
    unlabelled = tmp_path / "unlabelled.txt"
    unlabelled.write_text(
        "".join(" ".join(line.split()[1:]) + "\n" for line in few.read_text().splitlines())
    )
    assert "has no labels" in refused(pretrained, some, "--trials", unlabelled, *trials[2:])
    before = state_of(some / "model")
    assert "holds a model already" in refused(pretrained, some, *trials, "--output_dir", some)
    assert "holds a model already" in refused(pretrained, some, *trials, "--output_dir", pretrained)
    assert is_same(before, state_of(some / "model"))

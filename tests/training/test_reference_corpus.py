"""The reference corpus of a run: shown before training, and its names."""

import pytest

from speaker_encoder.cli.main import main_of
from speaker_encoder.errors import UserError
from speaker_encoder.training import TrainConfig
from speaker_encoder.training.data import load_data


def test_validate_only_shows_the_reference(make_run, trained_start, data_dir, capfd):
    keys = {**trained_start, "reference_data_root": str(data_dir / "vctk")}
    run = make_run(**keys)
    assert main_of("train", ["--config", str(run.config_path), "--validate_only"]) == 0
    shown = capfd.readouterr().out
    reference = load_data(TrainConfig.from_json(run.config_path)).reference
    labels = list(reference.trials.labels)
    speakers = {utterance.speaker_id for utterance in reference.utterances}
    assert (
        f"reference: {len(speakers)} speakers, {len(reference.utterances)} utterances; trials: "
        f"{sum(labels)} target, {len(labels) - sum(labels)} nontarget\n"
    ) in shown


def test_other_people_of_the_same_name_get_other_names(make_run, trained_start, data_dir, tmp_path):
    """A corpus whose folders are called as the training speakers."""
    speakers = sorted((data_dir / "voxceleb" / "wav").iterdir())[:3]
    sources = sorted((data_dir / "libritts").iterdir())[:3]
    root, lines = tmp_path / "old", []
    for speaker, source in zip(speakers, sources, strict=True):
        (root / speaker.name).mkdir(parents=True)
        for wav in sorted(source.rglob("*.wav"))[:3]:
            (root / speaker.name / wav.name).symlink_to(wav)
            lines.append(f"old_{speaker.name} {speaker.name}/{wav.name}\n")
    keys = {**trained_start, "reference_data_root": str(root)}
    with pytest.raises(UserError, match="3 speakers are in both training and reference") as caught:
        load_data(TrainConfig.from_json(make_run("a", **keys).config_path))
    assert "give reference_list, with lines `speaker path` and other names" in str(caught.value)
    (tmp_path / "names.txt").write_text("".join(lines))
    keys["reference_list"] = str(tmp_path / "names.txt")
    reference = load_data(TrainConfig.from_json(make_run("b", **keys).config_path)).reference
    assert {utterance.speaker_id for utterance in reference.utterances} == {
        f"old_{speaker.name}" for speaker in speakers
    }
    assert reference.trials.labels.any() and not reference.trials.labels.all()

"""Every config in `configs/`: complete, and trained for two steps on a small corpus."""

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY, TINY_ECAPA, TINY_WAVLM

from speaker_encoder.cli.main import main_of
from speaker_encoder.training import TrainConfig, train
from speaker_encoder.training.build import check_model

CONFIGS = sorted((REPOSITORY / "configs").glob("*.json"))
TINY_RESNET = {"num_filters": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}
SMALLER = {
    "seed_ge2e_wavlm": TINY_WAVLM,
    "seed_ge2e_ecapa": TINY_ECAPA,
    "dvector_ge2e_64x15": {"hidden_size": 16, "embedding_size": 16},
    "fast_resnet34_angleproto": TINY_RESNET,
    "h_asp_softmaxproto": TINY_RESNET,
    "rawnet3_aam": {"channels": 16},
    "espnet_ecapa_mel": TINY_ECAPA,
    "espnet_ecapa_wavlm_joint": TINY_WAVLM,
    "simclr_ecapa": TINY_ECAPA,
}
TINY_HEADS = {"ecapa": {"name": "ecapa", **TINY_ECAPA, "se_channels": 8}}
SMALL_BATCH = {"speakers_per_batch": 3, "val_speakers_per_batch": 3, "window_size_s": 0.9}


def small(values: dict, name: str, data_dir: Path, folder: Path) -> dict:
    """The recipe with another corpus, a smaller encoder, batch and crop, and two steps."""
    is_from_scratch = not name.startswith(("dvector_real_speech", "fine_tun"))
    own = {
        **values,
        **SMALL_BATCH,
        "train_data_root": str(data_dir / "voxceleb" / "wav"),
        "val_data_root": str(data_dir / "libritts"),
        "output_dir": str(folder),
        "utterances_per_speaker": min(values.get("utterances_per_speaker", 2), 4),
        "val_utterances_per_speaker": 3,
        "few_utterances": "repeat",
        "max_steps": 2,
        "val_every": 2,
        "save_every": 2,
        "backup_every": 0,
        "bootstrap_samples": 5,
        "vis_train_art_every": 0,
        "vis_val_art_every": 0,
        "num_workers": 0,
        "device": "cpu",
        "comet": "off",
        "cache_dir": str(folder / "cache"),
    }
    lists = ("train_list", "val_list", "val_trials", "reference_list", "reference_data_root")
    for key in (*lists, "num_epochs", "multi_rec_session"):
        own.pop(key, None)
    if is_from_scratch:
        own |= {
            "pretrained": False,
            "encoder_config": {**(values.get("encoder_config") or {}), **SMALLER[name]},
        }
    if "head" in own:
        own["head"] = TINY_HEADS[own["head"]]
    own["stages"] = [
        {
            **{key: value for key, value in stage.items() if key != "num_epochs"},
            **{key: own[key] for key in (*SMALL_BATCH, "max_steps") if key in stage},
            **({"max_steps": 2} if "num_epochs" in stage else {}),
            **paths_of(stage, data_dir),
        }
        for stage in values.get("stages", [])
    ]
    return own | paths_of(own, data_dir)


def paths_of(values: dict, data_dir: Path) -> dict:
    kinds = {"noises": "noise", "musics": "music", "reverbs": "rirs", "babbles": "voxceleb"}
    keys = {f"augment_{kind}_paths": [str(data_dir / name)] for kind, name in kinds.items()}
    found = {key: value for key, value in keys.items() if key in values}
    return found | ({"augment_bank_seconds": 60} if found else {})


def test_there_is_one_for_each_published_result() -> None:
    assert {path.stem for path in CONFIGS} >= SMALLER.keys()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_only_paths_are_missing(
    path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    """The encoder can be built at its full size, and every key fits the others."""
    monkeypatch.setenv("SPEAKER_ENCODER_DATA", str(data_dir))
    values = json.loads(path.read_text())
    names = ("train_data_root", "val_data_root", "train_list", "val_list", "val_trials")
    whole = {**values, "stages": values.get("stages", [])}
    for part in (whole, *whole["stages"]):
        part.update({key: str(data_dir) for key in names[:2] if key in part})
        part.update({key: str(path) for key in names[2:] if part.get(key)})
        part.update(paths_of(part, data_dir))
    config = TrainConfig.from_dict(whole)
    assert config.run_id == path.stem
    if not config.pretrained:
        check_model(config)


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_validated_and_two_steps(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    monkeypatch.setenv("SPEAKER_ENCODER_DATA", str(data_dir))
    values = small(json.loads(path.read_text()), path.stem, data_dir, tmp_path)
    config_path = tmp_path / "config.json"
    config_path.write_text(json.dumps(values))
    assert main_of("train", ["--config", str(config_path), "--validate_only"]) == 0
    outcome = train(TrainConfig.from_json(config_path))
    assert outcome.results is not None
    assert (outcome.run.path / "model" / "model.safetensors").is_file()

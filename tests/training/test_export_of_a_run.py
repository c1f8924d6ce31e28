"""What a run leaves behind is what the exporter takes."""

import shutil

import numpy as np
import pytest
import torch

from speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from speaker_encoder.audio import AUDIO_EXTENSIONS
from speaker_encoder.export import ExportOptions, embed_corpus

TINY = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 24}


@pytest.mark.slow
def test_run_directory_and_checkpoint_step(make_run, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "cache"))
    config = SpeakerEncoderConfig(encoder_kind="ecapa", encoder_config=TINY)
    pretrained = SpeakerEncoder(config).eval()
    pretrained.config.untrained_head = False
    pretrained.save_pretrained(tmp_path / "pretrained")
    run = make_run(
        model_name=str(tmp_path / "pretrained"), pretrained=True, encoder_config={},
        max_steps=4, save_every=2, val_every=2, trim_silence="vad",
    )  # fmt: skip
    run.run()
    assert run.results_exist()
    corpus = tmp_path / "corpus"
    shutil.copytree(data_dir / "vctk", corpus)
    files = sorted(path for path in corpus.rglob("*") if path.suffix in AUDIO_EXTENSIONS)[:3]
    step = max(run.path.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    sources = {
        "run": (run.path, run.path / "model"),
        "step": (step, step),
    }
    for name, (checkpoint, model) in sources.items():
        embed_corpus(
            ExportOptions(
                "ecapa", str(corpus), checkpoint=str(checkpoint), model_device="cpu",
                output_dir=str(tmp_path / name), show_progress=False,
            )
        )  # fmt: skip
        encoder = SpeakerEncoder.from_pretrained(model)
        for file in files:
            (written,) = (tmp_path / name).rglob(f"{file.stem}.ecapa_embedding")
            found = torch.load(written, weights_only=True)[0]
            np.testing.assert_allclose(found, encoder.encode(file)[0], atol=1e-5)
    assert not np.allclose(found, pretrained.encode(files[-1])[0], atol=1e-5)

"""The commands run in this process: exit code, stdout and stderr."""

from collections import namedtuple
from pathlib import Path

import pytest

Shown = namedtuple("Shown", "code out err")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(capsys, monkeypatch, shared_cache):
    """Runs a command: command("evaluate", "--model", "dvector", ...)."""
    from speaker_encoder.cli.main import main

    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(shared_cache))

    def run(*arguments) -> Shown:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Shown(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A tiny ECAPA with random weights that says it was trained."""
    import torch

    from speaker_encoder import SpeakerEncoder

    torch.manual_seed(1)
    tiny = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 24}
    model = SpeakerEncoder.from_name("ecapa", pretrained=False, encoder_config=tiny)
    model.config.untrained_head = False
    folder = tmp_path_factory.mktemp("tiny") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def few(tmp_path, data_dir):
    """A list of 4 LibriTTS speakers, all pairs of 5 utterances each."""
    wavs = [
        w for d in sorted((data_dir / "libritts").iterdir()) for w in sorted(d.rglob("*.wav"))[:5]
    ]
    names = [wav.relative_to(data_dir / "libritts").as_posix() for wav in wavs]
    lines = [
        f"{int(a.split('/')[0] == b.split('/')[0])} {a} {b}"
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]
    path = tmp_path / "few.txt"
    path.write_text("\n".join(lines) + "\n")
    return path

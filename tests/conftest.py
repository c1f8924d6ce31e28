"""What all tests share: real speech, and no network."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real speech, noise, music and impulse responses."""
    folder = Path(os.environ.get("SPEAKER_ENCODER_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "lists" / "utterances.tsv").is_file():
        pytest.skip(f"no real speech at {folder}; point SPEAKER_ENCODER_DATA to it")
    return folder.resolve()

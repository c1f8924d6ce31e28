"""Real speech in small corpora, and tiny encoders to export it with."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from preloaded import Preloaded
from tiny_encoders import make_tiny

from speaker_encoder.export import ExportOptions, ExportOutcome, embed_corpus

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory) -> Path:
    """A tiny ECAPA as a run saves it."""
    folder = tmp_path_factory.mktemp("encoder") / "model"
    make_tiny(1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def other_encoder_dir(tmp_path_factory) -> Path:
    """Another tiny ECAPA of the same architecture."""
    folder = tmp_path_factory.mktemp("other") / "model"
    make_tiny(2).save_pretrained(folder)
    return folder


@pytest.fixture
def libritts(tmp_path, data_dir, monkeypatch) -> Path:
    """Real LibriTTS files: 4 speakers, 12 utterances each."""
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "LibriTTS"
    shutil.copytree(data_dir / "libritts", root, ignore=shutil.ignore_patterns("*.npz", "*.txt"))
    return root


@pytest.fixture
def vctk(tmp_path, data_dir, monkeypatch) -> Path:
    """Real VCTK files: 4 speakers, 10 utterances each."""
    monkeypatch.setenv("SPEAKER_ENCODER_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "VCTK"
    shutil.copytree(data_dir / "vctk", root)
    return root


@pytest.fixture
def export(encoder_dir) -> Callable[..., ExportOutcome]:
    """Exports with the tiny encoder: export(root, formats=("npy",), ...)."""

    def call(root: Path, **changes) -> ExportOutcome:
        values = {"model_name": "ecapa", "checkpoint": str(encoder_dir), "show_progress": False}
        return embed_corpus(ExportOptions(dataset_dir=str(root), **{**values, **changes}))

    return call


@pytest.fixture
def start_command(encoder_dir) -> Callable[..., Preloaded | subprocess.Popen]:
    """Starts the published script on one thread: start_command(root, *arguments).

    Its interpreter has imported the libraries already; with a launcher it is a fresh one.
    """
    script = REPOSITORY / "create_speaker_emb_dataset.py"

    def start(
        root: Path, *more: str, launcher: tuple[str, ...] = ()
    ) -> Preloaded | subprocess.Popen:
        arguments = ["--model_name", "ecapa", "--dataset_dir", str(root), "--model_device", "cpu"]
        arguments += ["--checkpoint", str(encoder_dir), *more]
        if not launcher:
            return Preloaded(script, arguments, REPOSITORY)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        return subprocess.Popen(
            [*launcher, str(script), *arguments], env=environment, cwd=REPOSITORY, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


@pytest.fixture
def run_command(start_command) -> Callable[..., subprocess.CompletedProcess]:
    """Runs the published script to its end: run_command(root, *arguments)."""

    def run(root: Path, *more: str, **options) -> subprocess.CompletedProcess:
        process = start_command(root, *more, **options)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture
def embeddings_of() -> Callable[..., dict[str, bytes]]:
    """Every embedding file below a folder with its bytes."""

    def read(root: Path, pattern: str = "*.ecapa_*") -> dict[str, bytes]:
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob(pattern))
            if path.is_file() and ".embeddings" not in path.parts
        }

    return read

"""Corpora with everything that goes wrong with recordings, and the config of a run on them."""

from pathlib import Path

import numpy as np
import soundfile
from conftest import TINY_ECAPA, TrainingRun

RATE = 16_000


class CorpusWriter:
    """Writes recordings of noise below a root, the same ones every time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._generator = np.random.default_rng(0)

    def noise(self, seconds: float, sampling_rate: int = RATE) -> np.ndarray:
        """Gives (T,) float32."""
        samples = self._generator.standard_normal(round(seconds * sampling_rate))
        return (0.1 * samples).astype(np.float32)

    def write(
        self,
        speaker: str,
        name: str,
        waveform: np.ndarray | None = None,
        sampling_rate: int = RATE,
        subtype: str | None = None,
    ) -> Path:
        """Writes a recording, 1.2 s of noise where no waveform is given."""
        path = self.root / speaker / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = self.noise(1.2) if waveform is None else waveform
        soundfile.write(path, samples, sampling_rate, subtype=subtype)
        return path

    def speakers(self, *names: str, num_utterances: int = 3) -> "CorpusWriter":
        """Writes good speakers."""
        for name in names:
            for number in range(num_utterances):
                self.write(name, f"{number}.wav")
        return self


def cut_in_half(path: Path) -> None:
    """Truncates a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_broken_corpus(root: Path) -> Path:
    """Writes three good speakers, and for each thing that goes wrong one that has a good file."""
    corpus = CorpusWriter(root).speakers("good1", "good2", "good3")
    for speaker in ("zero", "cut", "text", "nan", "inf", "silent", "short", "link"):
        corpus.write(speaker, "good.wav")
    (root / "folder_without_files").mkdir()
    (root / "folder_of_text").mkdir()
    (root / "folder_of_text" / "notes.txt").write_text("no recordings yet")
    (root / "zero" / "empty.wav").touch()
    cut_in_half(corpus.write("cut", "half.wav"))
    cut_in_half(corpus.write("cut", "other_half.flac"))
    (root / "text" / "text.wav").write_text("Please call Stella.\n" * 50)
    for speaker, value in (("nan", np.nan), ("inf", np.inf)):
        waveform = corpus.noise(1.2)
        waveform[::100] = value
        corpus.write(speaker, "samples.wav", waveform, subtype="FLOAT")
    corpus.write("silent", "silence.wav", np.zeros(RATE, np.float32))
    corpus.write("short", "ten_milliseconds.wav", corpus.noise(0.01))
    (root / "link" / "broken.wav").symlink_to(root / "gone.wav")
    return root


def write_unusual_corpus(root: Path) -> Path:
    """Writes speakers whose recordings are odd and good."""
    corpus = CorpusWriter(root)
    for subtype in ("PCM_U8", "PCM_24", "DOUBLE"):
        corpus.write("formats", f"{subtype}.wav", subtype=subtype)
    corpus.write("stereo", "a.wav", np.stack([corpus.noise(1.2), corpus.noise(1.2)], axis=1))
    for rate in (8_000, 44_100, 48_000):
        corpus.write("rates", f"{rate}.wav", corpus.noise(1.2, rate), rate)
    hour = np.tile(corpus.noise(10, 8_000), 360)
    corpus.write("hour", "one_hour.wav", hour, 8_000, subtype="PCM_U8")
    corpus.write("two words", 'it\'s "quoted" & 100%{0}.wav')
    corpus.write("Σπύρος-说话人", "语音 ü.wav")
    return root


def make_config(folder: Path, train_root: Path, **keys) -> TrainingRun:
    """Gives a short run of a tiny encoder, without validation data unless it is given."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "model_name": "ecapa",
        "pretrained": False,
        "encoder_config": TINY_ECAPA,
        "run_id": "run",
        "output_dir": str(folder / "runs"),
        "train_data_root": str(train_root),
        "window_size_s": 0.8,
        "speakers_per_batch": 4,
        "utterances_per_speaker": 3,
        "val_speakers_per_batch": 3,
        "val_utterances_per_speaker": 3,
        "max_steps": 2,
        "learning_rate_init": 1e-3,
        "val_every": 0,
        "save_every": 1,
        "backup_every": 0,
        "bootstrap_samples": 20,
        "vis_train_art_every": 0,
        "vis_val_art_every": 0,
        "num_workers": 0,
        "device": "cpu",
        "comet": "off",
    }
    return TrainingRun(folder, {**values, **keys})


def refused(run: TrainingRun, *arguments: str, **options) -> str:
    """Runs the command, which must end with one message and exit code 2; gives stderr."""
    done = run.run(*arguments, expect=2, **options)
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr

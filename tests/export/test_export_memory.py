"""Memory does not grow with the corpus, nor with the length of a file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

FOLDER = Path(__file__).parent

STUB = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from pathlib import Path
from tiny_encoders import make_tiny
from speaker_encoder.corpora import Utterance
from speaker_encoder.export import ExportOptions, embed_corpus
from speaker_encoder.export.source import Item, Source
from speaker_encoder.modeling import SpeakerEncoder, SpeakerEncoderOutput

class Stub(SpeakerEncoder):
    def forward(self, input_values, attention_mask=None, labels=None, return_dict=None):
        return SpeakerEncoderOutput(embeddings=input_values[:, :192] + 1.0)

def peak_mb():
    # not ru_maxrss, which starts at that of the process that started this one
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
"""

MANY = (
    STUB
    + """
wav, out, count = sys.argv[2], sys.argv[3], int(sys.argv[4])
encoder = Stub(make_tiny(1, lin_neurons=192).config).eval()
size, time = Path(wav).stat().st_size, Path(wav).stat().st_mtime_ns
items = [
    Item(Utterance(f"s{n // 100:04d}/u{n:06d}", f"s{n // 100:04d}", None, wav, 800, 16000),
         f"s{n // 100:04d}/u{n:06d}.wav", size, time)
    for n in range(count)
]
options = ExportOptions("ecapa", str(Path(wav).parent), output_dir=out, show_progress=False,
                        formats=("pt", "parquet", "coqui"))
source = Source(Path(wav).parent, "folders", "folders", items)
before = peak_mb()
outcome = embed_corpus(options, encoder=encoder, source=source)
print(json.dumps({"before": before, "peak": peak_mb(), "count": outcome.num_utterances}))
"""
)

LONG = (
    STUB
    + """
peaks, encoder = [], make_tiny(1)
for root in sys.argv[2:]:
    options = ExportOptions("ecapa", root, output_dir=root + "-out", show_progress=False,
                            trim_silence="energy")
    assert embed_corpus(options, encoder=encoder).num_utterances == 1
    peaks.append(peak_mb())
print(json.dumps({"peaks": peaks}))
"""
)


def run(code: str, *arguments: object) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER), *map(str, arguments)],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_100_000_utterances_stay_under_1_gb(tmp_path):
    wav = tmp_path / "corpus" / "a.wav"
    wav.parent.mkdir()
    soundfile.write(wav, np.sin(np.arange(800) / 9), 16000)
    found = run(MANY, wav, tmp_path / "out", 100_000)
    assert found["count"] == 100_000
    assert found["peak"] < 1000, found


@pytest.mark.slow
def test_a_one_hour_file_is_embedded_in_bounded_memory(tmp_path):
    roots = [tmp_path / "2 minutes", tmp_path / "60 minutes"]
    for root, minutes in zip(roots, (2, 60), strict=True):
        path = root / "ann" / "a.wav"
        path.parent.mkdir(parents=True)
        speech = np.sin(np.arange(60 * 16000) ** 1.1 / 50).astype(np.float32) * 0.3
        with soundfile.SoundFile(path, "w", 16000, 1) as file:
            for _ in range(minutes):
                file.write(speech)
    short, long = run(LONG, *roots)["peaks"]
    assert long < short + 60, (short, long)

"""How many training crops per second one process decodes, from 5 s files and from 600 s files.

Prints ratios of one run: crops from long files against crops from short ones (at least 0.5), and
against decoding the whole file for a crop (at least 10 times faster).

    python benchmarks/crops.py --data_dir ../data
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from speaker_encoder.audio import read_audio
from speaker_encoder.corpora import scan
from speaker_encoder.training.dataset import CropDataset
from speaker_encoder.training.sampler import ExampleKey, group_by_speaker

RATE = 16000
CROP_SECONDS = 2.0


def real_speech(data_dir: Path, seconds: float) -> np.ndarray:
    """Gives (T,) float32 of real speech, utterance after utterance, repeated to the length."""
    files = sorted((data_dir / "speechocean762" / "WAVE").glob("*/*.flac"))[:300]
    parts = [soundfile.read(path, dtype="float32")[0] for path in files]
    return np.resize(np.concatenate(parts), int(seconds * RATE))


def make_corpus(folder: Path, speech: np.ndarray, seconds: float, count: int, kind: str) -> None:
    """Writes 2 speakers with `count` files each."""
    for number in range(2 * count):
        speaker = folder / f"speaker{number % 2}"
        speaker.mkdir(parents=True, exist_ok=True)
        start = (number * 7919 * 16) % max(1, len(speech) - int(seconds * RATE))
        path = speaker / f"{number:03d}.{kind}"
        soundfile.write(path, speech[start : start + int(seconds * RATE)], RATE)


def crops_per_second(root: Path, budget_seconds: float) -> float:
    """Times random crops as training makes them."""
    utterances = scan(root, "folders", use_cache=False).utterances
    window = (CROP_SECONDS, CROP_SECONDS)
    dataset = CropDataset(utterances, group_by_speaker(utterances), RATE, window, 48, "repeat", 0)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < budget_seconds:
        dataset[ExampleKey(count % len(utterances), count)]
        count += 1
    return count / (time.perf_counter() - start)


def whole_files_per_second(root: Path, budget_seconds: float) -> float:
    """Times decoding a whole file for each crop, as other toolkits do."""
    paths = [utterance.path for utterance in scan(root, "folders", use_cache=False).utterances]
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < budget_seconds:
        read_audio(paths[count % len(paths)], RATE)[: int(CROP_SECONDS * RATE)]
        count += 1
    return count / (time.perf_counter() - start)


def rows(data_dir: Path, seconds: float) -> list[tuple]:
    """Prints one line per file format, and gives (what, ours, counterpart, ratio, unit)."""
    measured: list[tuple] = []
    speech = real_speech(data_dir, 660)
    for kind in ("wav", "flac"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_corpus(folder / "short", speech, 5, 40, kind)
            make_corpus(folder / "long", speech, 600, 4, kind)
            short = crops_per_second(folder / "short", seconds)
            long = crops_per_second(folder / "long", seconds)
            whole = whole_files_per_second(folder / "long", seconds)
        print(
            f"{kind}: {short:.0f} crops/s from 5 s files, {long:.0f} from 600 s files "
            f"(ratio {long / short:.2f}), {long / whole:.0f} times decoding 600 s files whole"
        )
        for other, value in (("crops from 5 s files", short), ("decoding them whole", whole)):
            what = f"crops of 2 s from 600 s {kind} files, one process, against {other}"
            measured.append((what, long, value, long / value, "crops/s"))
    return measured


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of real speech")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each measurement")
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    arguments = parser.parse_args()
    measured = rows(arguments.data_dir, arguments.seconds)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()

"""What other engines and precisions gain over the exporter's float32 on a CPU, and what they cost.

Each embeds the same real speech, one utterance of 1 to 15 s at a time on one thread, as a lane of
the exporter does, utterance by utterance in turns and every time of another length. A ratio is
float32's time of the process by the other's, above 1 where the other is faster: the median over the
rounds, with the least and the greatest. Cosines are those of an utterance's embedding with its
float32 embedding. ECAPA and WavLM have random weights here, which say little about cosines; the
d-vector encoder has its published ones, and its error rate on the trials is the honest figure.

    python benchmarks/engines.py --data_dir ../data
    python benchmarks/engines.py --data_dir ../data --device cuda --kinds wavlm-large

With a GPU: bfloat16 alone, batches of 240 s, the time on the clock.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from speaker_encoder import SpeakerEncoder
from speaker_encoder.hub.onnx import MODEL_FILE, embed_with_onnx, open_session, write_onnx
from speaker_encoder.hub.onnx_int8 import quantize_onnx
from speaker_encoder.modeling.cpu_kernels import keep_freed_memory
from speaker_encoder.modeling.encoding import encode_batch, frozen_encoder
from speaker_encoder.verification import equal_error_rate

RATE = 16000
FLOAT32 = "float32"
INT8 = {
    "linear layers": ["MatMul"],
    "linear layers, LSTM": ["MatMul", "LSTM"],
    "linear layers, LSTM, convolutions": ["MatMul", "LSTM", "Conv"],
}
TRIALS = "lists/dev_eval_trials.txt"
Engine = Callable[[Sequence[np.ndarray]], np.ndarray]
"""(T_i,) waveforms in, (B, D) float32 embeddings out, rows L2-normalised."""


def load_encoder(name: str) -> SpeakerEncoder:
    """Gives the published d-vector encoder, any other with random weights."""
    torch.manual_seed(0)
    if name == "dvector":
        return SpeakerEncoder.from_pretrained(name).eval()
    encoder = SpeakerEncoder.from_name(name, pretrained=False)
    encoder.config.untrained_head = False
    return encoder.eval()


def torch_engine(encoder: SpeakerEncoder, dtype: torch.dtype) -> Engine:
    """The exporter's own forward pass."""
    encoder, is_lower = frozen_encoder(encoder), dtype is not torch.float32

    @torch.inference_mode()
    def embed(waveforms: Sequence[np.ndarray]) -> np.ndarray:
        with torch.autocast(encoder.device.type, dtype, enabled=is_lower):
            return encode_batch(encoder, waveforms).numpy()

    return embed


def onnx_engine(path: Path) -> Engine:
    """ONNX Runtime with a file."""
    session = open_session(path, num_threads=1)
    return lambda waveforms: embed_with_onnx(session, waveforms)


def make_engines(encoder: SpeakerEncoder, folder: Path) -> dict[str, Engine]:
    """Gives all engines by their name, float32 first."""
    engines = {
        FLOAT32: torch_engine(encoder, torch.float32),
        "bfloat16": torch_engine(encoder, torch.bfloat16),
    }
    if encoder.device.type == "cpu":
        write_onnx(encoder, folder)
        path = folder / MODEL_FILE
        engines["ONNX Runtime"] = onnx_engine(path)
        for name, operators in INT8.items():
            engines[f"ONNX Runtime, int8 {name}"] = onnx_engine(quantize_onnx(path, operators))
    return engines


def draw_utterances(
    speech: np.ndarray, num_utterances: int, longest: float, round_number: int
) -> list[np.ndarray]:
    """Gives real speech as utterances of 1 s to `longest`, of other lengths in every round."""
    generator = np.random.default_rng(round_number)
    seconds = np.exp(generator.uniform(0, np.log(longest), num_utterances))
    lengths = (seconds * RATE).astype(int)
    starts = [int(generator.integers(0, len(speech) - length)) for length in lengths]
    return [speech[a : a + length] for a, length in zip(starts, lengths, strict=True)]


def now(device: str) -> float:
    """Gives the time of the process on a CPU, the time on the clock on another device."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def run_round(
    engines: dict[str, Engine], batches: list[list[np.ndarray]], device: str
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Embeds everything with every engine; gives seconds, and cosines to float32, of each."""
    seconds, cosines = dict.fromkeys(engines, 0.0), {name: [] for name in engines}
    names = list(engines)
    for number, batch in enumerate(batches):
        rows: dict[str, np.ndarray] = {}
        for turn in range(len(names)):
            name = names[(number + turn) % len(names)]
            start = now(device)
            rows[name] = engines[name](batch)
            seconds[name] += now(device) - start
        for name in names:
            cosines[name] += (rows[name] * rows[FLOAT32]).sum(axis=1).tolist()
    return seconds, cosines


def error_rates(data_dir: Path, engines: dict[str, Engine]) -> dict[str, float]:
    """Gives each engine's equal error rate on the trials."""
    trials = [line.split() for line in (data_dir / TRIALS).read_text().splitlines()]
    paths = sorted({path for _, *pair in trials for path in pair})
    speech = {path: soundfile.read(data_dir / path, dtype="float32")[0] for path in paths}
    rates = {}
    for name, embed in engines.items():
        rows = {path: embed([speech[path]])[0] for path in paths}
        scores = [float(rows[first] @ rows[second]) for _, first, second in trials]
        rates[name] = equal_error_rate(scores, [int(label) for label, *_ in trials])[0]
    return rates


def as_batches(utterances: list[np.ndarray], device: str) -> list[list[np.ndarray]]:
    """Gives one at a time for a CPU, batches of up to 240 s of like lengths for a GPU."""
    if device == "cpu":
        return [[utterance] for utterance in utterances]
    batches: list[list[np.ndarray]] = [[]]
    for utterance in sorted(utterances, key=len, reverse=True):
        if batches[-1] and len(batches[-1][0]) * (len(batches[-1]) + 1) > 240 * RATE:
            batches.append([])
        batches[-1].append(utterance)
    return batches


def rows_of(name: str, speech: np.ndarray, arguments: argparse.Namespace) -> list[tuple]:
    """Prints the lines of one encoder, and gives (what, ours, counterpart, ratio, unit)."""
    encoder = load_encoder(name).to(arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        engines = make_engines(encoder, Path(folder))
    times: dict[str, list[float]] = {engine: [] for engine in engines}
    cosines: dict[str, list[float]] = {engine: [] for engine in engines}
    for number in range(arguments.rounds + 1):
        drawn = draw_utterances(speech, arguments.num_utterances, arguments.longest, number)
        batches = as_batches(drawn, arguments.device)
        seconds, of_round = run_round(engines, batches, arguments.device)
        if number == 0:  # warm
            continue
        for engine in engines:
            times[engine].append(seconds[engine])
            cosines[engine] += of_round[engine]
    rates = error_rates(arguments.data_dir, engines) if name == "dvector" else {}
    measured = []
    for engine in engines:
        pairs = zip(times[FLOAT32], times[engine], strict=True)
        ratios = [base / other for base, other in pairs]
        rate = f" | EER {100 * rates[engine]:.2f} %" if rates else ""
        print(
            f"{name} | {engine} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}, {max(ratios):.2f}) | cosine least {min(cosines[engine]):.5f}, "
            f"mean {statistics.fmean(cosines[engine]):.5f}{rate}",
            flush=True,
        )
        if engine != FLOAT32:
            what = f"{name} on {arguments.device}, {engine} against float32"
            ours, base = (statistics.median(times[one]) for one in (engine, FLOAT32))
            measured.append((what, ours, base, statistics.median(ratios), "s"))
    return measured


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of real speech")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--kinds", nargs="+", default=["ecapa", "wavlm-base", "dvector"])
    parser.add_argument("--num_utterances", type=int, default=12, help="of a round")
    parser.add_argument("--longest", type=float, default=15.0, help="seconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    files = sorted((arguments.data_dir / "speechocean762" / "WAVE").glob("*/*.flac"))[:200]
    speech = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in files])
    measured = [row for name in arguments.kinds for row in rows_of(name, speech, arguments)]
    if arguments.json:
        arguments.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()

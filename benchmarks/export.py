"""How much faster the exporter is than the plain loop over files, on the same weights and machine.

The plain loop is what users write today: soundfile, SpeechBrain's `EncoderClassifier.encode_batch`
or transformers' `WavLMForXVector`, one file at a time, `torch.save` beside it. Both sides write the
same files; loading of the models is not timed. Each side runs in a process of its own, in turns;
prints ratios of one run.

    python benchmarks/export.py --data_dir ../data --num_utterances 40
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from speaker_encoder import SpeakerEncoder
from speaker_encoder.export import ExportOptions, embed_corpus

RATE = 16000
SIDES = ("plain", "one thread", "ours")
RESULT = "result: "
Embed = Callable[[torch.Tensor], torch.Tensor]
HYPERPARAMS = """\
n_mels: 80
pretrained_path: {folder}
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [1024, 1024, 1024, 1024, 3072]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 128
    lin_neurons: 192
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 192
    out_neurons: 5
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
"""


def make_corpus(data_dir: Path, root: Path, num_utterances: int, longest: float) -> float:
    """Writes real speech as utterances of 1 s to `longest`, in a mixed order; gives the seconds."""
    files = sorted((data_dir / "speechocean762" / "WAVE").glob("*/*.flac"))[:200]
    speech = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in files])
    lengths = np.exp(np.random.default_rng(0).uniform(0, np.log(longest), num_utterances))
    position = 0
    for number, seconds in enumerate(lengths):
        path = root / f"speaker{number % 4}" / f"{number:05d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.take(speech, range(position, position + int(seconds * RATE)), mode="wrap")
        soundfile.write(path, samples, RATE)
        position += len(samples)
    return float(lengths.sum())


def make_speechbrain(folder: Path) -> None:
    """Writes a SpeechBrain folder with random weights of the published size."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    torch.manual_seed(0)
    network = ECAPA_TDNN(
        80, channels=[1024, 1024, 1024, 1024, 3072], kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1], attention_channels=128, lin_neurons=192,
    )  # fmt: skip
    folder.mkdir()
    torch.save(network.state_dict(), folder / "embedding_model.ckpt")
    (folder / "hyperparams.yaml").write_text(HYPERPARAMS.format(folder=folder))


def load_speechbrain(folder: Path, device: str) -> Embed:
    """SpeechBrain's own classifier."""
    from speechbrain.inference.classifiers import EncoderClassifier

    classifier = EncoderClassifier.from_hparams(
        source=str(folder), savedir=str(folder / "saved"), run_opts={"device": device}
    )
    return lambda waveform: classifier.encode_batch(waveform).squeeze(1)


def make_transformers(folder: Path) -> None:
    """Writes a model of transformers with random weights of the size of wavlm-base-plus-sv."""
    from transformers import WavLMConfig, WavLMForXVector

    torch.manual_seed(0)
    WavLMForXVector(WavLMConfig()).save_pretrained(folder)


def load_transformers(folder: Path, device: str) -> Embed:
    """transformers' own model."""
    from transformers import WavLMForXVector

    model = WavLMForXVector.from_pretrained(folder).eval().to(device)
    return lambda waveform: model(waveform.to(device)).embeddings


@torch.inference_mode()
def plain(root: Path, embed: Embed, tag: str) -> float:
    """Times the plain loop over files."""
    start = time.perf_counter()
    for path in sorted(root.rglob("*.wav")):
        waveform = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
        embedding = torch.nn.functional.normalize(embed(waveform), dim=-1).cpu()
        torch.save(embedding, path.with_suffix(f".{tag}"))
    return time.perf_counter() - start


def ours(root: Path, encoder: SpeakerEncoder, kind: str, device: str) -> tuple[float, dict]:
    """Times the exporter, from the scan to the report; gives its own figures too."""
    options = ExportOptions(
        f"bench-{kind}", str(root), model_device=device, dataset_name="folders",
        show_progress=False, overwrite=True,
    )  # fmt: skip
    shutil.rmtree(root / ".embeddings", ignore_errors=True)
    start = time.perf_counter()
    outcome = embed_corpus(options, encoder=encoder)
    seconds = time.perf_counter() - start
    assert outcome.report_path is not None
    return seconds, json.loads(outcome.report_path.read_text())["this_run"]


def run_side(arguments: argparse.Namespace) -> None:
    """Times one side in this process, which does nothing else, and prints it as JSON."""
    kind, root = arguments.kinds[0], arguments.root
    warm = torch.zeros(1, RATE)
    folder = root.parent / kind
    figures: dict = {}
    if arguments.side == "ours":
        encoder = SpeakerEncoder.from_pretrained(folder).to(arguments.device).eval()
        with torch.inference_mode():
            encoder(warm.to(arguments.device))
        seconds, figures = ours(root, encoder, kind, arguments.device)
    else:
        if arguments.side == "one thread":
            torch.set_num_threads(1)
        load = {"ecapa": load_speechbrain, "wavlm": load_transformers}[kind]
        embed = load(folder, arguments.device)
        with torch.inference_mode():
            embed(warm)
        seconds = plain(root, embed, kind)
    print(RESULT + json.dumps({"seconds": seconds, "figures": figures}))


def measure(kind: str, root: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Prints the line of one family, and gives the median seconds of each side.

    Each side runs in a process of its own, turn by turn.
    """
    make = {"ecapa": make_speechbrain, "wavlm": make_transformers}[kind]
    make(root.parent / kind)
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    figures: dict = {}
    for _ in range(arguments.rounds):
        for side, seconds in times.items():
            command = [
                *(sys.executable, __file__, "--data_dir", str(arguments.data_dir)),
                *("--side", side, "--root", str(root), "--kinds", kind),
                *("--device", arguments.device),
            ]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result = json.loads(output.rpartition(RESULT)[2])
            seconds.append(result["seconds"])
            figures = result["figures"] or figures
    files = sorted(root.rglob(f"*.{kind}"))
    difference = max(
        float((read(path) - read(path.with_suffix(f".bench-{kind}_embedding"))).abs().max())
        for path in files
    )
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{kind}: {medians['plain'] / medians['ours']:.2f} times the plain loop "
        f"({medians['plain']:.1f} s against {medians['ours']:.1f} s), "
        f"{medians['one thread'] / medians['ours']:.2f} times it on one thread "
        f"({medians['one thread']:.1f} s); outside the forward pass "
        f"{100 * figures['share_outside_forward']:.1f} %, padding "
        f"{100 * figures['padding_share']:.1f} %, largest difference {difference:.1e}",
        flush=True,
    )
    return medians


def rows(root: Path, arguments: argparse.Namespace) -> list[tuple]:
    """Measures all families, and gives (what, ours, counterpart, ratio, unit)."""
    counterparts = {"ecapa": "SpeechBrain's ECAPA-1024", "wavlm": "transformers' WavLM-base"}
    measured = []
    for kind in arguments.kinds:
        seconds = measure(kind, root, arguments)
        what = (
            f"exporting {arguments.num_utterances} utterances of 1 to {arguments.longest:g} s on "
            f"{arguments.device} against the loop over files with {counterparts[kind]}"
        )
        ratio = seconds["plain"] / seconds["ours"]
        measured.append((what, seconds["ours"], seconds["plain"], ratio, "s"))
    return measured


def read(path: Path) -> torch.Tensor:
    """Gives the embedding in a file."""
    return torch.load(path, weights_only=True)[0]


def main() -> None:
    """Prints one line per family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of real speech")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num_utterances", type=int, default=100)
    parser.add_argument("--longest", type=float, default=15.0, help="seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["ecapa", "wavlm"])
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments)
        return
    name = torch.cuda.get_device_name() if arguments.device != "cpu" else "CPU"
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["SPEAKER_ENCODER_CACHE"] = f"{temporary}/cache"
        root = Path(temporary) / "corpus"
        seconds = make_corpus(arguments.data_dir, root, arguments.num_utterances, arguments.longest)
        print(
            f"{arguments.num_utterances} utterances, {seconds:.0f} s; {name}, "
            f"{torch.get_num_threads()} threads"
        )
        measured = rows(root, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()

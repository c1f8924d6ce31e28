"""What torch.compile gains, and what it costs before: training steps and encoding of one crop size.

The same encoder with random weights, as it is and compiled, in turns; seconds of the process, so
that other jobs hardly matter. Compiling needs a C++ compiler.

    python benchmarks/compiling.py
    python benchmarks/compiling.py --models wavlm-large --device cuda --num_crops 32 --rounds 50
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from speaker_encoder import SpeakerEncoder

RATE = 16000


def step_of(encoder: torch.nn.Module, waveforms: torch.Tensor) -> Callable[[], None]:
    """Gives a forward and a backward pass."""

    def step() -> None:
        encoder(waveforms).embeddings.square().sum().backward()
        encoder.zero_grad()

    return step


def encoding_of(encoder: torch.nn.Module, waveforms: torch.Tensor) -> Callable[[], None]:
    """Gives a forward pass without gradients."""

    def encode() -> None:
        with torch.no_grad():
            encoder(waveforms)

    return encode


def seconds(action: Callable[[], None], device: str) -> float:
    """Gives the time of one call: of the processors, or of the card."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    action()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def rows(arguments: argparse.Namespace) -> list[tuple]:
    """Prints the ratios, and gives (what, ours, counterpart, ratio, unit)."""
    found = []
    for name in arguments.models:
        encoder = SpeakerEncoder.from_name(name, pretrained=False).to(arguments.device)
        waveforms = torch.randn(arguments.num_crops, 2 * RATE, device=arguments.device) / 10
        for what, make in (("a training step", step_of), ("encoding", encoding_of)):
            encoder.train(make is step_of)
            torch.compiler.reset()
            plain, compiled = make(encoder, waveforms), make(torch.compile(encoder), waveforms)
            plain()
            start = time.perf_counter()
            for _ in range(2):  # the second call may compile once more
                compiled()
            warm_up = time.perf_counter() - start
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(arguments.rounds):
                for action, taken in zip((plain, compiled), times, strict=True):
                    taken.append(seconds(action, arguments.device))
            as_is, faster = map(statistics.median, times)
            words = f"{what} of {name} on {arguments.device}, {arguments.num_crops} crops of 2 s"
            print(f"{words}: {as_is:.2f} s, compiled {faster:.2f} s: {as_is / faster:.2f} times as "
                  f"fast, after {warm_up:.0f} s of compiling")  # fmt: skip
            found.append(
                (f"{words}, compiled against as it is", faster, as_is, as_is / faster, "s")
            )
    return found


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["ecapa", "wavlm-base"])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--num_crops", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5, help="times both are measured in turn")
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    arguments = parser.parse_args()
    measured = rows(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()

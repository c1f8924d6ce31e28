"""What torch's fused attention gains over transformers' own in WavLM, and how far they differ.

One encoder with random weights runs with the package's attention and with transformers', turn by
turn. Encoding: a batch padded to its longest utterance, the shortest 60 % of it. Training: crops of
one length, forward and backward, dropout on, layerdrop off. A ratio is transformers'
time by ours, above 1 where ours is faster: the median over the rounds, with the least and the
greatest. On a CPU the time is that of the process, which other programs on the machine hardly
change. Differences are the greatest of L2-normalised embeddings, and the greatest of a parameter's
gradient by that parameter's greatest gradient, both without dropout.

    OMP_NUM_THREADS=1 python benchmarks/attention.py
    python benchmarks/attention.py --device cuda --batch_seconds 160 --bf16
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from speaker_encoder import SpeakerEncoder
from speaker_encoder.modeling.wavlm_parts import SdpaWavLMAttention

RATE = 16000
OURS, UPSTREAM = SdpaWavLMAttention, SdpaWavLMAttention.__base__
DROPOUTS = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout")
HEADINGS = ("", "crops", "transformers", "ours", "ratio", "least, greatest", "difference")


def use_attention(encoder: SpeakerEncoder, attention_class: type) -> None:
    """Chooses whose attention runs; the parameters stay the same tensors."""
    backbone: Any = encoder.backbone
    for layer in backbone.wavlm.encoder.layers:
        layer.attention.__class__ = attention_class


def make_encoder(name: str, device: str, **changes: float) -> SpeakerEncoder:
    """Gives an encoder with random weights and position biases as large as trained ones."""
    torch.manual_seed(0)
    encoder = SpeakerEncoder.from_name(
        name, pretrained=False, encoder_config={"layerdrop": 0.0, **changes}
    )
    backbone: Any = encoder.backbone
    torch.nn.init.normal_(backbone.wavlm.encoder.layers[0].attention.rel_attn_embed.weight)
    return encoder.to(device)


def encode(encoder: SpeakerEncoder, crops: torch.Tensor) -> torch.Tensor:
    """Gives (B, D) L2-normalised embeddings of utterances of 60 to 100 % of the length."""
    longest = crops.shape[1]
    lengths = torch.linspace(longest, 0.6 * longest, len(crops), device=crops.device).long()
    mask = torch.arange(longest, device=crops.device) < lengths[:, None]
    encoder.eval()
    with torch.inference_mode():
        return normalize(encoder(crops * mask, mask).embeddings.float(), dim=-1)


def train_step(encoder: SpeakerEncoder, crops: torch.Tensor) -> None:
    """Leaves the gradients of a step in the encoder; the loss pushes embeddings along a line."""
    encoder.train().zero_grad()
    embeddings = normalize(encoder(crops).embeddings.float(), dim=-1)
    direction = torch.linspace(-1, 1, embeddings.numel()).to(embeddings).view_as(embeddings)
    (embeddings * direction).sum().backward()


def seconds(task: Callable[[], Any], device: str) -> float:
    """Gives the time of the process on a CPU, the time on the clock on another device."""
    if device == "cpu":
        start = time.process_time()
        task()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    task()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(
    task: Callable[[], Any], encoder: SpeakerEncoder, rounds: int
) -> tuple[list[float], list[float]]:
    """Gives the seconds of transformers' and of ours in each round."""
    device = encoder.device.type
    times: dict[type, list[float]] = {UPSTREAM: [], OURS: []}
    for number in range(rounds + 1):  # the first one warms up
        for attention_class in times:
            use_attention(encoder, attention_class)
            torch.manual_seed(number)
            times[attention_class].append(seconds(task, device))
    return times[UPSTREAM][1:], times[OURS][1:]


def embedding_difference(encoder: SpeakerEncoder, crops: torch.Tensor) -> float:
    """Gives the greatest difference of the embeddings."""
    found = []
    for attention_class in (UPSTREAM, OURS):
        use_attention(encoder, attention_class)
        found.append(encode(encoder, crops))
    return float((found[0] - found[1]).abs().max())


def gradient_difference(encoder: SpeakerEncoder, crops: torch.Tensor) -> float:
    """Gives the greatest difference of a gradient by the greatest of the parameter's."""
    found = []
    for attention_class in (UPSTREAM, OURS):
        use_attention(encoder, attention_class)
        torch.manual_seed(0)  # SpecAugment
        train_step(encoder, crops)
        found.append({name: one.grad.clone() for name, one in encoder.named_parameters()})
    # The bias of all keys cancels in the softmax: its gradient is rounding.
    return max(
        float((found[1][name] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-8))
        for name, gradient in found[0].items()
        if not name.endswith("k_proj.bias")
    )


def rows(arguments: argparse.Namespace) -> list[tuple]:
    """Prints the table, and gives (what, ours, counterpart, ratio, unit)."""
    device = arguments.device
    encoder = make_encoder(arguments.encoder, device)
    without_dropout = make_encoder(arguments.encoder, device, **dict.fromkeys(DROPOUTS, 0.0))
    print(f"{arguments.encoder}, {device}, {torch.get_num_threads()} threads, {torch.__version__}")
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    measured = []
    for length in arguments.crop_seconds:
        size = max(1, round(arguments.batch_seconds / length))
        crops = 0.1 * torch.randn(size, int(length * RATE), device=device)
        with torch.autocast(device, torch.bfloat16, enabled=arguments.bf16):
            for name, task, difference in (
                ("encoding", encode, embedding_difference),
                ("training", train_step, gradient_difference),
            ):
                times = compare(partial(task, encoder, crops), encoder, arguments.rounds)
                ratios = [one / other for one, other in zip(*times, strict=True)]
                upstream, ours, ratio = map(statistics.median, (*times, ratios))
                cells = [f"{upstream:.3f} s", f"{ours:.3f} s", f"{ratio:.2f}"]
                cells.append(f"{min(ratios):.2f}, {max(ratios):.2f}")
                cells.append(f"{difference(without_dropout, crops):.1e}")
                print(f"| {name} | {size} x {length:g} s | {' | '.join(cells)} |", flush=True)
                what = f"{arguments.encoder} on {device}, {name} {size} x {length:g} s"
                measured.append(
                    (f"{what}, against transformers' attention", ours, upstream, ratio, "s")
                )
    return measured


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="wavlm-base", help="a name of the WavLM series")
    parser.add_argument("--crop_seconds", type=float, nargs="+", default=[2.0, 10.0])
    parser.add_argument("--batch_seconds", type=float, default=20.0, help="speech in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--bf16", action="store_true", help="run under autocast")
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")  # upstream's
    measured = rows(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()

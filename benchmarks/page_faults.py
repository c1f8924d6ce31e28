"""What a training step on a CPU gains by using freed memory again instead of asking for new pages.

The same steps (forward, backward, optimizer) on crops of 2 s, in processes of their own in turns:
with `keep_freed_memory`, as training calls it, and without. Times are those of the process, the
system's included: the work on page faults is the system's.

    OMP_NUM_THREADS=1 python benchmarks/page_faults.py
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from speaker_encoder import SpeakerEncoder
from speaker_encoder.modeling.cpu_kernels import keep_freed_memory

SIDES = ("plain", "keeping")


def run_side(arguments: argparse.Namespace) -> None:
    """Prints seconds, page faults and the peak of memory of steps in this process, as JSON."""
    if arguments.side == "keeping":
        keep_freed_memory()
    torch.manual_seed(0)
    encoder = SpeakerEncoder.from_name(arguments.kinds[0], pretrained=False).train()
    crops = 0.1 * torch.randn(arguments.batch_size, 2 * encoder.sampling_rate)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-5)
    start = resource.getrusage(resource.RUSAGE_SELF)
    for step in range(arguments.steps + 1):
        if step == 1:  # the first warms up
            start = resource.getrusage(resource.RUSAGE_SELF)
        encoder(crops).embeddings.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    end = resource.getrusage(resource.RUSAGE_SELF)
    seconds = end.ru_utime - start.ru_utime + end.ru_stime - start.ru_stime
    faults = end.ru_minflt - start.ru_minflt
    found = (seconds / arguments.steps, faults / arguments.steps, end.ru_maxrss / 1024)
    print(json.dumps(found))


def rows_of(kind: str, arguments: argparse.Namespace) -> list[tuple]:
    """Prints the line of one encoder, and gives (what, ours, counterpart, ratio, unit)."""
    found: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side in SIDES:
            command = [
                *(sys.executable, __file__, "--kinds", kind, "--side", side),
                *("--steps", str(arguments.steps), "--batch_size", str(arguments.batch_size)),
            ]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[side].append(json.loads(output.splitlines()[-1]))
    pairs = zip(found["plain"], found["keeping"], strict=True)
    ratios = [plain[0] / keeping[0] for plain, keeping in pairs]
    medians = {
        side: [statistics.median(column) for column in zip(*values, strict=True)]
        for side, values in found.items()
    }
    plain, keeping = (medians[side] for side in SIDES)
    print(
        f"{kind}: {statistics.median(ratios):.2f} times ({min(ratios):.2f}, {max(ratios):.2f}) as "
        f"fast; {plain[1]:.0f} page faults a step without, {keeping[1]:.0f} with; peak of memory "
        f"{plain[2]:.0f} and {keeping[2]:.0f} MB",
        flush=True,
    )
    what = f"a training step of {kind}, {arguments.batch_size} crops of 2 s, freed memory kept"
    return [(what, keeping[0], plain[0], statistics.median(ratios), "s")]


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", default=["ecapa", "wavlm-base"])
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # or waiting counts as work
    if arguments.side:
        run_side(arguments)
        return
    measured = [row for kind in arguments.kinds for row in rows_of(kind, arguments)]
    if arguments.json:
        arguments.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()

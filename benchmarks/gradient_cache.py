"""What gradients by pieces cost: peak memory of a large batch, and time per crop, in real training.

Memory: a step of 64 speakers x 10 crops of 2 s by pieces, against a step whose batch is one such
piece; the peak of the process (RSS), or of the CUDA device. Time: steps of a batch that fits, by
pieces against at once, in turns. Every run is the real training command in a process of its own.

    python benchmarks/gradient_cache.py --data_dir ../data
    python benchmarks/gradient_cache.py --data_dir ../data --model_name wavlm-large --device cuda \\
        --precision bf16 --mini_batch_size 32 --batch 8 8
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RESULT = "measured: "


def run_config(arguments: argparse.Namespace, output_dir: str, **keys: Any) -> dict[str, Any]:
    """Gives the config of one measured run."""
    return {
        "model_name": arguments.model_name,
        "pretrained": False,
        "train_data_root": str(arguments.data_dir),
        "train_list": str(arguments.data_dir / "lists" / "train_list.txt"),
        "output_dir": output_dir,
        "run_id": "run",
        "force_restart": True,
        "window_size_s": 2,
        "save_every": 0,
        "backup_every": 0,
        "vis_train_art_every": 0,
        "device": arguments.device,
        "precision": arguments.precision,
        "num_workers": 0 if arguments.device == "cpu" else 8,
        "comet": "off",
        **keys,
    }


def measure_here(config_path: str) -> None:
    """Runs one config in this process, and prints its peak memory and its seconds per step."""
    import torch

    from speaker_encoder.training import TrainConfig, train

    config = TrainConfig.from_json(config_path)
    outcome = train(config, overwrite=True)
    lines = [json.loads(line) for line in outcome.run.metrics_path.read_text().splitlines()]
    seconds = [1 / line["steps_per_second"] for line in lines if line["split"] == "train"]
    if torch.cuda.is_available() and config.device != "cpu":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(RESULT + json.dumps({"peak": peak, "seconds": seconds}))


def measure(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Runs one config in a process of its own."""
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, __file__, "--run", str(path)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith(RESULT))
    return json.loads(line.removeprefix(RESULT))


def rows(arguments: argparse.Namespace) -> list[tuple]:
    """Prints the ratios, and gives (what, ours, counterpart, ratio, unit)."""
    size, (speakers, crops) = arguments.mini_batch_size, arguments.batch
    what = f"{arguments.model_name} on {arguments.device}, {arguments.precision}"
    found = []
    with tempfile.TemporaryDirectory() as folder:

        def run(num_speakers: int, num_crops: int, **keys: Any) -> dict[str, Any]:
            batch = {"speakers_per_batch": num_speakers, "utterances_per_speaker": num_crops}
            return measure(run_config(arguments, folder, **batch, **keys), Path(folder))

        if arguments.part in ("memory", "all"):
            large = run(64, 10, mini_batch_size=size, max_steps=1)
            alone = run(size // 2, 2, mini_batch_size=size, max_steps=1)
            ours, whole = large["peak"] / 1e9, alone["peak"] / 1e9
            words = f"peak memory of 64 x 10 crops by pieces of {size}, against such a piece alone"
            print(f"{words}, {what}: {ours:.2f} GB, {whole:.2f} GB: {ours / whole:.2f} times")
            print(f"  {640 / large['seconds'][0]:.2f} crops per second in that step")
            found.append((f"{words}, {what}", ours, whole, whole / ours, "GB"))
        if arguments.part in ("time", "all"):
            pieces, at_once = [], []
            for _ in range(arguments.rounds):
                steps = arguments.steps
                for seconds, keys in ((at_once, {}), (pieces, {"mini_batch_size": size})):
                    seconds += run(speakers, crops, max_steps=steps, **keys)["seconds"][1:]
            ours, whole = statistics.median(pieces), statistics.median(at_once)
            batch = f"{speakers} x {crops} crops of 2 s"
            words = f"a step of {batch} by pieces of {size}, against at once"
            print(f"{words}, {what}: {ours:.2f} s, {whole:.2f} s: {ours / whole:.2f} times")
            found.append((f"{words}, {what}", ours, whole, whole / ours, "s"))
    return found


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, help="folder of real speech")
    parser.add_argument("--model_name", default="wavlm-base", help="with random weights")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    parser.add_argument("--mini_batch_size", type=int, default=16, help="crops of a piece")
    parser.add_argument(
        "--batch", type=int, nargs=2, default=(8, 4), help="P and K of the batch that fits"
    )
    parser.add_argument("--steps", type=int, default=3, help="steps of each timed run")
    parser.add_argument("--rounds", type=int, default=2, help="times both are timed in turn")
    parser.add_argument("--part", default="all", choices=("memory", "time", "all"))
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        measure_here(arguments.run)
        return
    if arguments.data_dir is None:
        parser.error("--data_dir is needed")
    measured = rows(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()

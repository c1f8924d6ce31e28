"""What the pipeline costs beside the network, with 48 crops of 2 s: how long it waits for data.

Alternates bare steps (forward, loss, backward, optimizer step on one batch in memory) with runs
of the whole pipeline, without and with augmentation, and prints the ratios of median step times.

    python benchmarks/training_overhead.py --data_dir ../data
    python benchmarks/training_overhead.py --data_dir ../data --steps 50 --device cuda
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from speaker_encoder.modeling.cpu_kernels import keep_freed_memory
from speaker_encoder.training import TrainConfig, train
from speaker_encoder.training.build import build_batches, build_model
from speaker_encoder.training.data import load_data
from speaker_encoder.training.dataset import CollateCrops


def make_config(arguments: argparse.Namespace, output_dir: str, run_id: str, augment: bool):
    """Gives the config of one measured run."""
    data_dir = arguments.data_dir
    noises = {
        "augment_noises_paths": [str(data_dir / "noise")],
        "augment_musics_paths": [str(data_dir / "music")],
        "augment_reverbs_paths": [str(data_dir / "rirs")],
    }
    return TrainConfig.from_dict(
        {
            "model_name": arguments.model_name,
            "pretrained": False,
            "train_data_root": str(data_dir),
            "train_list": str(data_dir / "lists" / "train_list.txt"),
            "output_dir": output_dir,
            "run_id": run_id,
            "speakers_per_batch": 6,
            "utterances_per_speaker": 8,
            "window_size_s": 2,
            "max_steps": arguments.steps,
            "save_every": 0,
            "backup_every": 0,
            "vis_train_art_every": 0,
            "device": arguments.device,
            "num_workers": arguments.num_workers,
            "comet": "off",
            **(noises if augment else {}),
        }
    )


def bare_seconds(config: TrainConfig, steps: int) -> list[float]:
    """Times steps on one batch in memory."""
    data = load_data(config)
    model = build_model(config, len(data.training.speakers)).to(config.device).train()
    dataset, sampler = build_batches(config, data.training, model.sampling_rate)
    keys = [key for key, _ in zip(sampler, range(sampler.batch_size), strict=False)]
    batch = CollateCrops()([dataset[key] for key in keys])
    waveforms, labels = (batch[name].to(config.device) for name in ("input_values", "labels"))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        loss = model(waveforms, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # a GPU is done with all that was asked of it
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def pipeline_seconds(config: TrainConfig) -> list[float]:
    """Times the steps of a run, waiting for data, logging and all, from its own record."""
    outcome = train(config)
    lines = [json.loads(line) for line in outcome.run.metrics_path.read_text().splitlines()]
    return [1 / line["steps_per_second"] for line in lines if line["split"] == "train"][1:]


def rows(arguments: argparse.Namespace) -> list[tuple]:
    """Prints the ratios, and gives (what, ours, counterpart, ratio, unit)."""
    bare: list[float] = []
    plain: list[float] = []
    augmented: list[float] = []
    if arguments.device == "cpu":
        keep_freed_memory()  # as training does
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for augment, seconds in ((False, plain), (True, augmented)):
                config = make_config(arguments, folder, f"run{number}{augment}", augment)
                bare += bare_seconds(config, arguments.steps)
                seconds += pipeline_seconds(config)
    base, whole, noisy = map(statistics.median, (bare, plain, augmented))
    print(f"bare step: {base:.2f} s")
    print(f"whole pipeline / bare: {whole / base:.3f} (at most 1.10)")
    print(f"with augmentation / bare: {noisy / base:.3f} (at most 1.35)")
    step = f"a training step of {arguments.model_name} on {arguments.device}, 48 crops of 2 s"
    return [
        (f"{step}, {words}, against the bare step in memory", ours, base, base / ours, "s")
        for words, ours in (("whole pipeline", whole), ("with augmentation", noisy))
    ]


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of real speech")
    parser.add_argument("--model_name", default="ecapa", help="with random weights")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--num_workers", type=int, default=1, help="processes that read audio")
    parser.add_argument("--steps", type=int, default=6, help="steps of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="times all are measured in turn")
    parser.add_argument("--json", type=Path, help="write the rows for `python -m benchmarks`")
    arguments = parser.parse_args()
    measured = rows(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main()

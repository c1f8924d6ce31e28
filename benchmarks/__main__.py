"""Runs benchmarks one after the other and prints one table of what they measured.

    python -m benchmarks --list
    python -m benchmarks --data_dir ../data --json benchmarks.json
    python -m benchmarks export doctor --data_dir ../data --json benchmarks.json
    python -m benchmarks time_to_quality --data_dir ../data --voxceleb_trainer ../voxceleb_trainer

Without names all quick benchmarks run. Each is a script, run in a process of its own with the
arguments that `--list` shows; its own lines go to stderr. A ratio above 1 says that ours is better.
What could not run is named, with the command that would run it.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NEEDS_A_GPU = "needs a GPU"
IS_LONG = "long, runs when it is named"


@dataclass(frozen=True)
class Places:
    """Folders that the benchmarks are given.

    Attributes:
        data_dir: of real speech.
        voxceleb_trainer: a checkout of it, to compare with; None: without.
    """

    data_dir: str
    voxceleb_trainer: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """One script with its arguments.

    Attributes:
        module: the script's name without its extension.
        arguments: as on a command line; `{data_dir}` is the folder of real speech, `{peer}` the
            option with the checkout, where there is one.
        is_long: more than some minutes on two cores.
        needs_gpu: whether it cannot run without one.
        has_rows: False where the script writes tables of its own, and none for this one.
    """

    module: str
    arguments: str
    is_long: bool = False
    needs_gpu: bool = False
    has_rows: bool = True

    def command(self, places: Places) -> list[str]:
        """Gives the command below the repository's root."""
        checkout = places.voxceleb_trainer
        peer = f"--voxceleb_trainer {shlex.quote(checkout)}" if checkout else ""
        arguments = self.arguments.format(data_dir=shlex.quote(places.data_dir), peer=peer)
        return ["python", f"benchmarks/{self.module}.py", *shlex.split(arguments)]


EXPORT = "--data_dir {data_dir} --num_utterances"
OVERHEAD = "--data_dir {data_dir} --steps"
OVERHEAD_GPU = f"{OVERHEAD} 50 --device cuda --num_workers 8"
FINE_TUNING = "--data_dir {data_dir} --output_dir runs/fine_tuning"
GRADIENT_CACHE_GPU = (
    "--data_dir {data_dir} --model_name wavlm-large --device cuda --precision bf16 "
    "--mini_batch_size 32 --batch 8 8 --steps 20"
)
QUALITY = "--data_dir {data_dir} {peer}"
QUALITY_GPU = (
    f"{QUALITY} --device cuda --speakers_per_batch 100 --epochs 200 "
    "--test_interval 10 --num_workers 8"
)
COMPILING_GPU = "--models ecapa wavlm-large --device cuda --num_crops 32 --rounds 50"
ENGINES_GPU = (
    "--data_dir {data_dir} --device cuda --kinds ecapa wavlm-base wavlm-large --num_utterances 200"
)
BENCHMARKS = {
    "scan": Benchmark("scan", "--data_dir {data_dir}"),
    "crops": Benchmark("crops", "--data_dir {data_dir} --seconds 3"),
    "training_overhead": Benchmark("training_overhead", f"{OVERHEAD} 4 --rounds 1"),
    "export": Benchmark("export", f"{EXPORT} 40 --rounds 1"),
    "attention": Benchmark("attention", ""),
    "compiling": Benchmark("compiling", "", is_long=True),
    "page_faults": Benchmark("page_faults", "--kinds ecapa"),
    "engines": Benchmark("engines", "--data_dir {data_dir} --rounds 3", is_long=True),
    "mixing": Benchmark("mixing", ""),
    "gradient_cache": Benchmark("gradient_cache", "--data_dir {data_dir}", is_long=True),
    "doctor": Benchmark("doctor", "--data_dir {data_dir} --part all", is_long=True),
    "losses": Benchmark(
        "losses", "--data_dir {data_dir} --output losses.md", is_long=True, has_rows=False
    ),
    "fine_tuning": Benchmark(
        "fine_tuning", f"--part table {FINE_TUNING}", is_long=True, has_rows=False
    ),
    "fine_tuning_sizes": Benchmark(
        "fine_tuning", f"--part sizes {FINE_TUNING}", is_long=True, has_rows=False
    ),
    "time_to_quality": Benchmark("time_to_quality", QUALITY, is_long=True),
    "training_overhead_gpu": Benchmark("training_overhead", OVERHEAD_GPU, needs_gpu=True),
    "training_overhead_gpu_wavlm": Benchmark(
        "training_overhead", f"{OVERHEAD_GPU} --model_name wavlm-base", needs_gpu=True
    ),
    "export_gpu": Benchmark("export", f"{EXPORT} 1000 --device cuda", needs_gpu=True),
    "engines_gpu": Benchmark("engines", ENGINES_GPU, needs_gpu=True),
    "gradient_cache_gpu": Benchmark("gradient_cache", GRADIENT_CACHE_GPU, needs_gpu=True),
    "time_to_quality_gpu": Benchmark("time_to_quality", QUALITY_GPU, is_long=True, needs_gpu=True),
    "compiling_gpu": Benchmark("compiling", COMPILING_GPU, needs_gpu=True),
    "attention_gpu": Benchmark(
        "attention", "--device cuda --batch_seconds 160 --bf16", needs_gpu=True
    ),
}


@dataclass(frozen=True)
class Machine:
    """What the figures are true of."""

    cpu: str
    num_cores: int
    torch: str
    gpu: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.num_cores} cores, torch {self.torch}, {self.gpu}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: was measured, and against what.
        ours: in `unit`.
        counterpart: in `unit`; None where there is none.
        ratio: how many times better ours is; None without a counterpart.
        unit: of both.
        command: that measured it.
    """

    what: str
    ours: float
    counterpart: float | None
    ratio: float | None
    unit: str
    command: str


@dataclass(frozen=True)
class NotRun:
    """A benchmark that gave no rows."""

    name: str
    reason: str
    command: str


def this_machine() -> Machine:
    """Gives the machine that this runs on."""
    import torch

    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), cpu)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return Machine(cpu, os.cpu_count() or 1, torch.__version__, gpu)


def measure(benchmark: Benchmark, places: Places) -> list[Row]:
    """Runs one benchmark.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = benchmark.command(places)
    paths = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryDirectory() as folder:
        rows_path = Path(folder) / "rows.json"
        rows_path.write_text("[]")
        subprocess.run(
            [
                *(sys.executable, str(FOLDER.parent / command[1]), *command[2:]),
                *(("--json", str(rows_path)) if benchmark.has_rows else ()),
            ],
            check=True,
            stdout=sys.stderr,
            env=environment,
        )
        rows = json.loads(rows_path.read_text())
    return [Row(*row, command=shlex.join(command)) for row in rows]


def table(rows: Iterable[Row], machine: Machine) -> str:
    """Gives the rows as Markdown."""
    cells = [("what", "ours", "counterpart", "ratio", "machine")]
    for row in rows:
        values = [
            "-" if value is None else f"{value:.4g} {row.unit}".rstrip()
            for value in (row.ours, row.counterpart)
        ]
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        cells.append((row.what, *values, ratio, str(machine)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in cells
    ]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def listing(places: Places) -> str:
    """Gives a line per benchmark."""
    lines = []
    for name, benchmark in BENCHMARKS.items():
        kind = "long" if benchmark.is_long else "quick"
        kind += f", {NEEDS_A_GPU}" if benchmark.needs_gpu else ""
        lines.append(f"{name:29s}{kind:20s}{shlex.join(benchmark.command(places))}")
    return "\n".join(lines)


def run(
    names: Sequence[str], places: Places, machine: Machine, json_path: Path | None
) -> tuple[list[Row], list[NotRun]]:
    """Runs the named benchmarks, or all quick ones; the JSON is written after each."""
    rows: list[Row] = []
    not_run: list[NotRun] = []
    for name in names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        reason = ""
        if benchmark.needs_gpu and machine.gpu == "no GPU":
            reason = NEEDS_A_GPU
        elif benchmark.is_long and not names:
            reason = IS_LONG
        else:
            try:
                rows += measure(benchmark, places)
            except subprocess.CalledProcessError as error:
                reason = f"failed with exit code {error.returncode}"
        if reason:
            not_run.append(NotRun(name, reason, shlex.join(benchmark.command(places))))
        if json_path:
            found = {
                "machine": asdict(machine),
                "rows": [asdict(row) for row in rows],
                "not_run": [asdict(one) for one in not_run],
            }
            json_path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return rows, not_run


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; 3 where a benchmark failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="name", help="of --list")
    parser.add_argument("--list", action="store_true", help="what there is, with its command")
    parser.add_argument(
        "--data_dir",
        default=os.environ.get("SPEAKER_ENCODER_DATA", "../shared/data"),
        help="folder of real speech",
    )
    parser.add_argument("--voxceleb_trainer", help="a checkout of it, for time_to_quality")
    parser.add_argument("--json", type=Path, help="write machine and rows there too")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.names if name not in BENCHMARKS]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    places = Places(arguments.data_dir, arguments.voxceleb_trainer)
    if arguments.list:
        print(listing(places))
        return 0
    machine = this_machine()
    rows, not_run = run(arguments.names, places, machine, arguments.json)
    print(table(rows, machine))
    for one in not_run:
        print(f"{one.name}: not run: {one.reason}: {one.command}")
    return 3 if any(one.reason not in (NEEDS_A_GPU, IS_LONG) for one in not_run) else 0


if __name__ == "__main__":
    sys.exit(main())

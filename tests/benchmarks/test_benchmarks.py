"""The runner over the benchmarks knows all of them, and one runs to a table and JSON."""

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
_FOLDER = _REPOSITORY / "benchmarks"
_SPEC = importlib.util.spec_from_file_location("benchmarks_runner", _FOLDER / "__main__.py")
runner = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(runner)


def test_every_benchmark_is_in_the_table_and_in_the_list() -> None:
    scripts = {
        path.stem
        for path in _FOLDER.glob("*.py")
        if path != _FOLDER / "__main__.py" and 'if __name__ == "__main__":' in path.read_text()
    }
    assert {benchmark.module for benchmark in runner.BENCHMARKS.values()} == scripts
    command = [sys.executable, "-m", "benchmarks", "--list", "--data_dir", "my data"]
    lines = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=_REPOSITORY
    ).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(runner.BENCHMARKS)
    by_name = dict(zip(runner.BENCHMARKS, lines, strict=True))
    assert by_name["crops"].endswith("python benchmarks/crops.py --data_dir 'my data' --seconds 3")
    assert "needs a GPU" in by_name["export_gpu"]


def test_a_benchmark_runs_to_a_table_and_json(
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    few = "--data_dir {data_dir} --num_files 120 --rounds 1"
    small = dataclasses.replace(runner.BENCHMARKS["scan"], arguments=few)
    monkeypatch.setitem(runner.BENCHMARKS, "scan", small)
    machine = dataclasses.replace(runner.this_machine(), gpu="no GPU")
    assert machine.num_cores >= 1 and machine.cpu
    monkeypatch.setattr(runner, "this_machine", lambda: machine)
    json_path = tmp_path / "benchmarks.json"
    arguments = ["scan", "export_gpu", "--data_dir", str(data_dir), "--json", str(json_path)]
    assert runner.main(arguments) == 0
    table = capfd.readouterr().out
    found = json.loads(json_path.read_text())
    assert found["machine"] == dataclasses.asdict(machine)
    whats = {row["what"].split(",")[1].strip() for row in found["rows"]}
    assert whats == {"first scan", "second start"}
    for row in found["rows"]:
        assert row["ours"] > 0
        assert row["ratio"] == pytest.approx(row["counterpart"] / row["ours"])
        assert row["command"].endswith("--num_files 120 --rounds 1")
        line = next(x for x in table.splitlines() if row["what"] in x and f"{row['ours']:.4g}" in x)
        assert line.rstrip("| ").endswith(f"{machine.torch}, no GPU")
    [not_run] = found["not_run"]
    assert not_run["name"] == "export_gpu" and not_run["reason"] == "needs a GPU"
    assert f"export_gpu: not run: needs a GPU: {not_run['command']}" in table
    assert not_run["command"].endswith("--device cuda")


def test_a_benchmark_that_fails_is_named_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    machine = runner.Machine("a processor", 2, "2.13", "no GPU")
    monkeypatch.setattr(runner, "this_machine", lambda: machine)
    monkeypatch.setattr(runner, "measure", _measure_all_but_scan)
    assert runner.main(["--data_dir", str(tmp_path)]) == 3
    printed = capfd.readouterr().out
    assert "| a figure | 0.5 s | -           | -     | a processor, 2 cores," in printed
    command = f"python benchmarks/scan.py --data_dir {tmp_path}"
    assert f"scan: not run: failed with exit code 1: {command}\n" in printed
    assert "losses: not run: long, runs when it is named: python benchmarks/losses.py" in printed
    with pytest.raises(SystemExit) as caught:
        runner.main(["exports"])
    assert caught.value.code == 2
    assert "unknown: exports; known: scan, crops," in capfd.readouterr().err


def _measure_all_but_scan(benchmark, data_dir: str) -> list:
    if benchmark.module == "scan":
        raise subprocess.CalledProcessError(1, benchmark.command(data_dir))
    return [runner.Row("a figure", 0.5, None, None, "s", "python benchmarks/other.py")]

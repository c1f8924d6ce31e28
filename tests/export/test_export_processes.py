"""Two processes of torchrun write what one process writes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
FORMATS = ("--format", "pt", "--format", "safetensors", "--batch_seconds", "6")
BROKEN = "8887/281471/broken.wav"


@pytest.fixture
def agree(embeddings_of):
    """Checks that two corpora have the same embeddings, the same report and one manifest."""

    def check(root: Path, alone: Path) -> None:
        assert embeddings_of(root) == embeddings_of(alone)
        table = "ecapa_safetensors/embeddings.safetensors"
        assert (root / table).read_bytes() == (alone / table).read_bytes()
        reports = [
            json.loads((folder / "ecapa_embeddings.report.json").read_text())
            for folder in (root, alone)
        ]
        for report in reports:
            assert report["failures"][0]["path"] == BROKEN
            del report["this_run"]
        assert reports[0] == reports[1]
        manifest = json.loads((root / "embeddings.manifest.json").read_text())
        assert list(manifest["models"]) == ["ecapa"]

    return check


@pytest.fixture
def alone(libritts, run_command) -> Path:
    """What one process makes of the corpus; in it and in the corpus one file is broken."""
    (libritts / BROKEN).write_bytes(b"RIFF, and no more")
    folder = libritts.parent / "alone"
    shutil.copytree(libritts, folder)
    assert run_command(folder, *FORMATS).returncode == 3
    return folder


@pytest.mark.slow
@pytest.mark.ddp
def test_a_process_that_dies_ends_the_others_and_the_same_command_goes_on(
    libritts, alone, agree, run_command, start_command, embeddings_of
):
    process = start_command(libritts, *FORMATS, launcher=TORCHRUN)
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not embeddings_of(libritts, "*.ecapa_embedding"):
        time.sleep(0.01)
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(listed.stdout.split()[-1]), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    done = run_command(libritts, *FORMATS, launcher=TORCHRUN)
    assert "48 utterances of 4 speakers" in done.stdout, done.stderr
    agree(libritts, alone)


@pytest.mark.slow
@pytest.mark.ddp
def test_two_machines_on_one_file_system(libritts, alone, agree, start_command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = [
        start_command(
            libritts,
            *FORMATS,
            launcher=(
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
                *("--node_rank", str(rank), "--nproc_per_node", "1"),
                *("--master_addr", "127.0.0.1", "--master_port", str(port)),
            ),
        )
        for rank in range(2)
    ]
    outputs = [machine.communicate(timeout=240) for machine in machines]
    assert "48 utterances of 4 speakers" in outputs[0][0] and not outputs[1][0], outputs
    report = json.loads((libritts / "ecapa_embeddings.report.json").read_text())
    assert report["this_run"]["utterances"] == 48
    agree(libritts, alone)


REFUSING = """
import os, sys
from speaker_encoder.cli.main import main_of
from speaker_encoder.export import engines
if os.environ["RANK"] == "1":
    engines._LEAST_COSINE = 1.1
sys.exit(main_of("embed", sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.ddp
def test_where_one_process_refuses_all_do_and_nothing_is_changed(libritts, encoder_dir, tmp_path):
    script, out = tmp_path / "refusing.py", tmp_path / "out"
    script.write_text(REFUSING)
    arguments = ["--model_name", "ecapa", "--dataset_dir", libritts, "--checkpoint", encoder_dir]
    done = subprocess.run(
        [*TORCHRUN, script, *arguments, "--output_dir", out, "--dtype", "bfloat16"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Leave --dtype bfloat16 out" in done.stderr
    assert [path for path in out.rglob("*") if path.is_file()] == []

"""Two processes of torchrun write what one process writes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_write_the_same_files_one_report_and_one_manifest(
    libritts, run_command, embeddings_of
):
    alone = libritts.parent / "alone"
    shutil.copytree(libritts, alone)
    broken = "8887/281471/broken.wav"
    for root in (alone, libritts):
        (root / broken).write_bytes(b"RIFF, and no more")
    formats = ("--format", "pt", "--format", "safetensors", "--batch_seconds", "6")
    assert run_command(alone, *formats).returncode == 3
    done = run_command(libritts, *formats, launcher=TORCHRUN)
    assert "48 utterances of 4 speakers" in done.stdout, done.stderr
    assert embeddings_of(libritts, "*.ecapa_*embedding") == embeddings_of(
        alone, "*.ecapa_*embedding"
    )
    table = "ecapa_safetensors/embeddings.safetensors"
    assert (libritts / table).read_bytes() == (alone / table).read_bytes()
    reports = [
        json.loads((root / "ecapa_embeddings.report.json").read_text())
        for root in (libritts, alone)
    ]
    assert reports[0]["this_run"]["utterances"] == 48
    for report in reports:
        assert report["failures"][0]["path"] == broken
        del report["this_run"]
    assert reports[0] == reports[1]
    manifest = json.loads((libritts / "embeddings.manifest.json").read_text())
    assert list(manifest["models"]) == ["ecapa"]


@pytest.mark.slow
@pytest.mark.ddp
def test_a_process_that_dies_ends_the_others_and_the_same_command_goes_on(
    libritts, run_command, start_command, embeddings_of
):
    alone = libritts.parent / "alone"
    shutil.copytree(libritts, alone)
    assert run_command(alone).returncode == 0
    process = start_command(libritts, launcher=TORCHRUN)
    limit = time.monotonic() + 120
    while time.monotonic() < limit and not embeddings_of(libritts, "*.ecapa_embedding"):
        time.sleep(0.01)
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(listed.stdout.split()[-1]), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    done = run_command(libritts, launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert embeddings_of(libritts, "*.ecapa_*") == embeddings_of(alone, "*.ecapa_*")


@pytest.mark.slow
@pytest.mark.ddp
def test_two_machines_on_one_file_system(libritts, run_command, start_command, embeddings_of):
    alone = libritts.parent / "alone"
    shutil.copytree(libritts, alone)
    assert run_command(alone).returncode == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    machines = [
        start_command(
            libritts,
            launcher=(
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
                *("--node_rank", str(rank), "--nproc_per_node", "1"),
                *("--master_addr", "127.0.0.1", "--master_port", str(port)),
            ),
        )
        for rank in range(2)
    ]
    outputs = [machine.communicate(timeout=240) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert "48 utterances of 4 speakers" in outputs[0][0] and not outputs[1][0]
    assert embeddings_of(libritts, "*.ecapa_*") == embeddings_of(alone, "*.ecapa_*")

"""Two processes of torchrun write what one process writes."""

import json
import shutil
import sys

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

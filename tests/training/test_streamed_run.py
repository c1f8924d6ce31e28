"""Training from shards: the same batches as from files, and the same result after a kill."""

import json
import logging
import signal

import fsspec
import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from shard_files import write_parquet, write_tars
from torch.utils.data import BatchSampler

from speaker_encoder.audio import ranges
from speaker_encoder.corpora import scan
from speaker_encoder.errors import UserError
from speaker_encoder.training import data
from speaker_encoder.training.build import build_batches
from speaker_encoder.training.config import TrainConfig
from speaker_encoder.training.data import check_same_data, load_data
from speaker_encoder.training.dataset import CollateCrops
from speaker_encoder.training.stream_order import StreamedBatchSampler

WRITERS = {"webdataset": write_tars, "huggingface": write_parquet}


@pytest.fixture(scope="session")
def shards(data_dir, tmp_path_factory):
    """Gives the folder of shards of each layout."""
    folder = tmp_path_factory.mktemp("shards")
    readers = scan(data_dir / "voxceleb" / "wav", use_cache=False).utterances
    return {name: write(folder / name, readers) for name, write in WRITERS.items()}


def batches_of(run, **keys):
    """Gives the crops and the sampler that a run of this config has."""
    values = json.loads(run.config_path.read_text()) | {"val_data_root": None} | keys
    config = TrainConfig.from_dict(values)
    return build_batches(config, load_data(config).batches_from(), 16000)


@pytest.mark.parametrize("layout", WRITERS)
def test_a_buffer_for_the_whole_corpus_gives_the_batches_of_files(make_run, shards, layout):
    run = make_run(cache_dir=None)
    keys = {"window_size_s": [0.5, 1.5], "seed": 3}
    files, of_files = batches_of(run, **keys)
    streamed, of_shards = batches_of(run, train_data_root=str(shards[layout]), **keys)
    assert list(of_shards) == list(of_files)
    for key in list(of_files)[::3]:
        ours, theirs = streamed[key], files[key]
        assert (ours.label, ours.utterance) == (theirs.label, theirs.utterance)
        assert np.array_equal(ours.waveform, theirs.waveform)
        assert not ours.problems


@pytest.mark.slow
def test_killed_and_resumed_is_as_undisturbed(make_run, shards):
    keys = {"train_data_root": str(shards["webdataset"]), "shuffle_buffer": 40}
    keys |= {"val_data_root": None, "max_steps": 10, "save_every": 2}  # an epoch is 8
    undisturbed = make_run("undisturbed", **keys)
    undisturbed.run()
    run = make_run("killed", **keys, num_workers=2)
    assert run.run_until(9, signal.SIGKILL) == -signal.SIGKILL
    assert "shuffle_buffer: 40 of 96 utterances, " in (run.path / "train.log").read_text()
    values = json.loads(run.config_path.read_text()) | {"num_workers": 0}
    run.config_path.write_text(json.dumps(values))
    run.run()
    for name in ("model.safetensors", "optimizer.pt"):
        path = f"checkpoint-10/{name}"
        assert run.bytes_of(path) == undisturbed.bytes_of(path), name
    losses = [[line["loss"] for line in one.metrics("train")] for one in (run, undisturbed)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 10


def test_two_processes_share_one_plan(make_run, shards):
    root = str(shards["huggingface"] / "*.parquet")
    _, sampler = batches_of(make_run(), train_data_root=root, shuffle_buffer=40)
    assert isinstance(sampler, StreamedBatchSampler)
    planned = [key for batch in BatchSampler(sampler, 12, drop_last=False) for key in batch]
    parts = []
    for rank in range(2):  # as accelerate deals batches out in the Trainer
        _, own = batches_of(make_run(f"{rank}"), train_data_root=root, shuffle_buffer=40)
        shard = BatchSamplerShard(BatchSampler(own, 6, drop_last=False), 2, rank)
        parts.append([list(part) for part in shard])
    assert [key for pair in zip(*parts, strict=True) for part in pair for key in part] == planned
    positions = [{key.position for batch in part for key in batch} for part in parts]
    assert not positions[0] & positions[1]
    assert len(positions[0] | positions[1]) == len(planned) == 96


def test_processes_with_other_corpora_do_not_train(make_run, shards, monkeypatch):
    found = []
    for name in ("webdataset/*.tar", "webdataset/{000000..000002}.tar"):
        run = make_run(f"{len(found)}", train_data_root=str(shards["webdataset"].parent / name))
        values = json.loads(run.config_path.read_text()) | {"cache_dir": str(run.folder)}
        found.append(load_data(TrainConfig.from_dict(values)))
    whole, part = found
    assert check_same_data(whole) == whole.digest() != part.digest()
    rank, parts = 0, {}
    monkeypatch.setattr(data, "process_rank", lambda: rank)
    monkeypatch.setattr(data, "gather_dict", lambda values: parts.update(values) or parts)
    check_same_data(whole)
    rank = 1
    monkeypatch.setattr(data, "num_processes", lambda: 2)
    assert check_same_data(whole) == whole.digest()
    with pytest.raises(UserError, match=r"process 1 on .* found 75 .*, process 0 on .* found 96 "):
        check_same_data(part)


def test_a_run_that_goes_on_with_another_corpus_says_so(make_run, shards):
    run = make_run(train_data_root=str(shards["webdataset"]), val_data_root=None, max_steps=2)
    run.run()
    log = run.path / "train.log"
    for steps, root in ((3, "*.tar"), (4, "{000000..000002}.tar")):
        values = json.loads(run.config_path.read_text()) | {"max_steps": steps}
        values["train_data_root"] = str(shards["webdataset"] / root)
        run.config_path.write_text(json.dumps(values))
        run.run()
        assert ("resuming with other data than before" in log.read_text()) == (steps == 4)


def test_a_server_that_goes_away_ends_the_run_after_one_recording(make_run, shards, monkeypatch):
    memory = fsspec.filesystem("memory")
    for shard in shards["webdataset"].glob("*.tar"):
        memory.pipe_file(f"/voices/{shard.name}", shard.read_bytes())
    crops, sampler = batches_of(make_run(cache_dir=None), train_data_root="memory://voices")
    first, second, third = list(sampler)[:3]
    assert crops[first].failure is None
    asked = []

    def lost(path, *_):
        asked.append(path)
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(ranges, "_PAUSES", (0.01,))
    monkeypatch.setattr(ranges, "_remote_span", lost)
    batch = CollateCrops()([crops[second], crops[third]])
    assert len(asked) == 2  # tries of one recording
    assert not batch["problems"]
    for text in batch["failures"]:
        assert "/voices/00" in text and "cannot be fetched (Conn" in text
        assert "goes on from the newest checkpoint" in text
    memory.rm("/voices", recursive=True)


def test_a_recording_that_is_gone_is_replaced(make_run, shards, tmp_path):
    for shard in shards["webdataset"].glob("*.tar"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
    crops, sampler = batches_of(make_run(cache_dir=None), train_data_root=str(tmp_path))
    (tmp_path / "000000.tar").unlink()
    asked = [(key, crops[key]) for key in sampler]
    replaced = [(key, crop) for key, crop in asked if crop.problems and crop.failure is None]
    assert replaced
    for key, crop in replaced:
        assert crop.utterance != key.utterance and crop.waveform.any()
        assert "000000.tar" in crop.problems[0][0] and crop.problems[0][1] == "cannot be read"


def test_the_config_says_what_it_wants(make_run, shards, caplog):
    run = make_run()
    with pytest.raises(UserError, match="shuffle_buffer: found 11, a batch alone has 12 utter"):
        batches_of(run, shuffle_buffer=11)
    with pytest.raises(UserError, match="4 of 4 shards do not exist"):
        batches_of(run, train_data_root=str(shards["webdataset"] / "x-{0..3}.tar"))
    caplog.set_level(logging.WARNING)
    batches_of(run, train_data_root=str(shards["webdataset"]), shuffle_buffer=12)
    assert "shuffle_buffer 12 holds " in caplog.text

"""Shards of real speech, written by the libraries that their users write them with."""

import io
import tarfile
from pathlib import Path

import numpy as np
import soundfile

from speaker_encoder.corpora import Corpus, Utterance


def left_out(corpus: Corpus) -> dict[str, str]:
    """Why each recording that a scan could not use was left out, by the name of its file."""
    return {Path(file.path).name: file.reason for file in corpus.excluded}


def write_tars(folder: Path, utterances: list[Utterance], per_shard: int = 25) -> Path:
    """Tars of the webdataset library; keys are the ids, with dashes for slashes."""
    import webdataset

    folder.mkdir(parents=True, exist_ok=True)
    pattern = str(folder / "%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=per_shard, verbose=0) as writer:
        for row in utterances:
            path = Path(row.path)
            sample = {"speaker_id": row.speaker_id, "session_id": row.session_id}
            key = row.utterance_id.replace("/", "-")
            writer.write({"__key__": key, path.suffix[1:]: path.read_bytes(), "json": sample})
    return folder


def write_parquet(
    folder: Path, utterances: list[Utterance], per_shard: int = 25, has_lengths: bool = False
) -> Path:
    """Parquet files of the datasets library, in row groups of 10."""
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(utterances), per_shard)):
        rows = []
        for row in utterances[start : start + per_shard]:
            path = Path(row.path)
            name = row.utterance_id.replace("/", "-") + path.suffix
            audio = {"bytes": path.read_bytes(), "path": name}
            rows.append({"audio": audio, "speaker_id": row.speaker_id, "session": row.session_id})
            if has_lengths:
                rows[-1] |= {"num_samples": row.num_samples, "sampling_rate": row.sampling_rate}
        table = datasets.Dataset.from_list(rows)
        table = table.cast_column("audio", datasets.Audio(decode=False))
        table.to_parquet(folder / f"train-{number:05d}.parquet", batch_size=10)
    return folder


def flac(num_samples: int = 800) -> bytes:
    """A sine of so many samples at 16 kHz."""
    content = io.BytesIO()
    samples = np.sin(np.arange(num_samples) / 20) / 4
    soundfile.write(content, samples, 16000, format="FLAC")
    return content.getvalue()


def write_tar(path: Path, members: list) -> Path:
    """Writes (name, content) one after the other; a TarInfo is written as it is."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            if isinstance(name, tarfile.TarInfo):
                archive.addfile(name)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path

"""`prepare` a second time: other options, changed sources, another corpus, after a kill."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from trees import write_tree

from speaker_encoder.audio import read_audio
from speaker_encoder.corpora import scan
from speaker_encoder.corpora.prepare import Prepared, PrepareOptions, prepare
from speaker_encoder.errors import UserError

RATE = 16000


def write_noise(path: Path, seconds: float, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE)) / 10
    soundfile.write(path, noise, RATE, subtype=None if path.suffix == ".ogg" else "PCM_16")
    return path


def infos(root: Path, pattern: str) -> dict[str, tuple[int, int]]:
    """Path -> (frames, rate)."""
    found = {}
    for path in sorted(root.rglob(pattern)):
        info = soundfile.info(path)
        found[str(path.relative_to(root))] = info.frames, info.samplerate
    return found


def test_musan_with_other_options(tmp_path: Path) -> None:
    archive, output = tmp_path / "musan.tar.gz", tmp_path / "corpus"
    with tarfile.open(archive, "w:gz") as file:
        file.add(write_noise(tmp_path / "n.wav", 12.0), "musan/noise/free-sound/n.wav")

    def made(**options: float) -> dict[str, tuple[int, int]]:
        result = prepare(
            PrepareOptions(
                corpus="musan", output_dir=output, archives=[archive], check=False, **options
            )
        )
        assert not result.failures
        listed = (output / "lists" / "musan_noise.txt").read_text().split()
        found = infos(output, "*.wav")
        pieces = {name: info for name, info in found.items() if name.startswith("split")}
        assert sorted(listed) == sorted(pieces or found)
        return pieces

    first = made()
    assert list(first.values()) == [(5 * RATE, RATE)] * 3
    assert list(made(split_seconds=2.0).values()) == [(2 * RATE, RATE)] * 4
    assert list(made(sampling_rate=8000).values()) == [(5 * 8000, 8000)] * 3
    assert made(split_seconds=0.0) == {} and not (output / "split").exists()
    assert made() == first
    times = {path: path.stat().st_mtime_ns for path in output.rglob("*.wav")}
    made()
    assert times == {path: path.stat().st_mtime_ns for path in output.rglob("*.wav")}


def test_a_noise_is_listed_once_in_two_formats(tmp_path: Path) -> None:
    archive, output = tmp_path / "musan.tar.gz", tmp_path / "corpus"
    with tarfile.open(archive, "w:gz") as file:
        file.add(write_noise(tmp_path / "n.ogg", 1.0), "musan/noise/free-sound/n.ogg")
    result = prepare(
        PrepareOptions(
            corpus="musan", output_dir=output, archives=[archive], convert_to="flac", check=False
        )
    )
    assert list(result.lists.values()) == [1] and not result.failures


def voxceleb(output: Path, **options: object) -> Prepared:
    (output / ".prepare").mkdir(parents=True, exist_ok=True)
    (output / ".prepare" / "corpus").write_text("voxceleb\n")  # its archives are unpacked
    return prepare(PrepareOptions(corpus="voxceleb", output_dir=output, **options))


def test_conversions_with_other_options(tmp_path: Path) -> None:
    folder = tmp_path / "voxceleb2" / "aac" / "id00012" / "video"
    for name in ("1.ogg", "2.ogg"):
        write_noise(folder / name, 0.5)
    own = write_noise(folder / "2.flac", 0.25)  # the user's
    before = own.read_bytes()

    def rates(pattern: str) -> dict[str, int]:
        return {name: rate for name, (_, rate) in infos(folder, pattern).items()}

    assert not voxceleb(tmp_path).failures
    assert rates("*.flac") == {"1.flac": RATE, "2.flac": RATE}
    voxceleb(tmp_path, sampling_rate=8000)
    assert rates("*.flac") == {"1.flac": 8000, "2.flac": RATE}
    voxceleb(tmp_path, convert_to="wav")
    assert rates("*.flac") == {"2.flac": RATE} and len(rates("*.wav")) == 2
    voxceleb(tmp_path, remove_originals=True)
    assert rates("*.flac") == {"1.flac": RATE, "2.flac": RATE} and not rates("*.wav")
    assert own.read_bytes() == before and [p.name for p in folder.glob("*.ogg")] == ["2.ogg"]
    voxceleb(tmp_path)
    with pytest.raises(UserError, match=r"1 recordings such as .*1.flac .* originals were removed"):
        voxceleb(tmp_path, sampling_rate=8000)
    assert rates("*.flac") == {"1.flac": RATE, "2.flac": RATE}


def test_two_recordings_that_would_become_one(tmp_path: Path) -> None:
    folder = tmp_path / "voxceleb2" / "aac" / "id00012" / "video"
    for seed, name in enumerate(("1.mp3", "1.ogg")):
        write_noise(folder / "1.wav", 0.5, seed).rename(folder / name)
    failures = voxceleb(tmp_path, remove_originals=True).failures
    assert (
        list(failures) == [str(folder / "1.ogg")] and "becomes" in failures[str(folder / "1.ogg")]
    )
    assert (folder / "1.ogg").exists()


def kaldi_folder(folder: Path, segments: dict[str, tuple[str, float, float]], **wav: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "wav.scp").write_text("".join(f"{name} {path}\n" for name, path in wav.items()))
    lines = [f"{name} {rec} {start} {end}" for name, (rec, start, end) in segments.items()]
    (folder / "segments").write_text("\n".join(lines))
    (folder / "utt2spk").write_text("".join(f"{name} {name[:2]}\n" for name in segments))
    return folder


def kaldi(data: Path, output: Path, **options: object) -> Prepared:
    return prepare(PrepareOptions(corpus="kaldi", output_dir=output, archives=[data], **options))


def test_kaldi_segments_that_changed(tmp_path: Path) -> None:
    recording, output, data = write_noise(tmp_path / "r.wav", 3.0), tmp_path / "cut", tmp_path / "d"

    def seconds() -> dict[str, float]:
        return {name: frames / RATE for name, (frames, _) in infos(output, "*.flac").items()}

    before = {"s1-a": ("r", 0.0, 1.0), "s1-b": ("r", 1.0, 1.5), "s2-a": ("r", 2.0, -1)}
    kaldi(kaldi_folder(data, before, r=recording), output)
    assert seconds() == {"s1/s1-a.flac": 1.0, "s1/s1-b.flac": 0.5, "s2/s2-a.flac": 1.0}
    unchanged = (output / "s1" / "s1-a.flac").stat().st_mtime_ns
    after = {"s1-a": ("r", 0.0, 1.0), "s1-b": ("r", 1.0, 2.0)}
    result = kaldi(kaldi_folder(data, after, r=recording), output)
    assert seconds() == {"s1/s1-a.flac": 1.0, "s1/s1-b.flac": 1.0}
    assert not (output / "s2").exists()
    assert (output / "s1" / "s1-a.flac").stat().st_mtime_ns == unchanged
    # Nothing of what prepare itself wrote is taken for a speaker.
    assert list(result.corpus.speakers) == ["s1"] and not result.corpus.excluded
    write_noise(recording, 3.0, seed=1)
    os.utime(recording, ns=(1, 1))
    kaldi(data, output)
    wanted = np.round(read_audio(recording, RATE)[:RATE] * 32768) / 32768
    np.testing.assert_allclose(read_audio(output / "s1" / "s1-a.flac", RATE), wanted, atol=1e-6)


_KILLED = """
import os, signal, sys
from pathlib import Path
from speaker_encoder.corpora.prepare import PrepareOptions, prepare, written
number, moment, archive, output = int(sys.argv[1]), *sys.argv[2:]
replace = os.replace
def replace_and_die(part, path):
    global number
    number -= str(path).endswith(".wav")
    if number == 0 and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(part, path)
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
written.os.replace = replace_and_die
prepare(PrepareOptions(corpus="musan", output_dir=Path(output), archives=[Path(archive)],
    check=False, sampling_rate=8000, num_workers=1))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_in_a_run_with_other_options(tmp_path: Path, moment: str) -> None:
    archive, output = tmp_path / "musan.tar.gz", tmp_path / "corpus"
    with tarfile.open(archive, "w:gz") as file:
        file.add(write_noise(tmp_path / "n.wav", 12.0), "musan/noise/free-sound/n.wav")
    options = PrepareOptions(corpus="musan", output_dir=output, archives=[archive], check=False)
    prepare(options)
    killed = subprocess.run([sys.executable, "-c", _KILLED, "2", moment, archive, output])
    assert killed.returncode == -signal.SIGKILL
    rates = [rate for _, rate in infos(output / "split", "*.wav").values()]
    assert rates == [8000] * (1 if moment == "before" else 2)
    assert not prepare(options).failures
    assert list(infos(output / "split", "*.wav").values()) == [(5 * RATE, RATE)] * 3


def test_a_torn_record_and_files_of_others(tmp_path: Path) -> None:
    recording, output = write_noise(tmp_path / "r.wav", 3.0), tmp_path / "cut"
    segments = {"s1-a": ("r", 0.0, 1.0), "s1-b": ("r", 1.0, 1.5)}
    data = kaldi_folder(tmp_path / "d", segments, r=recording)
    kaldi(data, output, num_workers=1)
    record = output / ".prepare" / "cut.jsonl"
    lines = [line for line in record.read_text().splitlines() if line]
    assert [json.loads(line)[0] for line in lines] == ["s1/s1-a.flac", "s1/s1-b.flac"]
    (output / "s1" / "s1-b.flac").unlink()
    record.write_text(f"{lines[0]}\n{lines[1][:20]}")
    assert not kaldi(data, output).failures
    assert infos(output, "*.flac")["s1/s1-b.flac"][0] == RATE // 2
    record.write_text(lines[0])
    (failure,) = kaldi(data, output).failures.values()
    assert "s1-b.flac is there and was not made by prepare" in failure


def test_what_ends_too_early_or_cannot_be_cut(tmp_path: Path) -> None:
    recording = write_noise(tmp_path / "r.wav", 1.0)
    segments = {"s1-a": ("r", 0.5, 1.05), "s1-b": ("r", 0.5, 1.2), "s1-c": ("r", 5.0, 6.0)}
    result = kaldi(kaldi_folder(tmp_path / "d", segments, r=recording), tmp_path / "cut")
    assert list(infos(tmp_path / "cut", "*.flac")) == ["s1/s1-a.flac"]
    assert list(result.failures.values()) == [
        "ends at second 1.00, asked up to 1.20",
        "ends before second 5",
    ]
    nothing = {"s1-a": ("r", 0.0, 1.0), "s1-b": ("q", 0.0, 1.0)}
    data = kaldi_folder(tmp_path / "e", nothing, r=tmp_path / "gone.wav")
    with (data / "wav.scp").open("a") as file:
        file.write("q sph2pipe x.sph |\n")
    with pytest.raises(UserError, match=r"No utterance could be cut.\n.*never run\n.*No such file"):
        kaldi(data, tmp_path / "other")


def test_a_folder_becomes_one_corpus_only(tmp_path: Path) -> None:
    recording, output = write_noise(tmp_path / "r.wav", 1.0), tmp_path / "cut"
    data = kaldi_folder(tmp_path / "d", {"s1-a": ("r", 0.0, 1.0)}, r=recording)
    other = kaldi_folder(tmp_path / "e", {"s2-a": ("r", 0.0, 1.0)}, r=recording)
    with pytest.raises(UserError, match=r"wav\.scp cannot be read"):
        kaldi(tmp_path, output)  # a slip, which does not count
    kaldi(data, output)
    with pytest.raises(
        UserError, match=r"cut was prepared as 'kaldi .*/d', asked now: 'kaldi .*/e'"
    ):
        kaldi(other, output)
    with pytest.raises(UserError, match="would be written over"):
        kaldi(data, tmp_path / "new", kaldi_dir=data)
    assert "r.wav" in (data / "wav.scp").read_text()


def test_own_folders_are_no_speakers_and_names_with_spaces_are_read_back(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "mine", ["Ann Lee/1.wav", "bob/1.wav", "bob/ 2\u20283.wav"])
    options = PrepareOptions(corpus="folders", output_dir=root, archives=[root])
    for _ in range(2):
        result = prepare(options)
        assert list(result.corpus.speakers) == ["Ann Lee", "bob"] and not result.corpus.excluded
        assert list(result.failures.values()) == ["not in the list: a line break in its path"]
    listed = scan(root, list_path=root / "lists" / "folders.txt")
    assert {u.path.rsplit("/mine/")[1]: u.speaker_id for u in listed.utterances} == {
        "Ann Lee/1.wav": "Ann_Lee",
        "bob/1.wav": "bob",
    }
    write_tree(root, ["Ann_Lee/1.wav"])
    with pytest.raises(UserError, match="'Ann Lee' and 'Ann_Lee' would both be 'Ann_Lee'"):
        prepare(options)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_lengths_that_cannot_be(tmp_path: Path, value: float) -> None:
    with pytest.raises(UserError, match="--split_seconds must be 0 or more"):
        PrepareOptions(corpus="musan", output_dir=tmp_path, split_seconds=value)
    with pytest.raises(UserError, match="--split_hop must be above 0"):
        PrepareOptions(corpus="musan", output_dir=tmp_path, split_hop=value)

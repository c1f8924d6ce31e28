import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.verification import read_trials


@dataclass
class Recording:
    path: str
    speaker_id: str = "a"
    session_id: str | None = None


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    names = ["p1/one.wav", "p1/two.wav", "p2/with space.wav", "p2/Ünï çödé 声.wav", "p2/it's.wav"]
    return [Recording(str(tmp_path / "data" / name)) for name in names]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lists" / "trials.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_the_forms_of_a_line(tmp_path: Path, recordings: list[Recording]) -> None:
    absolute = recordings[1].path
    text = (
        "1 p1/one.wav p1/two.wav\n"
        "\n"
        "0\tp1/one.wav\tp2/with space.wav\r\n"
        "target   p2/with space.wav   p2/Ünï çödé 声.wav  \n"
        "Nontarget ./p1/../p2/it's.wav p1//one.wav\n"
        f"1 {absolute} p1/two.wav"
    )
    trials = read_trials(write(tmp_path, text), recordings, tmp_path / "data")
    assert trials.enrolment.tolist() == [0, 0, 2, 4, 1]
    assert trials.test.tolist() == [1, 2, 3, 0, 1]
    assert trials.labels.tolist() == [True, False, True, False, True]


def test_a_byte_order_mark_is_no_part_of_the_label(
    tmp_path: Path, recordings: list[Recording]
) -> None:
    path = write(tmp_path, "\ufeff1 p1/one.wav p1/two.wav\n")
    assert len(read_trials(path, recordings, tmp_path / "data")) == 1


def test_paths_may_be_relative_to_the_list(tmp_path: Path, recordings: list[Recording]) -> None:
    path = write(tmp_path, "1 ../data/p1/one.wav ../data/p1/two.wav\n")
    trials = read_trials(path, recordings, tmp_path / "elsewhere")
    assert trials.test.tolist() == [1]


def test_relative_utterance_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "1 one.wav two.wav\n")
    trials = read_trials(path, [Recording("data/two.wav"), Recording("data/one.wav")], "data")
    assert (trials.enrolment.tolist(), trials.test.tolist()) == ([1], [0])


def test_links_are_followed(tmp_path: Path, recordings: list[Recording]) -> None:
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "data", tmp_path / "linked")
    path = write(tmp_path, "1 p1/one.wav p1/two.wav\n")
    trials = read_trials(path, recordings, tmp_path / "linked")
    assert trials.test.tolist() == [1]


def test_every_bad_line_is_counted_and_the_first_are_named(
    tmp_path: Path, recordings: list[Recording]
) -> None:
    text = (
        "1 p1/one.wav p1/two.wav\n"
        "2 p1/one.wav p1/two.wav\n"
        "1 p1/one.wav\n"
        "\n"
        "0 p1/one.wav p9/none.wav\n"
        "0 p1/one.wav p9/no such.wav\n"
        "1\n"
        "hello\n"
        "0 p1/one.wav\tp1/two.wav\tp1/two.wav\n"
    )
    path = write(tmp_path, text)
    root = tmp_path / "data"
    with pytest.raises(UserError) as caught:
        read_trials(path, recordings, root)
    assert str(caught.value) == (
        f"The trial list {path} has 7 lines that cannot be used "
        f"(wanted: `label path1 path2`, label 1 or 0, paths relative to {root}):\n"
        "  line 2: the label '2' is not one of 1, 0, target, nontarget\n"
        "  line 3: a label and two paths were wanted, found '1 p1/one.wav'\n"
        "  line 5: 'p9/none.wav' is not an utterance of the data\n"
        "  line 6: no way to read 'p1/one.wav p9/no such.wav' as two paths gives two utterances "
        "of the data\n"
        "  line 7: a label and two paths were wanted, found '1'\n"
        "  and 2 more lines."
    )


def test_an_empty_a_missing_and_a_binary_list(tmp_path: Path, recordings: list[Recording]) -> None:
    with pytest.raises(UserError, match=r"is empty; wanted lines `label path1 path2`"):
        read_trials(write(tmp_path, " \n\n"), recordings, tmp_path)
    with pytest.raises(UserError, match=r"Cannot read the trial list .*none\.txt"):
        read_trials(tmp_path / "none.txt", recordings, tmp_path)
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"1 \xff\xfe\x00 b")
    with pytest.raises(UserError, match=r"Cannot read the trial list .*binary\.txt"):
        read_trials(binary, recordings, tmp_path)


def test_long_lists_are_read_in_seconds(tmp_path: Path) -> None:
    recordings = [Recording(f"/data/id{i // 40:05d}/{i:06d}.wav") for i in range(4000)]
    lines = [
        f"{int(i % 2)} id{i % 4000 // 40:05d}/{i % 4000:06d}.wav id00000/000000.wav"
        for i in range(200_000)
    ]
    path = write(tmp_path, "\n".join(lines))
    start = time.perf_counter()
    trials = read_trials(path, recordings, "/data")
    assert time.perf_counter() - start < 5.0
    assert len(trials) == 200_000
    assert trials.enrolment[4321] == 321


def test_the_real_list(data_dir: Path) -> None:
    paths = sorted((data_dir / "speechocean762").rglob("*.flac"))
    recordings = [Recording(str(path), speaker_id=path.parent.name) for path in paths]
    trials = read_trials(data_dir / "lists" / "dev_eval_trials.txt", recordings, data_dir)
    assert (len(trials), int(trials.labels.sum())) == (5600, 1120)
    for i, j, label in zip(trials.enrolment, trials.test, trials.labels, strict=True):
        assert label == (recordings[i].speaker_id == recordings[j].speaker_id)

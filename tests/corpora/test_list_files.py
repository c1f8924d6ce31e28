"""Lists ``speaker path``."""

from pathlib import Path

import pytest
from trees import write_tree

from speaker_encoder.corpora import scan
from speaker_encoder.errors import UserError


def write_list(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_list_as_root_and_beside_a_root(tmp_path: Path) -> None:
    write_tree(tmp_path, ["a/1.wav", "a/two words.wav", "b/ü 'q\".wav"])
    lines = ("ann a/1.wav", "", "bob   a/two words.wav  ", "cyd b/ü 'q\".wav")
    inside = write_list(tmp_path / "list.txt", *lines)
    (tmp_path / "elsewhere").mkdir()
    outside = write_list(tmp_path / "elsewhere/list.txt", *lines)
    for corpus in (
        scan(inside, use_cache=False),
        scan(tmp_path, list_path=outside, use_cache=False),
        scan(inside, "list", use_cache=False),
    ):
        assert corpus.layout == "list"
        assert {row.utterance_id: row.speaker_id for row in corpus.utterances} == {
            "a/1": "ann",
            "a/two words": "bob",
            "b/ü 'q\"": "cyd",
        }
        assert {row.session_id for row in corpus.utterances} == {None}


def test_sessions_from_the_path(tmp_path: Path) -> None:
    write_tree(tmp_path, ["id10001/video/1.wav", "x/monday/1.wav"])
    path = write_list(tmp_path / "l", "id10001 id10001/video/1.wav", "ann x/monday/1.wav")
    corpus = scan(path, use_cache=False)
    assert [row.session_id for row in corpus.utterances] == ["video", None]
    corpus = scan(path, multi_rec_session=True, use_cache=False)
    assert [row.session_id for row in corpus.utterances] == ["video", "monday"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, ["a/1.wav", "a/notes.txt"])
    (tmp_path / "a/broken.wav").symlink_to("nowhere.wav")
    lines = [f"ann a/{name}" for name in ("1.wav", "2.wav", "notes.txt", "broken.wav", "./1.wav")]
    path = write_list(tmp_path / "list.txt", *lines, "bob a/3.wav")
    corpus = scan(path, use_cache=False)
    assert len(corpus.utterances) == 1
    assert {Path(file.path).name: file.reason for file in corpus.excluded if file.path} == {
        "1.wav": "listed twice",
        "2.wav": "listed but not there",
        "3.wav": "speaker without usable audio",
        "notes.txt": "not an audio file",
        "broken.wav": "broken link",
    }
    assert corpus.summary().exclusions["listed but not there"] == 2


def test_bad_lines_are_shown_with_their_numbers(tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.txt", "ann a.wav", "only", "", "x/y b.wav", *["bad"] * 20)
    with pytest.raises(UserError) as caught:
        scan(path, use_cache=False)
    text = str(caught.value)
    assert "list.txt: wanted lines 'speaker path'" in text
    assert "line 2: 'only'" in text
    assert "line 4: 'x/y b.wav'" in text
    assert "and 12 more" in text


def test_one_file_of_two_speakers_is_an_error(tmp_path: Path) -> None:
    write_tree(tmp_path, ["a.wav"])
    path = write_list(tmp_path / "list.txt", "ann a.wav", "bob ./a.wav")
    with pytest.raises(UserError, match="for speaker 'ann' and for speaker 'bob'"):
        scan(path, use_cache=False)


def test_absent_and_empty_lists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The list .*gone\.txt cannot be read: No such file"):
        scan(tmp_path, list_path=tmp_path / "gone.txt", use_cache=False)
    with pytest.raises(UserError, match="Layout 'list' needs a list file"):
        scan(tmp_path, "list", use_cache=False)
    with pytest.raises(UserError, match="No usable recording in"):
        scan(write_list(tmp_path / "empty.txt"), use_cache=False)
    with pytest.raises(UserError, match="A list file is given, but layout is 'vctk'"):
        scan(tmp_path, "vctk", list_path=tmp_path / "empty.txt", use_cache=False)


def test_the_real_training_list(data_dir: Path) -> None:
    corpus = scan(data_dir, list_path=data_dir / "lists/train_list.txt", use_cache=False)
    assert (len(corpus.speakers), len(corpus.utterances)) == (202, 1_204)
    assert corpus.summary().sampling_rates == {16_000: 1_156, 24_000: 48}
    assert not corpus.excluded

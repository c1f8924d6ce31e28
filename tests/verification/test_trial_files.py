"""Trial lists and score files are read in every form, and what is wrong is named by its line."""

import numpy as np
import pytest

from speaker_encoder.errors import UserError
from speaker_encoder.verification.trial_files import read_trial_file


@pytest.fixture
def write(tmp_path):
    def call(text: str):
        path = tmp_path / "list.txt"
        path.write_text(text)
        return path

    return call


@pytest.mark.parametrize(
    ("text", "form", "labels"),
    [
        ("1 a/x.wav b/y.wav\n0 a/x.wav c/z.wav\n", "voxceleb", [True, False]),
        ("target a/x.wav b/y.wav\nnontarget a/x.wav c/z.wav", "voxceleb", [True, False]),
        ("a/x.wav b/y.wav target\na/x.wav c/z.wav nontarget\n", "kaldi", [True, False]),
        ("a/x.wav b/y.wav\r\n\r\na/x.wav c/z.wav\r\n", "unlabelled", None),
        ("\ufeff1\ta/x.wav\tb/y.wav\n0\ta/x.wav\tc/z.wav", "voxceleb", [True, False]),
    ],
)
def test_every_form_gives_the_same_pairs(write, text, form, labels):
    found = read_trial_file(write(text))
    assert found.form == form
    assert found.names == ["a/x.wav", "b/y.wav", "c/z.wav"]
    assert found.trials.enrolment.tolist() == [0, 0] and found.trials.test.tolist() == [1, 2]
    assert labels == (None if found.trials.labels is None else found.trials.labels.tolist())


def test_line_numbers_count_empty_lines(write):
    found = read_trial_file(write("\n1 a b\n\n0 a c\n"))
    assert found.lines.tolist() == [2, 4]
    assert found.first_lines().tolist() == [2, 2, 4]


def test_paths_with_spaces_are_split_by_tabs_or_by_the_files_there_are(write):
    assert read_trial_file(write("1\tmy a.wav\tmy b.wav\n")).names == ["my a.wav", "my b.wav"]
    there = {"my a.wav", "my b.wav"}
    found = read_trial_file(write("1 my a.wav my b.wav\n"), is_known=there.__contains__)
    assert found.names == ["my a.wav", "my b.wav"]
    with pytest.raises(UserError, match=r"line 1: wanted 3 columns .* found 5"):
        read_trial_file(write("1 my a.wav my b.wav\n"))


def test_scores_are_read_back_exactly(write):
    values = [0.1 + 0.2, -1.7e-17, 3.0]
    lines = "".join(f"{v!r} {i % 2} a{i} b\n" for i, v in enumerate(values))
    found = read_trial_file(write(lines), is_scores=True)
    assert found.scores.tolist() == values
    assert found.trials.labels.tolist() == [False, True, False]
    assert read_trial_file(write("0.5 - a b\n"), is_scores=True).trials.labels is None


BAD = [
    ("", "is empty; wanted lines `label path1 path2`"),
    ("\n \n", "is empty"),
    ("1 a b\n1 a\n", r"line 2: wanted 3 columns `label path1 path2`, found 2"),
    ("1 a b\n2 a c\n", r"line 2: the label '2' is not 1 or 0"),
    ("yes a b\n", r"line 1: the label 'yes' is not 1 or 0"),
    ("a b target\na b maybe\n", r"line 2: the label 'maybe' is not 1 or 0"),
    ("1 a b c d e\n", r"line 1: wanted 3 columns"),
    ("only\n", r"line 1: wanted 3 columns .*, found 1"),
    ("\0\1\2\n", "is not text"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_lines_are_named(write, text, message):
    with pytest.raises(UserError, match=message):
        read_trial_file(write(text))


def test_many_bad_lines_are_counted(write):
    with pytest.raises(UserError, match=r"has 8 lines that cannot be used.*(\n.*)+and 3 more"):
        read_trial_file(write("1 a b\n" + "3 a b\n" * 8))


@pytest.mark.parametrize("score", ["nan", "inf", "abc"])
def test_scores_that_are_no_numbers_are_named(write, score):
    with pytest.raises(UserError, match=rf"line 2: the score '{score}' is not a finite number"):
        read_trial_file(write(f"0.5 1 a b\n{score} 0 a c\n"), is_scores=True)


def test_a_missing_list_and_mixed_labels_are_refused(write, tmp_path):
    with pytest.raises(UserError, match="Cannot read the trial list"):
        read_trial_file(tmp_path / "nothing.txt")
    with pytest.raises(UserError, match="with and without a label; the first without: 2"):
        read_trial_file(write("0.5 1 a b\n0.5 - a c\n"), is_scores=True)


@pytest.mark.slow
def test_a_million_lines_are_read_in_seconds(write):
    import time

    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 5000, (1_000_000, 2))
    path = write("".join(f"{a % 2} s/{a}.wav s/{b}.wav\n" for a, b in pairs.tolist()))
    start = time.perf_counter()
    found = read_trial_file(path)
    assert len(found.trials) == 1_000_000 and time.perf_counter() - start < 20

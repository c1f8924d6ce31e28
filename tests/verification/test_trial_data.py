"""What is known of trials: audio, speakers, sessions and sex, from lists, tables and corpora."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from shard_files import write_parquet, write_tars

from speaker_encoder.corpora import scan
from speaker_encoder.errors import UserError
from speaker_encoder.verification.audio_finder import AudioFinder, scan_corpus_or_list
from speaker_encoder.verification.evaluation_options import EvaluationOptions
from speaker_encoder.verification.sources import StoredEmbeddings
from speaker_encoder.verification.speaker_table import read_speaker_table
from speaker_encoder.verification.stages import load_cohort
from speaker_encoder.verification.systems import find_rows, split_name
from speaker_encoder.verification.trial_check import check_trials
from speaker_encoder.verification.trial_data import check_trial_data, load_list, make_data

TABLES = {
    "vctk_092": ("ID  AGE  GENDER  REGION\np225  23  F    England\np226  22  M    England\n",
                 {"p225": "F", "p226": "M"}),
    "vctk_080": ("ID  AGE  GENDER  ACCENTS\n225  23  F    English\n226  22  M    English\n",
                 {"p225": "F", "p226": "M"}),
    "libritts": ("; comment\n;ID  |SEX| SUBSET  |MINUTES| NAME\n14   | F | train | 25.03 | A\n"
                 "16   | M | train | 25.11 | B\n", {"14": "F", "16": "M"}),
    "voxceleb": ("VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid1\tA\tm\tUK\tdev\n"
                 "id2\tB\tf\tUK\tdev\n", {"id1": "M", "id2": "F"}),
    "kaldi": ("s1 f\ns2 m\n", {"s1": "F", "s2": "M"}),
    "csv": ("speaker,sex\na,male\nb,Female\n", {"a": "M", "b": "F"}),
    "no_header": ("8887 | M | train-clean-360 | A B\n9022 | F | train | C\n", {"8887": "M"}),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_corpora_tell_the_sex(tmp_path, name):
    text, wanted = TABLES[name]
    (tmp_path / "table").write_text(text)
    table = read_speaker_table(tmp_path / "table")
    assert {speaker: table.sex_of(speaker) for speaker in wanted} == wanted
    assert table.sex_of("wav48/" + next(iter(wanted))) in ("F", "M")
    assert table.sex_of("stranger") is None


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "one two three\n"])
def test_a_table_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "table").write_text(text)
    with pytest.raises(UserError, match="is not understood: wanted a header"):
        read_speaker_table(tmp_path / "table")
    with pytest.raises(UserError, match="Cannot read the speaker table"):
        read_speaker_table(tmp_path / "nothing")


@pytest.fixture
def voxceleb_list(tmp_path, data_dir):
    wavs = sorted((data_dir / "voxceleb" / "wav").rglob("*.wav"))[:16]
    names = [wav.relative_to(data_dir / "voxceleb" / "wav").as_posix() for wav in wavs]
    lines = [f"{int(a[:7] == b[:7])} {a} {b}" for i, a in enumerate(names) for b in names[i + 1 :]]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path / "list.txt"


def test_folders_tell_speakers_and_sessions(voxceleb_list, data_dir):
    data = load_list(voxceleb_list, data_dir / "voxceleb" / "wav")
    assert data.speaker_ids == [name.split("/")[0] for name in data.names]
    assert data.sessions == [name.split("/")[1] for name in data.names]
    assert data.speakers_from == "the folders, which agree with every label"
    check_trial_data(data)


def test_a_table_of_paths_tells_speakers_sessions_and_sex(data_dir):
    table = read_speaker_table(data_dir / "lists" / "utterances.tsv")
    data = load_list(data_dir / "lists" / "dev_eval_trials.txt", data_dir, table)
    assert data.speakers_from == "the speaker table"
    assert len(set(data.speaker_ids)) == 40 and set(data.sexes) == {"F", "M"}
    assert all(data.sessions)
    check_trial_data(data)


def test_the_list_may_lie_in_the_corpus(voxceleb_list, data_dir, tmp_path):
    shutil.copytree(data_dir / "voxceleb" / "wav", tmp_path / "corpus")
    shutil.copy(voxceleb_list, tmp_path / "corpus" / "list.txt")
    assert len(load_list(tmp_path / "corpus" / "list.txt", None).trials) == 120


def test_missing_files_are_named_by_their_first_lines(voxceleb_list, data_dir):
    text = voxceleb_list.read_text().splitlines()
    text[4] = "1 gone.wav lost.wav"
    text[9] = "1 gone.wav lost.wav"
    voxceleb_list.write_text("\n".join(text))
    with pytest.raises(UserError) as caught:
        load_list(voxceleb_list, data_dir / "voxceleb" / "wav")
    assert "line 5: there is no file 'gone.wav'" in str(caught.value)
    assert "line 5: there is no file 'lost.wav'" in str(caught.value)
    assert "line 10" not in str(caught.value)


def test_kaldi_ids_are_found_in_wav_scp_and_in_a_corpus(tmp_path, data_dir):
    wav = next(iter(sorted((data_dir / "vctk").rglob("*.flac"))))
    (tmp_path / "wav.scp").write_text(f"a {wav}\nb relative.flac\n")
    shutil.copy(wav, tmp_path / "relative.flac")
    finder = AudioFinder(tmp_path, tmp_path / "trials")
    assert finder.find("a") == str(wav) and finder.find("b") == str(tmp_path / "relative.flac")
    assert finder.find("c") is None
    (tmp_path / "wav.scp").write_text("a sph2pipe -f wav x.sph |\n")
    with pytest.raises(UserError, match="a is the output of a command"):
        AudioFinder(tmp_path, tmp_path / "trials").find("a")
    corpus = AudioFinder(data_dir / "vctk", tmp_path / "lists" / "trials")
    assert corpus.find(wav.stem) == str(wav)
    with pytest.raises(UserError, match="there is no such folder"):
        AudioFinder(tmp_path / "nothing", tmp_path / "trials")


def test_trials_of_a_corpus_know_sex_and_sessions(data_dir):
    data = make_data(data_dir / "voxceleb")
    assert len(data.names) == 96 and all(data.sessions)
    assert data.sexes.count("F") == data.sexes.count("M") == 48
    hard = make_data(data_dir / "voxceleb", is_hard=True)
    pairs = zip(hard.trials.enrolment, hard.trials.test, strict=True)
    assert all(hard.sexes[a] == hard.sexes[b] for a, b in pairs)
    assert hard.trials.labels.sum() == data.trials.labels.sum()
    num_men = num_women = 12
    pairs_of_one_sex = num_men * (num_men - 1) // 2 + num_women * (num_women - 1) // 2
    assert (~hard.trials.labels).sum() == pairs_of_one_sex * 16


def test_speakers_of_unknown_sex_have_no_hard_nontargets(tmp_path, data_dir):
    (tmp_path / "table.csv").write_text("speaker,sex\np225,F\np228,F\np226,M\n")
    table = read_speaker_table(tmp_path / "table.csv")
    data = make_data(data_dir / "vctk", table, is_hard=True)
    labels = data.trials.labels
    pairs = np.array(data.speaker_ids)[np.stack([data.trials.enrolment, data.trials.test])]
    assert {tuple(sorted(pair)) for pair in pairs.T[~labels]} == {("p225", "p228")}
    assert labels.sum() == 180


def test_a_cohort_list_is_relative_to_the_data_or_to_itself(tmp_path, data_dir):
    assert len(scan_corpus_or_list(data_dir / "lists" / "train_list.txt", data_dir).speakers) == 202
    wav = sorted((data_dir / "vctk").rglob("*.flac"))[0]
    shutil.copy(wav, tmp_path / "a.flac")
    (tmp_path / "list.txt").write_text("me a.flac\n")
    assert list(scan_corpus_or_list(tmp_path / "list.txt", data_dir).speakers) == ["me"]


def test_stored_rows_are_found_by_path_id_or_word():
    stored = StoredEmbeddings(
        ["p225/p225_001", "p226/p226_002", "a/x", "b/x"], None, None, np.eye(4, dtype=np.float32)
    )
    names = ["p225/p225_001.flac", "wav48/p226/p226_002.wav", "p225-p225_001", "p226_002.wav"]
    assert find_rows(stored, names) == [0, 1, 0, 1]
    assert find_rows(stored, ["x.wav", "c/x.wav", "b/x.wav"]) == [None, None, 3]


def test_a_name_may_stand_before_a_place(tmp_path):
    assert split_name("ecapa") == ("ecapa", "ecapa")
    assert split_name("mine=runs/x/model") == ("mine", "runs/x/model")
    assert split_name("runs/a=b/model") == ("runs/a=b/model", "runs/a=b/model")


@pytest.mark.parametrize("write", [write_tars, write_parquet])
def test_trials_and_cohorts_of_shards(tmp_path, data_dir, voxceleb_list, write):
    files = scan(data_dir / "voxceleb" / "wav", use_cache=False).utterances
    chosen = [replace(row, utterance_id=row.utterance_id.replace("-", "_")) for row in files[:16]]
    folder = write(tmp_path / "shards", chosen, 6)
    address = f"{folder}/*{next(folder.iterdir()).suffix}"
    rows = scan(address).utterances
    names = [row.utterance_id for row in rows]
    lines = [f"{int(a[:7] == b[:7])} {a} {b}.wav" for a in names[:8] for b in names[8:]]
    lines += [f"1 {os.path.relpath(rows[0].path, folder)} {names[1]}"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    for root in (address, folder):
        data = load_list(tmp_path / "list.txt", root)
        ids = {row.path: row.utterance_id for row in rows}
        found = [ids[path] for path in data.paths]
        assert [name.removesuffix(".wav") for name in data.names[:-1]] == found[:-1]
        assert found[-1] == names[0]
        assert check_trials(tmp_path / "list.txt", root).findings["missing"] == []
    (tmp_path / "bad.txt").write_text(f"1 {names[0]} gone.wav")
    assert len(check_trials(tmp_path / "bad.txt", address).findings["missing"]) == 1
    assert len(make_data(address).names) == 16
    assert scan_corpus_or_list(address, data_dir).utterances == rows
    lines = [f"{row.speaker_id} {os.path.relpath(row.path, folder)}" for row in rows]
    (tmp_path / "cohort.txt").write_text("\n".join(lines))
    cohort = scan_corpus_or_list(tmp_path / "cohort.txt", address)
    assert {row.path for row in cohort.utterances} == {row.path for row in rows}
    options = EvaluationOptions(models=("ecapa",), data_root=address, norm="s", cohort=address)
    options.check()
    assert len(load_cohort(options).paths) == 16
    with pytest.raises(UserError, match="No shards"):
        load_list(tmp_path / "list.txt", tmp_path / "none-*.tar")

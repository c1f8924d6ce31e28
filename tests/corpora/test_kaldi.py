"""Kaldi data folders, read and written; the real one of the data, and what must not be run."""

import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from trees import write_tree

from speaker_encoder.audio import read_audio
from speaker_encoder.cli.main import main
from speaker_encoder.corpora import scan
from speaker_encoder.corpora.kaldi import read_kaldi_folder, write_kaldi_folder
from speaker_encoder.errors import UserError


def write_folder(folder: Path, **tables: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_a_real_data_folder(data_dir: Path) -> None:
    corpus = scan(data_dir / "kaldi" / "dev_eval")
    assert corpus.layout == "kaldi"
    wanted = dict(
        line.split() for line in (data_dir / "kaldi/dev_eval/utt2spk").read_text().splitlines()
    )
    assert {u.utterance_id: u.speaker_id for u in corpus.utterances} == wanted
    assert len(corpus.speakers) == 40 and not corpus.excluded


def test_commands_are_never_run(tmp_path: Path, data_dir: Path) -> None:
    audio = sorted((data_dir / "speechocean762").rglob("*.flac"))[:2]
    payload = tmp_path / "run"
    folder = write_folder(
        tmp_path / "data",
        wav_scp=f"a touch {payload} |\nb flac -c -d -s {audio[0]} |\nc {audio[1]}\n"
        f"d cat $(touch {payload}) |\ne raw.ark:12\nf flac -c -d x.flac | touch {payload} |\n",
        utt2spk="a s1\nb s1\nc s2\nd s2\ne s2\nf s2\n",
    )
    corpus = scan(folder)
    assert [u.utterance_id for u in corpus.utterances] == ["b", "c"]
    reasons = {excluded.path: excluded.reason for excluded in corpus.excluded}
    assert "never run" in reasons["a"] and "never run" in reasons["f"]
    assert ".ark" in reasons["e"]
    assert not payload.exists()


def test_segments_are_cut_into_files(tmp_path: Path, data_dir: Path, capsys) -> None:
    audio = sorted((data_dir / "vctk").rglob("*.flac"))[0]
    folder = write_folder(
        tmp_path / "data",
        wav_scp=f"rec {audio}\n",
        utt2spk="u1 s1\nu2 s2\n",
        segments="u1 rec 0.5 1.25\nu2 rec 1.0 2.0\n",
    )
    with pytest.raises(UserError, match="speaker-encoder prepare kaldi"):
        scan(folder)
    output = tmp_path / "cut"
    code = main(["prepare", "kaldi", "--archives", str(folder), "--output_dir", str(output)])
    assert code == 0, capsys.readouterr().err
    corpus = scan(output, list_path=output / "lists" / "kaldi.txt")
    assert {(u.speaker_id, u.seconds) for u in corpus.utterances} == {("s1", 0.75), ("s2", 1.0)}
    rate = soundfile.info(audio).samplerate
    cut, _ = soundfile.read(output / "s1" / "u1.flac", dtype="float32")
    whole = read_audio(audio, rate)
    np.testing.assert_allclose(cut, whole[round(0.5 * rate) : round(1.25 * rate)], atol=1e-6)


@pytest.mark.parametrize(
    ("command", "is_file"),
    [
        ("flac -c -d -s {} |", True),
        ("flac -cds {} |", True),
        ("flac --decode --stdout --silent {} |", True),
        ("cat {} |", True),
        ("flac -c -d -s --skip=16000 {} |", False),
        ("flac -c -d --until=1:00 {} |", False),
        ("flac -c -s {} |", False),
        ("flac -d -s {} |", False),
        ("flac {} |", False),
        ("cat -n {} |", False),
        ("cat {0} {0} |", False),
        ("cat {}|tac |", False),
        ("cat <{} |", False),
    ],
)
def test_only_commands_that_give_the_whole_file_are_read(
    tmp_path: Path, command: str, is_file: bool
) -> None:
    (name,) = write_tree(tmp_path, ["a b.flac"]).glob("*.flac")
    quoted = command.format(shlex.quote(str(name)))
    folder = write_folder(tmp_path / "d", wav_scp=f"u {quoted}\n", utt2spk="u s\n")
    (utterance,) = read_kaldi_folder(folder)
    assert utterance.path == (str(name) if is_file else None)
    assert utterance.problem == (None if is_file else "a command in wav.scp, which is never run")


@pytest.mark.parametrize(
    "span", ["0 inf", "nan 1", "0 nan", "-1 1", "inf -1", "2 1", "0 -2", "1e999 2"]
)
def test_a_segment_that_cannot_be(tmp_path: Path, span: str) -> None:
    folder = write_folder(tmp_path, wav_scp="r r.wav\n", utt2spk="u s\n", segments=f"u r {span}\n")
    with pytest.raises(UserError, match="segments: wanted lines `utterance recording start end`"):
        read_kaldi_folder(folder)


def test_segments_to_the_end_and_of_one_channel(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path,
        wav_scp="r r.wav\n",
        utt2spk="a s\nb s\nc s\n",
        segments="a r 0.5 -1\nb r 0 1 1\nc r 0 1 -1\n",
    )
    to_end, one_channel, any_channel = read_kaldi_folder(folder)
    assert (to_end.start, to_end.end) == (0.5, None)
    assert one_channel.path is None and "one channel" in one_channel.problem
    assert any_channel.path is not None


@pytest.mark.parametrize(
    "speakers", [("84", "845"), ("84", "84-5"), ("84", "84+"), ("a", "a-b", "a,c", "ab", "é", "z")]
)
def test_names_sort_the_same_by_utterance_and_by_speaker(
    tmp_path: Path, speakers: tuple[str, ...]
) -> None:
    """As `validate_data_dir.sh` compares: `LC_ALL=C sort` and `LC_ALL=C sort -k2`."""
    names = [f"{speaker}/{number}.wav" for speaker in speakers for number in (1, 9)]
    names += [f"{speakers[0]}/{speakers[0]}5-x.wav", f"{speakers[0]}/{speakers[0]}-x.wav"]
    corpus = scan(write_tree(tmp_path / "corpus", names), "folders")
    folder = tmp_path / "kaldi"
    utterances = [  # `84/845-x` is called `845-x`, as in a flat folder
        replace(u, utterance_id=u.utterance_id.partition("/")[2])
        if u.utterance_id.endswith("-x")
        else u
        for u in corpus.utterances
    ]
    assert write_kaldi_folder(utterances, folder) == len(names)
    for table, options in {"utt2spk": ["-k2"], "wav.scp": [], "spk2utt": [], "utt2dur": []}.items():
        for given in ([], options):
            command = ["sort", *given, str(folder / table)]
            ordered = subprocess.run(command, env={"LC_ALL": "C"}, capture_output=True, check=True)
            assert ordered.stdout == (folder / table).read_bytes()
    assert len(scan(folder).speakers) == len(speakers)


def test_flac_is_written_as_kaldi_can_read_it(tmp_path: Path) -> None:
    names = ["s/a.wav", "s/b $(x) | 'y' \"z\".flac", "s/c[1]#~&;.flac", "s/-d.flac"]
    corpus = scan(write_tree(tmp_path / "corpus", names), "folders")
    write_kaldi_folder(corpus.utterances, tmp_path / "kaldi")
    entries = (tmp_path / "kaldi" / "wav.scp").read_text().splitlines()
    assert sum(entry.endswith(" |") for entry in entries) == 3
    for entry in entries:
        if entry.endswith(" |"):  # what a shell makes of it
            command = entry.split(maxsplit=1)[1][:-1].replace("flac -c -d -s", "printf %s")
            shown = subprocess.run(command, shell=True, capture_output=True, check=True).stdout
            assert Path(shown.decode()).is_file()
    read_back = scan(tmp_path / "kaldi")
    assert {u.path for u in read_back.utterances} == {u.path for u in corpus.utterances}
    write_tree(tmp_path / "corpus", ["s/e\nf.wav"])
    with pytest.raises(UserError, match="line break"):
        write_kaldi_folder(scan(tmp_path / "corpus", "folders").utterances, tmp_path / "kaldi")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"wav_scp": "a x.wav\n"}, "utt2spk"),
        ({"wav_scp": "a x.wav\n", "utt2spk": "a s\nb s\n"}, "recording b is not in wav.scp"),
        ({"wav_scp": "a x.wav\na y.wav\n", "utt2spk": "a s\n"}, "line 2: 'a' comes a second time"),
        ({"wav_scp": "a\n", "utt2spk": "a s\n"}, "line 1: wanted 2 fields"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, tables: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scan(write_folder(tmp_path, **tables), "kaldi")


def test_a_data_folder_is_exported(tmp_path: Path, data_dir: Path, capsys) -> None:
    """Its recordings lie elsewhere: the embeddings go to the output folder."""
    audio = sorted((data_dir / "vctk").rglob("*.flac"))[:2]
    for path in audio:
        shutil.copy(path, tmp_path)
    folder = write_folder(
        tmp_path / "data",
        wav_scp="".join(f"u{n} {tmp_path / p.name}\n" for n, p in enumerate(audio)),
        utt2spk="u0 s\nu1 s\n",
    )
    before = sorted(path.name for path in tmp_path.iterdir())
    code = main(
        ["embed", "--model_name", "dvector", "--dataset_name", "auto", "--dataset_dir", str(folder),
         "--format", "kaldi", "--output_dir", str(tmp_path / "out")]
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert (tmp_path / "out").is_dir()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "out") == before

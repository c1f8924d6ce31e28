"""Kaldi data folders, read and written; the real one of the data, and what must not be run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speaker_encoder.audio import read_audio
from speaker_encoder.cli.main import main
from speaker_encoder.corpora import scan
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

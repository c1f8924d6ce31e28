"""Every layout of the table: what is taken, whose it is, and what is left out."""

from pathlib import Path

import numpy as np
import pytest
from trees import EXAMPLES, write_tree

from speaker_encoder.corpora import LAYOUTS, scan
from speaker_encoder.errors import UserError


def test_every_layout_has_an_example() -> None:
    with_tests = {"list", "kaldi", "webdataset", "huggingface"}  # of their own
    assert set(EXAMPLES) | with_tests == set(LAYOUTS)


@pytest.mark.parametrize("how", ["auto", "named"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_layout(name: str, how: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    write_tree(tmp_path, list(example.files))
    if name == "sessions" and how == "auto":
        (tmp_path / "loose.wav").unlink()
    corpus = scan(tmp_path, "auto" if how == "auto" else name, use_cache=False)
    assert corpus.layout == name
    found = {row.utterance_id: (row.speaker_id, row.session_id) for row in corpus.utterances}
    assert found == example.expected
    assert [row.utterance_id for row in corpus.utterances] == sorted(found)
    for row in corpus.utterances:
        assert Path(row.path).is_file()
        assert Path(row.path).with_suffix("") == tmp_path / row.utterance_id
        assert (row.num_samples, row.sampling_rate) == (800, 16_000)
        assert "/" not in row.speaker_id
    expected = dict(example.excluded)
    if name == "sessions" and how == "auto":
        del expected["loose.wav"]
    excluded = {str(Path(file.path).relative_to(tmp_path)): file.reason for file in corpus.excluded}
    assert {path: reason for path, reason in excluded.items() if "." in path} == expected


def test_vctk_from_the_folder_of_speakers(tmp_path: Path) -> None:
    write_tree(tmp_path, [f"p22{i}/p22{i}_001_mic{m}.flac" for i in (5, 6) for m in (1, 2)])
    corpus = scan(tmp_path, use_cache=False)
    assert corpus.layout == "vctk"
    assert list(corpus.speakers) == ["p225", "p226"]
    assert len(corpus.utterances) == 2


@pytest.mark.parametrize("folder", ["wav48", "wav"])
def test_vctk_of_older_versions(folder: str, tmp_path: Path) -> None:
    write_tree(tmp_path, [f"{folder}/p225/p225_001.wav", f"{folder}/p226/p226_001.wav"])
    corpus = scan(tmp_path, use_cache=False)
    assert (corpus.layout, list(corpus.speakers)) == ("vctk", ["p225", "p226"])


def test_voxceleb2_as_m4a_beside_its_conversion(tmp_path: Path) -> None:
    import av

    folder = tmp_path / "dev/aac/id00012/21Uxsk56VDQ"
    write_tree(tmp_path, ["dev/aac/id00012/21Uxsk56VDQ/00002.wav"])
    for name in ("00001.m4a", "00002.m4a"):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("aac", rate=16_000)
            stream.layout = "mono"
            for index in range(20):
                silence = np.zeros((1, 1_024), dtype=np.float32)
                frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16_000, index * 1_024
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    corpus = scan(tmp_path, use_cache=False)
    assert corpus.layout == "voxceleb"
    assert [Path(row.path).name for row in corpus.utterances] == ["00001.m4a", "00002.wav"]
    assert corpus.utterances[0].num_samples == 20 * 1_024
    assert [(Path(file.path).name, file.reason) for file in corpus.excluded] == [
        ("00002.m4a", "same name with another extension")
    ]


def test_sessions_are_forced_on_unknown_layouts_only(tmp_path: Path) -> None:
    write_tree(tmp_path / "mixed", ["ann/mon/1.wav", "ann/tue/1.wav", "bob/1.wav"])
    corpus = scan(tmp_path / "mixed", multi_rec_session=True, use_cache=False)
    assert corpus.layout == "sessions"
    assert {row.session_id for row in corpus.utterances} == {"mon", "tue"}
    reasons = {file.reason for file in corpus.excluded}
    assert reasons == {"not in the folder of a session", "speaker without usable audio"}
    assert scan(tmp_path / "mixed", use_cache=False).layout == "folders"
    write_tree(tmp_path / "vox", ["wav/id10001/video/1.wav"])
    assert scan(tmp_path / "vox", multi_rec_session=True, use_cache=False).layout == "voxceleb"


def test_sessions_where_there_are_none_is_explained(tmp_path: Path) -> None:
    write_tree(tmp_path, ["ann/1.wav", "bob/1.wav"])
    with pytest.raises(UserError, match="set multi_rec_session to false"):
        scan(tmp_path, multi_rec_session=True, use_cache=False)
    with pytest.raises(UserError, match="has no sessions, but multi_rec_session is true"):
        scan(tmp_path, "folders", multi_rec_session=True, use_cache=False)


def test_a_layout_that_does_not_fit_is_explained(tmp_path: Path) -> None:
    write_tree(tmp_path, ["ann/mon/1.wav", "bob/mon/1.wav"])
    with pytest.raises(UserError) as caught:
        scan(tmp_path, "folders", use_cache=False)
    assert "read as layout 'folders' (speaker/file)" in str(caught.value)
    assert "deeper than speaker/file: 2 (such as" in str(caught.value)
    assert "use layout 'sessions'" in str(caught.value)


@pytest.mark.parametrize(
    ("root", "layout", "num_speakers", "num_utterances", "has_sessions"),
    [
        ("vctk", "vctk", 4, 40, False),
        ("libritts", "libritts", 4, 48, True),
        ("voxceleb", "voxceleb", 24, 96, True),
        ("speechocean762/WAVE", "folders", 210, 1_340, False),
    ],
)
def test_real_corpora(
    data_dir: Path,
    root: str,
    layout: str,
    num_speakers: int,
    num_utterances: int,
    has_sessions: bool,
) -> None:
    corpus = scan(data_dir / root, use_cache=False)
    assert corpus.layout == layout
    assert len(corpus.speakers) == num_speakers
    assert len(corpus.utterances) == num_utterances
    assert not corpus.excluded
    assert all((row.session_id is not None) == has_sessions for row in corpus.utterances)


def test_the_real_lengths_are_those_of_the_published_table(data_dir: Path) -> None:
    lines = (data_dir / "lists/utterances.tsv").read_text().splitlines()
    columns = lines[0].split("\t")
    table = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines[1:]]
    seconds = {str(data_dir / row["path"]): float(row["seconds"]) for row in table}
    for root in ("vctk", "libritts", "voxceleb", "speechocean762/WAVE"):
        for row in scan(data_dir / root, use_cache=False).utterances:
            assert row.seconds == pytest.approx(seconds[row.path], abs=0.01)

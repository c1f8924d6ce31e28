"""`speaker-encoder plot` on real speech: pictures, pages, lists."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def corpus(data_dir: Path, tmp_path: Path) -> Path:
    """Three speakers with four utterances each; one file is another speaker's."""
    root = tmp_path / "corpus"
    folders = sorted((data_dir / "vctk" / "wav48_silence_trimmed").iterdir())[:3]
    for folder in folders:
        (root / folder.name).mkdir(parents=True)
        for path in sorted(folder.glob("*.flac"))[:4]:
            shutil.copy(path, root / folder.name / path.name)
    wrong = sorted(folders[2].glob("*.flac"))[5]
    shutil.copy(wrong, root / folders[0].name / "wrong.flac")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["umap", "tsne"])
def test_projection_of_a_corpus(
    command, corpus: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # UMAP itself, ten seconds of compiling, is tested with its plot; few points go without it.
    monkeypatch.setattr("speaker_encoder.plots.umap_plot.MIN_UMAP", 100)
    output = corpus.parent / "plots" / "all"
    shown = command(
        "plot", kind, "--model", tiny_model, "--data_root", corpus, "--output", output, "--html"
    )
    assert shown.code == 0, shown.err
    assert shown.out.splitlines() == [
        f"{output}.png", f"{output}.svg",
        f"{output}.html: audio inside the page (13 files, {size_of(corpus):.1f} MB)",
    ]  # fmt: skip
    assert Image.open(f"{output}.png").size[0] > 500
    page = Path(f"{output}.html").read_text(encoding="utf-8")
    assert page.count("data:audio/flac;base64,") == 13
    assert "3 speakers, 13 utterances" in page


def size_of(corpus: Path) -> float:
    return sum(path.stat().st_size for path in corpus.rglob("*.flac")) / 1e6


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("resemblyzer") is None, reason="pip install resemblyzer: it ships the d-vector"
)
def test_similarity_finds_the_wrong_label(command, corpus: Path) -> None:
    output = corpus.parent / "similarity.svg"
    shown = command(
        "plot", "similarity", "--model", "dvector", "--data_root", corpus, "--output", output,
        "--html", "--num_listed", 2, "--max_audio_megabytes", 0,
    )  # fmt: skip
    assert shown.code == 0, shown.err
    speakers = sorted(path.name for path in corpus.iterdir())
    result = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
    assert result["speakers"] == speakers
    assert result["num_misplaced"] == 1
    assert len(result["confusable_pairs"]) == len(result["suspicious_utterances"]) == 2
    worst = result["suspicious_utterances"][0]
    assert worst["utterance_id"] == f"{speakers[0]}/wrong"
    assert worst["nearest_speaker_id"] == speakers[2]
    assert "utterances more like another speaker than their own: 1" in shown.out
    assert f"{speakers[0]}/wrong" in shown.out
    page = output.with_suffix(".html").read_text(encoding="utf-8")
    assert f'src="./corpus/{speakers[0]}/wrong.flac"' in page
    assert output.read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "cosyvoice"])
def test_exported_embeddings(command, corpus: Path, tiny_model: Path, kind: str) -> None:
    shown = command(
        "embed", "--model_name", "ecapa", "--checkpoint", tiny_model, "--dataset_dir", corpus,
        "--output_dir", corpus.parent / "export", "--format", kind, "--num_workers", 0,
    )  # fmt: skip
    assert shown.code == 0, shown.err
    arguments = ["--embeddings", corpus.parent / "export", "--output", corpus.parent / "x.png"]
    shown = command("plot", "tsne", *arguments)
    if kind == "cosyvoice":
        assert shown.code == 2
        assert "Nothing tells who speaks" in shown.err
    else:
        assert shown.code == 0, shown.err
    shown = command("plot", "tsne", *arguments, "--data_root", corpus, "--html", "--title", "<b>")
    assert shown.code == 0, shown.err
    page = (corpus.parent / "x.html").read_text(encoding="utf-8")
    assert "<h1>&lt;b&gt;</h1>" in page
    assert page.count("data:audio/flac;base64,") == 13


@pytest.mark.slow
def test_a_broken_file_is_left_out_and_said(command, corpus: Path, tiny_model: Path) -> None:
    speaker = sorted(corpus.iterdir())[0]
    (speaker / "broken.wav").write_bytes(b"no audio")
    shown = command(
        "plot", "tsne", "--model", tiny_model, "--data_root", corpus,
        "--output", corpus.parent / "x.png", "--max_utterances", 2,
    )  # fmt: skip
    assert shown.code == 3, shown.err
    assert "left out, " in shown.err
    assert "t-SNE of 6 utterances" in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either --model with --data_root, or --embeddings"),
        (["--model", "dvector"], "--model needs a corpus"),
        (["--model", "dvector", "--embeddings", "x"], "either --model"),
        (["--embeddings", "nowhere"], "nowhere"),
        (["--embeddings", "x", "--output", "x.jpg"], "must end in one of .png, .svg, .pdf"),
        (["--embeddings", "x", "--output", os.curdir], "found the folder"),
        (["--embeddings", "x", "--html", os.curdir], "found the folder"),
        (["--embeddings", "x", "--html", f"{__file__}/x.html"], "Cannot write"),
        (["--embeddings", "x", "--num_listed", "0"], "--num_listed must be at least 1"),
    ],
)
def test_bad_arguments_are_explained(command, arguments: list[str], message: str) -> None:
    shown = command("plot", "umap", *arguments)
    assert shown.code == 2
    assert message in shown.err


def test_names_cannot_move_the_cursor() -> None:
    from speaker_encoder.cli.plot import _plain

    assert _plain("a\nb\x1b[31m\udce9声 c") == "a\\nb\\x1b[31m\\udce9声 c"

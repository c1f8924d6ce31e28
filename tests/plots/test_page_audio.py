import base64
import io
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
import soundfile

from speaker_encoder.errors import UserError
from speaker_encoder.plots.page_audio import embed_audio, page_audio, relative_url


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "audio").mkdir()
    paths = [tmp_path / "audio" / name for name in ("a.wav", "b.flac", "c.aiff")]
    for path in paths:
        soundfile.write(path, 0.5 * np.sin(np.arange(8000) * 0.1), 8000)
    return paths


def content(uri: str) -> bytes:
    return base64.b64decode(uri.split("base64,")[1])


def test_small_audio_lies_inside_the_page(tmp_path: Path, files: list[Path]) -> None:
    found = page_audio([str(files[0]), None, str(tmp_path / "gone.wav")], tmp_path / "p.html")
    assert content(found.sources[0]) == files[0].read_bytes()
    assert found.sources[1:] == [None, None]
    assert found.is_embedded
    assert found.describe() == "audio inside the page (1 files, 0.0 MB)"
    assert page_audio([None], tmp_path / "p.html").describe() == "no audio"


def test_what_browsers_do_not_play_becomes_flac(files: list[Path]) -> None:
    assert embed_audio(files[1]) == "data:audio/flac;base64," + base64.b64encode(
        files[1].read_bytes()
    ).decode("ascii")
    uri = embed_audio(files[2])
    assert uri.startswith("data:audio/flac;base64,")
    waveform, rate = soundfile.read(io.BytesIO(content(uri)))
    assert (rate, len(waveform)) == (16_000, 16_000)
    assert np.abs(waveform[1000:-1000]).max() == pytest.approx(0.5, abs=0.01)


def test_large_audio_is_found_by_its_path(tmp_path: Path, files: list[Path]) -> None:
    num_bytes = sum(path.stat().st_size for path in files)
    page = tmp_path / "pages" / "deep" / "p.html"
    paths = [str(path) for path in files]
    assert page_audio(paths, page, max_megabytes=num_bytes / 1e6).is_embedded
    found = page_audio(paths, page, max_megabytes=(num_bytes - 1) / 1e6)
    assert found.sources == [f"./../../audio/{path.name}" for path in files]
    assert not found.is_embedded
    assert "must be moved together" in found.describe()
    with pytest.raises(UserError, match="--max_audio_megabytes must be 0 or more"):
        page_audio(paths, page, max_megabytes=float("nan"))


@pytest.mark.parametrize("name", ["javascript:alert(1).wav", "a b#c?d%20.wav", "ä'\"<.wav"])
def test_no_name_is_taken_for_a_scheme_or_query(tmp_path: Path, name: str) -> None:
    address = relative_url(tmp_path / name, tmp_path)
    parts = urlparse(address)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
    assert unquote(address) == f"./{name}"
    assert address.isascii()

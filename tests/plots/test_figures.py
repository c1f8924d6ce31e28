from pathlib import Path

import matplotlib
import pytest
from matplotlib.colors import to_rgb

from speaker_encoder.plots.figures import (
    PALETTE,
    new_figure,
    save_figure,
    set_plain,
    short_name,
    speaker_style,
    without_common_start,
)


def test_two_hundred_speakers_look_different() -> None:
    assert len({speaker_style(number) for number in range(208)}) == 208
    assert speaker_style(208) == speaker_style(0)


def test_all_colours_stand_out_from_white() -> None:
    for colour in PALETTE:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert 1.05 / (luminance + 0.05) > 2.0  # contrast ratio of WCAG


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("p225", "p225"),
        ("a very long speaker name 0001", "a very l…name 0001"),
        ("two\nlines\tof it", "two lines of it"),
        ("", "(no name)"),
        ("caf\udce9", "caf\\udce9"),
        ("exactly18letters!!", "exactly18letters!!"),
    ],
)
def test_short_names(name: str, expected: str) -> None:
    assert short_name(name) == expected
    assert len(short_name(name)) <= 18


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["SPEAKER0012", "SPEAKER0013"], ["0012", "0013"]),
        (["p225", "p226"], ["p225", "p226"]),
        (["id10270", "id10271"], ["id10270", "id10271"]),
        (["speaker", "speaker2"], ["speaker", "speaker2"]),
        (["anna", "bert"], ["anna", "bert"]),
        (["one"], ["one"]),
    ],
)
def test_a_common_start_is_left_out(names: list[str], expected: list[str]) -> None:
    assert without_common_start(names) == expected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ""])
def test_any_text_and_format_is_written(tmp_path: Path, suffix: str) -> None:
    figure = new_figure(2, 2)
    set_plain(figure.text(0.1, 0.5, ""), "_$x$^{ 声 \N{PILE OF POO} \udce9")
    path = save_figure(figure, tmp_path / "new" / "folder" / f"picture{suffix}")
    assert path.stat().st_size > 500
    assert [file.name for file in path.parent.iterdir()] == [f"picture{suffix}"]


def test_a_failed_write_leaves_the_old_picture(tmp_path: Path) -> None:
    path = save_figure(new_figure(1, 1), tmp_path / "picture.png")
    before = path.read_bytes()
    broken = new_figure(1, 1)
    broken.text(0.5, 0.5, "$\\broken{$")
    with pytest.raises(ValueError, match="broken"):
        save_figure(broken, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


def test_nothing_global_is_touched() -> None:
    backend = matplotlib.rcParams._get_backend_or_none()
    new_figure(1, 1)
    assert matplotlib.rcParams._get_backend_or_none() == backend
    pyplot = __import__("sys").modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()

import json
import re
import socket
from pathlib import Path

import browser
import numpy as np
import pytest
import soundfile

from speaker_encoder.errors import UserError
from speaker_encoder.plots.interactive import unit_square, write_interactive

EVIL = '"><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">'
SPEAKERS = ["anna", EVIL, "张伟"]
PIXEL = """
const [canvas, point] = [document.getElementById('plot'), arguments[0]];
const ratio = window.devicePixelRatio, [x, y] = speakerPlot.screen(point);
return [...canvas.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data];
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Three speakers with four utterances each, in folders with odd names."""
    root = tmp_path_factory.mktemp("page")
    speakers, utterances, paths, points = [], [], [], []
    rng = np.random.default_rng(0)
    for number, speaker in enumerate(SPEAKERS):
        folder = root / "audio" / f"50% #{number} ä?b"
        folder.mkdir(parents=True)
        for k in range(4):
            tone = 0.2 * np.sin(np.arange(16_000) * (0.05 + 0.02 * number))
            paths.append(str(folder / f"u&{k}.{'wav' if k % 2 else 'flac'}"))
            soundfile.write(paths[-1], tone, 16_000)
            speakers.append(speaker)
            utterances.append(f"{number}/u<{k}>")
            points.append(np.array([5.0 * number, number % 2]) + 0.5 * rng.normal(size=2))
    return {"root": root, "points": np.array(points), "speaker_ids": speakers,
            "utterance_ids": utterances, "audio_paths": paths}  # fmt: skip


def write(corpus: dict, name: str, **options) -> Path:
    path = corpus["root"] / name
    given = {key: value for key, value in corpus.items() if key != "root"} | options
    write_interactive(path=path, title=f"UMAP {EVIL}", **given)
    return path


@pytest.fixture(scope="module")
def page(corpus: dict) -> Path:
    return write(corpus, "embedded.html", note="a <note>")


def position(driver, point: int):
    """Moves the mouse to a point."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    canvas = driver.find_element(By.ID, "plot")
    x, y = driver.execute_script("return speakerPlot.screen(arguments[0])", point)
    box = driver.execute_script(
        "const p = document.getElementById('plot'); return [p.clientWidth, p.clientHeight]"
    )
    return ActionChains(driver).move_to_element_with_offset(
        canvas, round(x - box[0] / 2), round(y - box[1] / 2)
    )


def text(driver, element_id: str) -> str:
    return driver.execute_script(
        "return document.getElementById(arguments[0]).textContent", element_id
    )


@pytest.mark.slow
def test_points_are_there_in_their_speakers_colours(driver, page: Path) -> None:
    browser.open_page(driver, page)
    browser.wait(driver, "return document.getElementById('plot').dataset.drawn === '12'")
    colours = [tuple(driver.execute_script(PIXEL, point)) for point in range(12)]
    assert all(alpha > 200 for *_, alpha in colours)
    assert len({colours[0], colours[4], colours[8]}) == 3
    assert driver.title == f"UMAP {EVIL}"
    assert "3 speakers, 12 utterances" in driver.find_element("tag name", "body").text


@pytest.mark.slow
def test_hovering_names_speaker_and_utterance_as_text(driver, page: Path) -> None:
    browser.open_page(driver, page)
    for point in (1, 9, 5):
        position(driver, point).perform()
        browser.wait(driver, "return !document.getElementById('tip').hidden")
        speaker = sorted(SPEAKERS)[point // 4]
        number = SPEAKERS.index(speaker)
        assert text(driver, "tip") == f"{speaker}{number}/u<{point % 4}>"
    assert driver.execute_script("return window.hacked") is None
    assert len(driver.find_elements("css selector", "img, script[src], link")) == 0
    assert driver.execute_script("return document.getElementById('player').hidden")


@pytest.mark.slow
@pytest.mark.parametrize("is_embedded", [True, False])
def test_a_click_plays_and_nothing_else_is_loaded(
    driver, corpus: dict, page: Path, is_embedded: bool
) -> None:
    if not is_embedded:
        page = write(corpus, "relative.html", max_audio_megabytes=0)
        assert "data:audio" not in page.read_text(encoding="utf-8")
    browser.open_page(driver, page)
    for point in (0, 7):  # a flac and a wav file
        position(driver, point).click().perform()
        browser.wait(driver, browser.PLAYS)
        assert driver.execute_script("return document.querySelector('audio').duration") == 1.0
        browser.wait(driver, "return document.querySelector('audio').ended")
    assert text(driver, "speaker") == sorted(SPEAKERS)[1]
    assert text(driver, "problem") == ""
    addresses = browser.requested(driver)
    assert {address.split(":")[0] for address in addresses} <= {"file", "data"}
    assert sum(address.startswith("file:") for address in addresses) == (1 if is_embedded else 3)
    assert browser.complaints(driver) == []


@pytest.mark.slow
def test_the_player_stops_and_goes_on_and_keys_choose(driver, page: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    browser.open_page(driver, page)
    position(driver, 2).click().perform()
    browser.wait(driver, browser.PLAYS)
    player = driver.find_element("id", "player")
    assert player.is_displayed()
    assert player.get_attribute("controls")
    driver.execute_script("arguments[0].currentTime = 0; arguments[0].pause()", player)
    assert driver.execute_script("return arguments[0].paused", player)
    driver.execute_script("arguments[0].focus()", player)
    ActionChains(driver).send_keys(Keys.SPACE).perform()  # the player's own play button
    browser.wait(driver, browser.PLAYS)
    driver.execute_script("document.getElementById('plot').focus()")
    ActionChains(driver).send_keys(Keys.ARROW_RIGHT).perform()
    assert text(driver, "utterance").endswith("u<3>")
    browser.wait(driver, browser.PLAYS)


@pytest.mark.slow
def test_searching_pinning_and_zooming(driver, page: Path) -> None:
    browser.open_page(driver, page)
    search = driver.find_element("id", "search")
    search.send_keys("ANNA")
    shown = [
        b for b in driver.find_elements("css selector", "#speakers button") if b.is_displayed()
    ]
    assert [button.find_element("tag name", "span").text for button in shown] == ["anna"]
    assert text(driver, "found") == "1 of 3 speakers"
    anna = sorted(SPEAKERS).index("anna")
    others = [point for point in range(12) if point // 4 != anna]
    browser.wait(driver, "return new Promise(r => requestAnimationFrame(() => r(true)))")
    assert all(driver.execute_script(PIXEL, point)[3] < 60 for point in others)
    search.clear()
    search.send_keys(" ")
    before = driver.execute_script("return speakerPlot.screen(0)")
    driver.find_element("id", "closer").click()
    assert driver.execute_script("return speakerPlot.screen(0)") != before
    driver.find_element("id", "whole").click()
    assert driver.execute_script("return speakerPlot.screen(0)") == before
    button = driver.find_elements("css selector", "#speakers button")[anna]
    button.click()
    assert button.get_attribute("aria-pressed") == "true"


@pytest.mark.slow
def test_missing_audio_is_explained(driver, corpus: dict) -> None:
    gone = corpus["root"] / "gone.wav"
    soundfile.write(gone, np.zeros(1600), 16_000)
    paths = [str(gone), None, *corpus["audio_paths"][2:]]
    page = write(corpus, "missing.html", max_audio_megabytes=0, audio_paths=paths)
    gone.unlink()
    browser.open_page(driver, page)
    assert "1 without audio" in driver.find_element("tag name", "body").text
    first = 4 * sorted(SPEAKERS).index("anna")
    position(driver, first).click().perform()
    browser.wait(
        driver, "return document.getElementById('problem').textContent.includes('gone.wav')"
    )
    position(driver, first + 1).click().perform()
    browser.wait(
        driver, "return document.getElementById('problem').textContent.includes('no audio')"
    )


@pytest.mark.slow
def test_the_policy_stops_scripts_and_requests(driver, page: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        browser.open_page(driver, page)
        driver.execute_script(
            "const s = document.createElement('script'); s.textContent = 'window.hacked = 3';"
            "document.body.append(s);"
            "const i = new Image(); i.src = arguments[0]; document.body.append(i);",
            f"http://127.0.0.1:{server.getsockname()[1]}/x.png",
        )
        browser.wait(driver, "return document.querySelector('img').complete")
        with pytest.raises(TimeoutError):
            server.accept()
    assert driver.execute_script("return window.hacked") is None
    assert sum("Content Security Policy" in line for line in browser.complaints(driver)) == 2


def test_the_page_holds_its_data_and_no_address(page: Path, corpus: dict) -> None:
    content = page.read_text(encoding="utf-8")
    assert "http://" not in content and "https://" not in content
    assert content.count("<script") == 2
    assert "<img" not in content
    data = json.loads(re.search(r'id="data">(.*?)</script>', content)[1])
    assert data["speakers"] == sorted(SPEAKERS)
    assert [data["utterance"][i] for i in (0, 11)] == ["1/u<0>", "2/u<3>"]
    assert all(source.startswith("data:audio/") for source in data["audio"])
    assert not [file for file in page.parent.iterdir() if file.name.endswith(".partial")]


def test_points_fill_the_unit_square() -> None:
    square = unit_square(np.array([[0.0, 0.0], [4.0, 2.0], [2.0, 1.0]]))
    assert square.tolist() == [[0.0, 0.25], [1.0, 0.75], [0.5, 0.5]]
    assert unit_square(np.array([[3.0, 3.0]])).tolist() == [[0.5, 0.5]]


def test_lengths_must_agree(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"for each point; found 1, 2, 1, 1"):
        write_interactive(np.zeros((1, 2)), ["a", "b"], ["u"], [None], tmp_path / "x", title="")
    with pytest.raises(UserError, match=r"found 0, 0, 0, 0"):
        write_interactive(np.zeros((0, 2)), [], [], [], tmp_path / "x", title="")

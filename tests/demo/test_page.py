"""The page in a real browser: two files, a score, a threshold that moves, enrolled speakers."""

import re
import threading
import time
import urllib.request

import pytest

pytest.importorskip("gradio", reason="pip install 'speaker-encoder[demo]'")
from browser import requested

from speaker_encoder import SpeakerEncoder
from speaker_encoder.demo import page as page_module
from speaker_encoder.demo.page import build_page, serve
from speaker_encoder.errors import UserError
from speaker_encoder.verification.thresholds import Threshold

# Gradio asks pandas for what pandas will drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio")
SECONDS = 60


@pytest.fixture(scope="module")
def encoder():
    return SpeakerEncoder.from_pretrained("dvector")


@pytest.fixture(scope="module")
def address(encoder):
    page = build_page(encoder, "dvector", Threshold(0.71, "a test"))
    yield serve(page)
    page.close()


@pytest.fixture
def driver(driver, address):
    driver.get_log("performance")
    driver.get_log("browser")
    driver.get(address)
    wait(driver, lambda: driver.find_elements("css selector", "#recording1 input[type=file]"))
    return driver


def wait(driver, condition, message=""):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, SECONDS).until(lambda _: condition(), message)


def text_of(driver, elem_id):
    """What a text of the page says, without the sign of an error that may lie over it."""
    shown = driver.find_element("css selector", f"#{elem_id} [data-testid=markdown]")
    return shown.get_property("innerText").strip()


def upload(driver, elem_id, path):
    driver.find_element("css selector", f"#{elem_id} input[type=file]").send_keys(str(path))
    wait(
        driver,
        lambda: driver.find_elements("css selector", f"#{elem_id} [data-testid^=waveform]"),
        f"{path} was not taken",
    )


def press(driver, elem_id):
    driver.find_element("id", elem_id).click()


def clear_recording(driver, elem_id):
    driver.find_element("css selector", f"#{elem_id} button[aria-label=Clear]").click()


def settle(driver, elem_id, said):
    """Asks until a question is answered: what was under way before is there too."""

    def is_said():
        press(driver, elem_id)  # nothing is asked while an answer is under way
        return said in text_of_toasts(driver)

    wait(driver, is_said, f"{elem_id} is not answered")


def set_threshold(driver, value):
    number = driver.find_element("css selector", "#threshold input[type=number]")
    number.clear()
    number.send_keys(str(value), "\t")


def asked_score(driver):
    """The score, asked for until it is there: a page still being drawn may move under a click."""

    def is_shown():
        press(driver, "compare")  # nothing is asked while an answer is under way
        return "Score" in text_of(driver, "verdict")

    wait(driver, is_shown, "Compare is not answered")
    return shown_score(driver)


def shown_score(driver):
    return float(re.search(r"Score (-?[\d.]+)", text_of(driver, "verdict"))[1])


@pytest.mark.slow
def test_two_real_files_are_compared(driver, encoder, recordings):
    speakers = list(recordings)
    one, other, stranger = (*recordings[speakers[0]][:2], recordings[speakers[1]][0])
    upload(driver, "recording1", one)
    upload(driver, "recording2", other)
    for number in (1, 2):
        image = wait(
            driver, lambda n=number: driver.find_elements("css selector", f"#spectrogram{n} img")
        )[0]
        wait(driver, lambda i=image: i.get_property("naturalWidth") > 300)
    score = asked_score(driver)
    embeddings = encoder.encode([one, other])
    assert score == pytest.approx(float(embeddings[0] @ embeddings[1]), abs=1e-4)
    assert text_of(driver, "verdict").startswith("The same speaker")
    set_threshold(driver, 0.99)
    wait(driver, lambda: text_of(driver, "verdict").startswith("Different speakers"))
    assert shown_score(driver) == score
    set_threshold(driver, 0.2)
    wait(driver, lambda: text_of(driver, "verdict").startswith("The same speaker"))
    clear_recording(driver, "recording2")
    wait(driver, lambda: text_of(driver, "verdict") == "Give two recordings.")
    upload(driver, "recording2", stranger)
    set_threshold(driver, 0.71)
    wait(driver, lambda: text_of(driver, "verdict") == "Press Compare.")
    assert asked_score(driver) < score


class Gate:
    """Stands where a function of the page is, and keeps its answers back until it is opened."""

    def __init__(self, monkeypatch, name):
        self.work = getattr(page_module, name)
        self.is_open, self.waiting, self.answered = (threading.Event() for _ in range(3))
        monkeypatch.setattr(page_module, name, self)

    def __call__(self, *arguments):
        self.waiting.set()
        assert self.is_open.wait(SECONDS)
        answer = self.work(*arguments)
        self.answered.set()
        return answer


@pytest.mark.slow
def test_an_answer_to_what_is_gone_is_not_shown(driver, recordings, monkeypatch):
    one, other = next(iter(recordings.values()))[:2]
    upload(driver, "recording1", one)
    upload(driver, "recording2", other)
    gate = Gate(monkeypatch, "score_recordings")
    press(driver, "compare")
    assert gate.waiting.wait(SECONDS)
    clear_recording(driver, "recording2")
    wait(driver, lambda: text_of(driver, "verdict") == "Give two recordings.")
    set_threshold(driver, 0.2)
    gate.is_open.set()
    assert gate.answered.wait(SECONDS)
    settle(driver, "compare", "Give two recordings")
    assert text_of(driver, "verdict") == "Give two recordings."
    upload(driver, "recording2", recordings[list(recordings)[1]][0])
    wait(driver, lambda: text_of(driver, "verdict") == "Press Compare.")


@pytest.mark.slow
def test_enrolled_speakers_are_identified(driver, recordings, monkeypatch):
    tabs = driver.find_elements("css selector", "[role=tab]")
    next(tab for tab in tabs if tab.text == "Who is it?").click()
    wait(driver, lambda: driver.find_elements("css selector", "#enrolment input[type=file]"))
    for number, (speaker, paths) in enumerate(recordings.items(), 1):
        name = driver.find_element("css selector", "#speaker_name textarea, #speaker_name input")
        name.clear()
        name.send_keys(f"<b>{speaker}_{number}</b>")
        upload(driver, "enrolment", paths[0])
        press(driver, "enrol")
        wait(driver, lambda s=speaker: f"<b>{s}" in text_of(driver, "enrolled"))
        wait(driver, lambda: not driver.find_elements("css selector", "#enrolment audio"))
    wanted = list(recordings)[1]
    upload(driver, "unknown", recordings[wanted][1])
    press(driver, "identify")
    wait(driver, lambda: "score" in text_of(driver, "identity"))
    assert text_of(driver, "identity").startswith(f"<b>{wanted}_2</b>")
    assert not driver.find_elements("css selector", "#identity b")
    set_threshold(driver, 0.995)
    wait(driver, lambda: text_of(driver, "identity").startswith("None of the enrolled"))
    gate = Gate(monkeypatch, "identify")
    press(driver, "identify")
    assert gate.waiting.wait(SECONDS)
    press(driver, "forget")
    gate.is_open.set()
    wait(driver, lambda: text_of(driver, "enrolled") == "Nobody is enrolled.")
    assert gate.answered.wait(SECONDS)
    settle(driver, "identify", "Enrol a speaker first.")
    assert text_of(driver, "identity") == ""


@pytest.mark.slow
def test_a_recording_is_made(driver, recordings):
    part = "#recording1"
    driver.find_element("css selector", f"{part} button[aria-label='Record audio']").click()
    wait(driver, lambda: driver.find_elements("css selector", f"{part} .record-button"))
    driver.find_element("css selector", f"{part} .record-button").click()
    time.sleep(1)  # what is recorded
    driver.find_element("css selector", f"{part} .stop-button").click()
    wait(driver, lambda: driver.find_elements("css selector", "#spectrogram1 img"))
    upload(driver, "recording2", next(iter(recordings.values()))[0])
    assert -1 <= asked_score(driver) <= 1


@pytest.mark.slow
def test_what_is_wrong_is_said(driver, tmp_path):
    press(driver, "compare")
    wait(driver, lambda: text_of_toasts(driver))
    assert text_of_toasts(driver) == "Give two recordings: record or upload both."
    assert text_of(driver, "verdict") == "Give two recordings."
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no audio")
    driver.find_element("css selector", "#recording1 input[type=file]").send_keys(str(broken))
    wait(driver, lambda: "broken.wav" in text_of_toasts(driver))
    said = text_of_toasts(driver).split("both. ")[1]  # not where it lies on the server
    assert said == "broken.wav: not audio that can be decoded (Format not recognised.)"
    assert not driver.find_elements("css selector", "#spectrogram1 img")


def text_of_toasts(driver):
    found = driver.find_elements("css selector", "[data-testid=toast-text]")
    return " ".join(toast.text for toast in found)


@pytest.mark.slow
def test_nothing_is_asked_of_another_machine(driver, address):
    addresses = [one for one in requested(driver) if not one.startswith(("data:", "blob:"))]
    assert addresses
    assert [one for one in addresses if not one.startswith(address)] == []


def test_the_page_is_served_on_this_machine_alone(address, encoder):
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address) as answer:
        assert b"speaker-encoder: dvector" in answer.read()
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(UserError, match=r"cannot be served on 127\.0\.0\.1.*--port"):
        serve(build_page(encoder, "dvector"), port)


def test_an_untrained_head_is_refused():
    encoder = SpeakerEncoder.from_name("dvector", pretrained=False)
    with pytest.raises(UserError, match="random weights"):
        build_page(encoder, "dvector")

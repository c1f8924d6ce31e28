"""The doctor's page in a real browser: the players play, and nothing is asked for elsewhere."""

import browser
import pytest
from corpora_on_disk import plain_corpus, speech_like, write

from speaker_encoder.corpora import scan
from speaker_encoder.doctor import examine
from speaker_encoder.doctor.html_report import write_html


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [20, 0])
def test_players_play_from_inside_the_page_and_from_beside_it(driver, tmp_path, megabytes):
    root = plain_corpus(tmp_path / "my corpus", 2, 3)
    write(root / "a <b>#%" / "copy.flac", speech_like(1))
    diagnosis = examine(scan(root, "folders", use_cache=False))
    page = write_html(diagnosis, tmp_path / "out" / "report.html", megabytes)
    browser.open_page(driver, page)
    players = driver.find_elements("tag name", "audio")
    assert len(players) == 2
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    for player in players:
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", player)
        play_button = 26 - player.size["width"] // 2  # from the middle of the player
        ActionChains(driver).move_to_element_with_offset(player, play_button, 0).click().perform()
        WebDriverWait(driver, 10).until(
            lambda _, player=player: driver.execute_script(
                "return arguments[0].currentTime > 0.1 && arguments[0].duration > 2.9", player
            )
        )
    elsewhere = [u for u in browser.requested(driver) if not u.startswith(("file:", "data:"))]
    assert elsewhere == []
    assert browser.complaints(driver) == []

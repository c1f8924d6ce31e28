"""What all tests share: real speech, and no network."""

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import browser
import preloaded
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Imports all test modules."""
    gc.disable()  # a fifth of the time of imports
    try:
        return (yield)
    finally:
        gc.enable()
        preloaded.set_environment_of_the_session()


@pytest.fixture(autouse=True)
def environment_of_its_own() -> Iterator[None]:
    """What a test, or what it calls, sets in the environment is gone after it."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True, scope="module")
def libraries_are_no_garbage() -> None:
    """What is there already is not looked through by the collections of each training's end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real speech, noise, music and impulse responses."""
    folder = Path(os.environ.get("SPEAKER_ENCODER_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "lists" / "utterances.tsv").is_file():
        pytest.skip(f"no real speech at {folder}; point SPEAKER_ENCODER_DATA to it")
    return folder.resolve()


@pytest.fixture(scope="session")
def shared_driver() -> Iterator:
    yield from browser.start_browser()


@pytest.fixture
def driver(shared_driver) -> Iterator:
    """A headless browser, the same for all tests; each leaves it with an empty page."""
    yield shared_driver
    shared_driver.get("about:blank")

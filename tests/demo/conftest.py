"""Recordings of real speakers."""

import csv
from collections.abc import Iterator

import browser
import pytest


@pytest.fixture(scope="session")
def recordings(data_dir):
    """Speaker -> paths of the utterances, longest first, of three speakers of one corpus."""
    found: dict[str, list[tuple[float, str]]] = {}
    with (data_dir / "lists" / "utterances.tsv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            if row["corpus"] == "speechocean762":
                path = str(data_dir / row["path"])
                found.setdefault(row["speaker"], []).append((float(row["seconds"]), path))
    speakers = sorted(found)[::60][:3]
    return {name: [path for _, path in sorted(found[name], reverse=True)] for name in speakers}


@pytest.fixture(scope="session")
def shared_driver() -> Iterator:
    """A browser of its own: of a page from a server it asks for the icon later, in other tests."""
    yield from browser.start_browser(
        # A microphone that beeps, which the page may use without asking.
        "use-fake-device-for-media-stream",
        "use-fake-ui-for-media-stream",
    )

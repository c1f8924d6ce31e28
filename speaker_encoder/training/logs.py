"""Where the package's messages go: the terminal, and the run's train.log."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

_PACKAGE = logging.getLogger("speaker_encoder")


class _AboveProgressBar(logging.Handler):
    """Writes to stderr without cutting through a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm.auto import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def log_to_terminal(level: int = logging.INFO) -> None:
    """Shows the package's messages on stderr; commands call it once."""
    if not any(isinstance(handler, _AboveProgressBar) for handler in _PACKAGE.handlers):
        handler = _AboveProgressBar(level)
        handler.setFormatter(logging.Formatter("%(message)s"))
        _PACKAGE.addHandler(handler)
    _PACKAGE.setLevel(logging.DEBUG)
    _PACKAGE.propagate = False


@contextlib.contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Appends the package's messages, also those too small for the terminal, to a file."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    previous = _PACKAGE.level
    _PACKAGE.setLevel(logging.DEBUG)
    _PACKAGE.addHandler(handler)
    try:
        yield
    finally:
        _PACKAGE.removeHandler(handler)
        _PACKAGE.setLevel(previous)
        handler.close()

"""Large dicts for ``torch.load``, written entry by entry."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_START, _STOP = b"\x80\x02}", b"."  # protocol 2, an empty dict
_MARK, _SET_ITEMS = b"(", b"u"


class _EntryPickler(pickle.Pickler):
    """Pickles pairs as a dict; only one entry at a time is a Python object."""

    def __init__(self, file: Any, protocol: int) -> None:
        super().__init__(file, protocol=protocol)
        self._file = file

    def dump(self, obj: Iterable[tuple[str, Any]]) -> None:
        """Writes the dict of these pairs."""
        self._file.write(_START)
        for pair in obj:
            # Without each part's own protocol in front and stop behind.
            parts = [pickle.dumps(part, protocol=2)[2:-1] for part in pair]
            self._file.write(b"".join([_MARK, *parts, _SET_ITEMS]))
        self._file.write(_STOP)


def save_dict(pairs: Iterable[tuple[str, Any]], path: Path) -> None:
    """Writes what ``torch.save(dict(pairs), path)`` would, in bounded memory.

    Lists of Python numbers take nine times the memory of their floats; a corpus of them as one
    object would need gigabytes.

    Args:
        pairs: keys, all different, and values of plain Python data.
        path: the file.
    """
    import torch

    module = SimpleNamespace(Pickler=_EntryPickler, dump=pickle.dump, __name__="pickle")
    # torch's older format goes straight to the file; the newer one makes it in memory first.
    torch.save(
        pairs, path, pickle_module=module, pickle_protocol=2, _use_new_zipfile_serialization=False
    )

"""One NumPy file for each utterance and speaker."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.export.formats.format import FileFormat


class Npy(FileFormat):
    """A float32 array (D,) that ``numpy.load(path)`` reads."""

    users = "anything with NumPy"
    extension = ".npy"

    def content(self, vector: NDArray[np.float32]) -> bytes:
        """The file of one (D,) embedding."""
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(vector, dtype=np.float32), allow_pickle=False)
        return file.getvalue()

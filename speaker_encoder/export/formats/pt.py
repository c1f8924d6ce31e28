"""The original's form: ``torch.save`` of a (1, D) tensor beside the audio."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.export.formats.format import FileFormat


class Pt(FileFormat):
    """A CPU float32 tensor (1, D) that ``torch.load(path, weights_only=True)`` reads."""

    users = "FastSpeech2 and other code that does torch.load(path)[0]"
    extension = ""

    def content(self, vector: NDArray[np.float32]) -> bytes:
        """The file of one (D,) embedding."""
        import torch

        file = io.BytesIO()
        torch.save(torch.from_numpy(np.array(vector[None], dtype=np.float32)), file)
        return file.getvalue()

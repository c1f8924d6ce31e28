"""How corpora lie on disk; a new layout is one file and one line of ``LAYOUTS``."""

from speaker_encoder.corpora.layouts.cmu_arctic import CmuArctic
from speaker_encoder.corpora.layouts.folders import Folders
from speaker_encoder.corpora.layouts.hugging_face import HuggingFace
from speaker_encoder.corpora.layouts.kaldi import Kaldi
from speaker_encoder.corpora.layouts.layout import Candidate, Collected, Layout, ScanRequest
from speaker_encoder.corpora.layouts.librispeech import LibriSpeech
from speaker_encoder.corpora.layouts.libritts import LibriTTS
from speaker_encoder.corpora.layouts.list_file import ListFile
from speaker_encoder.corpora.layouts.sessions import Sessions
from speaker_encoder.corpora.layouts.vctk import Vctk
from speaker_encoder.corpora.layouts.voxceleb import VoxCeleb
from speaker_encoder.corpora.layouts.webdataset import WebDataset

# In the order in which they are tried when the layout is "auto": the ones with names of their
# own first, the two that fit any folder last.
LAYOUTS: dict[str, type[Layout]] = {
    "list": ListFile,
    "kaldi": Kaldi,
    "webdataset": WebDataset,
    "huggingface": HuggingFace,
    "vctk": Vctk,
    "cmu_arctic": CmuArctic,
    "voxceleb": VoxCeleb,
    "libritts": LibriTTS,
    "librispeech": LibriSpeech,
    "sessions": Sessions,
    "folders": Folders,
}

__all__ = ["LAYOUTS", "Candidate", "Collected", "Layout", "ScanRequest"]

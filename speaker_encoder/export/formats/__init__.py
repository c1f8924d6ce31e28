"""The forms in which embeddings are written; a new one is one file and one line of ``FORMATS``."""

from speaker_encoder.export.formats.coqui import Coqui
from speaker_encoder.export.formats.cosyvoice import CosyVoice
from speaker_encoder.export.formats.format import EmbeddingTable, FileFormat, Format, TableFormat
from speaker_encoder.export.formats.kaldi import Kaldi
from speaker_encoder.export.formats.npy import Npy
from speaker_encoder.export.formats.parquet import Parquet
from speaker_encoder.export.formats.pt import Pt
from speaker_encoder.export.formats.safetensors_file import Safetensors
from speaker_encoder.export.formats.speecht5 import SpeechT5

FORMATS: dict[str, Format] = {
    "pt": Pt(),
    "npy": Npy(),
    "safetensors": Safetensors(),
    "parquet": Parquet(),
    "kaldi": Kaldi(),
    "coqui": Coqui(),
    "cosyvoice": CosyVoice(),
    "speecht5": SpeechT5(),
}

__all__ = ["FORMATS", "EmbeddingTable", "FileFormat", "Format", "TableFormat"]

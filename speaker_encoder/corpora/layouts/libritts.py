"""LibriTTS and LibriTTS-R."""

import re

from speaker_encoder.corpora.layouts.librispeech import LibriSpeech


class LibriTTS(LibriSpeech):
    """``speaker/chapter/file`` as LibriSpeech, with other file names and texts beside them."""

    file_name = re.compile(r"\d+_\d+_\d+_\d+\.")

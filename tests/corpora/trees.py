"""Small corpora on disk for every layout."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

SECOND = np.sin(np.arange(16_000) / 20).astype(np.float32) / 4


def write_tree(root: Path, names: list[str], num_samples: int = 800) -> Path:
    """Writes a short recording for each audio name, and a line of text for all others."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".wav", ".flac"):
            soundfile.write(path, SECOND[:num_samples], 16_000)
        else:
            path.write_text("Please call Stella.")
    return root


def make_old(root: Path) -> None:
    """Dates all files back: what was changed a moment ago is not cached."""
    for folder, _, names in os.walk(root):
        for name in names:
            os.utime(os.path.join(folder, name), (1_700_000_000, 1_700_000_000))


@dataclass(frozen=True)
class LayoutExample:
    """A tree of a layout, and what a scan of it gives.

    Attributes:
        files: what is on disk.
        expected: utterance_id -> (speaker_id, session_id).
        excluded: name -> reason.
    """

    files: tuple[str, ...]
    expected: dict[str, tuple[str, str | None]]
    excluded: dict[str, str]


EXAMPLES = {
    "folders": LayoutExample(
        ("ann/1.wav", "ann/2.flac", "bob/1.wav", "ann/deep/3.wav", "loose.wav", "bob/1.txt"),
        {"ann/1": ("ann", None), "ann/2": ("ann", None), "bob/1": ("bob", None)},
        {"ann/deep/3.wav": "deeper than speaker/file",
         "loose.wav": "not in the folder of a speaker"},
    ),
    "sessions": LayoutExample(
        ("ann/mon/1.wav", "ann/tue/1.wav", "bob/mon/1.wav", "bob/mon/x/2.wav", "loose.wav"),
        {"ann/mon/1": ("ann", "mon"), "ann/tue/1": ("ann", "tue"), "bob/mon/1": ("bob", "mon")},
        {"bob/mon/x/2.wav": "deeper than speaker/session/file",
         "loose.wav": "not in the folder of a session"},
    ),
    "vctk": LayoutExample(
        ("wav48_silence_trimmed/p225/p225_001_mic1.flac",
         "wav48_silence_trimmed/p225/p225_001_mic2.flac",
         "wav48_silence_trimmed/p315/p315_002_mic2.flac",
         "wav48_silence_trimmed/log.txt", "txt/p225/p225_001.txt",
         "wav48/p225/p225_001.wav"),
        {"wav48_silence_trimmed/p225/p225_001_mic1": ("p225", None),
         "wav48_silence_trimmed/p315/p315_002_mic2": ("p315", None)},
        {"wav48_silence_trimmed/p225/p225_001_mic2.flac":
            "another microphone of the same sentence",
         "wav48/p225/p225_001.wav": "another copy of what wav48_silence_trimmed holds"},
    ),
    "libritts": LayoutExample(
        ("train-clean-100/103/1240/103_1240_000000_000001.wav",
         "train-clean-100/103/1240/103_1240_000000_000001.normalized.txt",
         "dev-clean/84/121123/84_121123_000007_000001.wav", "speakers.tsv"),
        {"train-clean-100/103/1240/103_1240_000000_000001": ("103", "1240"),
         "dev-clean/84/121123/84_121123_000007_000001": ("84", "121123")},
        {},
    ),
    "librispeech": LayoutExample(
        ("103/1240/103-1240-0000.flac", "103/1240/103-1240.trans.txt",
         "103/1241/103-1241-0000.flac", "84/121123/84-121123-0001.flac", "84/notes.wav"),
        {"103/1240/103-1240-0000": ("103", "1240"), "103/1241/103-1241-0000": ("103", "1241"),
         "84/121123/84-121123-0001": ("84", "121123")},
        {"84/notes.wav": "not in the folder of a speaker's chapter"},
    ),
    "voxceleb": LayoutExample(
        ("dev/wav/id10001/1zcIwhmdeo4/00001.wav", "dev/wav/id10001/7gWzIy6yIIk/00001.wav",
         "test/wav/id10270/5r0dWxy17C8/00001.wav", "vox1_meta.csv", "dev/wav/id10001/x.wav"),
        {"dev/wav/id10001/1zcIwhmdeo4/00001": ("id10001", "1zcIwhmdeo4"),
         "dev/wav/id10001/7gWzIy6yIIk/00001": ("id10001", "7gWzIy6yIIk"),
         "test/wav/id10270/5r0dWxy17C8/00001": ("id10270", "5r0dWxy17C8")},
        {"dev/wav/id10001/x.wav": "not in a folder idNNNNN/video"},
    ),
    "cmu_arctic": LayoutExample(
        ("cmu_us_bdl_arctic/wav/arctic_a0001.wav", "cmu_us_bdl_arctic/orig/arctic_a0001.wav",
         "cmu_us_slt_arctic-0.95-release/wav/arctic_a0001.wav", "cmu_us_slt_arctic/etc/txt.done"),
        {"cmu_us_bdl_arctic/wav/arctic_a0001": ("bdl", None),
         "cmu_us_slt_arctic-0.95-release/wav/arctic_a0001": ("slt", None)},
        {"cmu_us_bdl_arctic/orig/arctic_a0001.wav": "not in the folder wav of its database"},
    ),
}  # fmt: skip

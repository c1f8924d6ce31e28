"""Writes the files of a Hugging Face Space: the page, this package, and the encoder."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.verification.thresholds import Threshold

REQUIREMENTS = (
    "torch",
    "torchaudio",
    "transformers",
    "speechbrain",
    "numpy",
    "soundfile",
    "soxr",
    "av",
    "safetensors",
    "huggingface_hub",
    "pyyaml",
    "tqdm",
    "matplotlib",
    "scipy",
)
"""What the page imports; Gradio's own version stands in the Space's header."""
MODEL_DIR = "model"
_PYTHON = "3.11"

_README = """\
---
title: {title}
emoji: 🗣️
colorFrom: blue
colorTo: gray
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
pinned: false
{license}---

Compare two recordings, or enrol speakers and identify one of them, with the speaker encoder
`{name}`. Written by `speaker-encoder demo --space`.
"""

_APP = '''\
"""The page of a Hugging Face Space; `python app.py` shows it on this machine."""

from pathlib import Path

from speaker_encoder import SpeakerEncoder
from speaker_encoder.demo.page import build_page
from speaker_encoder.verification.thresholds import Threshold

encoder = SpeakerEncoder.from_pretrained({model})
threshold = {threshold}
demo = build_page(encoder, {name}, threshold)

if __name__ == "__main__":
    demo.launch(ssr_mode=False, max_file_size="50mb", footer_links=[])
'''
_ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def write_space(
    encoder: SpeakerEncoder,
    folder: str | Path,
    name: str,
    *,
    hub_id: str | None = None,
    threshold: Threshold | None = None,
) -> list[str]:
    """Writes a Space.

    Args:
        encoder: The encoder.
        folder: New or empty.
        name: What the page calls the encoder.
        hub_id: Where the Space finds the encoder on the Hub; None: it is copied into the Space.
        threshold: Where the page's slider starts.

    Returns:
        What stands in the folder.

    Raises:
        UserError: the folder is not empty, a package is missing, or the head is untrained.
    """
    folder = Path(folder).expanduser()
    refuse_folder(folder)
    encoder.refuse_untrained_head()
    license_name = encoder.config.source_license
    texts = {
        "README.md": _README.format(
            title=_title(name),
            gradio=_version("gradio"),
            python=_PYTHON,
            license=f"license: {license_name}\n" if license_name else "",
            name=name,
        ),
        "app.py": _APP.format(
            model=_quoted(hub_id) if hub_id else f'Path(__file__).parent / "{MODEL_DIR}"',
            threshold=_call(threshold),
            name=_quoted(name),
        ),
        "requirements.txt": "".join(f"{one}=={_version(one)}\n" for one in REQUIREMENTS),
        ".gitattributes": _ATTRIBUTES,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, text in texts.items():
        (folder / file_name).write_text(text, encoding="utf-8")
    package = Path(__file__).resolve().parents[1]
    shutil.copytree(
        package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    if hub_id is None:
        encoder.save_pretrained(folder / MODEL_DIR)
    return sorted(path.name for path in folder.iterdir())


def refuse_folder(folder: Path) -> None:
    """Checks that a Space may be written to a folder.

    Raises:
        UserError: it may not.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder. Give a new one for the Space.")


def _version(package: str) -> str:
    """Gives the version that runs here, as a registry has it.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError as error:
        raise UserError(
            f"A Space names the versions that run here, but {package} is not installed. "
            "Install it: pip install 'speaker-encoder[demo]'"
        ) from error


def _title(name: str) -> str:
    words = re.sub(r"[^\w.-]+", " ", name.rsplit("/", 1)[-1]).strip()
    return f"Who is speaking - {words}" if words else "Who is speaking"


def _quoted(text: str) -> str:
    """A Python literal that holds any text."""
    return repr(text)


def _call(threshold: Threshold | None) -> str:
    if threshold is None:
        return "None"
    return f"Threshold({float(threshold.value)!r}, {_quoted(threshold.source)})"

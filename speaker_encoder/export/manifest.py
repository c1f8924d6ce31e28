"""``embeddings.manifest.json``: what the embeddings beside it were made with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from speaker_encoder import __version__
from speaker_encoder.errors import UserError
from speaker_encoder.export.files import write_bytes_atomically

MANIFEST_NAME = "embeddings.manifest.json"
_VERSION = 1
_DEFAULTS_SINCE = {"space": "own", "engine": "torch"}
"""Of settings that embeddings of before they were there did not name."""
_PACKAGES = ("torch", "transformers", "speechbrain", "onnxruntime", "numpy", "soundfile", "soxr")


@dataclass(frozen=True)
class Provenance:
    """What embeddings are made with.

    Attributes:
        model: as ``model.describe_model``.
        embedding_settings: what an utterance's embedding depends on beside model and audio.
        speaker_settings: what a speaker's depends on beside its utterances'.
    """

    model: dict[str, Any]
    embedding_settings: dict[str, Any]
    speaker_settings: dict[str, Any]

    @property
    def identity(self) -> str:
        """One word for all that an utterance's embedding depends on beside the audio."""
        settings = {
            name: value
            for name, value in self.embedding_settings.items()
            if (name, value) not in _DEFAULTS_SINCE.items()
        }
        content = [self.model["weights_sha256"], settings]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def as_entry(self) -> dict[str, Any]:
        """The manifest's entry of a model, as far as it is known before anything is computed."""
        return {
            "model": self.model,
            "embedding": {
                **self.embedding_settings,
                "normalization": "L2, each utterance",
                "tensor": "float32",
            },
            "speakers": self.speaker_settings,
            "identity": self.identity,
        }


def package_versions() -> dict[str, str]:
    """Versions of the packages that an embedding may depend on."""
    found = {"speaker-encoder": __version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """The entries of a manifest, by model; empty where there is none.

    Raises:
        UserError: it is damaged, or of a newer version.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content["models"]
        is_known = content["version"] == _VERSION and isinstance(entries, dict)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}). Move it away, or give --overwrite in another "
            "--output_dir."
        ) from error
    if not is_known:
        raise UserError(f"{path} was written by another version. Give another --output_dir.")
    return entries


def write_entry(folder: Path, tag: str, entry: dict[str, Any]) -> None:
    """Puts one model's entry into the manifest; the caller holds the folder's lock."""
    entries = {**read_manifest(folder), tag: entry}
    content = {"version": _VERSION, "models": dict(sorted(entries.items()))}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_bytes_atomically(folder / MANIFEST_NAME, text.encode("utf-8", "surrogateescape"))


def refuse_other(
    folder: Path, tag: str, entry: dict[str, Any] | None, new: Provenance, overwrite: bool
) -> None:
    """Checks that what is there may be gone on with.

    Raises:
        UserError: it was made by another model or with other options, and must not be overwritten.
    """
    if entry is None or overwrite:
        return
    old_model = entry["model"]
    differences = [
        f"{name}: there {old_model.get(name)!r}, now {new.model[name]!r}"
        for name in ("checkpoint", "weights_sha256")
        if old_model.get("weights_sha256") != new.model["weights_sha256"]
        and old_model.get(name) != new.model[name]
    ]
    old_settings = {**_DEFAULTS_SINCE, **entry["embedding"], **entry["speakers"]}
    for name, value in {**new.embedding_settings, **new.speaker_settings}.items():
        if old_settings.get(name) != value:
            differences.append(f"{name}: there {old_settings.get(name)!r}, now {value!r}")
    if differences:
        raise UserError(
            f"{folder} already has {tag} embeddings of another model or of other options:\n  "
            + "\n  ".join(differences)
            + "\nGive --overwrite to replace them, another --output_dir to keep both, or the "
            "options they were made with to go on."
        )

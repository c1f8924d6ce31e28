"""The map from a fine-tuned encoder's embeddings to those of the encoder it started from."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from speaker_encoder.errors import UserError
from speaker_encoder.export.files import write_bytes_atomically
from speaker_encoder.export.model import model_folder, weights_digest
from speaker_encoder.modeling.sources import SPACE_NAME
from speaker_encoder.verification.procrustes import orthogonality_error

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

ORTHOGONALITY_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class PretrainedSpace:
    """A rotation from one encoder's space to another's.

    Attributes:
        rotation: (D, D) float32, orthogonal; an embedding (D,) is mapped to `embedding @ rotation`.
        weights_sha256: of the encoder whose embeddings are mapped, as `model.weights_digest`.
        pretrained_sha256: of the encoder to whose space they are mapped.
    """

    rotation: NDArray[np.float32]
    weights_sha256: str
    pretrained_sha256: str

    def map(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps embeddings; norms, and cosines among what is mapped, stay as they are.

        Args:
            embeddings: (..., D) of utterances, or plain or normalised means of them.

        Returns:
            (..., D) float32.
        """
        wide = np.asarray(embeddings, dtype=np.float64) @ self.rotation.astype(np.float64)
        return wide.astype(np.float32)

    @property
    def sha256(self) -> str:
        """Tells one map from another."""
        return hashlib.sha256(self.rotation.astype("<f4").tobytes()).hexdigest()

    def settings(self) -> dict[str, str]:
        """What a manifest says of it, beside that embeddings are mapped."""
        return {"space_sha256": self.sha256, "space_of_weights_sha256": self.pretrained_sha256}

    def save(self, folder: Path) -> None:
        """Writes it into a model's folder, whole or not at all."""
        from safetensors.numpy import save

        facts = {"mapped": self.weights_sha256, "pretrained": self.pretrained_sha256}
        # One text alone: safetensors writes several in an order of chance.
        content = save(
            {"rotation": np.ascontiguousarray(self.rotation, dtype=np.float32)},
            metadata={"weights_sha256": json.dumps(facts)},
        )
        write_bytes_atomically(folder / SPACE_NAME, content)


def has_space(folder: Path) -> bool:
    """Is there a map in a model's folder."""
    return (folder / SPACE_NAME).exists()


def load_space(
    name: str | os.PathLike[str], encoder: SpeakerEncoder, **hub_options: Any
) -> PretrainedSpace:
    """Gives the map that came with an encoder.

    Args:
        name: the same as to `SpeakerEncoder.from_pretrained`, or the folder of a run.
        encoder: loaded from there.
        **hub_options: as to `from_pretrained`, such as ``revision``.

    Raises:
        UserError: there is none, or it is not of this encoder.
    """
    return read_space(model_folder(os.fspath(name), **hub_options), encoder)


def read_space(folder: Path, encoder: SpeakerEncoder) -> PretrainedSpace:
    """Reads the map of a model's folder; nothing in the file is trusted.

    Args:
        folder: of the model.
        encoder: loaded from it.

    Raises:
        UserError: there is none, it is damaged or no rotation of D dimensions, or it belongs to
            other weights.
    """
    path = folder / SPACE_NAME
    if not path.is_file():
        raise UserError(
            f"There is no {SPACE_NAME} in {folder}: this model has no map to the space of an "
            "encoder that it was fine-tuned from. A run that starts from a pretrained encoder "
            "leaves one in its model/ when it ends; give that run as --checkpoint. For another "
            "model it is made from Python, see docs/tts-space.md. Or leave --space out."
        )
    space = _parsed(path, encoder.embedding_dim)
    digest = weights_digest(encoder)
    if space.weights_sha256 != digest:
        raise UserError(
            f"{path} belongs to other weights ({space.weights_sha256[:12]}...) than the model "
            f"beside it ({digest[:12]}...). Copy the map that came with the model, or delete it."
        )
    return space


def _parsed(path: Path, embedding_dim: int) -> PretrainedSpace:
    """Reads a map's file.

    Raises:
        UserError: it is none.
    """
    from safetensors import SafetensorError, safe_open

    def refused(problem: str) -> UserError:
        return UserError(
            f"{path} is no map of {embedding_dim}-dimensional embeddings: {problem}. Copy it anew, "
            "or delete it."
        )

    try:
        with safe_open(path, "np") as file:
            names = list(file.keys())
            if names != ["rotation"]:
                raise refused(f"wanted the tensor 'rotation' alone, found {names[:5]}")
            view = file.get_slice("rotation")
            shape, dtype = view.get_shape(), view.get_dtype()
            if shape != [embedding_dim] * 2 or dtype != "F32":
                raise refused(f"its rotation has shape {shape} and type {dtype}")
            rotation = file.get_tensor("rotation")
            facts = json.loads((file.metadata() or {})["weights_sha256"])
            digests = [facts["mapped"], facts["pretrained"]]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise refused(f"it cannot be read ({type(error).__name__}: {error})") from error
    if not all(isinstance(digest, str) for digest in digests):
        raise refused("it does not say whose embeddings it maps")
    if not np.isfinite(rotation).all():
        raise refused("it holds numbers that are not finite")
    worst = orthogonality_error(rotation)
    if worst > ORTHOGONALITY_TOLERANCE:
        raise refused(f"its rotation is not orthogonal, max |R R^T - I| is {worst:.2g}")
    return PretrainedSpace(rotation, *digests)

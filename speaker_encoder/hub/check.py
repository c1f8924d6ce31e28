"""Reads a folder back in a fresh process, with every loader it is for, and compares embeddings.

`python -m speaker_encoder.hub.check REQUEST.npz ANSWER.npz` is the fresh process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speaker_encoder.errors import UserError
from speaker_encoder.hub.upstream_forms import TRANSFORMERS_SUBFOLDER, upstream_form

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speaker_encoder.modeling import SpeakerEncoder

TOLERANCE = 1e-5
"""Largest difference of a component of an L2-normalised embedding."""
BFLOAT16_TOLERANCE = 1e-2
"""Largest cosine distance where weights are stored as bfloat16."""
_SECONDS = (1.0, 2.35, 4.1)
_OWN = "SpeakerEncoder.from_pretrained"
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_PASSED_ON = re.compile(
    r"(PATH|HOME|USERPROFILE|SYSTEMROOT|TMPDIR|TEMP|TMP|LANG|LC_\w+|VIRTUAL_ENV|CONDA_PREFIX"
    r"|(DY)?LD_LIBRARY_PATH|PYTHON\w+|(OMP|MKL|KMP|OPENBLAS)_\w+)",
    re.IGNORECASE,
)
"""Variables that a Python process may need; whatever else is set may be a secret."""

Waveforms = list[np.ndarray]


def check_utterances(
    sampling_rate: int, least: int, seconds: Sequence[float] = _SECONDS
) -> Waveforms:
    """Gives waveforms that sound like speech to a model: harmonics with pauses, and noise.

    Args:
        sampling_rate: Hz.
        least: samples of the shortest that the model takes.
        seconds: length of each.

    Returns:
        (T,) float32 in [-1, 1], one for each length; the same on every machine.
    """
    generator = np.random.default_rng(20)
    waveforms = []
    for number, length in enumerate(seconds):
        time = np.arange(max(int(length * sampling_rate), least)) / sampling_rate
        pitch = 110 * (1.35**number) * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time))
        phase = 2 * np.pi * np.cumsum(pitch) / sampling_rate
        voice = sum(np.sin(k * phase) / k for k in range(1, 20))
        level = 0.25 * np.clip(np.sin(2 * np.pi * 1.9 * time) + 0.6, 0, 1)
        noise = 0.005 * generator.standard_normal(len(time))
        waveforms.append((0.3 * level * voice + noise).astype(np.float32))
    return waveforms


def check_contents(
    encoder: SpeakerEncoder,
    folder: Path,
    is_bfloat16: bool = False,
    *,
    subfolder: str = TRANSFORMERS_SUBFOLDER,
) -> dict[str, float]:
    """Checks that every form in a folder, read by a fresh process, gives the encoder's embeddings.

    Args:
        encoder: what is in memory, on the CPU, in eval mode.
        folder: what will be uploaded, or handed to other software.
        is_bfloat16: its weights are stored as bfloat16.
        subfolder: where in it transformers' form of a WavLM lies.

    Returns:
        Loader -> largest difference of a component of an embedding.

    Raises:
        UserError: a form cannot be loaded, or gives other embeddings.
    """
    waveforms = check_utterances(encoder.sampling_rate, encoder.min_num_samples)
    wanted = np.stack(
        [encoder.encode(waveform, allow_untrained_head=True)[0].numpy() for waveform in waveforms]
    )
    differences = {}
    found = _read_back(folder, encoder.config.encoder_kind, subfolder, waveforms)
    for form, embeddings in found.items():
        if embeddings.shape != wanted.shape:
            raise _differs(form, f"their shape is {embeddings.shape}, not {wanted.shape}")
        differences[form] = float(np.abs(embeddings - wanted).max())
        distance = float((1 - (embeddings * wanted).sum(axis=1)).max())
        is_same = distance <= BFLOAT16_TOLERANCE if is_bfloat16 else differences[form] <= TOLERANCE
        if not is_same:  # true for NaN too
            raise _differs(
                form,
                f"largest difference {differences[form]:.2g}, largest cosine distance "
                f"{distance:.2g}",
            )
    return differences


def _differs(form: str, what: str) -> UserError:
    return UserError(
        f"Nothing was published or kept: read back from disk with {form}, the model gives other "
        f"embeddings than in memory ({what}). Its files are not what they should be; please "
        "report this."
    )


def _read_back(
    folder: Path, encoder_kind: str, subfolder: str, waveforms: Waveforms
) -> dict[str, NDArray]:
    """Gives loader -> (N, D) embeddings, from a fresh process without network and secrets.

    Raises:
        UserError: the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="speaker_encoder_check_") as place:
        request, answer = Path(place) / "request.npz", Path(place) / "answer.npz"
        names = {f"waveform{number}": waveform for number, waveform in enumerate(waveforms)}
        about = json.dumps([str(folder.resolve()), encoder_kind, subfolder])
        np.savez(request, about=np.array(about), **names)  # type: ignore[arg-type]
        done = subprocess.run(
            [sys.executable, "-m", "speaker_encoder.hub.check", str(request), str(answer)],
            env=_environment(place),
            cwd=place,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode != 0 or not answer.is_file():
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            raise UserError(
                "Nothing was published or kept: the files could not be read back by a fresh "
                f"process: {lines[-1]}"
            )
        with np.load(answer) as found:
            return {name: found[name] for name in found.files}


def _environment(place: str) -> dict[str, str]:
    """The environment of the fresh process: no network, no secret, no cache, no graphics card."""
    paths = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
    return {
        **{name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)},
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONWARNINGS": "ignore",
        "HF_HOME": place,  # neither `hf auth login`'s token nor another model's files
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def embed_forms(
    folder: str | Path,
    encoder_kind: str,
    waveforms: Waveforms,
    subfolder: str = TRANSFORMERS_SUBFOLDER,
) -> dict[str, NDArray]:
    """Loads a folder with each loader that is promised to, and embeds.

    Args:
        folder: as it will be a repository; or the name of a repository.
        encoder_kind: family of the encoder.
        waveforms: (T,) float32 each.
        subfolder: where in it transformers' form of a WavLM lies.

    Returns:
        Loader -> (N, D) float32, rows L2-normalised.
    """
    from speaker_encoder import SpeakerEncoder

    encoder = SpeakerEncoder.from_pretrained(folder)
    forms = {_OWN: _embed_own(encoder)}
    if encoder_kind == "ecapa":
        for name in ("EncoderClassifier", "SpeakerRecognition"):
            forms[f"SpeechBrain's {name}.from_hparams"] = _embed_speechbrain(folder, name)
    if upstream_form(encoder.config) == "transformers":
        embed = _embed_transformers(folder, subfolder)
        forms["transformers' WavLMForXVector.from_pretrained"] = embed
    return {name: _normalised([embed(w) for w in waveforms]) for name, embed in forms.items()}


Embed = Callable[[np.ndarray], np.ndarray]


def _embed_own(encoder: SpeakerEncoder) -> Embed:
    return lambda waveform: encoder.encode(waveform, allow_untrained_head=True)[0].numpy()


def _embed_speechbrain(folder: str | Path, class_name: str) -> Embed:
    import torch
    from speechbrain import inference

    model = getattr(inference, class_name).from_hparams(source=str(folder))

    def embed(waveform: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model.encode_batch(torch.from_numpy(waveform)[None])[0, 0].numpy()

    return embed


def _embed_transformers(folder: str | Path, subfolder: str) -> Embed:
    import torch
    from transformers import AutoFeatureExtractor, WavLMForXVector

    where: dict[str, Any] = {"subfolder": subfolder}
    model = WavLMForXVector.from_pretrained(folder, **where).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder, **where)

    def embed(waveform: np.ndarray) -> np.ndarray:
        rate = extractor.sampling_rate
        inputs = extractor(waveform, sampling_rate=rate, return_tensors="pt")
        with torch.no_grad():
            return model(inputs.input_values).embeddings[0].numpy()

    return embed


def _normalised(rows: list[np.ndarray]) -> NDArray:
    embeddings = np.stack(rows).astype(np.float32)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def main(request: Path, answer: Path) -> int:
    """Is the fresh process; gives its exit code."""
    with np.load(request) as asked:
        folder, encoder_kind, subfolder = json.loads(str(asked["about"]))
        waveforms = [asked[name] for name in asked.files if name.startswith("waveform")]
    try:
        found = embed_forms(folder, encoder_kind, waveforms, subfolder)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    np.savez(answer, **found)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

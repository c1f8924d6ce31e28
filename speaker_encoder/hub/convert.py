"""An encoder on disk in the form of another library, read back before it is called done."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from speaker_encoder.errors import UserError

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

_ONNX_README = """\
# {name} as ONNX

A speaker encoder: waveforms in, L2-normalised embeddings out. The score of two utterances is the
dot product of their embeddings.

```python
import numpy
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession("model.onnx")
waveform, sampling_rate = soundfile.read("a.wav", dtype="float32")  # mono
assert sampling_rate == {sampling_rate}
batch = waveform[None]
inputs = {{"input_values": batch, "attention_mask": numpy.ones(batch.shape, "int32")}}
(embeddings,) = session.run(["embeddings"], inputs)  # (1, {embedding_dim})
```

- `input_values`: (B, T) float32 in [-1, 1], mono, {sampling_rate} Hz, any B and T; pad behind the
  end of the shorter utterances.
- `attention_mask`: (B, T) int32, 1 for samples, 0 for padding. The padding does not change an
  embedding.
- The shortest utterance is {min_num_samples} samples; the graph does not check it. Embed what is
  much longer than a minute as the mean over windows, as `SpeakerEncoder.encode` does.
"""


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        folder: Where.
        files: Names of the files in it.
        checks: What was compared, a line for each.
    """

    folder: Path
    files: tuple[str, ...]
    checks: tuple[str, ...]


def convert(
    encoder: SpeakerEncoder,
    form: str,
    folder: str | Path,
    *,
    repo_id: str | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Writes an encoder in another form; the folder gets its files only when they are right.

    Args:
        encoder: The encoder.
        form: A name of ``FORMS``.
        folder: Made if need be.
        repo_id: Of the Hub repository that the folder becomes, where the form names it.
        overwrite: Also write into a folder that is not empty.

    Returns:
        What was written and compared.

    Raises:
        UserError: an unknown form, one that the encoder's family does not have, a folder that is
            not empty, or embeddings that are not the encoder's.
    """
    from speaker_encoder.export.files import staged_files

    refuse_before_loading(form, folder, overwrite)
    folder = Path(folder).expanduser()
    try:
        with staged_files(folder) as staging:
            checks = FORMS[form](encoder, staging, repo_id)
            files = tuple(sorted(path.name for path in staging.iterdir()))
    except UserError:
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing was in it before
        raise
    return Conversion(folder, files, tuple(checks))


def refuse_before_loading(form: str, folder: str | Path, overwrite: bool = False) -> None:
    """Checks what needs no encoder.

    Raises:
        UserError: as ``convert``.
    """
    folder = Path(folder).expanduser()
    if form not in FORMS:
        nearest = difflib.get_close_matches(form, FORMS, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(f"Unknown form {form!r}.{hint} Known: {', '.join(FORMS)}.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Give the folder to write.")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder} is not empty. Give another folder, or --overwrite to replace the files of "
            "the same names in it."
        )
    if form == "onnx":
        from speaker_encoder.hub.onnx import refuse_missing_packages

        refuse_missing_packages()


def _to_speechbrain(encoder: SpeakerEncoder, folder: Path, repo_id: str | None) -> list[str]:
    from speaker_encoder.hub.upstream_forms import write_speechbrain_form

    encoder.refuse_untrained_head()
    write_speechbrain_form(encoder, folder, repo_id)
    return _read_back(encoder, folder)


def _to_transformers(encoder: SpeakerEncoder, folder: Path, repo_id: str | None) -> list[str]:
    from speaker_encoder.hub.upstream_forms import write_transformers_form

    encoder.refuse_untrained_head()
    write_transformers_form(encoder, folder)
    return _read_back(encoder, folder)


def _read_back(encoder: SpeakerEncoder, folder: Path) -> list[str]:
    """Compares what a fresh process reads with what was written.

    Raises:
        UserError: the embeddings are not the same.
    """
    from speaker_encoder.hub.check import check_contents

    found = check_contents(encoder, folder, subfolder="")
    return [
        f"read back with {loader}: largest difference {value:.1e}"
        for loader, value in found.items()
    ]


def _to_onnx(encoder: SpeakerEncoder, folder: Path, repo_id: str | None) -> list[str]:
    from speaker_encoder.hub.onnx import write_onnx

    checks = write_onnx(encoder, folder)
    text = _ONNX_README.format(
        name=repo_id or encoder.config.base_model_name or encoder.config.encoder_kind,
        sampling_rate=encoder.sampling_rate,
        embedding_dim=encoder.embedding_dim,
        min_num_samples=encoder.min_num_samples,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    rate = encoder.sampling_rate
    return [
        f"{len(check.num_samples)} x {', '.join(f'{n / rate:.2f}' for n in check.num_samples)} s: "
        f"largest difference {check.difference:.1e}"
        for check in checks
    ]


FORMS: dict[str, Callable[[SpeakerEncoder, Path, str | None], list[str]]] = {
    "speechbrain": _to_speechbrain,
    "transformers": _to_transformers,
    "onnx": _to_onnx,
}
"""Form -> what writes it into a folder and says what it compared."""

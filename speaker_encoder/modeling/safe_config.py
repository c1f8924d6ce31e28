"""Refuses what a folder of others must not hold: settings that run code, or that nobody knows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speaker_encoder.errors import UserError
from speaker_encoder.modeling.configuration import SpeakerEncoderConfig

EXECUTABLE_KEYS = frozenset(
    {
        "auto_map",
        "custom_pipelines",
        "quantization_config",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "use_kernels",
        "kernel_config",
    }
)
"""Settings of transformers that name code to be fetched or run, or another way to load."""
LARGEST_NUMBER = 65_536
"""Of an architecture."""
_OF_TRANSFORMERS = frozenset(
    {
        "model_type",
        "torch_dtype",
        "output_attentions",
        "tie_word_embeddings",
        "use_cache",
        "_name_or_path",
    }
)
"""Settings that transformers itself adds to what it saves, its Trainer among them."""


def refuse_unsafe_config(config: dict[str, Any], path: Path) -> None:
    """Checks a ``config.json`` before anything of it is used.

    Args:
        config: what it holds.
        path: of it, for the error.

    Raises:
        UserError: it holds a setting that could run code; or, one of our own, an unknown one.
    """
    executable = sorted(EXECUTABLE_KEYS.intersection(config))
    if executable:
        raise UserError(
            f"{path} is refused: it has the setting {executable[0]!r}, which makes a loader fetch "
            "or run code. A speaker encoder needs none. Nothing of it was loaded."
        )
    if config.get("model_type") != SpeakerEncoderConfig.model_type:
        return
    known = {field.name for field in dataclasses.fields(SpeakerEncoderConfig)} | _OF_TRANSFORMERS
    unknown = sorted(set(config) - known)
    if unknown:
        raise UserError(
            f"{path} is refused: it has the unknown setting {unknown[0]!r}. Nothing of it was "
            "loaded. A newer speaker-encoder may know it; update the package, or take the "
            "repository from another publisher."
        )
    if isinstance(config.get("encoder_config"), dict):
        refuse_giants(config["encoder_config"], str(path))


def refuse_giants(encoder_config: dict[str, Any], where: str) -> None:
    """Checks that no number of an architecture is so large that building it fills the memory.

    Args:
        encoder_config: plain data.
        where: it was found, for the error.

    Raises:
        UserError: one is.
    """
    for name, value in encoder_config.items():
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(n, (int, float)) and abs(n) > LARGEST_NUMBER for n in numbers):
            raise UserError(
                f"{where}: {name} has a number beyond {LARGEST_NUMBER}, which no speaker encoder "
                "needs."
            )


def refuse_adapters(folder: Path) -> None:
    """Checks that a folder is no adapter: loaders then fetch another model, which it names.

    Raises:
        UserError: it is one.
    """
    if (folder / "adapter_config.json").exists():
        raise adapter_refused(folder)


def adapter_refused(folder: Path) -> UserError:
    """Gives the error for a folder, or a repository, that is an adapter."""
    return UserError(
        f"{folder / 'adapter_config.json'} is refused: it makes a loader fetch another model and "
        "put an adapter into it. A speaker encoder needs none. Nothing of the folder was loaded."
    )


@contextmanager
def explained_damage(folder: Path) -> Iterator[None]:
    """Says what is wrong where a folder's settings or weights make its library fail.

    Raises:
        UserError: they do.
    """
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError) as error:
        raise _damaged(folder, error) from error
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: BaseException) -> UserError:
    lines = str(error).strip().splitlines() or [""]
    return UserError(
        f"{folder} cannot be loaded ({type(error).__name__}: {lines[0][:300]}). Its settings or "
        "weights are damaged, or were made to do harm: copy it again from where it was published."
    )


def refuse_outside_shards(folder: Path) -> None:
    """Checks that an index of weights names files of its own folder only.

    Raises:
        UserError: a name leads elsewhere, or the index is damaged.
    """
    path = folder / "model.safetensors.index.json"
    if not path.is_file():
        return
    try:
        names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        outside = sorted(name for name in names if Path(name).name != name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}. Copy the folder again.") from error
    if outside:
        raise UserError(
            f"{path} is refused: it names the file {outside[0]!r}, which leads out of its folder. "
            "Nothing of it was loaded."
        )

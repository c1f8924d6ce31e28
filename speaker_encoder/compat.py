"""Makes torchaudio's native extension optional.

The torchaudio wheel of the package index is built against one CUDA build of torch. Beside any
other torch, a CPU build for one, its native extension cannot be loaded and ``import torchaudio``
fails, and with it ``import speechbrain``, ``import torch_audiomentations`` and transformers' audio
code. None of what they use here needs that extension. An import hook therefore lets the
extension fail and declares it absent, which is what torchaudio itself does in a build without it.
A torchaudio whose extension loads is left as it is. This package never uses torchaudio itself.
"""

import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Sequence
from types import ModuleType

EXTENSION_MODULE = "torchaudio._extension"

_logger = logging.getLogger(__name__)


def _unavailable(function: object) -> object:
    """Stands for torchaudio's ``fail_if_no_align`` decorator: the call fails, not the import."""

    def fail(*_args: object, **_keywords: object) -> None:
        raise RuntimeError("This function needs torchaudio's native extension, which did not load.")

    return fail


class _OptionalExtensionLoader(importlib.abc.Loader):
    """Runs the real ``torchaudio._extension`` and forgives it when it cannot load."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self._loader.exec_module(module)
        except (OSError, RuntimeError, ImportError) as error:
            _logger.debug("torchaudio's native extension did not load: %s", error)
            vars(module).update(
                _IS_TORCHAUDIO_EXT_AVAILABLE=False,
                _IS_ALIGN_AVAILABLE=False,
                _check_cuda_version=lambda: None,
                fail_if_no_align=_unavailable,
            )


class _OptionalExtensionFinder(importlib.abc.MetaPathFinder):
    """Finds only ``torchaudio._extension``; every other import passes by."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != EXTENSION_MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _OptionalExtensionLoader(spec.loader)
        return spec


def make_torchaudio_extension_optional() -> None:
    """Installs the import hook once; it costs nothing until torchaudio is imported."""
    if not any(isinstance(finder, _OptionalExtensionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OptionalExtensionFinder())

"""Faster matrix products for inference on a CPU, and memory that is used again.

torch gives linear layers to the BLAS it is built with, and on one thread the convolutions of
kernel size 1 too; oneDNN, which is part of torch as well, multiplies them up to twice as fast. The
other convolutions without padding are written as products too, which need no copy of the weights.
Only the order of summation differs.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_FEWEST_FACTORS = 64
"""A product of fewer factors per sum is no faster than a convolution."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets this process use the memory of freed tensors again instead of asking for new pages.

    glibc gives blocks of more than 32 MB back to the system as soon as they are freed; the next
    layer's tensor is then new memory, which the system fills with zeros first. That is a tenth of
    the time of WavLM on 15 s, and of a training step of ECAPA. Call it before threads start. Does
    nothing with another C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    # Older versions refuse more than half of a heap, and any later call stops them from choosing.
    if not (mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 1 << 25)):
        return
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(_M_ARENA_MAX, 1)  # the others hold no block of more than 64 MB


def give_back_freed_memory() -> None:
    """Gives the memory of freed tensors back to the system, also what lies between others.

    Does nothing with another C library than glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def fast_cpu_inference(device: torch.device) -> AbstractContextManager[Any]:
    """Gives a context in which this thread's float32 inference on a CPU is faster.

    Args:
        device: where the inference runs; on anything but a CPU the context does nothing.
    """
    return _OneDnn() if device.type == "cpu" and has_one_dnn() else nullcontext()


def has_one_dnn() -> bool:
    """Says if torch has oneDNN's products here."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
    )


class _OneDnn(TorchFunctionMode):
    """Sends what oneDNN does better to oneDNN, and nothing while gradients are wanted."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        special = None if torch.is_grad_enabled() else _SPECIAL.get(func)
        result = None if special is None else special(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if result is None else result


def _linear(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor | None:
    if not _is_plain(input, weight, bias):
        return None
    return product(input, weight, bias)


def _conv1d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor | None:
    channels, kernel_size = weight.shape[1:]
    stride, dilation = _only(stride), _only(dilation)
    is_product = (
        input.ndim == 3
        and groups == 1
        and (padding == "valid" or _only(padding) == 0)
        and channels * kernel_size >= _FEWEST_FACTORS
        and input.shape[2] > (kernel_size - 1) * dilation
        and _is_plain(input, weight, bias)
    )
    if not is_product:
        return None
    # The weights as the left factor: neither side is transposed, and no weight is copied.
    factors = weight.flatten(1)
    products = [product(factors, _columns(row, kernel_size, stride, dilation).t()) for row in input]
    rows = products[0][None] if len(products) == 1 else torch.stack(products)
    return rows if bias is None else rows.add_(bias[:, None])


def _columns(row: torch.Tensor, kernel_size: int, stride: int, dilation: int) -> torch.Tensor:
    """Gives (C K, T') columns: what the kernel covers at each of its places in (C, T)."""
    if kernel_size == 1 and stride == 1:
        return row
    num_places = (row.shape[1] - (kernel_size - 1) * dilation - 1) // stride + 1
    of_channel, of_time = row.stride()
    view = row.as_strided(
        (row.shape[0], kernel_size, num_places),
        (of_channel, dilation * of_time, stride * of_time),
        row.storage_offset(),
    )
    return view.reshape(-1, num_places).contiguous()


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, (tuple, list)) else value


def _pad(input: torch.Tensor, pad: Any, *_: Any, **__: Any) -> torch.Tensor | None:
    """A padding by nothing need not copy."""
    return None if any(pad) else input


_SPECIAL: dict[Any, Callable[..., torch.Tensor | None]] = {
    functional.linear: _linear,
    functional.conv1d: _conv1d,
    functional.pad: _pad,
}


def product(
    rows: torch.Tensor, columns: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Gives (..., M) = (..., N) times the transpose of (M, N), plus (M,); float32, no gradients."""
    return _multiply(_dense(rows), _dense(columns), bias)


class PackedLinear:
    """A linear layer whose weights oneDNN need not bring into its own order every time.

    Args:
        weight: (M, N) float32, of which a copy is kept.
        bias: (M,).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self._bias = bias

    def __call__(self, rows: torch.Tensor, activation: str = "none") -> torch.Tensor:
        """Gives (T, M) of (T, N) rows; the activation is "none" or "relu". No gradients."""
        return _multiply(rows.contiguous(), self._weight, self._bias, activation)


def _multiply(
    rows: torch.Tensor, columns: torch.Tensor, bias: torch.Tensor | None, activation: str = "none"
) -> torch.Tensor:
    multiplied: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        rows, columns, bias, activation, [], ""
    )
    return multiplied


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """oneDNN takes a matrix or its transpose, but not one with gaps."""
    is_dense = tensor.is_contiguous() or (tensor.ndim == 2 and tensor.t().is_contiguous())
    return tensor if is_dense else tensor.contiguous()


def _is_plain(*tensors: torch.Tensor | None) -> bool:
    return all(
        tensor is None
        or (
            type(tensor) in (torch.Tensor, torch.nn.Parameter)
            and tensor.dtype == torch.float32
            and tensor.device.type == "cpu"
            and tensor.numel() > 0
        )
        for tensor in tensors
    ) and not torch.is_autocast_enabled("cpu")

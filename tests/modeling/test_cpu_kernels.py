"""The faster products give what torch's own give."""

from __future__ import annotations

import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from speaker_encoder.modeling import cpu_kernels
from speaker_encoder.modeling.cpu_kernels import fast_cpu_inference

CPU = torch.device("cpu")


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 16, 64, 96]),
    outputs=st.integers(1, 40),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    padding=st.sampled_from([0, (0,), 2, "valid"]),
    has_bias=st.booleans(),
    is_transposed=st.booleans(),
    extra=st.integers(0, 50),
)
def test_conv1d(
    batch, channels, outputs, kernel, stride, dilation, padding, has_bias, is_transposed, extra
):
    generator = torch.Generator().manual_seed(extra)
    length = (kernel - 1) * dilation + 1 + extra
    if is_transposed:
        x = torch.randn(batch, length, channels, generator=generator).transpose(1, 2)
    else:
        x = torch.randn(batch, channels, length, generator=generator)
    weight = torch.randn(outputs, channels, kernel, generator=generator)
    bias = torch.randn(outputs, generator=generator) if has_bias else None
    options = {"stride": stride, "dilation": dilation, "padding": padding}
    expected = functional.conv1d(x, weight, bias, **options)
    with torch.inference_mode(), fast_cpu_inference(CPU):
        found = functional.conv1d(x, weight, bias, **options)
    assert found.shape == expected.shape
    size = functional.conv1d(x.abs(), weight.abs(), None, **options).max() + 1
    assert (found - expected).abs().max() < 2e-6 * size


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=0, max_size=3),
    has_bias=st.booleans(),
    layout=st.sampled_from(["plain", "every other", "transposed weights", "expanded"]),
)
def test_linear(shape, has_bias, layout):
    x, weight = torch.randn(*shape, 33), torch.randn(7, 33)
    if layout == "every other":
        x, weight = torch.randn(*shape, 66)[..., ::2], torch.randn(14, 66)[::2, ::2]
    elif layout == "transposed weights":
        weight = torch.randn(33, 7).t()
    elif layout == "expanded":
        x, weight = torch.randn(33).expand(*shape, 33), torch.randn(33).expand(7, 33)
    bias = torch.randn(7) if has_bias else None
    with torch.no_grad(), fast_cpu_inference(CPU):
        found = functional.linear(x, weight, bias)
    expected = functional.linear(x, weight, bias)
    assert found.shape == expected.shape
    # Of the sum of magnitudes: what cancels in a sum leaves its rounding behind.
    size = functional.linear(x.abs(), weight.abs()).max() + 1
    assert (found - expected).abs().max() < 2e-6 * size


def test_gradients_are_torch_s_own():
    """While gradients are wanted nothing is replaced: the replacement has none."""
    layer = torch.nn.Linear(70, 5)
    with fast_cpu_inference(CPU):
        layer(torch.randn(2, 70)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_torch_s_own(dtype, monkeypatch):
    x, weight = torch.randn(1, 64, 9, dtype=dtype), torch.randn(4, 64, 1, dtype=dtype)
    expected = functional.conv1d(x, weight), functional.linear(x.mT, weight[..., 0])
    with torch.inference_mode(), fast_cpu_inference(CPU):
        monkeypatch.setattr(cpu_kernels, "_multiply", None)
        found = functional.conv1d(x, weight), functional.linear(x.mT, weight[..., 0])
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype and torch.equal(one, other)


def test_autocast_still_casts():
    x, weight = torch.randn(2, 64), torch.randn(4, 64)
    with torch.inference_mode(), fast_cpu_inference(CPU), torch.autocast("cpu", torch.bfloat16):
        assert functional.linear(x, weight).dtype == torch.bfloat16


def test_too_short_an_input_is_torch_s_own_error():
    with torch.inference_mode(), fast_cpu_inference(CPU), pytest.raises(RuntimeError, match="size"):
        functional.conv1d(torch.randn(1, 64, 3), torch.randn(2, 64, 5))


@pytest.mark.parametrize("largest", [1 << 31, 1 << 25, 0])
def test_freed_memory_is_kept_by_older_glibc_too(monkeypatch, largest):
    asked = []

    def mallopt(option: int, value: int) -> int:
        asked.append(option)
        return int(option != cpu_kernels._M_MMAP_THRESHOLD or value <= largest)

    monkeypatch.setattr(cpu_kernels.platform, "libc_ver", lambda: ("glibc", "2.28"))
    monkeypatch.setattr(
        cpu_kernels.ctypes, "CDLL", lambda _: types.SimpleNamespace(mallopt=mallopt)
    )
    cpu_kernels.keep_freed_memory()
    refused = {1 << 31: 0, 1 << 25: 1, 0: 2}[largest]
    assert asked[: refused + 1].count(cpu_kernels._M_MMAP_THRESHOLD) == min(refused + 1, 2)
    assert (cpu_kernels._M_TRIM_THRESHOLD in asked) == bool(largest)

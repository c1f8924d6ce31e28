"""Embeddings in float32 are those of float32 on every device."""

import numpy as np
import pytest
import torch

from speaker_encoder import SpeakerEncoder
from speaker_encoder.modeling.precision import full_float32


def precisions() -> list[str]:
    cudnn = torch.backends.cudnn
    switches = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
    return [switch.fp32_precision for switch in switches]


def test_a_cuda_device_multiplies_float32_and_is_left_as_it_was():
    before = precisions()
    with full_float32(torch.device("cpu")):
        assert precisions() == before
    with pytest.raises(KeyError), full_float32(torch.device("cuda")):
        assert precisions() == ["ieee"] * 3 != before
        raise KeyError
    assert precisions() == before
    assert torch.backends.cudnn.allow_tf32  # torch refuses to tell where the two differ


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["ecapa", "wavlm-base", "dvector"])
def test_a_gpu_gives_the_embeddings_of_a_cpu(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)
    encoder = SpeakerEncoder.from_name(name, pretrained=name == "dvector").eval()
    generator = np.random.default_rng(0)
    waveforms = [
        generator.standard_normal(length).astype(np.float32) / 10
        for length in (16000, 48000, 30000)
    ]
    expected = encoder.encode(waveforms, batch_size=1)
    encoder.to("cuda")
    for batch_size in (1, 3):
        found = encoder.encode(waveforms, batch_size=batch_size)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

"""SpecAugment: where the masks are, and that they are a function of (seed, position)."""

import numpy as np
import pytest
import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.modeling import SpeakerEncoder
from speaker_encoder.training.spec_augment import MaskSizes, SpecAugment

SIZES = MaskSizes(time_masks=2, time_frames=12, mel_masks=1, mel_bands=6)


class Features(nn.Module):
    """Ones in the place of a spectrogram."""

    def __init__(self, mel_axis):
        super().__init__()
        self.mel_axis = mel_axis

    def forward(self, batch):
        shape = (batch, 40, 101) if self.mel_axis == 1 else (batch, 101, 40)
        return torch.ones(shape)


def masked(positions, seed=0, mel_axis=2, sizes=SIZES):
    """(B, T', F) of 1, and 0 where it is masked."""
    network = nn.Sequential(Features(mel_axis))
    masks = SpecAugment(sizes, seed)
    masks.attach(network, "name")
    masks.positions = torch.tensor(positions)
    found = network(len(positions))
    return found if mel_axis == 2 else found.transpose(1, 2)


def runs(is_masked):
    """Lengths of the runs of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_masked, [0]])))
    return (edges[1::2] - edges[::2]).tolist()


def test_masks_are_whole_frames_and_whole_bands_of_bounded_width():
    found = masked(list(range(400))).numpy()
    widths, places = [], []
    for example in found:
        frames = (example == 0).all(axis=1)
        bands = (example == 0).all(axis=0)
        expected = np.ones_like(example)
        expected[frames] = 0
        expected[:, bands] = 0
        np.testing.assert_array_equal(example, expected)
        assert len(runs(frames)) <= 2 and sum(runs(frames)) <= 24
        assert len(runs(bands)) <= 1
        widths += runs(bands) or [0]
        places += np.flatnonzero(bands).tolist()
    # uniform from 0 to 6: mean 3, standard deviation 2, of 400
    assert abs(np.mean(widths) - 3) < 4 * 2 / 400**0.5
    assert set(widths) == set(range(7)) and set(places) == set(range(40))


def test_the_masks_of_an_example_are_the_same_in_every_batch():
    together = masked([5, 9, 2**40, 7])
    for row, position in enumerate([5, 9, 2**40, 7]):
        assert torch.equal(masked([position])[0], together[row])
    assert torch.equal(masked([5, 9, 2**40, 7], mel_axis=1), together)
    assert not torch.equal(masked([5, 9, 2**40, 7], seed=1), together)


def test_only_training_batches_are_masked_and_gradients_pass():
    network = nn.Sequential(nn.Linear(1, 1), nn.Sequential(Features(2)))
    masks = SpecAugment(SIZES, 0)
    masks.attach(network[1], "name")
    assert network[1](2).all()  # no positions are known
    masks.positions = torch.tensor([1, 2])
    assert not network[1](2).all()
    network.eval()
    assert network[1](2).all()


@pytest.mark.parametrize("name", ["ecapa", "resnetse34l"])
def test_encoders_with_mel_features(name):
    config = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 24}
    encoder = SpeakerEncoder.from_name(name, False, config if name == "ecapa" else None)
    waveforms = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    masks = SpecAugment(MaskSizes(2, 30, 1, 20), seed=3)
    before = encoder(waveforms).embeddings
    masks.attach(encoder.backbone, name)
    masks.positions = torch.tensor([0, 1])
    assert torch.equal(encoder(waveforms).embeddings, before)
    encoder.train()
    encoder.freeze_batch_norm()
    difference = (encoder(waveforms).embeddings - before).abs().amax(dim=1)
    assert (difference > 1e-4).all()


def test_an_encoder_of_waveforms_has_nothing_to_mask():
    with pytest.raises(UserError, match="the wavlm encoder has no mel spectrogram"):
        SpecAugment(SIZES, 0).attach(nn.Linear(1, 1), "wavlm")

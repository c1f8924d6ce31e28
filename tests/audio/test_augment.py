"""Augmentation: the library's mathematics, and the same bits in every batch."""

import pickle
import time

import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from torch.utils.data import DataLoader

from speaker_encoder.audio.augment import AugmentConfig, Augmenter

SAMPLING_RATE = 16000


def write_recordings(folder, count, seconds, seed, decay=None):
    """Writes white noise, decaying where it is an impulse response."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        num_samples = int(seconds * SAMPLING_RATE * (1 + number / 7))
        samples = random.normal(0, 0.1, num_samples)
        if decay:
            samples *= np.exp(-np.arange(num_samples) / decay)
            samples[number * 3] = 0.9  # the direct sound
        soundfile.write(folder / f"{number}.flac", samples.clip(-1, 1), SAMPLING_RATE)
    return (str(folder),)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("augment")
    return {
        "noise_paths": write_recordings(root / "noise", 4, 0.7, 1),
        "music_paths": write_recordings(root / "music", 3, 3.0, 2),
        "reverb_paths": write_recordings(root / "rooms", 4, 0.2, 3, decay=500),
    }


@pytest.fixture(scope="module")
def augmenter(folders):
    return Augmenter(AugmentConfig(**folders), SAMPLING_RATE, seed=7)


def speech_like(batch, num_samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, num_samples, generator=generator) * 0.1


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    positions=st.lists(st.integers(0, 2**40), min_size=1, max_size=6),
    num_samples=st.sampled_from([1, 400, 16000, 32001, 70000]),
    place=st.integers(0, 5),
    threads=st.sampled_from([1, 2]),
)
def test_an_example_is_augmented_alike_in_every_batch(
    augmenter, positions, num_samples, place, threads
):
    place %= len(positions)
    waveforms = speech_like(len(positions), num_samples, seed=num_samples)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        together = augmenter(waveforms, torch.tensor(positions))
        assert torch.get_num_threads() == threads
        torch.set_num_threads(3 - threads)
        one = slice(place, place + 1)
        alone = augmenter(waveforms[one].clone(), torch.tensor(positions[one]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together[one], alone)
    assert together.shape == waveforms.shape and together.dtype == torch.float32
    assert torch.isfinite(together).all()


class Augmented:
    """Augments in the collate function, as training does."""

    def __init__(self, augmenter):
        self.augmenter = augmenter

    def __call__(self, examples):
        positions = torch.tensor(examples)
        waveforms = torch.cat([speech_like(1, 40000, seed=number) for number in examples])
        return self.augmenter(waveforms, positions)


def test_workers_and_batch_sizes_do_not_matter(augmenter):
    def through(num_workers, batch_size):
        loader = DataLoader(
            range(12),
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=Augmented(augmenter),
        )
        return torch.cat(list(loader))

    expected = through(0, 12)
    assert torch.equal(through(2, 3), expected)
    assert torch.equal(through(0, 5), expected)


def test_pickled_and_built_again_it_is_the_same(augmenter, folders):
    waveforms, positions = speech_like(4, 8000), torch.arange(4)
    expected = augmenter(waveforms, positions)
    again = pickle.loads(pickle.dumps(augmenter))  # noqa: S301
    assert torch.equal(again(waveforms, positions), expected)
    rebuilt = Augmenter(AugmentConfig(**folders), SAMPLING_RATE, seed=7)
    assert torch.equal(rebuilt(waveforms, positions), expected)


def test_seed_and_position_change_it_and_the_input_stays(augmenter, folders):
    waveforms = speech_like(1, 8000).repeat(8, 1)
    kept = waveforms.clone()
    augmented = augmenter(waveforms, torch.arange(8))
    assert torch.equal(waveforms, kept)
    assert len({row.numpy().tobytes() for row in augmented}) > 4
    other = Augmenter(AugmentConfig(**folders), SAMPLING_RATE, seed=8)
    assert not torch.equal(other(waveforms, torch.arange(8)), augmented)
    assert not torch.equal(augmenter(waveforms, torch.arange(8) + 100), augmented)


@pytest.mark.parametrize("kind", ["noise", "music"])
def test_signal_to_noise_ratios_and_how_often(folders, kind):
    config = AugmentConfig(**{f"{kind}_paths": folders[f"{kind}_paths"]})
    augmenter = Augmenter(config, SAMPLING_RATE)
    waveforms = speech_like(1000, 1600)
    added = augmenter(waveforms, torch.arange(1000)) - waveforms
    changed = added.abs().amax(dim=1) > 0
    # 0.6 within 4 standard deviations of a binomial of 1000
    assert abs(changed.float().mean().item() - 0.6) < 4 * (0.6 * 0.4 / 1000) ** 0.5
    power = waveforms.square().mean(dim=1) / added.square().mean(dim=1)
    ratios = 10 * torch.log10(power[changed])
    assert ratios.min() >= 10 - 0.01 and ratios.max() <= 15 + 0.01
    assert ratios.min() < 10.3 and ratios.max() > 14.7
    assert abs(ratios.mean().item() - 12.5) < 0.3


def test_kinds_are_drawn_independently(folders):
    everything = Augmenter(AugmentConfig(**folders), SAMPLING_RATE)
    waveforms, positions = speech_like(200, 400), torch.arange(200)
    alone = {}
    for kind in ("noise", "music", "reverb"):
        config = AugmentConfig(**{f"{kind}_paths": folders[f"{kind}_paths"]})
        changed = Augmenter(config, SAMPLING_RATE)(waveforms, positions) != waveforms
        alone[kind] = changed.any(dim=1)
    untouched = ~(alone["noise"] | alone["music"] | alone["reverb"])
    together = (everything(waveforms, positions) == waveforms).all(dim=1)
    assert torch.equal(together, untouched)
    assert 0.4**3 * 200 / 3 < untouched.sum() < 0.4**3 * 200 * 3


def test_reverb_equals_a_plain_convolution_without_its_delay(tmp_path):
    response = np.zeros(3000)
    response[100], response[700], response[2500] = 0.8, -0.4, 0.2
    soundfile.write(tmp_path / "room.wav", response, SAMPLING_RATE, subtype="FLOAT")
    config = AugmentConfig(reverb_paths=(str(tmp_path),), reverb_p=1.0)
    waveforms = speech_like(2, 5000)
    found = Augmenter(config, SAMPLING_RATE)(waveforms, torch.arange(2))
    for waveform, reverberated in zip(waveforms, found, strict=True):
        expected = np.convolve(waveform.double().numpy(), response)[100 : 100 + 5000]
        np.testing.assert_allclose(reverberated.numpy(), expected, atol=1e-6)


def test_silence_stays_finite(augmenter):
    augmented = augmenter(torch.zeros(30, 4000), torch.arange(30))
    assert torch.equal(augmented, torch.zeros(30, 4000))


def test_empty_batches_and_no_kinds(augmenter):
    assert augmenter(torch.zeros(0, 100), torch.zeros(0, dtype=torch.int64)).shape == (0, 100)
    waveforms = speech_like(2, 100)
    nothing = Augmenter(AugmentConfig(noise_paths=("/not/there",), noise_p=0.0), SAMPLING_RATE)
    assert torch.equal(nothing(waveforms, torch.arange(2)), waveforms)


def test_real_noise_music_and_rooms(data_dir):
    config = AugmentConfig(
        (str(data_dir / "noise"),), (str(data_dir / "music"),), (str(data_dir / "rirs"),)
    )
    augmenter = Augmenter(config, SAMPLING_RATE)
    assert {kind: len(bank) for kind, bank in augmenter.banks.items()} == {
        "noise": 18,
        "music": 5,
        "impulse responses": 27,
    }
    waveforms, positions = speech_like(48, 32000), torch.arange(48)
    augmenter(waveforms, positions)
    start = time.process_time()
    augmented = augmenter(waveforms, positions)
    assert time.process_time() - start < 1.0  # 0.1 s on a free core
    assert torch.isfinite(augmented).all()


@pytest.mark.gpu
def test_on_a_gpu_batches_do_not_matter_either(folders):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    augmenter = Augmenter(AugmentConfig(**folders), SAMPLING_RATE, device="cuda", seed=7)
    on_cpu = Augmenter(AugmentConfig(**folders), SAMPLING_RATE, seed=7)
    waveforms, positions = speech_like(8, 32000).cuda(), torch.arange(8)
    together = augmenter(waveforms, positions)
    assert together.device == waveforms.device
    for row in range(8):
        alone = augmenter(waveforms[row : row + 1], positions[row : row + 1])
        assert torch.equal(alone[0], together[row])
    torch.testing.assert_close(
        together.cpu(), on_cpu(waveforms.cpu(), positions), atol=1e-4, rtol=0
    )

"""Which kinds of augmentation come together, how often, and in which order."""

import numpy as np
import pytest
import soundfile
import torch

from speaker_encoder.audio.augment import AugmentConfig, Augmenter

RATE = 16000
COUNT = 600


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Hums for noise and music, and for a room an echo that doubles the level."""
    root = tmp_path_factory.mktemp("kinds")
    seconds = np.arange(RATE) / RATE
    found = {}
    for name, waveform in {
        "noise": 0.1 * np.sin(2 * np.pi * 1000 * seconds),
        "music": 0.1 * np.sin(2 * np.pi * 3000 * seconds),
        "reverb": np.concatenate([[0.5], np.zeros(49), [0.25]]),
    }.items():
        soundfile.write(root / f"{name}.wav", waveform, RATE, subtype="FLOAT")
        found[f"{name}_paths"] = (str(root / f"{name}.wav"),)
    return found


def example(num_samples=1600):
    return np.random.default_rng(0).normal(0, 0.1, num_samples).astype(np.float32)


def augment(config, count=COUNT):
    waveforms = torch.from_numpy(example()).repeat(count, 1)
    return Augmenter(config, RATE)(waveforms, torch.arange(count)).numpy()


def echo(waveform):
    """The room of `paths`, whose direct sound has no delay."""
    later = np.concatenate([np.zeros(50), waveform[:-50]])
    return 0.5 * waveform + 0.25 * later


def hums(waveform, clean):
    """Which hums are in what was added to a waveform."""
    power = np.abs(np.fft.rfft(waveform - clean)) ** 2
    frequencies = np.fft.rfftfreq(len(clean), 1 / RATE)
    return {
        name
        for name, hertz in (("noise", 1000), ("music", 3000))
        if power[np.abs(frequencies - hertz) < 30].sum() > 0.1 * power.sum()
    }


def kinds_of(augmented):
    """What was done to an example, for policies in which the room comes before the hums."""
    clean = example()
    if np.array_equal(augmented, clean):
        return set()
    inverse = np.linalg.lstsq(np.stack([clean, echo(clean)], axis=1), augmented, rcond=None)[0]
    has_room = abs(inverse[1]) > 0.5
    base = echo(clean) if has_room else clean
    if np.allclose(augmented, base, atol=1e-5):
        return {"reverb"}
    return hums(augmented, base) | ({"reverb"} if has_room else set())


def assert_frequency(count, probability):
    """Within four standard deviations of a binomial."""
    spread = 4 * (COUNT * probability * (1 - probability)) ** 0.5
    assert abs(count - COUNT * probability) < spread, (count, COUNT * probability)


def test_one_of_gives_one_kind_or_none_with_the_same_chance(paths):
    config = AugmentConfig(**paths, noise_p=0.1, policy="one_of", noise_snr_db=(0.0, 0.0))
    done = [kinds_of(augmented) for augmented in augment(config)]
    assert {len(kinds) for kinds in done} == {0, 1}
    for kinds in (set(), {"noise"}, {"music"}, {"reverb"}):
        assert_frequency(done.count(kinds), 1 / 4)


def test_stacked_gives_a_room_and_then_one_background(paths):
    config = AugmentConfig(**paths, reverb_p=0.5, noise_p=0.6, music_p=0.2, policy="stacked")
    done = [kinds_of(augmented) for augmented in augment(config)]
    assert not any({"noise", "music"} <= kinds for kinds in done)
    assert_frequency(sum("reverb" in kinds for kinds in done), 0.5)
    assert_frequency(sum("noise" in kinds for kinds in done), 0.6 * 3 / 4)
    assert_frequency(sum("music" in kinds for kinds in done), 0.6 / 4)
    assert_frequency(sum({"noise", "reverb"} == kinds for kinds in done), 0.5 * 0.6 * 3 / 4)


def test_stacked_mixes_behind_the_room_and_each_in_front_of_it(paths):
    options = {**paths, "music_paths": (), "noise_p": 1.0, "reverb_p": 1.0}
    noise_alone = AugmentConfig(noise_paths=paths["noise_paths"], noise_p=1.0)
    clean = example()
    for policy, expected in (
        ("each", [echo(noisy) for noisy in augment(noise_alone, 5)]),
        ("stacked", [echo(clean)] * 5),
    ):
        found = augment(AugmentConfig(**options, policy=policy), 5)
        for row, base in zip(found, expected, strict=True):
            if policy == "each":
                np.testing.assert_allclose(row, base, atol=1e-6)
            else:
                ratio = 10 * np.log10(np.mean(base**2) / np.mean((row - base) ** 2))
                assert 9.99 < ratio < 15.01 and hums(row, base) == {"noise"}


def test_the_second_half_of_the_views_is_shifted_and_the_first_never():
    config = AugmentConfig(pitch_semitones=(3.0, 3.0), num_views=4)
    augmented = augment(config, 12)
    is_changed = [not np.array_equal(row, example()) for row in augmented]
    assert is_changed == [False, False, True, True] * 3

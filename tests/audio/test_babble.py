"""Babble: whose voices are in it, how loud, and never the example's own."""

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from speaker_encoder.audio.augment import AugmentConfig, Augmenter
from speaker_encoder.audio.voice_bank import load_voices
from speaker_encoder.errors import UserError

RATE = 16000
NUM_SPEAKERS, PER_SPEAKER = 10, 3
SECOND = np.arange(RATE) / RATE


def hertz(speaker):
    return 200 * (speaker + 1)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Each speaker hums a note: the spectrum says who is heard. Utterance i is of i // 3."""
    root = tmp_path_factory.mktemp("hums")
    found = []
    for speaker in range(NUM_SPEAKERS):
        for number in range(PER_SPEAKER):
            path = root / f"{speaker}_{number}.wav"
            hum = 0.01 * (number + 1) * np.sin(2 * np.pi * hertz(speaker) * SECOND)
            soundfile.write(path, hum, RATE, subtype="FLOAT")
            found.append((str(path), f"speaker{speaker}"))
    return found


def make(recordings, **options):
    config = AugmentConfig(babble_p=1.0, **options)
    most = config.babble_voices[1]
    voices = load_voices(recordings, (), RATE, most_voices=most, seed=3)
    return Augmenter(config, RATE, seed=3, voices=voices)


def levels(waveform):
    """RMS of each speaker's note in one second."""
    amplitudes = np.abs(np.fft.rfft(waveform)) / (RATE / 2)
    return np.array([amplitudes[hertz(speaker)] for speaker in range(NUM_SPEAKERS)]) / np.sqrt(2)


def examples(count):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, RATE, generator=generator) * 0.1


def test_who_is_heard_and_how_loud(recordings):
    augmenter = make(recordings, babble_voices=(3, 7), babble_snr_db=(13.0, 20.0))
    waveforms, positions = examples(120), torch.arange(120)
    utterances = positions % len(recordings)
    added = augmenter(waveforms, positions, utterances) - waveforms
    counts, ratios = [], []
    for waveform, babble, utterance in zip(waveforms, added, utterances.tolist(), strict=True):
        found = levels(babble.numpy())
        heard = np.flatnonzero(found > 1e-4)
        assert utterance // PER_SPEAKER not in heard
        counts.append(len(heard))
        level = float(waveform.square().mean().sqrt())
        ratios += list(20 * np.log10(level / found[heard]))
        # nothing else is in it
        assert babble.square().mean().item() == pytest.approx(np.square(found).sum(), rel=1e-3)
    assert set(counts) == {3, 4, 5, 6, 7}
    assert min(ratios) > 12.99 and max(ratios) < 20.01
    assert min(ratios) < 13.3 and max(ratios) > 19.7


def test_a_single_voice_has_the_ratio_of_the_whole(recordings):
    augmenter = make(recordings, babble_voices=(1, 1), babble_snr_db=(7.0, 7.0))
    waveforms, positions = examples(6), torch.arange(6)
    added = augmenter(waveforms, positions, positions) - waveforms
    ratio = 10 * torch.log10(waveforms.square().mean(1) / added.square().mean(1))
    torch.testing.assert_close(ratio, torch.full((6,), 7.0), atol=1e-3, rtol=0)


def test_voices_of_folders_need_no_utterance(recordings):
    paths = [path for path, _ in recordings[::PER_SPEAKER]]
    voices = load_voices([], paths, RATE, most_voices=2)
    augmenter = Augmenter(AugmentConfig(babble_p=1.0, babble_voices=(2, 2)), RATE, voices=voices)
    added = augmenter(examples(1), torch.arange(1)) - examples(1)
    assert (levels(added[0].numpy()) > 1e-4).sum() == 2
    with pytest.raises(ValueError, match="needs to know each example's utterance"):
        make(recordings)(examples(1), torch.arange(1))


def test_the_bank_is_bounded_and_has_one_of_each_speaker_first(recordings):
    voices = load_voices(recordings, (), RATE, most_voices=5, max_seconds=45.0)
    assert sorted(voices.speakers.tolist()) == list(range(NUM_SPEAKERS))
    assert len(voices.bank.samples) <= 45 * RATE
    assert voices.owners.tolist() == [u // PER_SPEAKER for u in range(len(recordings))]
    again = load_voices(recordings, (), RATE, most_voices=5, max_seconds=45.0)
    np.testing.assert_array_equal(again.bank.samples, voices.bank.samples)
    other = load_voices(recordings, (), RATE, most_voices=5, max_seconds=45.0, seed=1)
    assert other.bank.paths != voices.bank.paths


def test_too_few_speakers(recordings):
    message = "needs voices of 8 speakers, found 2. Lower augment_babble_voices"
    with pytest.raises(UserError, match=message):
        load_voices(recordings[: 2 * PER_SPEAKER], (), RATE, most_voices=7)


class Collate:
    """Augments in the loader's processes, as training does."""

    def __init__(self, augmenter):
        self.augmenter = augmenter

    def __call__(self, numbers):
        positions = torch.tensor(numbers)
        waveforms = torch.stack([examples(24)[number] for number in numbers])
        return self.augmenter(waveforms, positions, positions)


@pytest.mark.parametrize("policy", ["each", "one_of", "stacked"])
def test_with_all_kinds_workers_and_batches_do_not_matter(recordings, policy):
    paths = tuple(path for path, _ in recordings[:4])
    augmenter = make(
        recordings,
        noise_paths=paths,
        music_paths=paths,
        reverb_paths=paths,
        pitch_p=0.5,
        codec_p=0.5,
        policy=policy,
        num_views=4,
    )
    assert augmenter.kinds == ("pitch", "music", "noise", "babble", "reverb", "codec")

    def through(num_workers, batch_size):
        loader = DataLoader(
            range(24), batch_size, num_workers=num_workers, collate_fn=Collate(augmenter)
        )
        return torch.cat(list(loader))

    expected = through(0, 24)
    assert torch.equal(through(1, 5), expected)
    assert torch.equal(through(2, 4), expected)

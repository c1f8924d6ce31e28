"""Crops: functions of (seed, position), from usable files only."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_encoder.audio.trim import trim_silence
from speaker_encoder.corpora import scan
from speaker_encoder.training.dataset import CollateCrops, CropDataset
from speaker_encoder.training.sampler import ExampleKey, SpeakerBatchSampler, group_by_speaker
from speaker_encoder.training.speech import SpeechReader

RATE = 16000


def write(path, waveform, rate=RATE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate, **options)


def make_dataset(root, window=(1.0, 1.0), batch_size=6, short="repeat", seed=0):
    utterances = scan(root, "folders", use_cache=False).utterances
    speakers = group_by_speaker(utterances)
    return CropDataset(utterances, speakers, RATE, window, batch_size, short, seed)


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """Files whose samples say where in the file they are."""
    root = tmp_path_factory.mktemp("ramps")
    for speaker in "ab":
        for number in range(3):
            length = RATE * (number + 2)
            ramp = np.arange(1, length + 1, dtype=np.float32) / (RATE * 8)
            write(root / speaker / f"{number}.wav", ramp, subtype="FLOAT")
    return root


@settings(max_examples=50, deadline=None)
@given(position=st.integers(0, 10_000), utterance=st.integers(0, 5), seed=st.integers(0, 99))
def test_a_crop_is_a_function_of_seed_and_position(ramps, position, utterance, seed):
    dataset = make_dataset(ramps, window=(0.5, 1.5), seed=seed)
    crop = dataset[ExampleKey(utterance, position)]
    again = make_dataset(ramps, window=(0.5, 1.5), seed=seed)[ExampleKey(utterance, position)]
    np.testing.assert_array_equal(crop.waveform, again.waveform)
    assert 0.5 * RATE <= len(crop.waveform) <= 1.5 * RATE
    np.testing.assert_allclose(np.diff(crop.waveform), 1 / (RATE * 8), atol=1e-6)
    assert crop.label == utterance // 3


def test_the_length_is_drawn_once_for_each_batch(ramps):
    dataset = make_dataset(ramps, window=(0.5, 1.5), batch_size=6)
    lengths = [[dataset.num_samples(6 * batch + i) for i in range(6)] for batch in range(20)]
    assert all(len(set(batch)) == 1 for batch in lengths)
    assert len({batch[0] for batch in lengths}) > 10


def test_crops_start_everywhere(ramps):
    dataset = make_dataset(ramps)
    starts = np.array(
        [dataset[ExampleKey(2, position)].waveform[0] * RATE * 8 for position in range(400)]
    )
    assert starts.min() < 0.05 * RATE * 3 and starts.max() > 0.95 * RATE * 3
    assert abs(np.median(starts) - 1.5 * RATE) < 0.3 * RATE


def test_short_utterances_are_repeated_or_centred(tmp_path):
    ramp = np.arange(1, RATE // 2 + 1, dtype=np.float32) / RATE
    for name in ("a/0.wav", "a/1.wav"):
        write(tmp_path / name, ramp, subtype="FLOAT")
    repeated = make_dataset(tmp_path)[ExampleKey(0, 0)].waveform
    np.testing.assert_allclose(repeated, np.tile(ramp, 2))
    padded = make_dataset(tmp_path, short="zero_pad")[ExampleKey(0, 0)].waveform
    np.testing.assert_allclose(padded[RATE // 4 : 3 * RATE // 4], ramp)
    assert not padded[: RATE // 4].any() and not padded[3 * RATE // 4 :].any()


def test_an_unusable_file_is_replaced_by_another_of_its_speaker_and_named(tmp_path):
    speech = np.random.default_rng(0).standard_normal(RATE * 2).astype(np.float32) * 0.1
    write(tmp_path / "a" / "0_silent.wav", np.zeros(RATE * 2))
    write(tmp_path / "a" / "1_nan.wav", np.where(speech > 0.1, np.nan, speech), subtype="FLOAT")
    write(tmp_path / "a" / "2_good.wav", speech)
    write(tmp_path / "b" / "0_silent.wav", np.zeros(RATE * 2))
    dataset = make_dataset(tmp_path)
    crop = dataset[ExampleKey(0, 0)]
    assert crop.utterance == 2 and crop.label == 0
    reasons = {path.split("/")[-1]: reason for path, reason in crop.problems}
    assert reasons["0_silent.wav"] == "digital silence" and "finite" in reasons["1_nan.wav"]
    failed = dataset[ExampleKey(3, 0)]
    assert "Speaker 'b' has no usable recording" in failed.failure
    assert "0_silent.wav: digital silence" in failed.failure
    assert CollateCrops()([crop, failed])["failures"] == [failed.failure]


def test_workers_and_their_number_do_not_change_a_batch(data_dir):
    utterances = scan(data_dir / "voxceleb" / "wav", use_cache=False).utterances
    speakers = group_by_speaker(utterances)
    dataset = CropDataset(utterances, speakers, RATE, (0.5, 1.0), 12, "repeat", 3)
    sampler = SpeakerBatchSampler(utterances, speakers, 4, 3, seed=3)

    def batches(num_workers):
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=12,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=CollateCrops(),
        )
        return [(b["input_values"], b["labels"], b["positions"]) for b in loader]

    for first, second in zip(batches(0), batches(2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def bursts(levels, seconds=1.0):
    """Noise bursts with pauses of a second around them."""
    generator = np.random.default_rng(0)
    pause = np.zeros(RATE)
    parts = [pause]
    for level in levels:
        parts += [level * generator.uniform(-1, 1, int(seconds * RATE)), pause]
    return np.concatenate(parts).astype(np.float32)


@pytest.mark.parametrize("method", ["energy", "vad"])
def test_crops_are_taken_from_what_the_exporter_s_trimming_leaves(tmp_path, method):
    write(tmp_path / "a" / "0.wav", bursts([0.3, 0.5]), subtype="FLOAT")
    whole, _ = soundfile.read(tmp_path / "a" / "0.wav", dtype="float32")
    trimmed = trim_silence(whole, RATE, method)
    assert len(trimmed) < len(whole) - RATE
    utterances = scan(tmp_path, "folders", use_cache=False).utterances
    reader = SpeechReader(utterances, RATE, method)
    assert reader.num_samples(0) == len(trimmed)
    for start, num_samples in ((0, len(trimmed)), (100, 500), (RATE - 50, RATE), (len(trimmed), 9)):
        expected = trimmed[start : start + num_samples]
        np.testing.assert_array_equal(reader.read(0, start, num_samples), expected)
    dataset = CropDataset(utterances, {"a": [0]}, RATE, (0.5, 0.5), 2, "repeat", 0, method)
    for position in range(20):
        crop = dataset[ExampleKey(0, position)].waveform
        places = np.lib.stride_tricks.sliding_window_view(trimmed, len(crop))
        assert (places[:, :40] == crop[:40]).all(axis=1).any()


@pytest.mark.parametrize("method", ["energy", "vad"])
def test_a_long_recording_is_trimmed_piece_by_piece(tmp_path, method):
    write(tmp_path / "a" / "0.wav", np.tile(bursts([0.3], 2.0), 20))
    utterances = scan(tmp_path, "folders", use_cache=False).utterances
    reader = SpeechReader(utterances, RATE, method)
    seconds = reader.num_samples(0) / RATE
    assert (seconds > 77) if method == "energy" else (40 <= seconds < 46)
    assert len(reader.read(0, 0, reader.num_samples(0))) == reader.num_samples(0)


def test_nothing_but_silence_is_named(tmp_path):
    write(tmp_path / "a" / "0.wav", np.full(RATE, 1e-4))
    write(tmp_path / "a" / "1.wav", bursts([0.5]))
    utterances = scan(tmp_path, "folders", use_cache=False).utterances
    dataset = CropDataset(utterances, {"a": [0, 1]}, RATE, (0.5, 0.5), 2, "repeat", 0, "energy")
    crop = dataset[ExampleKey(0, 0)]
    assert crop.utterance == 1
    assert [reason for _, reason in crop.problems] == ["only silence"]

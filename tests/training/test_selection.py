"""Speaker caps, speeds as new speakers, caps of an epoch, and views of utterances."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_encoder.audio import AudioError
from speaker_encoder.corpora import Utterance, scan
from speaker_encoder.training.config import ConfigError, TrainConfig
from speaker_encoder.training.data import load_data
from speaker_encoder.training.dataset import CropDataset
from speaker_encoder.training.sampler import ExampleKey, SpeakerBatchSampler, group_by_speaker
from speaker_encoder.training.selection import cap_speakers, person_of, perturb_speed
from speaker_encoder.training.speech import SpeechReader

RATE = 16000
LEAST = {"model_name": "ecapa", "val_data_root": None}


def make_utterances(counts):
    return tuple(
        Utterance(f"s{s}/u{u}", f"s{s}", None, f"/s{s}/u{u}.wav", RATE, RATE)
        for s, count in enumerate(counts)
        for u in range(count)
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Four speakers with three recordings of 1, 2 and 3 s each, one of them at 22.05 kHz."""
    root = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    for speaker in "abcd":
        (root / speaker).mkdir()
        for number in range(3):
            rate = 22050 if speaker == "b" else RATE
            noise = generator.normal(0, 0.1, rate * (number + 1)).clip(-1, 1)
            soundfile.write(root / speaker / f"{number}.wav", noise, rate, subtype="FLOAT")
    return root


def test_a_speaker_cap_is_a_seeded_choice_that_is_named(caplog):
    utterances = make_utterances([3] * 20)
    with caplog.at_level("INFO", logger="speaker_encoder"):
        chosen = cap_speakers(utterances, 5, 1, seed=2)
    names = sorted({utterance.speaker_id for utterance in chosen})
    assert len(names) == 5 and len(chosen) == 15
    assert f"5 of 20 training speakers, chosen with seed 2: {', '.join(names)}" in caplog.text
    assert cap_speakers(utterances, 5, 1, seed=2) == chosen
    assert cap_speakers(utterances, 5, 1, seed=3) != chosen
    assert set(chosen) < set(cap_speakers(utterances, 9, 1, seed=2))
    assert cap_speakers(utterances, None, 1, seed=2) == utterances
    assert cap_speakers(utterances, 20, 1, seed=2) == utterances


def test_speakers_with_too_few_utterances_are_chosen_last():
    utterances = make_utterances([1, 5] * 10)
    chosen = {u.speaker_id for u in cap_speakers(utterances, 8, 3, seed=0)}
    assert all(int(name[1:]) % 2 for name in chosen)
    assert len({u.speaker_id for u in cap_speakers(utterances, 12, 3, seed=0)}) == 12


def test_speeds_are_new_speakers_with_labels_and_durations_of_their_own(corpus):
    utterances = scan(corpus, "folders", use_cache=False).utterances
    perturbed = perturb_speed(utterances, (0.9, 1.1))
    assert perturbed[:12] == utterances and len(perturbed) == 36
    assert len({u.utterance_id for u in perturbed}) == 36
    names = list(group_by_speaker(perturbed))
    prefixes = ("", "sp0.9-", "sp1.1-")
    assert names == [*"abcd", *(f"{p}{name}" for p in prefixes[1:] for name in "abcd")]
    for number, utterance in enumerate(perturbed):
        original = utterances[number % 12]
        speed = (1.0, 0.9, 1.1)[number // 12]
        assert utterance.seconds == pytest.approx(original.seconds / speed, rel=1e-4)
        assert person_of(utterance) == original.speaker_id
    assert person_of(utterances[0]) == "a"
    dataset = CropDataset(perturbed, group_by_speaker(perturbed), RATE, (0.5, 0.5), 4, "repeat", 0)
    for number, utterance in enumerate(perturbed):
        assert names[dataset[ExampleKey(number, number)].label] == utterance.speaker_id


@pytest.mark.parametrize("speed", [0.9, 1.1])
@pytest.mark.parametrize("speaker", ["a", "b"])
def test_a_crop_at_another_speed_is_a_slice_of_the_whole_resampled(corpus, speaker, speed):
    utterances = scan(corpus, "folders", use_cache=False).utterances
    perturbed = perturb_speed(utterances, (speed,))
    number = next(
        n for n, u in enumerate(perturbed) if u.utterance_id == f"sp{speed:g}-{speaker}/2"
    )
    whole, rate = soundfile.read(corpus / speaker / "2.wav", dtype="float32")
    expected = soxr.resample(whole, round(rate * speed), RATE).clip(-1, 1)
    reader = SpeechReader(perturbed, RATE)
    assert reader.num_samples(number) == pytest.approx(3 * RATE / speed, abs=1)
    for start, count in ((0, 8000), (12345, 16000), (len(expected) - 500, 500)):
        found = reader.read(number, start, count)
        np.testing.assert_allclose(found, expected[start : start + count], atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=4, max_size=10),
    num_speakers=st.integers(2, 4),
    num_utterances=st.integers(2, 4),
    cap=st.integers(4, 20),
    seed=st.integers(0, 99),
)
def test_no_speaker_has_more_utterances_in_an_epoch_than_the_cap(
    counts, num_speakers, num_utterances, cap, seed
):
    utterances = make_utterances(counts)
    speakers = group_by_speaker(utterances)

    def make():
        return SpeakerBatchSampler(utterances, speakers, num_speakers, num_utterances, seed, cap)

    walked = make()
    rounded = cap // num_utterances * num_utterances
    expected = max(1, sum(min(n, rounded) for n in counts) // (num_speakers * num_utterances))
    assert len(walked) == expected * num_speakers * num_utterances
    epochs = []
    for epoch in range(3):
        walked.set_epoch(epoch)
        keys = list(walked)
        epochs.append(keys)
        first = epoch * len(walked)
        assert [key.position for key in keys] == list(range(first, first + len(walked)))
        drawn = Counter(utterances[key.utterance].speaker_id for key in keys)
        assert max(drawn.values()) <= cap
        for name, members in speakers.items():
            used = {k.utterance for k in keys if utterances[k.utterance].speaker_id == name}
            assert len(used) <= min(len(members), rounded)
        batch = num_speakers * num_utterances
        for start in range(0, len(keys), batch):
            names = [utterances[k.utterance].speaker_id for k in keys[start : start + batch]]
            assert all(
                len(set(names[i : i + num_utterances])) == 1
                for i in range(0, batch, num_utterances)
            )
            assert len(set(names)) == num_speakers
    jumped = make()
    jumped.set_epoch(2)
    assert list(jumped) == epochs[2]


def test_a_cap_draws_other_utterances_in_every_epoch():
    utterances = make_utterances([60] * 4)
    sampler = SpeakerBatchSampler(utterances, group_by_speaker(utterances), 4, 2, 0, 6)
    seen = set()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        drawn = [key.utterance for key in sampler]
        assert len(drawn) == len(set(drawn)) == 24  # 4 speakers, 6 different utterances each
        seen.update(drawn)
    assert len(seen) > 230  # of 240; 40 draws of a tenth leave 1.5 % out


def test_an_epoch_of_views_has_every_utterance_once():
    utterances = make_utterances([3, 5, 1, 7])
    groups = {u.utterance_id: [place] for place, u in enumerate(utterances)}
    sampler = SpeakerBatchSampler(utterances, groups, 4, 3, 0, is_of_views=True)
    keys = list(sampler)
    assert len(keys) == 4 * 4 * 3
    assert Counter(key.utterance for key in keys) == dict.fromkeys(range(16), 3)
    for first in range(0, len(keys), 3):
        assert len({key.utterance for key in keys[first : first + 3]}) == 1


def make_views(corpus, views, num_views, window=0.4):
    utterances = scan(corpus, "folders", use_cache=False).utterances
    groups = {u.utterance_id: [place] for place, u in enumerate(utterances)}
    dataset = CropDataset(
        utterances,
        groups,
        RATE,
        (window, window),
        2 * num_views,
        "repeat",
        0,
        "off",
        views,
        num_views,
    )
    return utterances, dataset


def place_of(crop, whole):
    """Where a crop is in its recording."""
    windows = np.lib.stride_tricks.sliding_window_view(whole, 50)
    (found,) = np.flatnonzero((windows == crop[:50]).all(axis=1))
    np.testing.assert_array_equal(whole[found : found + len(crop)], crop)
    return int(found)


def test_views_are_crops_of_one_utterance_labelled_by_it(corpus):
    utterances, dataset = make_views(corpus, "utterance", 3)
    whole = soundfile.read(utterances[2].path, dtype="float32")[0]
    places = set()
    for position in range(30):
        crop = dataset[ExampleKey(2, position)]
        assert crop.label == crop.utterance == 2
        places.add(place_of(crop.waveform, whole))
    assert len(places) == 30 and max(places) - min(places) > 1.5 * RATE


def test_halves_lie_side_by_side_and_come_again(corpus):
    utterances, dataset = make_views(corpus, "halves", 4)
    whole = soundfile.read(utterances[2].path, dtype="float32")[0]
    starts = set()
    for first in range(0, 40, 4):
        crops = [dataset[ExampleKey(2, first + view)].waveform for view in range(4)]
        places = [place_of(crop, whole) for crop in crops]
        assert [place - places[0] for place in places] == [0, 6400, 0, 6400]
        starts.add(places[0])
    assert len(starts) == 10


@pytest.mark.parametrize("views", ["utterance", "halves"])
def test_all_views_of_an_unusable_utterance_are_of_the_next_one(tmp_path, views):
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE)
    for name, waveform in (("a/0", noise * 0), ("a/1", noise), ("b/0", noise)):
        path = tmp_path / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, waveform.clip(-1, 1), RATE, subtype="FLOAT")
    utterances, dataset = make_views(tmp_path, views, 4)
    crops = [dataset[ExampleKey(0, view)] for view in range(4)]
    assert {crop.utterance for crop in crops} == {1} and {crop.label for crop in crops} == {0}
    assert {problem for crop in crops for problem in crop.problems} == {
        (utterances[0].path, "digital silence")
    }


@pytest.mark.parametrize("views", ["utterance", "halves"])
def test_views_stay_in_a_recording_that_is_mostly_silent(tmp_path, views):
    """Pairs of two recordings would teach that two voices are one."""
    generator = np.random.default_rng(0)
    for name, start in (("a/0", 0), ("b/0", 15), ("c/0", 18)):
        whole = np.zeros(20 * RATE, np.float32)
        whole[start * RATE : (start + 2) * RATE] = generator.normal(0, 0.1, 2 * RATE).clip(-1, 1)
        path = tmp_path / f"{name}.wav"
        path.parent.mkdir()
        soundfile.write(path, whole, RATE, subtype="FLOAT")
    _, dataset = make_views(tmp_path, views, 2)
    crops = [dataset[ExampleKey(number // 2 % 3, number)] for number in range(120)]
    assert [crop.utterance for crop in crops] == [number // 2 % 3 for number in range(120)]
    assert all(np.abs(crop.waveform).max() > 0.01 for crop in crops)
    pairs = [(crops[first].waveform, crops[first + 1].waveform) for first in range(0, 120, 2)]
    assert sum(np.array_equal(*pair) for pair in pairs) <= 1  # one of about 240 by chance


def test_views_of_a_damaged_recording_stay_together(tmp_path):
    """One view can read its place and the other cannot: both take what can be read."""
    for name in "ab":
        (tmp_path / name).mkdir()
        noise = np.random.default_rng(ord(name)).normal(0, 0.1, 20 * RATE).clip(-1, 1)
        soundfile.write(tmp_path / name / "0.wav", noise, RATE, subtype="FLOAT")
    _, dataset = make_views(tmp_path, "utterance", 2)
    read = dataset._reader.read

    def read_the_first_half(index, start, num_samples):
        if index == 0 and start + num_samples > 10 * RATE:
            raise AudioError("a/0.wav", "damaged")
        return read(index, start, num_samples)

    dataset._reader.read = read_the_first_half
    pairs = [
        [dataset[ExampleKey(0, 2 * number + view)].utterance for view in range(2)]
        for number in range(60)
    ]
    assert all(first == second for first, second in pairs)
    assert {first for first, _ in pairs} == {0, 1}  # neither could read its place


def test_the_corpus_of_a_run_is_capped_and_then_perturbed(corpus):
    values = {**LEAST, "train_data_root": str(corpus), "speakers_per_batch": 6}
    config = TrainConfig.from_dict(
        {**values, "speed_perturbation": [0.9, 1.1], "max_speakers": 2, "utterances_per_speaker": 2}
    )
    split = load_data(config).training
    assert len(split.speakers) == 6 and len(split.utterances) == 18
    assert len({person_of(utterance) for utterance in split.utterances}) == 2
    assert split.groups == split.speakers
    assert TrainConfig.from_dict(config.to_dict()) == config
    config = TrainConfig.from_dict({**values, "views": "utterance", "utterances_per_speaker": 2})
    split = load_data(config).training
    assert len(split.speakers) == 4 and len(split.groups) == 12


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speed_perturbation": [1.0]}, "a list of different numbers, each a number at least 0.5"),
        ({"speed_perturbation": 0.9}, r"speed_perturbation: found 0\.9, possible is a list"),
        ({"max_utterances_per_speaker": 3}, "found 3, a batch alone has 8 utterances of a speaker"),
        (
            {"max_utterances_per_speaker": 9, "views": "utterance"},
            "where batches are not made of speakers",
        ),
        ({"max_speakers": 5}, "5 makes 5 speakers with speed_perturbation, a batch has 6"),
        ({"views": "halves"}, 'found 8 with views "halves", possible is 2'),
        (
            {"views": "halves", "utterances_per_speaker": 4, "augment_pitch_p": 0.5},
            "third and fourth view are shifted and the others are not",
        ),
        (
            {"views": "halves", "utterances_per_speaker": 4, "use_data_augmentation": False},
            "Set it to true or null, or utterances_per_speaker to 2",
        ),
        ({"augment_codecs": ["mp4"]}, r'found \["mp4"\], possible is a list with some of "mp3"'),
        ({"augment_codecs": []}, "possible is a list with some of"),
        ({"augment_babble_voices": [5, 3]}, "whose first number is larger than its second"),
        ({"augment_babbles_paths": "train"}, 'found "train", which does not exist'),
        ({"use_data_augmentation": True}, "augment_babbles_paths, augment_pitch_p"),
    ],
)
def test_config_errors_say_what_to_do(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_dict({**LEAST, "train_data_root": "demo", **values})


def test_what_switches_augmentation_on():
    least = {**LEAST, "train_data_root": "demo"}
    assert TrainConfig.from_dict(least).use_data_augmentation is False
    for values in (
        {"augment_babbles_paths": ["training"]},
        {"augment_codec_p": 0.1},
        {"spec_augment_mel_masks": 1},
        {"views": "halves", "utterances_per_speaker": 4},
    ):
        config = TrainConfig.from_dict({**least, **values})
        assert config.use_data_augmentation is True
        assert TrainConfig.from_dict(config.to_dict()) == config
    config = TrainConfig.from_dict({**least, "augment_noise_snr_db": [0, 15]})
    assert (config.augment_noise_snr_db, config.augment_music_snr_db) == ((0.0, 15.0), (10.0, 15.0))

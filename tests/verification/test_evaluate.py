import time
from pathlib import Path

import numpy as np
import pytest
import torch

from speaker_encoder.corpora import Utterance
from speaker_encoder.errors import UserError
from speaker_encoder.verification import (
    Trials,
    compare,
    equal_error_rate,
    evaluate,
    make_trials,
    min_dcf,
    score_trials,
)
from speaker_encoder.verification.bootstrap import SpeakerBootstrap


def make_embeddings(
    num_speakers: int, num_utterances: int, noise: float, seed: int = 0, dim: int = 16
) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_speakers, dim))
    numbers = np.repeat(np.arange(num_speakers), num_utterances)
    rows = centres[numbers] + noise * rng.normal(size=(len(numbers), dim))
    return rows.astype(np.float32), [f"speaker{n}" for n in numbers]


def all_pairs(speaker_ids: list[str]) -> Trials:
    first, second = np.triu_indices(len(speaker_ids), k=1)
    names = np.array(speaker_ids)
    return Trials(first, second, names[first] == names[second])


def test_the_figures_are_those_of_the_metrics() -> None:
    embeddings, speaker_ids = make_embeddings(12, 5, noise=1.0)
    trials = all_pairs(speaker_ids)
    result = evaluate(embeddings, trials, speaker_ids, num_bootstrap=200)
    scores = score_trials(embeddings, trials)
    assert (result.eer, result.threshold) == equal_error_rate(scores, trials.labels)
    assert result.min_dcf == min_dcf(scores, trials.labels)
    assert (result.num_targets, result.num_nontargets) == (12 * 10, 66 * 25)
    assert result.eer_interval[0] < result.eer < result.eer_interval[1]
    assert result.min_dcf_interval[0] < result.min_dcf < result.min_dcf_interval[1]
    other = evaluate(embeddings, trials, speaker_ids, num_bootstrap=200, p_target=0.5)
    assert other.min_dcf == min_dcf(scores, trials.labels, p_target=0.5)


def test_seeded_and_independent_of_the_order_of_trials() -> None:
    embeddings, speaker_ids = make_embeddings(8, 4, noise=1.0)
    trials = all_pairs(speaker_ids)
    order = np.random.default_rng(5).permutation(len(trials))
    shuffled = Trials(trials.enrolment[order], trials.test[order], trials.labels[order])
    first = evaluate(torch.from_numpy(embeddings), trials, speaker_ids, num_bootstrap=50)
    assert evaluate(embeddings, shuffled, speaker_ids, num_bootstrap=50) == first
    other_seed = evaluate(embeddings, trials, speaker_ids, num_bootstrap=50, seed=1)
    assert other_seed.eer_interval != first.eer_interval


def test_the_copies_of_a_draw() -> None:
    speaker_ids = ["a", "a", "b", "b", "c"]
    trials = all_pairs(speaker_ids)
    bootstrap = SpeakerBootstrap.from_trials(trials, speaker_ids)
    assert bootstrap.num_speakers == 3
    draws = np.concatenate(list(bootstrap.copies(30, seed=0, block_size=7)), axis=1)
    assert draws.shape == (4, 30)
    assert (draws[:3].sum(axis=0) == 3).all()
    assert (draws[3] == 1).all()
    assert (draws[0] + draws[1] > 0).all()  # a draw without a target is drawn again
    assert (np.count_nonzero(draws[:3], axis=0) >= 2).all()  # and one without a nontarget
    singly = np.concatenate(list(bootstrap.copies(30, seed=0)), axis=1)
    assert (singly == draws).all()
    other = np.concatenate(list(bootstrap.copies(30, seed=1)), axis=1)
    assert (other != draws).any()
    # A nontarget weighs the product, a target its speaker's copies.
    weights = draws[bootstrap.enrolment_speaker] * draws[bootstrap.partner]
    for draw, (copies_a, copies_b, copies_c, _) in zip(weights.T, draws.T, strict=True):
        table = np.zeros((5, 5))
        table[trials.enrolment, trials.test] = draw
        assert (table[0, 1], table[2, 3]) == (copies_a, copies_b)
        assert (table[:2, 2:4] == copies_a * copies_b).all()
        assert (table[:2, 4] == copies_a * copies_c).all()
        assert (table[2:4, 4] == copies_b * copies_c).all()


def test_the_interval_covers_the_truth_of_many_corpora() -> None:
    # The EER of 600 speakers stands for the population; 40 samples of 25 speakers each. Percentile
    # intervals of so few speakers are a little narrow: nominal 95 %.
    large, large_ids = make_embeddings(600, 3, noise=1.0, seed=99)
    truth = equal_error_rate(
        score_trials(large, all_pairs(large_ids)), all_pairs(large_ids).labels
    )[0]
    num_covered = 0
    for sample in range(40):
        embeddings, speaker_ids = make_embeddings(25, 4, noise=1.0, seed=sample)
        result = evaluate(embeddings, all_pairs(speaker_ids), speaker_ids, num_bootstrap=150)
        num_covered += result.eer_interval[0] <= truth <= result.eer_interval[1]
    assert num_covered >= 32


def test_compare_sees_better_worse_and_noise() -> None:
    before, speaker_ids = make_embeddings(30, 5, noise=1.2)
    centres = make_embeddings(30, 5, noise=0.0)[0]
    after = (before + centres) / 2  # half the noise
    trials = all_pairs(speaker_ids)
    better = compare(before, after, trials, speaker_ids, num_bootstrap=200)
    assert better.verdict == "better"
    assert better.eer_difference < 0
    assert better.eer_difference_interval[0] <= better.eer_difference
    assert better.eer_difference <= better.eer_difference_interval[1] < 0
    scores = [score_trials(rows, trials) for rows in (before, after)]
    expected = [equal_error_rate(s, trials.labels)[0] for s in scores]
    assert better.eer_difference == expected[1] - expected[0]
    costs = [min_dcf(s, trials.labels) for s in scores]
    assert better.min_dcf_difference == costs[1] - costs[0]

    worse = compare(after, before, trials, speaker_ids, num_bootstrap=200)
    assert worse.verdict == "worse"
    assert worse.eer_difference == -better.eer_difference

    same = compare(before, before * 3, trials, speaker_ids, num_bootstrap=200)
    assert same.verdict == "no difference beyond noise"
    assert same.eer_difference == pytest.approx(0.0, abs=1e-9)

    # Another encoder of the same quality: other noise around the same voices, twice as wide.
    other = centres + 1.2 * np.random.default_rng(1).normal(size=centres.shape)
    other = np.concatenate([other, other], axis=1)
    assert (
        compare(before, other, trials, speaker_ids, num_bootstrap=200).verdict
        == "no difference beyond noise"
    )


def test_pairing_makes_the_interval_of_a_difference_narrower() -> None:
    before, speaker_ids = make_embeddings(20, 5, noise=1.2)
    after = before + 0.1 * np.random.default_rng(3).normal(size=before.shape)
    trials = all_pairs(speaker_ids)
    paired = compare(before, after, trials, speaker_ids, num_bootstrap=200)
    alone = evaluate(before, trials, speaker_ids, num_bootstrap=200)
    width = np.ptp(paired.eer_difference_interval)
    assert width < 0.5 * np.ptp(alone.eer_interval)


def test_errors() -> None:
    embeddings, speaker_ids = make_embeddings(3, 2, noise=1.0)
    trials = all_pairs(speaker_ids)
    unlabelled = Trials(trials.enrolment, trials.test, None)
    with pytest.raises(UserError, match="These trials have no labels; error rates need them"):
        evaluate(embeddings, unlabelled, speaker_ids)
    with pytest.raises(UserError, match="found 6 before and 5 after"):
        compare(embeddings, embeddings[:5], trials, speaker_ids)
    with pytest.raises(UserError, match="num_bootstrap must be at least 1, found 0"):
        evaluate(embeddings, trials, speaker_ids, num_bootstrap=0)
    # One target, one nontarget, both of the same two speakers: drawing both is needed.
    only_a = Trials(np.array([0, 0]), np.array([1, 1]), np.array([True, False]))
    assert evaluate(embeddings, only_a, speaker_ids, num_bootstrap=5).eer == 0.5


def test_two_speakers_are_enough_for_an_interval() -> None:
    embeddings, speaker_ids = make_embeddings(2, 6, noise=1.0)
    result = evaluate(embeddings, all_pairs(speaker_ids), speaker_ids, num_bootstrap=100)
    assert 0 <= result.eer_interval[0] <= result.eer_interval[1] <= 1


def test_nontargets_of_speakers_that_are_rarely_drawn() -> None:
    # One nontarget pair among many speakers that have no other: most draws miss it.
    speaker_ids = [f"{n}" for n in range(200) for _ in range(2)]
    embeddings = np.random.default_rng(0).normal(size=(400, 4))
    enrolment, test = np.arange(0, 400, 2), np.arange(1, 400, 2)
    trials = Trials(
        np.append(enrolment, 0), np.append(test, 2), np.append(np.ones(200, dtype=bool), False)
    )
    result = evaluate(embeddings, trials, speaker_ids, num_bootstrap=20)
    assert result.num_nontargets == 1


def test_two_hundred_thousand_trials_in_seconds() -> None:
    rng = np.random.default_rng(0)
    embeddings, speaker_ids = make_embeddings(100, 20, noise=1.5)
    pairs = np.sort(rng.integers(0, 2000, size=(2, 200_000)), axis=0)
    names = np.array(speaker_ids)
    trials = Trials(pairs[0], pairs[1], names[pairs[0]] == names[pairs[1]])
    start = time.perf_counter()
    evaluate(embeddings, trials, speaker_ids, num_bootstrap=100)
    assert time.perf_counter() - start < 4.0  # 1000 draws within 40 s on a busy machine


def test_real_embeddings(data_dir: Path) -> None:
    archive = np.load(data_dir / "libritts" / "ecapa_voxceleb_embeddings.npz")
    utterances = []
    for name in archive["paths"].tolist():
        path = data_dir / name
        speaker_id, chapter = path.parts[-3:-1]
        utterances.append(Utterance(path.stem, speaker_id, chapter, str(path), 48_000, 24_000))
    trials = make_trials(utterances)
    speaker_ids = [utterance.speaker_id for utterance in utterances]
    result = evaluate(archive["embeddings"], trials, speaker_ids, num_bootstrap=100)
    # A pretrained ECAPA on four readers: almost no error (1.6 % on all files of that source).
    assert result.eer < 0.05
    assert result.num_nontargets == 6 * 12 * 12
    scrambled = archive["embeddings"][np.random.default_rng(0).permutation(len(utterances))]
    worse = compare(archive["embeddings"], scrambled, trials, speaker_ids, num_bootstrap=100)
    assert worse.verdict == "worse"
    assert worse.eer_difference > 0.3

"""Two sets of embeddings, compared by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ortho_group, pearsonr, spearmanr

from speaker_encoder.errors import UserError
from speaker_encoder.verification import equal_error_rate
from speaker_encoder.verification.comparison_table import format_comparison
from speaker_encoder.verification.embedding_comparison import compare_embeddings
from speaker_encoder.verification.sources import StoredEmbeddings

DIM, NUM_SPEAKERS, PER_SPEAKER = 6, 8, 10


@pytest.fixture(scope="module")
def sets():
    """A; and B: A turned, disturbed, and of other norms."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.standard_normal((NUM_SPEAKERS, DIM)), PER_SPEAKER, axis=0)
    rows = centres + 0.7 * rng.standard_normal(centres.shape)
    speakers = [f"s{number // PER_SPEAKER}" for number in range(len(rows))]
    ids = [f"{name}/c/{number:03d}" for number, name in enumerate(speakers)]
    turn = ortho_group.rvs(DIM, random_state=rng)
    other = 3 * (rows + 0.2 * rng.standard_normal(rows.shape)) @ turn
    first, second = (
        StoredEmbeddings(ids, speakers, None, some.astype(np.float32)) for some in (rows, other)
    )
    return first, second


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def take(stored: StoredEmbeddings, places) -> StoredEmbeddings:
    return StoredEmbeddings(
        [stored.utterance_ids[p] for p in places],
        stored.speaker_ids and [stored.speaker_ids[p] for p in places],
        None,
        stored.embeddings[list(places)],
    )


def test_every_figure_is_that_of_a_naive_loop(sets):
    first, second = sets
    count = len(first)
    found = compare_embeddings(first, second, num_bootstrap=20)
    cosines = [cosine(a, b) for a, b in zip(first.embeddings, second.embeddings, strict=True)]
    assert found.cosine.mean == pytest.approx(np.mean(cosines))
    assert found.cosine.lowest == pytest.approx(min(cosines))
    worst = sorted(range(count), key=lambda place: cosines[place])[:5]
    assert [name for name, _ in found.cosine.worst_utterances] == [
        first.utterance_ids[place] for place in worst
    ]
    of_speaker = {
        f"s{n}": np.mean(cosines[n * PER_SPEAKER : (n + 1) * PER_SPEAKER])
        for n in range(NUM_SPEAKERS)
    }
    name, mean, number = found.cosine.worst_speakers[0]
    assert (name, number) == (min(of_speaker, key=of_speaker.get), PER_SPEAKER)
    assert mean == pytest.approx(min(of_speaker.values()))
    norms = np.linalg.norm(second.embeddings, axis=1)
    assert found.second.norms == pytest.approx((norms.mean(), norms.min(), norms.max()))

    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    similarities = [
        [cosine(rows[i], rows[j]) for i, j in pairs]
        for rows in (first.embeddings, second.embeddings)
    ]
    assert found.agreement.pearson == pytest.approx(pearsonr(*similarities).statistic)
    assert found.agreement.spearman == pytest.approx(spearmanr(*similarities).statistic)
    labels = [first.speaker_ids[i] == first.speaker_ids[j] for i, j in pairs]
    assert found.error_rates.second.eer == pytest.approx(
        equal_error_rate(similarities[1], labels)[0]
    )
    across = [cosine(first.embeddings[i], second.embeddings[j]) for i, j in pairs]
    assert found.error_rates.across.eer == pytest.approx(equal_error_rate(across, labels)[0])


def test_a_rotation_is_seen_as_one_and_is_not_fitted_to_what_it_is_judged_on(sets):
    found = compare_embeddings(*sets, num_bootstrap=20)
    assert found.rotated.mean > 0.9 > found.cosine.mean + 0.3
    rates = found.error_rates
    assert abs(rates.rotated.eer - rates.first.eer) < 0.05 < rates.across.eer - rates.first.eer
    # Nothing in common: fewer utterances than dimensions would let a rotation fit them all.
    rng = np.random.default_rng(1)
    noise = [rng.standard_normal((40, 200)).astype(np.float32) for _ in range(2)]
    ids = [f"s{number % 4}/{number}" for number in range(40)]
    speakers = [name.split("/")[0] for name in ids]
    pair = [StoredEmbeddings(ids, speakers, None, rows) for rows in noise]
    assert abs(compare_embeddings(*pair, num_bootstrap=5).rotated.mean) < 0.1


def test_utterances_are_matched_and_counted_whatever_their_order(sets):
    first, second = sets
    mixed = take(second, np.random.default_rng(2).permutation(len(second))[:70])
    found = compare_embeddings(take(first, range(75)), mixed, num_bootstrap=5)
    kept = set(mixed.utterance_ids)
    assert set(found.only_first) == set(first.utterance_ids[:75]) - kept
    assert set(found.only_second) == kept - set(first.utterance_ids[:75])
    assert found.num_matched == 75 - len(found.only_first)
    by_hand = [
        cosine(first.embeddings[first.utterance_ids.index(name)], row)
        for name, row in zip(mixed.utterance_ids, mixed.embeddings, strict=True)
        if name not in found.only_second
    ]
    assert found.cosine.mean == pytest.approx(np.mean(by_hand))


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.rsplit("/", 1)[1],  # as Kaldi's and CosyVoice's tables
        lambda name: name.replace("/", "-"),  # as SpeechT5's
        lambda name: f"corpus/{name}",
    ],
)
def test_other_forms_of_an_id_are_matched_both_ways(sets, rename):
    first, second = sets
    other = replace(second, utterance_ids=[rename(name) for name in second.utterance_ids])
    wanted = compare_embeddings(first, second, num_bootstrap=5).cosine.mean
    for pair in ((first, other), (other, first)):
        found = compare_embeddings(*pair, num_bootstrap=5)
        assert found.num_matched == 80 and not found.only_first and not found.only_second
        assert found.cosine.mean == pytest.approx(wanted)


def test_other_dimensions_are_compared_by_similarities_and_a_rotation(sets):
    first, second = sets
    small = replace(second, embeddings=second.embeddings[:, :4])
    found = compare_embeddings(first, small, num_bootstrap=5)
    assert found.cosine is None and found.error_rates.across is None
    assert found.rotated.mean > 0.5 and found.agreement.pearson > 0.5
    shown = format_comparison(found, ("old", "new"))
    assert "none: they have different dimensions" in shown
    assert "A with rotated B" in shown and "A with B" not in shown


def test_what_is_not_known_is_said(sets):
    first, second = (replace(some, speaker_ids=None) for some in sets)
    found = compare_embeddings(first, second)
    assert found.cosine.worst_speakers == [] and found.error_rates is None
    assert "no error rates: neither A nor B tells who speaks" in format_comparison(
        found, ("a", "b")
    )
    assert compare_embeddings(sets[0], second, num_bootstrap=5).error_rates is not None
    alone = compare_embeddings(take(sets[0], range(3)), take(sets[1], range(3)))
    assert alone.rotated is None and "at least 2 speakers" in alone.why_no_error_rates
    renamed = replace(sets[1], speaker_ids=["x", *sets[1].speaker_ids[1:]])
    assert compare_embeddings(sets[0], renamed, num_bootstrap=5).num_other_speakers == 1


def test_sets_that_cannot_be_matched_are_refused(sets):
    first, second = sets
    other = replace(second, utterance_ids=[f"other{n}" for n in range(len(second))])
    with pytest.raises(UserError, match=r"No utterance is in both: A has such as 's0/c/000'"):
        compare_embeddings(first, other)
    short = take(first, [0, 1])
    twice = replace(take(second, [0, 1]), utterance_ids=["a/s0/c/000", "b/s0/c/000"])
    with pytest.raises(UserError, match="would both be 's0/c/000' of A"):
        compare_embeddings(short, twice)

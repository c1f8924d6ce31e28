"""Weights between two encoders, and the rule that chooses one, on synthetic curves."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speaker_encoder import SpeakerEncoder
from speaker_encoder.errors import UserError
from speaker_encoder.training.interpolation import (
    CurvePoint,
    choose_alpha,
    interpolate_state,
    mean_state,
    refuse_other_architecture,
)
from speaker_encoder.training.interpolation_curve import measure_line
from speaker_encoder.verification import Trials
from speaker_encoder.verification.trial_data import TrialData

TINY_ECAPA = {"channels": [16, 16, 16, 16, 48], "attention_channels": 8, "lin_neurons": 24}


def tiny_encoder(seed: int, **changes) -> SpeakerEncoder:
    """A small ECAPA whose batch norm has statistics and counts as after training."""
    torch.manual_seed(seed)
    encoder = SpeakerEncoder.from_name(
        "ecapa", pretrained=False, encoder_config={**TINY_ECAPA, **changes}
    )
    encoder.config.untrained_head = False
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            module.num_batches_tracked.fill_(100 * seed)
    return encoder


@pytest.fixture(scope="module")
def states() -> tuple[dict, dict]:
    return tiny_encoder(1).state_dict(), tiny_encoder(2).state_dict()


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()


def test_the_ends_are_bit_identical_to_the_two_models(states) -> None:
    for alpha, end in ((0, states[0]), (0.0, states[0]), (1, states[1]), (1.0, states[1])):
        found = interpolate_state(*states, alpha)
        assert list(found) == list(states[0])
        assert all(same_bits(found[name], end[name]) for name in end)
        # new tensors: the models do not change when the mixture does
        assert all(found[name].data_ptr() != end[name].data_ptr() for name in end)


def test_between_weights_and_batch_norm_are_interpolated_and_counts_are_the_second(states) -> None:
    found = interpolate_state(*states, 0.3)
    kinds = set()
    for name, tensor in found.items():
        start, end = states[0][name], states[1][name]
        if torch.equal(start, end):  # constants of the features
            assert same_bits(tensor, start)
            kinds.add("constant")
        elif start.is_floating_point():
            naive = [a + 0.3 * (b - a) for a, b in zip(start.flatten(), end.flatten(), strict=True)]
            torch.testing.assert_close(tensor.flatten(), torch.stack(naive), rtol=1e-5, atol=1e-7)
            kinds.add(name.rsplit(".", 1)[-1])
        else:
            assert tensor.item() == 200 and start.item() == 100
            kinds.add("count")
    assert {"constant", "weight", "bias", "running_mean", "running_var", "count"} <= kinds


def test_a_number_by_hand_and_half_precision_is_added_up_in_more() -> None:
    state0 = {"w": torch.tensor([1.0, -2.0]), "n": torch.tensor(3)}
    state1 = {"w": torch.tensor([3.0, 2.0]), "n": torch.tensor(9)}
    found = interpolate_state(state0, state1, 0.25)
    assert found["w"].tolist() == [1.5, -1.0] and found["n"].item() == 9
    # the difference, 120000, is beyond the largest half
    low, high = (torch.tensor([v], dtype=torch.float16) for v in (-60000.0, 60000.0))
    half = interpolate_state({"w": low}, {"w": high}, 0.5)["w"]
    assert half.dtype == torch.float16 and half.item() == 0


def test_what_is_equal_stays_as_it_is() -> None:
    values = {"w": torch.tensor([0.1, float("inf"), 1e-40]), "n": torch.tensor([7])}

    @given(st.floats(0, 1))
    @settings(max_examples=50, deadline=None)
    def check(alpha: float) -> None:
        found = interpolate_state(values, values, alpha)
        assert all(same_bits(found[name], values[name]) for name in values)

    check()
    again = mean_state([values] * 3)
    assert all(same_bits(again[name], values[name]) for name in values)


def test_the_mean_of_several(states) -> None:
    few = [{"w": torch.tensor([v]), "n": torch.tensor(int(v))} for v in (1.0, 2.0, 6.0)]
    found = mean_state(few)
    assert found["w"].item() == 3.0 and found["n"].item() == 1
    alone = mean_state(states[:1])
    assert all(same_bits(alone[name], states[0][name]) for name in alone)
    halfway, mean = interpolate_state(*states, 0.5), mean_state(states)
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, halfway[name])


def test_weights_that_do_not_fit_are_refused() -> None:
    state = {"a": torch.zeros(2), "b": torch.zeros(3)}
    for other, text in (
        ({"a": torch.zeros(2)}, "b is only in the first encoder"),
        ({**state, "c": torch.zeros(1)}, "c is only in the second encoder"),
        ({**state, "b": torch.zeros(4)}, r"b has shape \(3,\) and \(4,\)"),
        ({**state, "b": torch.zeros(3).half()}, "b is torch.float32 and torch.float16"),
    ):
        with pytest.raises(UserError, match=text):
            interpolate_state(state, other, 0.5)
        with pytest.raises(UserError, match=text):
            mean_state([state, other])
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match="alpha must be between 0 and 1"):
            interpolate_state(state, state, alpha)


def test_other_architectures_are_refused_by_what_differs() -> None:
    encoder = tiny_encoder(1)
    refuse_other_architecture(encoder, tiny_encoder(2), "A", "B")
    with pytest.raises(UserError, match=r"A and B are .* encoder_config.lin_neurons is 24 and 32"):
        refuse_other_architecture(encoder, tiny_encoder(1, lin_neurons=32), "A", "B")
    other = SpeakerEncoder.from_name("dvector", pretrained=False)
    with pytest.raises(UserError, match=r"encoder_kind is 'ecapa' and 'dvector'\. Give"):
        refuse_other_architecture(encoder, other, "A", "B")
    normalized = tiny_encoder(1)
    normalized.config.do_normalize = True
    with pytest.raises(UserError, match="do_normalize is False and True"):
        refuse_other_architecture(encoder, normalized, "A", "B")


# A choice among points of a coarse grid: equal error rates are common, as they are on few trials.
rates = st.integers(0, 20).map(lambda step: step / 200)
EQUAL = "no difference beyond noise"
verdicts = st.sampled_from(["better", "worse", EQUAL])
tolerances = st.sampled_from([0.0, 0.05, 0.1, 0.5, 3.0])


@st.composite
def curves(draw, has_reference: bool) -> list[CurvePoint]:
    alphas = [0.0, *draw(st.lists(st.integers(1, 20), unique=True, max_size=10))]
    rows = [(alpha, draw(rates), draw(verdicts), draw(verdicts)) for alpha in alphas]
    best = min(rows, key=lambda row: (row[1], row[0]))
    points = []
    for row in rows:
        alpha, eer, against_best, against_pretrained = row
        points.append(
            CurvePoint(
                alpha / 20,
                eer,
                (eer, eer),
                EQUAL if row is best else against_best,  # nothing differs from itself
                EQUAL if alpha == 0 else against_pretrained,
                draw(rates) if has_reference else None,
            )
        )
    return points


def at(curve: Sequence[CurvePoint], alpha: float) -> CurvePoint:
    return next(point for point in curve if point.alpha == alpha)


def is_better(point: CurvePoint) -> bool:
    return point.against_pretrained == "better"


@given(curves(has_reference=True), tolerances, st.randoms(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_with_reference_no_allowed_alpha_is_better(
    curve, tolerance, shuffler: random.Random, allow_worse
):
    choice = choose_alpha(curve, tolerance, allow_worse=allow_worse)
    chosen, limit = at(curve, choice.alpha), at(curve, 0).reference_eer * (1 + tolerance)
    assert choice.reference_limit == pytest.approx(limit)
    assert chosen.reference_eer <= limit + 1e-9
    kept = [point for point in curve if point.reference_eer <= limit + 1e-9]
    better = [point for point in kept if is_better(point)]
    possible = better or (kept if allow_worse else [at(curve, 0)])
    for point in possible:
        assert (chosen.eer, chosen.alpha) <= (point.eer, point.alpha)
    assert chosen in possible
    shuffler.shuffle(curve)
    assert choose_alpha(curve, tolerance, allow_worse=allow_worse) == choice


@given(curves(has_reference=True), curves(has_reference=False))
@settings(max_examples=200, deadline=None)
def test_what_does_not_beat_the_pretrained_encoder_is_taken_where_it_is_allowed(one, other):
    for curve in (one, other):
        choice = choose_alpha(curve)
        assert choice.alpha == 0 or is_better(at(curve, choice.alpha))
        nothing = [replace(point, against_pretrained=EQUAL) for point in curve]
        found = choose_alpha(nothing, 1e6)
        assert found.alpha == 0 and "alpha 0" in found.reason
        allowed = choose_alpha(nothing, 1e6, allow_worse=True)
        if at(curve, 0).reference_eer != 0:
            assert at(curve, allowed.alpha).eer == min(point.eer for point in curve)
        assert ("is allowed" in allowed.reason) == (allowed.alpha > 0)
        if choice.alpha:  # where something is better there is nothing to allow
            assert choose_alpha(curve, allow_worse=True) == choice


@given(curves(has_reference=True), tolerances, tolerances)
@settings(max_examples=100, deadline=None)
def test_more_tolerance_never_costs_validation_error(curve, one, other):
    curve = [curve[0], *(replace(point, against_pretrained="better") for point in curve[1:])]
    less, more = sorted((one, other))
    chosen = [choose_alpha(curve, some).alpha for some in (less, more)]
    if chosen[0]:
        assert at(curve, chosen[1]).eer <= at(curve, chosen[0]).eer
    # with no limit at all it is the lowest of the curve
    if at(curve, 0).reference_eer and len(curve) > 1:
        anything = choose_alpha(curve, 1e6)
        assert at(curve, anything.alpha).eer == min(point.eer for point in curve[1:])


@given(curves(has_reference=False), st.randoms())
@settings(max_examples=200, deadline=None)
def test_without_reference_every_smaller_alpha_is_worse(curve, shuffler: random.Random):
    choice = choose_alpha(curve)
    near = [p for p in curve if is_better(p) and p.against_best != "worse"]
    wanted = near or [p for p in curve if is_better(p)] or [at(curve, 0)]
    assert choice.alpha == min(p.alpha for p in wanted)
    assert choice.reference_limit is None
    shuffler.shuffle(curve)
    assert choose_alpha(curve) == choice


def make_curve(eers, reference_eers) -> list[CurvePoint]:
    alphas = [number / (len(eers) - 1) for number in range(len(eers))]
    rows = zip(alphas, eers, reference_eers, strict=True)
    verdict = {a: "better" if e < eers[0] else EQUAL for a, e in zip(alphas, eers, strict=True)}
    return [CurvePoint(a, e, (e, e), EQUAL, verdict[a], r) for a, e, r in rows]


def test_choices_by_hand() -> None:
    eers = [0.066, 0.060, 0.053, 0.052, 0.052]
    reference = [0.040, 0.041, 0.044, 0.0441, 0.060]
    choice = choose_alpha(make_curve(eers, reference))
    assert choice.alpha == 0.5  # 0.044 is 10 % more than 0.040, and allowed
    assert choice.reason.startswith(
        "the lowest validation EER among the 2 of 5 alphas that beat alpha 0 beyond noise and "
        "have a reference EER of at most 4.40 % (alpha 0 has 4.00 %, 10 % more is "
        "tolerated)"
    )
    assert choose_alpha(make_curve(eers, reference), 0.5).alpha == 0.75  # of equals the smaller
    assert choose_alpha(make_curve(eers, reference), 0).alpha == 0
    # what got better on the reference trials too is taken whole
    assert choose_alpha(make_curve([0.05, 0.04, 0.03], [0.02, 0.015, 0.01]), 0).alpha == 1
    # an error-free reference stays error-free
    assert choose_alpha(make_curve([0.05, 0.04, 0.03], [0.0, 0.0, 0.001])).alpha == 0.5


def test_what_cannot_be_chosen_from() -> None:
    curve = make_curve([0.05, 0.04], [0.02, 0.02])
    with pytest.raises(UserError, match="needs alpha 0"):
        choose_alpha(curve[1:])
    for tolerance in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UserError, match=f"may rise, such as 0.1; found {tolerance}"):
            choose_alpha(curve, tolerance)


def test_why_nothing_is_taken() -> None:
    curve = make_curve([0.05, 0.04], [0.02, 0.03])
    choice = choose_alpha(curve)
    assert choice.alpha == 0
    assert choice.reason == (
        "every alpha that is better than alpha 0 beyond noise has a reference EER above 2.20 %"
    )
    worse = choose_alpha(make_curve([0.04, 0.05], [None, None]))
    assert worse.alpha == 0 and worse.reason == (
        "no alpha is better than alpha 0 (4.00 %) beyond noise; the lowest validation EER is "
        "4.00 % at alpha 0"
    )


def test_few_speakers_tell_nothing_from_noise() -> None:
    generator = np.random.default_rng(0)
    for count, can_tell in ((4, False), (6, True)):
        speakers = np.repeat(np.arange(count), 5)
        first, second = np.triu_indices(len(speakers), 1)
        trials = Trials(first, second, speakers[first] == speakers[second])
        data = TrialData("", [], trials, speaker_ids=[f"s{number}" for number in speakers])
        centres = generator.standard_normal((count, 8))
        rows = [
            (centres[speakers] + noise * generator.standard_normal((len(speakers), 8)))
            for noise in (3.0, 0.1)
        ]
        measured = measure_line([0.0, 1.0], data, rows, num_bootstrap=1)
        choice = measured.choose(0.1)
        assert measured.num_speakers == count
        assert (choice.alpha == 1) == can_tell
        if not can_tell:
            assert choice.reason == (
                "4 validation speakers are too few to tell a difference from noise; 5 are needed"
            )
            assert measured.choose(0.1, allow_worse=True).alpha == 1

"""Warm-up, then a plateau that is really stepped, or one of torch's and the papers' curves."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from speaker_encoder.training.config_tables import SCHEDULES
from speaker_encoder.training.schedule import (
    CURVES,
    WarmupThenCurve,
    WarmupThenPlateau,
    warmup_then,
)


def make(warmup_steps=0, patience=1, average_over=1):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return WarmupThenPlateau(optimizer, warmup_steps, 0.6, patience, average_over)


def test_the_rate_rises_linearly_and_then_stays():
    schedule = make(warmup_steps=4)
    rates = []
    for _ in range(6):
        rates.append(schedule.get_last_lr()[0])
        schedule.step()
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_rate_falls_when_the_metric_does_not():
    schedule = make(patience=1)
    for value in (1.0, 0.9, 0.95, 0.95):
        schedule.step()
        schedule.observe(value)
    assert schedule.get_last_lr() == [pytest.approx(0.6)]


def test_values_are_averaged_over_the_window():
    schedule = make(patience=0, average_over=2)
    averages = [schedule.observe(value) for value in (1.0, 3.0, 5.0, 3.0)]
    assert averages == [None, 2.0, None, 4.0]
    assert schedule.get_last_lr() == [pytest.approx(0.6)]


def test_values_during_warm_up_do_not_count():
    schedule = make(warmup_steps=2, patience=0)
    assert schedule.observe(0.0) is None
    schedule.step()
    schedule.step()
    assert schedule.observe(5.0) == 5.0
    assert schedule.get_last_lr() == [1.0]


@pytest.mark.parametrize("cut", range(12))
def test_a_resumed_schedule_goes_on_alike(cut):
    values = [math.sin(step * 1.7) + 1.5 for step in range(12)]

    def go(schedule, values):
        rates = []
        for value in values:
            schedule.step()
            schedule.observe(value)
            rates.append(schedule.get_last_lr()[0])
        return rates

    whole = make(warmup_steps=3, patience=1, average_over=2)
    expected = go(whole, values)
    first = make(warmup_steps=3, patience=1, average_over=2)
    rates = go(first, values[:cut])
    second = make(warmup_steps=3, patience=1, average_over=2)
    second._optimizer.load_state_dict(first._optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert rates + go(second, values[cut:]) == expected


def sgd(*rates):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def options(name, **given):
    defaults = {option: default for option, (_, default) in SCHEDULES[name].items()}
    return {"name": name, **defaults, **given}


def rates_of(schedule, optimizer, count):
    rates = []
    for _ in range(count):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "torchs"),
    [
        (options("step", period=3, gamma=0.5), lambda o: lr_scheduler.StepLR(o, 3, 0.5)),
        (options("exponential", gamma=0.9), lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
        (options("cosine"), lambda o: lr_scheduler.CosineAnnealingLR(o, 20)),
        (
            options("cosine", period=3, multiplier=2),
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2),
        ),
        (
            options("cosine", period=1, unit="epoch"),
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5),
        ),
        (options("constant"), lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    ],
)
def test_a_curve_is_torchs_own(schedule, torchs):
    ours, theirs = sgd(1.0, 0.1), sgd(1.0, 0.1)
    found = rates_of(WarmupThenCurve(ours, warmup_then(schedule, 0, 20, 5)), ours, 20)
    wanted = rates_of(torchs(theirs), theirs, 20)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)


def test_noam_is_the_papers_scaled_to_its_peak():
    curve = warmup_then(options("noam"), 4, 100, 10)
    for step in range(1, 50):  # the paper counts from 1
        papers = min(step**-0.5, step * 4**-1.5)
        assert curve(step - 1) == pytest.approx(papers / 4**-0.5)


def test_noam_without_warm_up_falls_from_its_base():
    curve = warmup_then(options("noam", base=4000), 0, 9000, 10)
    assert curve(3999) == pytest.approx(math.sqrt(0.5))


def test_cosine_warms_up_again_and_lower_at_each_restart():
    schedule = options("cosine", period=8, gamma=0.75, lowest=0.1, warm_each=True)
    curve = warmup_then(schedule, 2, 100, 10)

    def naive(step):
        cycle, place = divmod(step, 10)
        peak = 0.75**cycle
        if place < 2:
            return max(peak * (place + 1) / 2, 0.1 if cycle else 0)
        return 0.1 + (peak - 0.1) * (1 + math.cos(math.pi * (place - 2) / 8)) / 2

    for step in range(40):
        assert curve(step) == pytest.approx(naive(step)), step


@pytest.mark.parametrize("name", [*CURVES])
@pytest.mark.parametrize("cut", [0, 2, 7])
def test_a_resumed_curve_goes_on_alike_and_takes_another_rate(name, cut):
    given = {"period": 3} if "period" in SCHEDULES[name] else {}
    curve = warmup_then(options(name, **given), 2, 12, 4)
    whole = sgd(1.0, 0.1)
    expected = rates_of(WarmupThenCurve(whole, curve), whole, 12)

    def resume(wanted=None):
        first = sgd(1.0, 0.1)
        schedule = WarmupThenCurve(first, curve)
        before = rates_of(schedule, first, cut)
        second = sgd(5.0, 5.0)  # what a config that has changed says
        resumed = WarmupThenCurve(second, curve)
        second.load_state_dict(first.state_dict())
        resumed.load_state_dict(schedule.state_dict())
        if wanted:
            assert resumed.set_peak(wanted)
        return before, rates_of(resumed, second, 12 - cut)

    before, after = resume()
    assert before + after == expected
    before, after = resume(wanted=2.0)
    for found, rates in zip(after, expected[cut:], strict=True):
        assert found == pytest.approx([2 * rate for rate in rates])

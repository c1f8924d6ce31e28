"""Warm-up, then a plateau that is really stepped."""

import math

import pytest
import torch

from speaker_encoder.training.schedule import WarmupThenPlateau


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

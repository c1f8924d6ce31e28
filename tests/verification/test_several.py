"""Several systems at once are what each is alone, and each pair by itself."""

import numpy as np
import pytest

from speaker_encoder.verification import compare, evaluate
from speaker_encoder.verification.several import evaluate_several
from speaker_encoder.verification.trials import Trials


def make_systems():
    generator = np.random.default_rng(0)
    speakers = np.repeat(np.arange(8), 4)
    centres = generator.standard_normal((8, 6))
    systems = [
        (centres[speakers] + noise * generator.standard_normal((32, 6))).astype(np.float32)
        for noise in (1.5, 0.9, 2.5)
    ]
    first, second = np.triu_indices(32, 1)
    trials = Trials(first, second, speakers[first] == speakers[second])
    return systems, trials, [f"s{speaker}" for speaker in speakers]


def test_figures_and_differences_are_those_of_each_pair():
    systems, trials, speakers = make_systems()
    found = evaluate_several(systems, trials, speakers, num_bootstrap=70, seed=5)
    for number, rows in enumerate(systems):
        alone = evaluate(rows, trials, speakers, num_bootstrap=70, seed=5)
        assert found.eers[number] == alone.eer and found.min_dcfs[number] == alone.min_dcf
        assert found.eer_interval(number) == alone.eer_interval
        for other, rows2 in enumerate(systems):
            pair = compare(rows, rows2, trials, speakers, num_bootstrap=70, seed=5)
            assert found.compare(number, other) == pair
            assert found.verdict(number, other) == pair.verdict
    assert found.verdict(0, 1) == "better" and found.verdict(1, 2) == "worse"
    assert found.verdict(1, 1) == "no difference beyond noise"


def test_nothing_to_measure_is_an_error():
    _, trials, speakers = make_systems()
    with pytest.raises(ValueError):
        evaluate_several([], trials, speakers)

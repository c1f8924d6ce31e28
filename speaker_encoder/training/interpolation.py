"""The line between two encoders' weights, and which point of it to take.

theta(alpha) = theta0 + alpha * (theta1 - theta0): alpha 0 is the pretrained encoder, 1 the
fine-tuned one.

Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (weight-space ensembles);
the mean of several: Wortsman et al. 2022, "Model soups", uniform.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from speaker_encoder.errors import UserError
from speaker_encoder.verification.evaluate import Verdict

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder

State = Mapping[str, torch.Tensor]
FORGETTING_TOLERANCE = 0.1
ROUNDING = 1e-9
_MAX_SHOWN = 3
_CONFIG_KEYS = ("encoder_kind", "embedding_dim", "sampling_rate", "do_normalize")


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What was measured at one alpha; error rates are fractions, intervals hold 95 %.

    Attributes:
        alpha: 0 is the pretrained encoder, 1 the fine-tuned one.
        eer: on the validation trials.
        eer_interval: its (low, high).
        against_best: its validation EER against the lowest of the curve, by a paired bootstrap.
        against_pretrained: the same against alpha 0.
        reference_eer: on the reference trials; None where there are none.
        reference_interval: its (low, high).
    """

    alpha: float
    eer: float
    eer_interval: tuple[float, float]
    against_best: Verdict
    against_pretrained: Verdict
    reference_eer: float | None = None
    reference_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The alpha to take, and why.

    Attributes:
        alpha: of a point of the curve.
        reason: for people.
        reference_limit: the highest reference EER that was allowed; None without reference trials.
    """

    alpha: float
    reason: str
    reference_limit: float | None = None


def best_point(curve: Sequence[CurvePoint]) -> CurvePoint:
    """The point with the lowest validation EER; of equals the one nearest to alpha 0."""
    return min(curve, key=lambda point: (point.eer, point.alpha))


def choose_alpha(
    curve: Sequence[CurvePoint],
    forgetting_tolerance: float = FORGETTING_TOLERANCE,
    *,
    allow_worse: bool = False,
) -> Choice:
    """Which alpha to take: never one that does not beat alpha 0 beyond noise.

    With reference trials: of the alphas whose reference EER is at most
    `(1 + forgetting_tolerance) * reference EER at alpha 0`, the one with the lowest validation EER.
    Without: the smallest alpha that is not worse than the lowest beyond noise. In both, only alphas
    that are better than alpha 0 beyond noise are looked at. Where there are none it is alpha 0, or
    with `allow_worse` the lowest validation EER. Of equals the smallest alpha.

    Args:
        curve: points in any order, alpha 0 among them; all with a reference EER, or none.
        forgetting_tolerance: relative, at least 0.
        allow_worse: take the best also where it does not beat alpha 0 beyond noise.

    Returns:
        The choice.

    Raises:
        UserError: there is no point at alpha 0, or the tolerance is no number of at least 0.
    """
    check_tolerance(forgetting_tolerance)
    untouched = next((point for point in curve if point.alpha == 0), None)
    if untouched is None:
        raise UserError("The choice of alpha needs alpha 0, the pretrained encoder, in the curve.")
    limit = None
    kept = list(curve)
    if untouched.reference_eer is not None:
        limit = (1 + forgetting_tolerance) * untouched.reference_eer
        kept = [
            point
            for point in curve
            if point.reference_eer is not None and point.reference_eer <= limit + ROUNDING
        ]
    better = [point for point in kept if point.against_pretrained == "better"]
    if not better:
        reason = _nothing_better(curve, kept, untouched, limit)
        alpha = best_point(kept).alpha if allow_worse else 0.0
        return Choice(alpha, f"{reason}, and is allowed" if alpha else reason, limit)
    if limit is None:
        near = [point for point in better if point.against_best != "worse"] or better
        best = best_point(curve)
        return Choice(
            min(point.alpha for point in near),
            "the smallest of the alphas that beat alpha 0 beyond noise and are within noise of the "
            f"lowest validation EER ({_percent(best.eer)} at alpha {best.alpha:g})",
        )
    return Choice(
        best_point(better).alpha,
        f"the lowest validation EER among the {len(better)} of {len(curve)} alphas that beat "
        f"alpha 0 beyond noise and have a reference EER of at most {_percent(limit)} (alpha 0 has "
        f"{_percent(untouched.reference_eer or 0)}, {100 * forgetting_tolerance:g} % more is "
        "tolerated)",
        limit,
    )


def _nothing_better(
    curve: Sequence[CurvePoint],
    kept: Sequence[CurvePoint],
    untouched: CurvePoint,
    limit: float | None,
) -> str:
    """Why it is alpha 0."""
    within = best_point(kept)
    if len(kept) < len(curve) and any(point.against_pretrained == "better" for point in curve):
        assert limit is not None
        return (
            "every alpha that is better than alpha 0 beyond noise has a reference EER above "
            f"{_percent(limit)}"
        )
    return (
        f"no alpha is better than alpha 0 ({_percent(untouched.eer)}) beyond noise; the lowest "
        f"validation EER is {_percent(within.eer)} at alpha {within.alpha:g}"
    )


def check_tolerance(forgetting_tolerance: float) -> None:
    """Checks a tolerance of forgetting.

    Raises:
        UserError: it is below 0, or no finite number.
    """
    if not (math.isfinite(forgetting_tolerance) and forgetting_tolerance >= 0):
        raise UserError(
            "forgetting_tolerance is the part by which the reference EER may rise, such as 0.1; "
            f"found {forgetting_tolerance}."
        )


def interpolate_state(state0: State, state1: State, alpha: float) -> dict[str, torch.Tensor]:
    """The weights `theta0 + alpha * (theta1 - theta0)`, added up in float64.

    Statistics of batch norm are interpolated as weights are. What is no number with a fraction
    (the count of batches of batch norm) is that of `state1`, at alpha 0 that of `state0`.

    Args:
        state0: at alpha 0; on the CPU.
        state1: at alpha 1; the same names, shapes and types.
        alpha: 0 to 1.

    Returns:
        New tensors: at alpha 0 and 1 bit for bit those given, and so at every alpha where the two
        are equal.

    Raises:
        UserError: alpha is outside [0, 1], or the two do not fit.
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha must be between 0 and 1, found {alpha}.")
    refuse_other_tensors(state0, state1)
    mixed = {}
    for name, start in state0.items():
        end = state1[name]
        if alpha == 0 or torch.equal(start, end):
            mixed[name] = start.clone()
        elif alpha == 1 or not start.is_floating_point():
            mixed[name] = end.clone()
        else:
            wide = start.double()
            mixed[name] = (wide + alpha * (end.double() - wide)).to(start.dtype)
    return mixed


def mean_state(states: Sequence[State]) -> dict[str, torch.Tensor]:
    """The mean of several encoders' weights and statistics of batch norm, added up in float64.

    Args:
        states: one or more, with the same names, shapes and types.

    Returns:
        New tensors; what is no number with a fraction is that of the first.

    Raises:
        UserError: they do not fit.
    """
    first = states[0]
    for other in states[1:]:
        refuse_other_tensors(first, other)
    means = {}
    for name, tensor in first.items():
        if not tensor.is_floating_point() or all(torch.equal(tensor, s[name]) for s in states):
            means[name] = tensor.clone()
            continue
        total = tensor.double()
        for state in states[1:]:
            total = total + state[name].double()
        means[name] = (total / len(states)).to(tensor.dtype)
    return means


def refuse_other_tensors(state0: State, state1: State) -> None:
    """Checks that two encoders have the same weights to interpolate.

    Raises:
        UserError: a name is missing in one of them, or a shape or a type differs.
    """
    problems = [
        f"{name} is only in the {where}"
        for here, there, where in (
            (state0, state1, "first encoder"),
            (state1, state0, "second encoder"),
        )
        for name in here
        if name not in there
    ]
    for name in state0:
        if name not in state1:
            continue
        start, end = state0[name], state1[name]
        if start.shape != end.shape:
            problems.append(f"{name} has shape {tuple(start.shape)} and {tuple(end.shape)}")
        elif start.dtype != end.dtype:
            problems.append(f"{name} is {start.dtype} and {end.dtype}")
    if problems:
        more = f", and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
        raise UserError(
            "These two encoders do not have the same weights, there is nothing between them: "
            f"{'; '.join(problems[:_MAX_SHOWN])}{more}. Give an encoder and what was fine-tuned "
            "from it."
        )


def refuse_other_architecture(
    encoder0: SpeakerEncoder, encoder1: SpeakerEncoder, name0: str, name1: str
) -> None:
    """Checks that two encoders are of one architecture, head and treatment of the input.

    Raises:
        UserError: they are not; the text names what differs.
    """
    configs = [_architecture(encoder) for encoder in (encoder0, encoder1)]
    differing = [
        f"{key} is {configs[0].get(key)!r} and {configs[1].get(key)!r}"
        for key in sorted(configs[0].keys() | configs[1].keys())
        if configs[0].get(key) != configs[1].get(key)
    ]
    if configs[0]["encoder_kind"] != configs[1]["encoder_kind"]:
        differing = [f"encoder_kind is {' and '.join(repr(c['encoder_kind']) for c in configs)}"]
    if differing:
        raise UserError(
            f"{name0} and {name1} are not of one architecture, there is nothing between them: "
            f"{'; '.join(differing)}. Give an encoder and what was fine-tuned from it, with the "
            "same head."
        )


def _architecture(encoder: SpeakerEncoder) -> dict[str, Any]:
    return {
        **{f"encoder_config.{k}": v for k, v in encoder.config.encoder_config.items()},
        **{key: getattr(encoder.config, key) for key in _CONFIG_KEYS},
    }


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"

"""What a finished run found, in sentences that its terminal, its report and its card share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.interpolation import CurvePoint
    from speaker_encoder.training.report import Interpolated, ReferenceResults, Results

FEW_SPEAKERS = 100
"""A corpus of fewer training speakers gains clearly by more of them."""
_WIDE = 0.25
_DISTILLATION = 7.0
_ROUNDING = 1e-9


def difference_text(difference: float, interval: Sequence[float], verdict: str | None) -> str:
    """How an EER changed, after minus before, with its 95 % interval."""
    low, high = interval
    return (
        f"EER difference {100 * difference:+.2f} points "
        f"[{100 * low:+.2f}, {100 * high:+.2f}]: {verdict or 'not measured'}"
    )


def has_trained_start(results: Results) -> bool:
    """Whether the run is known to have begun with an encoder whose weights were all trained."""
    return results.interpolation is not None or results.pretrained_space is not None


def beats_untouched(results: Results) -> bool:
    """Whether the result beats the encoder that the run started from beyond noise."""
    line = results.interpolation
    is_measured_better = line is None or _chosen(line).against_pretrained == "better"
    return is_measured_better and results.verdict == "better"


def _chosen(line: Interpolated) -> CurvePoint:
    """The point of the curve that was taken."""
    return next(point for point in line.curve if point.alpha == line.choice.alpha)


def choice_text(results: Results, forgetting_tolerance: float) -> str | None:
    """Which encoder between the untouched and the trained one was taken, and why.

    Args:
        results: of the run.
        forgetting_tolerance: of the run.
    """
    line = results.interpolation
    if line is None or results.is_untouched:
        return None
    where, trained = f"Alpha {line.choice.alpha:g}", _trained(results)
    where += f", {trained} itself" if line.choice.alpha == 1 else ""
    where += f" of the way from the untouched encoder to {trained}" if line.choice.alpha < 1 else ""
    text = f"{where}: {line.choice.reason}."
    if _chosen(line).against_pretrained != "better":
        text += " It does not beat the untouched encoder beyond noise; allow_worse let it be taken."
    reference = results.reference
    if reference is None or line.choice.reference_limit is not None:
        return text
    limit = (1 + forgetting_tolerance) * reference.before_eer
    if reference.after_eer > limit + _ROUNDING:
        text += (
            f" Its reference EER, {100 * reference.after_eer:.2f} %, is above the "
            f"{100 * limit:.2f} % that a forgetting_tolerance of {forgetting_tolerance:g} allows: "
            'only "interpolate": "auto" keeps to it.'
        )
    return text


def untouched_text(results: Results, *, is_pretrained: bool, place: str) -> str | None:
    """That nothing beat the encoder that the run started from, where it is so.

    Args:
        results: of the run.
        is_pretrained: its config says so; its head may have been new all the same.
        place: what holds the weights: "model/", "this repository".
    """
    if not results.is_untouched:
        return None
    weights = "untrained weights"
    if is_pretrained:
        is_known = has_trained_start(results)
        weights = "pretrained weights" if is_known else "weights that the run started from"
    line = results.interpolation
    kept = " that keeps the reference" if line and _is_better_but_forgets(line) else ""
    text = f"Nothing{kept} beat the untouched encoder beyond noise: {place} holds the {weights}."
    if line is None:
        return text
    reason = line.choice.reason
    return f"{text} {reason[:1].upper()}{reason[1:]} (alpha 1: {_trained(results)})."


def _is_better_but_forgets(line: Interpolated) -> bool:
    return line.choice.alpha == 0 and any(p.against_pretrained == "better" for p in line.curve)


def forgotten_text(reference: ReferenceResults) -> str:
    """How the reference EER changed, also as a part of it."""
    text = difference_text(
        reference.eer_difference, reference.eer_difference_interval, reference.verdict
    )
    if reference.before_eer == 0:
        return f"Reference {text}"
    part = 100 * (reference.after_eer / reference.before_eer - 1)
    if not math.isfinite(part):
        return f"Reference {text}"
    change = f"{abs(part):.0f} % {'more' if part > 0 else 'fewer'} errors"
    return f"Reference {text} ({change if round(part) else 'as many errors'})"


def cosine_text(results: Results) -> str | None:
    """How far embeddings moved, and what that means for TTS."""
    if results.cosine_to_pretrained is None or results.is_untouched:
        return None
    from speaker_encoder.training.pretrained_space import space_text

    mapped = None if results.pretrained_space is None else space_text(results.pretrained_space)
    return (
        f"Mean cosine to the untouched encoder's embeddings: {results.cosine_to_pretrained:.3f}. "
        + (f"{mapped} " if mapped else "")
        + "For a TTS model trained on old ones: `speaker-encoder embed --space pretrained`."
    )


def what_to_try(config: TrainConfig, results: Results) -> list[str]:
    """What may beat the untouched encoder where nothing did, of what this run did not have.

    Args:
        config: of the run.
        results: of the run, with validation data.
    """
    tips = []
    if results.before is not None:
        low, high = results.before.eer_interval
        if high - low > 2 * _WIDE * results.before.eer:
            tips.append(
                f"more validation speakers: the EER of these {results.num_val_speakers} is known "
                f"to about {100 * (high - low) / 2:.1f} points, a much smaller gain is not seen"
            )
    if results.num_train_speakers < FEW_SPEAKERS:
        tips.append(f"more training speakers: {results.num_train_speakers} are few")
    is_trained = has_trained_start(results)
    has_distillation = config.distillation or any(s.get("distillation") for s in config.stages)
    if is_trained and not has_distillation:
        tips.append(f'"distillation": {_DISTILLATION:g}, which holds on to what is known')
    tips += _of_the_curve(config, results)
    if is_trained and config.recipe is None and not config.stages and config.views == "speaker":
        tips.append('"recipe": "auto", which chooses by the corpus')
    return tips


def _of_the_curve(config: TrainConfig, results: Results) -> list[str]:
    """What the line between the two encoders tells."""
    line = results.interpolation
    if line is None:
        return []
    tips, end = [], line.curve[-1]
    if end.eer > line.curve[0].eer:
        tips.append(
            f'a lower "learning_rate_init" than {config.learning_rate_init:g}, or fewer steps: '
            f"{_trained(results) if end.alpha == 1 else f'alpha {end.alpha:g}'} is worse than the "
            "untouched encoder"
        )
    elif line.step >= results.steps:
        tips.append("more steps: the last was the best of those that were trained")
    if _is_better_but_forgets(line) and line.curve[0].reference_eer == 0:
        tips.append(
            "reference trials of more speakers: the untouched encoder makes no error on these, so "
            'no "forgetting_tolerance" allows one'
        )
    elif _is_better_but_forgets(line):
        tips.append(f'a "forgetting_tolerance" above {config.forgetting_tolerance:g}')
    return tips


def _trained(results: Results) -> str:
    """The trained end of the line."""
    if results.averaged_steps:
        return f"the mean of steps {', '.join(map(str, results.averaged_steps))}"
    assert results.interpolation is not None
    return f"step {results.interpolation.step}"

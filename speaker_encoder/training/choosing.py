"""Which encoder a run leaves: one between the untouched and the best trained one, or neither.

The untouched one stays unless another beats it beyond noise.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from speaker_encoder.errors import UserError
from speaker_encoder.training.interpolation import (
    ROUNDING,
    Choice,
    State,
    best_point,
    interpolate_state,
)
from speaker_encoder.training.interpolation_curve import ALPHAS, MeasuredLine, measure_line
from speaker_encoder.verification import equal_error_rate, min_dcf, score_trials

if TYPE_CHECKING:
    from speaker_encoder.modeling import SpeakerEncoder
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.trial_set import TrialSet

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """What a run leaves.

    Attributes:
        measured: the line that it is on.
        choice: of one of its alphas.
        encoder: there; on the device of the trained one.
        embeddings: (N, D) of the validation utterances.
    """

    measured: MeasuredLine
    choice: Choice
    encoder: SpeakerEncoder
    embeddings: np.ndarray


class Chooser:
    """Measures the encoders between the untouched one and a trained one.

    Args:
        config: of the run.
        pretrained: folder of the untouched encoder.
        validation: the validation trials.
        reference: trials of speech on which the encoder must not get worse; None: none.
    """

    def __init__(
        self,
        config: TrainConfig,
        pretrained: Path,
        validation: TrialSet,
        reference: TrialSet | None,
    ) -> None:
        self._config = config
        self._folder = pretrained
        self._validation = validation
        self.reference = reference
        self._state0: State | None = None
        self._rows0: list[np.ndarray] = []

    @property
    def alphas(self) -> list[float]:
        """Those that may be the result, ascending."""
        wanted = self._config.interpolate
        if wanted == "auto":
            return list(ALPHAS)
        return [0.0, 1.0] if wanted == "off" else sorted({0.0, float(wanted)})

    def choose(self, trained: SpeakerEncoder) -> Chosen:
        """Chooses; every process takes part, and all choose the same.

        Args:
            trained: the encoder at alpha 1, on its device.

        Raises:
            UserError: an utterance of the trials cannot be read.
        """
        config, alphas = self._config, self.alphas
        rows = self._embed(trained, alphas)
        measured = measure_line(
            alphas,
            self._validation,
            [pair[0] for pair in rows],
            self.reference,
            [pair[-1] for pair in rows],
            num_bootstrap=config.bootstrap_samples,
            seed=config.seed,
        )
        choice = self._choice(measured)
        place = measured.place(choice.alpha)
        encoder = self._between(trained, choice.alpha)
        return Chosen(measured, choice, encoder, rows[place][0])

    def _choice(self, measured: MeasuredLine) -> Choice:
        """Chooses among what was measured; an alpha that the config names keeps no reference."""
        config, curve = self._config, measured.curve
        if config.interpolate == "auto":
            return measured.choose(config.forgetting_tolerance, allow_worse=config.allow_worse)
        last = curve[-1]
        if config.interpolate == "off" and config.allow_worse:
            return Choice(best_point(curve).alpha, "the lowest validation EER of the two")
        if config.allow_worse or last.alpha == 0 or last.against_pretrained == "better":
            return Choice(last.alpha, f"interpolate {config.interpolate}")
        return measured.explained(
            Choice(
                0.0,
                f"alpha {last.alpha:g} ({100 * last.eer:.2f} %) is not better than alpha 0 "
                f"({100 * curve[0].eer:.2f} %) beyond noise",
            )
        )

    def look(self, trained: SpeakerEncoder) -> dict[str, float]:
        """Gives what interpolation would make of an encoder, without intervals: metrics of a step.

        The alpha with the lowest validation EER of those that keep the reference EER.
        """
        alphas = self.alphas
        rows = self._embed(trained, alphas)
        allowed = list(range(len(alphas)))
        if self.reference is not None:
            eers = [_eer(self.reference, pair[-1]) for pair in rows]
            limit = (1 + self._config.forgetting_tolerance) * eers[0]
            allowed = [place for place in allowed if eers[place] <= limit + ROUNDING]
        found = {place: _eer(self._validation, rows[place][0]) for place in allowed}
        best = min(allowed, key=lambda place: (found[place], place))
        trials = self._validation.trials
        assert trials.labels is not None
        cost = min_dcf(score_trials(rows[best][0], trials), trials.labels)
        return {
            "interpolated_eer": found[best],
            "interpolated_min_dcf": cost,
            "interpolated_alpha": alphas[best],
        }

    def _embed(self, trained: SpeakerEncoder, alphas: Sequence[float]) -> list[list[np.ndarray]]:
        """Embeddings at each alpha of the validation and the reference utterances."""
        from tqdm.auto import tqdm

        rows = []
        hidden = not sys.stderr.isatty()
        for alpha in tqdm(alphas, desc="untouched to trained", leave=False, disable=hidden):
            if alpha == 0 and self._rows0:
                rows.append(self._rows0)
                continue
            encoder = self._between(trained, alpha)
            sets = [self._validation, *([self.reference] if self.reference else [])]
            rows.append([trials.embed(encoder) for trials in sets])
            if alpha == 0:
                self._rows0 = rows[0]
        return rows

    def _between(self, trained: SpeakerEncoder, alpha: float) -> SpeakerEncoder:
        """The encoder at an alpha, in eval mode, without a loss."""
        if self._state0 is None:
            with torch.random.fork_rng(devices=[]):  # a model that is made draws its weights
                self._state0 = _plain_state(_load(self._folder))
        loss, trained.loss_fn = trained.loss_fn, None
        try:
            encoder = copy.deepcopy(trained)
        finally:
            trained.loss_fn = loss
        encoder.load_state_dict(interpolate_state(self._state0, _plain_state(encoder), alpha))
        encoder.config.untrained_head = False
        return encoder.eval()


def make_chooser(
    config: TrainConfig,
    pretrained: Path,
    validation: TrialSet | None,
    reference: TrialSet | None,
    *,
    is_trained_start: bool,
) -> Chooser | None:
    """Gives the chooser; None where the last, or best, trained encoder simply is the result.

    Args:
        config: of the run.
        pretrained: where the untouched encoder is, or will be.
        validation: None without validation data.
        reference: None without.
        is_trained_start: whether the untouched encoder's weights, its head's too, were trained.

    Raises:
        UserError: the config names an alpha, and there is nothing between.
    """
    refuse_nothing_between(config, is_trained_start=is_trained_start)
    if not is_trained_start:
        if config.interpolate == "auto":
            _logger.info("interpolate auto: off, there is no trained encoder that this began with")
        return None
    if validation is None:
        return None
    if config.interpolate == "off" and config.allow_worse and reference is None:
        return None
    return Chooser(config, pretrained, validation, reference)


def refuse_nothing_between(config: TrainConfig, *, is_trained_start: bool) -> None:
    """Checks that an alpha that the config names has a meaning.

    Raises:
        UserError: fine-tuning begins with random weights.
    """
    if not is_trained_start and not isinstance(config.interpolate, str):
        raise UserError(
            f"interpolate: {config.interpolate:g}, and {config.model_name} starts with random "
            "weights in its head; between random and trained weights there is nothing. Set it to "
            '"auto" or "off".'
        )


def _eer(trial_set: TrialSet, rows: np.ndarray) -> float:
    trials = trial_set.trials
    assert trials.labels is not None
    return equal_error_rate(score_trials(rows, trials), trials.labels)[0]


def _load(folder: Path) -> SpeakerEncoder:
    from speaker_encoder.modeling import SpeakerEncoder

    return SpeakerEncoder.from_pretrained(folder)


def _plain_state(encoder: nn.Module) -> dict[str, torch.Tensor]:
    """Its weights and statistics on the CPU, without those of a loss."""
    return {
        name: tensor.detach().cpu()
        for name, tensor in encoder.state_dict().items()
        if not name.startswith("loss_fn.")
    }

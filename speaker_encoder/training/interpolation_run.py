"""Measures the encoders between a pretrained and a fine-tuned one, and chooses one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from speaker_encoder.errors import UserError
from speaker_encoder.training.interpolation import (
    FORGETTING_TOLERANCE,
    Choice,
    CurvePoint,
    State,
    check_tolerance,
    interpolate_state,
    mean_state,
    refuse_other_architecture,
)
from speaker_encoder.training.interpolation_curve import ALPHAS, measure_line
from speaker_encoder.training.trained_end import TrainedEnd, find_trained_end
from speaker_encoder.verification.evaluate import Comparison
from speaker_encoder.verification.systems import EncoderSource, load_any_encoder
from speaker_encoder.verification.trial_data import (
    TrialData,
    check_trial_data,
    load_list,
    make_data,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from speaker_encoder.modeling import SpeakerEncoder

_Loaded = TypeVar("_Loaded")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InterpolationOptions:
    """What is interpolated, and what it is measured on.

    Attributes:
        pretrained: name, Hub id, folder, run or checkpoint of the encoder at alpha 0.
        finetuned: of the one at alpha 1; of several their mean is. Of a run it is what was trained,
            also where `model/` of the run is an encoder between.
        trials: labelled validation trials; None: pairs of `data_root`.
        data_root: of their audio; None: the list's folder.
        reference_trials: labelled trials of speech on which the encoder must not get worse.
        reference_data_root: of their audio; alone: pairs of it; None: `data_root`.
        alphas: to measure; 0 and 1 are measured always.
        forgetting_tolerance: the part by which the reference EER may rise.
        allow_worse: take an alpha also when it does not beat alpha 0 beyond noise.
        model_device: ``cpu``, ``cuda``, ``cuda:<number>`` or ``best``.
        batch_size: utterances embedded at once.
        use_cache: keep embeddings on disk.
    """

    pretrained: str
    finetuned: tuple[str, ...]
    trials: str | None = None
    data_root: str | None = None
    reference_trials: str | None = None
    reference_data_root: str | None = None
    alphas: tuple[float, ...] = ALPHAS
    forgetting_tolerance: float = FORGETTING_TOLERANCE
    allow_worse: bool = False
    model_device: str = "best"
    batch_size: int = 16
    use_cache: bool = True

    def check(self) -> None:
        """Checks what needs neither models nor data.

        Raises:
            UserError: with what is wrong.
        """
        check_tolerance(self.forgetting_tolerance)
        if outside := [alpha for alpha in self.alphas if not 0 <= alpha <= 1]:
            raise UserError(f"--alphas must be between 0 and 1, found {outside[0]:g}.")
        if self.trials is None and self.data_root is None:
            raise UserError(
                "Give --trials with --data_root, or --data_root alone: alpha is chosen on trials."
            )

    @property
    def grid(self) -> list[float]:
        """The alphas to measure, ascending, with 0 and 1."""
        return sorted({0.0, 1.0, *self.alphas})


@dataclass(frozen=True)
class Interpolation:
    """A measured line of encoders.

    Attributes:
        ends: what was taken as fine-tuned.
        curve: a point for each alpha, ascending.
        choice: of one of them.
        encoder: the chosen one.
        weights_sha256: of it, as `evaluate` gives it.
        validation: the validation trials.
        reference: the reference trials, if there are any.
        validation_change: the chosen encoder against the pretrained one, on the same trials.
        reference_change: the same on the reference trials.
    """

    ends: tuple[TrainedEnd, ...]
    curve: list[CurvePoint]
    choice: Choice
    encoder: SpeakerEncoder
    weights_sha256: str
    validation: TrialData
    reference: TrialData | None
    validation_change: Comparison
    reference_change: Comparison | None


class Line:
    """The encoders between a pretrained one and the mean of fine-tuned ones.

    Args:
        options: which, and where to compute.
        finetuned: the fine-tuned ones.

    Raises:
        UserError: one cannot be loaded, has an untrained head, or is of another architecture.
    """

    def __init__(self, options: InterpolationOptions, finetuned: Sequence[TrainedEnd]) -> None:
        self.source = _explained(
            options.pretrained,
            lambda: EncoderSource(
                options.pretrained,
                device=options.model_device,
                batch_size=options.batch_size,
                use_cache=options.use_cache,
            ),
        )
        self._state0 = _cpu_state(self.source.encoder)
        self._state1 = mean_state(
            [mean_state([self._load(name) for name in end.models]) for end in finetuned]
        )

    def _load(self, name: str) -> State:
        """The weights of a fine-tuned encoder."""
        encoder = _explained(name, partial(load_any_encoder, name))
        refuse_other_architecture(self.source.encoder, encoder, self.source.name, name)
        return _cpu_state(encoder)

    def go_to(self, alpha: float) -> None:
        """Makes the source's encoder that at `alpha`."""
        from speaker_encoder.export.model import weights_digest

        self.source.encoder.load_state_dict(interpolate_state(self._state0, self._state1, alpha))
        self.source.weights_sha256 = weights_digest(self.source.encoder)

    def embed(self, data: TrialData) -> NDArray[np.float32]:
        """(U, D) embeddings of the utterances of trials."""
        return self.source.embed(data.names, data.paths, data.label).means()


def _explained(name: str, load: Callable[[], _Loaded]) -> _Loaded:
    """Loads an end of the line.

    Raises:
        UserError: it cannot be loaded or has an untrained head; the text says which end.
    """
    try:
        return load()
    except UserError as error:
        raise UserError(
            f"An interpolation needs two trained encoders; {name!r} is none. {error}"
        ) from error


def _cpu_state(encoder: SpeakerEncoder) -> State:
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in encoder.state_dict().items()
        if not name.startswith("loss_fn.")
    }


def load_trials(trials: str | None, data_root: str | None) -> TrialData:
    """Labelled trials of a list, or of a corpus.

    Raises:
        UserError: there are none, they have no labels, or not both kinds.
    """
    if trials is not None:
        data = load_list(trials, data_root)
    else:
        assert data_root is not None
        data = make_data(data_root)
    if data.trials.labels is None:
        raise UserError(f"{data.source} has no labels; alpha is chosen by error rates.")
    check_trial_data(data)
    return data


def measure_interpolation(options: InterpolationOptions) -> Interpolation:
    """Measures the line at each alpha, and chooses one.

    Args:
        options: what, and on what.

    Raises:
        UserError: something that the user must change.
    """
    options.check()
    ends = tuple(find_trained_end(name) for name in options.finetuned)
    validation = load_trials(options.trials, options.data_root)
    reference = None
    if options.reference_trials or options.reference_data_root:
        root = options.reference_data_root or options.data_root
        reference = load_trials(options.reference_trials, root)
    line = Line(options, ends)
    rows, reference_rows = [], []
    for alpha in options.grid:
        line.go_to(alpha)
        rows.append(line.embed(validation))
        if reference is not None:
            reference_rows.append(line.embed(reference))
        _logger.info("alpha %g: embedded", alpha)
    measured = measure_line(options.grid, validation, rows, reference, reference_rows)
    choice = measured.choose(options.forgetting_tolerance, allow_worse=options.allow_worse)
    chosen = measured.place(choice.alpha)
    line.go_to(choice.alpha)
    return Interpolation(
        ends=ends,
        curve=measured.curve,
        choice=choice,
        encoder=line.source.encoder,
        weights_sha256=line.source.weights_sha256,
        validation=validation,
        reference=reference,
        validation_change=measured.validation.compare(0, chosen),
        reference_change=None
        if measured.reference is None
        else measured.reference.compare(0, chosen),
    )

"""What an evaluation is asked for, checked before anything is read."""

from __future__ import annotations

import os
from dataclasses import dataclass

from speaker_encoder.corpora.shards import is_address
from speaker_encoder.errors import UserError
from speaker_encoder.verification.protocols import SCORES, Protocol

NORMS = {"z": "z-norm", "t": "t-norm", "s": "s-norm", "as": "as-norm"}


@dataclass
class EvaluationOptions:
    """What `speaker-encoder evaluate` is asked for; see its help.

    Attributes:
        models: names, Hub ids or folders of encoders.
        embeddings: exports, in place of models.
        scores: score files, in place of both.
        trials: the trial list; None: trials are made.
        data_root: of the audio.
        speaker_table: of sexes and speakers.
        is_hard: made nontarget trials are of the same sex.
        max_trials: the most trials to make.
        seed: of the trials that are made and of the bootstrap.
        protocol: what of an utterance is embedded.
        score: of ``SCORES``.
        p_targets: for the detection costs.
        false_accept_rates: for which a threshold is wanted.
        norm: a key of ``NORMS``.
        cohort: a corpus, a list, or an export.
        cohort_by: ``utterances`` or ``speakers``.
        top_k: of adaptive s-norm.
        calibration_trials: a list with labels.
        calibration_root: of its audio; None: ``data_root``.
        use_quality: calibrate with duration and embedding norm too.
        model_device: ``cpu``, ``cuda``, ``cuda:<number>`` or ``best``.
        batch_size: parts embedded at once.
        num_bootstrap: draws of speakers; 0 for no intervals.
        use_cache: keep embeddings on disk.
        show_progress: None: on a terminal only.
    """

    models: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    trials: str | None = None
    data_root: str | None = None
    speaker_table: str | None = None
    is_hard: bool = False
    max_trials: int = 200_000
    seed: int = 0
    protocol: str = "full"
    score: str = "cosine"
    p_targets: tuple[float, ...] = (0.01, 0.05)
    false_accept_rates: tuple[float, ...] = (0.01,)
    norm: str | None = None
    cohort: str | None = None
    cohort_by: str = "utterances"
    top_k: int = 300
    calibration_trials: str | None = None
    calibration_root: str | None = None
    use_quality: bool = False
    model_device: str = "best"
    batch_size: int = 16
    num_bootstrap: int = 1000
    use_cache: bool = True
    show_progress: bool | None = None

    def check(self) -> None:
        """Checks what does not need data.

        Raises:
            UserError: with every problem.
        """
        problems = []
        kinds = [bool(self.models), bool(self.embeddings), bool(self.scores)]
        if not any(kinds):
            problems.append("Give --model, --embeddings or --scores: there is nothing to evaluate.")
        if self.scores and sum(kinds) > 1:
            problems.append("--scores stands alone: without --model and --embeddings.")
        if self.models and self.trials is None and self.data_root is None:
            problems.append("Give --trials with --data_root, or --data_root alone.")
        if self.scores and (self.trials or self.norm or self.calibration_trials):
            problems.append("--scores has its own trials: without --trials, --norm, --calibration.")
        if self.score not in SCORES:
            problems.append(f"--score must be one of {', '.join(SCORES)}, found {self.score!r}.")
        if self.embeddings and str(Protocol.parse(self.protocol)) != "full":
            problems.append("--protocol chooses what is embedded; --embeddings are there already.")
        if self.norm is not None and self.norm not in NORMS:
            problems.append(f"--norm must be one of {', '.join(NORMS)}, found {self.norm!r}.")
        if (self.norm is None) != (self.cohort is None):
            problems.append("--norm and --cohort belong together: give both or none.")
        if self.norm is not None and Protocol.parse(self.protocol).kind == "crops":
            problems.append(
                "--norm needs one embedding of each utterance: with --protocol full or windows."
            )
        if self.cohort_by not in ("utterances", "speakers"):
            problems.append(
                f"--cohort_by must be utterances or speakers, found {self.cohort_by!r}."
            )
        if self.use_quality and self.calibration_trials is None:
            problems.append("--quality is a part of calibration: give --calibration_trials.")
        if self.is_hard and self.trials is not None:
            problems.append("--hard makes trials; --trials gives them. Leave one out.")
        problems += [
            f"--p_target must lie between 0 and 1, found {p}."
            for p in self.p_targets
            if not 0 < p < 1
        ]
        problems += [
            f"--false_accept_rate must lie between 0 and 1, found {rate}."
            for rate in self.false_accept_rates
            if not 0 <= rate <= 1
        ]
        for option, value, least in (
            ("--top_k", self.top_k, 2),
            ("--batch_size", self.batch_size, 1),
            ("--max_trials", self.max_trials, 1),
            ("--seed", self.seed, 0),
        ):
            if value < least:
                problems.append(f"{option} must be at least {least}, found {value}.")
        is_there = self.cohort is None or is_address(self.cohort) or os.path.exists(self.cohort)
        if self.models and not is_there:
            problems.append(f"--cohort {self.cohort}: there is no such file or folder.")
        if self.num_bootstrap < 0:
            problems.append(f"--num_bootstrap must be at least 0, found {self.num_bootstrap}.")
        if problems:
            raise UserError("\n".join(problems))

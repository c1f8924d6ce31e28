"""What a finished run found, as text for a terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from speaker_encoder.training.findings import (
    choice_text,
    cosine_text,
    difference_text,
    forgotten_text,
    untouched_text,
    what_to_try,
)

if TYPE_CHECKING:
    from speaker_encoder.training.config import TrainConfig
    from speaker_encoder.training.report import Results
    from speaker_encoder.training.run_dir import RunDirectory

_WIDTH = 100


def format_results(config: TrainConfig, run: RunDirectory, results: Results) -> str:
    """Gives the table, what it means, and the paths that end a run, for a terminal."""
    lines = [
        f"{results.model_name}: {results.steps} steps on {results.num_train_utterances} utterances "
        f"of {results.num_train_speakers} speakers"
        + (f" and {n} of replay" if (n := results.num_replay_speakers) else "")
        + ("" if results.seconds is None else f", {_duration(results.seconds)}")
    ]
    if results.before and results.after and results.eer_difference_interval:
        lines += ["", *_table(results), *_reference(results), *_meaning(config, results)]
    else:
        lines += ["", "No validation data: nothing is known about unseen speakers. The model is"]
        lines += ["the last step's. Set val_data_root to speakers that are not trained on."]
    if results.unusable_files:
        lines += ["", f"{len(results.unusable_files)} files could not be used:"]
        lines += [f"  {path}: {reason}" for path, reason in results.unusable_files.items()]
    lines += ["", *_paths(run)]
    return "\n".join(lines)


def _table(results: Results) -> list[str]:
    before, after = results.before, results.after
    assert before and after and results.eer_difference_interval
    assert results.eer_difference is not None
    rows = [
        (f"before (step {before.step})", before),
        (f"after  ({results.after_name})", after),
    ]
    if results.is_untouched:  # one encoder
        rows = [(f"untouched (step {before.step})", before)]
    width = max(len(name) for name, _ in rows)
    lines = [
        f"{results.num_val_speakers} unseen speakers, {results.num_targets} target and "
        f"{results.num_nontargets} nontarget trials; in brackets 95 % intervals over speakers",
        f"{'':{width}}  {'EER':>8}  {'':16}  {'minDCF(0.01)':>12}",
    ]
    for name, row in rows:
        dcf_range = f"[{row.min_dcf_interval[0]:.3f}, {row.min_dcf_interval[1]:.3f}]"
        lines.append(
            f"{name:{width}}  {_eer(row.eer, row.eer_interval)}  {row.min_dcf:>12.3f}  {dcf_range}"
        )
    if not results.is_untouched:
        lines.append(
            difference_text(
                results.eer_difference, results.eer_difference_interval, results.verdict
            )
        )
    return lines


def _reference(results: Results) -> list[str]:
    reference = results.reference
    if reference is None:
        return []
    title = (
        f"reference: {reference.num_speakers} speakers, {reference.num_targets} target and "
        f"{reference.num_nontargets} nontarget trials"
    )
    before = _eer(reference.before_eer, reference.before_interval).rstrip()
    if results.is_untouched:
        return ["", title, f"untouched  {before}"]
    after = _eer(reference.after_eer, reference.after_interval).rstrip()
    return ["", title, f"before  {before}", f"after   {after}", forgotten_text(reference)]


def _eer(eer: float, interval: tuple[float, float]) -> str:
    return f"{eer:>8.2%}  {f'[{interval[0]:.2%}, {interval[1]:.2%}]':16}"


def _meaning(config: TrainConfig, results: Results) -> list[str]:
    """What was chosen and why; or that nothing was better, and what to try."""
    texts = [choice_text(results, config.forgetting_tolerance), cosine_text(results)]
    untouched = untouched_text(results, is_pretrained=config.pretrained, place="model/")
    lines = _wrapped([text for text in texts if text])
    if untouched:
        lines += _wrapped([f"{untouched} Pushing it needs --allow_worse."])
        tips = what_to_try(config, results)
        lines += ["What may help:", *_wrapped([f"- {tip}" for tip in tips])] if tips else []
    return ["", *lines] if lines else []


def _wrapped(texts: list[str]) -> list[str]:
    return [
        line
        for text in texts
        for line in textwrap.wrap(
            text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    ]


def _paths(run: RunDirectory) -> list[str]:
    known = {
        "model": run.model_dir,
        "results": run.results_path,
        "report": run.path / "report.html",
        "metrics": run.metrics_path,
        "plots": run.path / "plots",
        "log": run.path / "train.log",
        "checkpoints": run.path,
    }
    return [f"{name:12} {path}" for name, path in known.items() if path.exists()]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

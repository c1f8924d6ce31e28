"""The figures of an evaluation: for the terminal, ``results.json`` and ``scores.txt``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from speaker_encoder import __version__
from speaker_encoder.export.files import explained_full_disk, write_bytes_atomically
from speaker_encoder.export.names import safe_name
from speaker_encoder.verification.scoring_run import Evaluation, ScoredSystem
from speaker_encoder.verification.trial_files import UNKNOWN_LABEL

RESULTS_VERSION = 1
_MAX_CORPORA = 20
Groups = dict[str, Sequence[str | None]]


def measure(evaluation: Evaluation) -> dict[str, Any]:
    """All figures, as ``results.json`` holds them.

    Raises:
        UserError: the trials have targets only or nontargets only.
    """
    data, options = evaluation.data, evaluation.options
    labels = data.trials.labels
    num_targets = None if labels is None else int(labels.sum())
    results: dict[str, Any] = {
        "version": RESULTS_VERSION,
        "speaker_encoder": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "trials": {
            "source": data.source,
            "num_trials": len(data.trials),
            "num_targets": num_targets,
            "num_nontargets": None if num_targets is None else len(data.trials) - num_targets,
            "num_utterances": len(data.names),
            "num_speakers": None if data.speaker_ids is None else len(set(data.speaker_ids)),
            "speakers_from": data.speakers_from,
            "unreadable": data.unreadable,
        },
        "systems": [],
        "comparisons": [],
    }
    if labels is not None:
        groups = trial_groups(evaluation)
        for system in evaluation.systems:
            results["systems"].append(_measure_system(evaluation, system, groups))
        results["comparisons"] = _compare(evaluation)
    else:
        for system in evaluation.systems:
            spread = {"min": float(system.scores.min()), "max": float(system.scores.max()),
                      "mean": float(system.scores.mean())}  # fmt: skip
            results["systems"].append(
                {"name": system.name, **system.description, "scores_spread": spread}
            )
    results["options"] = {
        name: value for name, value in asdict(options).items() if name != "show_progress"
    }
    return results


def _measure_system(evaluation: Evaluation, system: ScoredSystem, groups: Groups) -> dict[str, Any]:
    from speaker_encoder.verification.breakdown import DURATION_GROUPS, breakdown
    from speaker_encoder.verification.detection import (
        detection_figures,
        error_rates_at,
        threshold_at_false_accept_rate,
    )

    options, data = evaluation.options, evaluation.data
    labels = data.trials.labels
    assert labels is not None
    figures = detection_figures(
        system.scores, data.trials, data.speaker_ids, p_targets=options.p_targets,
        num_bootstrap=options.num_bootstrap, seed=options.seed, calibrated=system.is_calibrated,
    )  # fmt: skip
    thresholds = []
    for rate in options.false_accept_rates:
        threshold = threshold_at_false_accept_rate(system.scores, labels, rate)
        false_accepts, misses = error_rates_at(system.scores, labels, threshold)
        thresholds.append(
            {
                "wanted_false_accept_rate": rate,
                "threshold": threshold,
                "false_accept_rate": false_accepts,
                "miss_rate": misses,
            }
        )
    return {
        "name": system.name,
        **system.description,
        **figures.as_dict(),
        "thresholds": thresholds,
        "breakdown": {
            name: [
                figures.as_dict()
                for figures in breakdown(
                    system.scores,
                    labels,
                    of_trials,
                    order=DURATION_GROUPS,
                    nontargets_in_every_group=name == "session",
                )
            ]
            for name, of_trials in groups.items()
        },
    }


def trial_groups(evaluation: Evaluation) -> Groups:
    """What is known of the trials: name -> the group of each trial."""
    from speaker_encoder.verification import breakdown

    data = evaluation.data
    groups: Groups = {}
    if evaluation.seconds is not None:
        groups["duration"] = breakdown.duration_groups(data.trials, evaluation.seconds)
    if any(data.sexes):
        groups["sex"] = breakdown.sex_groups(data.trials, data.sexes)
    if any(data.sessions) and data.speaker_ids is not None:
        groups["session"] = breakdown.session_groups(data.trials, data.speaker_ids, data.sessions)
    if _names_tell_corpora(data.names, data.speaker_ids):
        groups["corpus"] = breakdown.corpus_groups(data.trials, data.names)
    return {
        name: found for name, found in groups.items() if any(group is not None for group in found)
    }


def _names_tell_corpora(names: Sequence[str], speaker_ids: Sequence[str] | None) -> bool:
    """Whether the first folders of the names are a few corpora, and not speakers or sessions."""
    corpora = {name.split("/", 1)[0] for name in names if "/" in name}
    if speaker_ids is None or not 1 < len(corpora) <= _MAX_CORPORA:
        return False
    homes: dict[str, set[str]] = {}
    for name, speaker in zip(names, speaker_ids, strict=True):
        homes.setdefault(speaker, set()).add(name.split("/", 1)[0])
    return len(corpora) < len(homes) and all(len(found) == 1 for found in homes.values())


def _compare(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The first system against each other model, and each model's stages against it plain."""
    from speaker_encoder.verification.bootstrap import TooFewSpeakersError
    from speaker_encoder.verification.evaluate import compare_scores

    options, data = evaluation.options, evaluation.data
    if options.num_bootstrap < 1:
        return []
    found: list[dict[str, Any]] = []
    for first, other in _pairs_to_compare(evaluation.systems):
        try:
            difference = compare_scores(
                first.scores, other.scores, data.trials, data.speaker_ids,
                p_target=options.p_targets[0], num_bootstrap=options.num_bootstrap,
                seed=options.seed,
            )  # fmt: skip
        except TooFewSpeakersError:
            return found
        found.append(
            {
                "before": first.name,
                "after": other.name,
                "p_target": options.p_targets[0],
                **asdict(difference),
            }
        )
    return found


def _pairs_to_compare(
    systems: Sequence[ScoredSystem],
) -> list[tuple[ScoredSystem, ScoredSystem]]:
    """Like with like: a stage of another model with the same stage of the first model."""
    pairs = []
    firsts: dict[tuple[bool, bool], ScoredSystem] = {}
    plain = systems[0]
    for system in systems:
        stage = ("normalisation" in system.description, "calibration" in system.description)
        if stage == (False, False):
            plain = system
        else:
            pairs.append((plain, system))
        first = firsts.setdefault(stage, system)
        if first is not system:
            pairs.append((first, system))
    return pairs


def write_outputs(evaluation: Evaluation, results: dict[str, Any], folder: Path) -> list[Path]:
    """Writes ``results.json``, scores, pictures and ``report.html``.

    Returns:
        The files.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    with explained_full_disk():
        _clear_old(folder)
        written = []
        words = _file_words([system.name for system in evaluation.systems])
        for system, entry, word in zip(evaluation.systems, results["systems"], words, strict=True):
            name = "scores.txt"
            if len(evaluation.systems) > 1:
                name = f"scores_{word}.txt"
            entry["scores_file"] = name
            write_bytes_atomically(folder / name, score_lines(evaluation, system))
            written.append(folder / name)
        text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
        results_path = folder / "results.json"
        write_bytes_atomically(results_path, text.encode("utf-8", "surrogateescape"))
        pictures = _draw(evaluation, results, folder)
        from speaker_encoder.plots.verification_report import write_report

        report_path = folder / "report.html"
        shown = {name: value for name, value in results.items() if name != "options"}
        write_report(shown, pictures, report_path)
    return [*written, results_path, *pictures, report_path]


def _clear_old(folder: Path) -> None:
    """Removes the files of an evaluation that was written here before."""
    from speaker_encoder.errors import UserError

    try:
        systems = read_results(folder / "results.json")["systems"]
    except UserError:
        return
    names = {str(system.get("scores_file", "")) for system in systems} - {""}
    stems = {"det", "histogram", *(_histogram_stem(name) for name in names)}
    names |= {stem + suffix for stem in stems for suffix in (".png", ".svg")}
    for name in names:
        if "/" not in name:
            (folder / name).unlink(missing_ok=True)


def _histogram_stem(scores_file: str) -> str:
    return os.path.splitext(scores_file)[0].replace("scores", "histogram", 1)


def _file_words(names: Sequence[str]) -> list[str]:
    """Words for file names, all different, also where upper and lower case are one."""
    words: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = safe_name(re.sub(r"[^\w.-]+", "_", name).strip("._"))
        word, number = plain, 2
        while word.casefold() in taken:
            word, number = f"{plain}_{number}", number + 1
        taken.add(word.casefold())
        words.append(word)
    return words


def score_lines(evaluation: Evaluation, system: ScoredSystem) -> bytes:
    """The content of ``scores.txt``: ``score label path1 path2``, by tabs where paths have spaces.

    The scores are written so that they are read back exactly.
    """
    data = evaluation.data
    labels: Sequence[Any] = [UNKNOWN_LABEL] * len(data.trials)
    if data.trials.labels is not None:
        labels = data.trials.labels.astype(np.int64).tolist()
    names = data.names
    separator = "\t" if any(len(name.split()) > 1 for name in names) else " "
    rows = zip(
        system.scores.tolist(), labels, data.trials.enrolment.tolist(), data.trials.test.tolist(),
        strict=True,
    )  # fmt: skip
    lines = [
        f"{score!r}{separator}{label}{separator}{names[a]}{separator}{names[b]}\n"
        for score, label, a, b in rows
    ]
    return "".join(lines).encode("utf-8", "surrogateescape")


def _draw(evaluation: Evaluation, results: dict[str, Any], folder: Path) -> list[Path]:
    from speaker_encoder.plots.det import plot_det
    from speaker_encoder.plots.histogram import plot_histogram

    labels = evaluation.data.trials.labels
    pictures: list[Path] = []
    if labels is not None:
        scored = {system.name: (system.scores, labels) for system in evaluation.systems}
        pictures += plot_det(scored, folder / "det.png", p_targets=evaluation.options.p_targets)
    for system, entry in zip(evaluation.systems, results["systems"], strict=True):
        name = _histogram_stem(entry["scores_file"]) + ".png"
        threshold = entry["eer"]["threshold"] if labels is not None else None
        pictures += plot_histogram(
            system.scores, labels, threshold, folder / name, title=system.name
        )
    return pictures


def read_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A ``results.json`` that an evaluation wrote.

    Raises:
        UserError: it is none.
    """
    from speaker_encoder.errors import UserError

    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
        is_ours = isinstance(results["systems"], list) and results["version"] == RESULTS_VERSION
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no results.json of `speaker-encoder evaluate` ({error!r})."
        ) from error
    if not is_ours:
        raise UserError(f"{path} was written by another version. Evaluate again.")
    return results

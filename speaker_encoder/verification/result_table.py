"""The table of an evaluation for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MAX_NAME = 40
_MAX_FILES = 5


def format_results(results: dict[str, Any]) -> str:
    """The figures as text.

    Args:
        results: as ``results.measure`` gives them.

    Returns:
        Lines for a terminal.
    """
    trials = results["trials"]
    if trials["num_targets"] is None:
        return _format_unlabelled(results)
    speakers = "" if trials["num_speakers"] is None else f" of {trials['num_speakers']} speakers"
    lines = [
        f"{trials['num_targets']} target and {trials['num_nontargets']} nontarget trials, "
        f"{trials['num_utterances']} utterances{speakers}",
        f"speakers known from {trials['speakers_from']}",
    ]
    bootstrap = results["systems"][0]["bootstrap"]
    if bootstrap["note"] is None:
        lines.append(f"in brackets 95 % intervals, {bootstrap['num_draws']} draws of speakers")
    else:
        lines.append(bootstrap["note"])
    lines += ["", *_figure_rows(results["systems"]), ""]
    for system in results["systems"]:
        lines += _threshold_lines(system)
    for comparison in results["comparisons"]:
        lines += ["", *_comparison_lines(comparison)]
    lines += _breakdown_lines(results["systems"])
    if left := trials["unreadable"]:
        lines += ["", f"left out, {len(left)} audio files that cannot be read:"]
        lines += [f"  {text}" for text in left[:_MAX_FILES]]
        lines += [f"  and {len(left) - _MAX_FILES} more"] if len(left) > _MAX_FILES else []
    return "\n".join(lines)


def _format_unlabelled(results: dict[str, Any]) -> str:
    trials = results["trials"]
    lines = [
        f"{trials['num_trials']} trials without labels, {trials['num_utterances']} utterances: "
        "scores only"
    ]
    for system in results["systems"]:
        spread = system["scores_spread"]
        lines.append(
            f"{system['name']}: scores from {spread['min']:.4f} to {spread['max']:.4f}, "
            f"mean {spread['mean']:.4f}"
        )
    return "\n".join(lines)


def percent(rate: float, digits: int = 2) -> str:
    """A fraction in percent."""
    return f"{100 * rate:.{digits}f}%"


def _cell(figure: dict[str, Any] | None, is_rate: bool) -> tuple[str, str]:
    """The value of a figure and its interval."""
    if figure is None:
        return "-", ""
    if is_rate:
        value = percent(figure["value"])
        ends = [f"{100 * end:.2f}" for end in figure["interval"] or ()]
    else:
        value = f"{figure['value']:.3f}"
        ends = [f"{end:.3f}" for end in figure["interval"] or ()]
    return value, f"[{', '.join(ends)}]" if ends else ""


def _figure_rows(systems: Sequence[dict[str, Any]]) -> list[str]:
    """A row for each system, its intervals below it."""
    p_targets = list(systems[0]["min_dcf"])
    heads = ["", "EER", *(f"minDCF({p})" for p in p_targets), "minCllr"]
    is_calibrated = any(system["is_calibrated"] for system in systems)
    if is_calibrated:
        heads += [*(f"actDCF({p})" for p in p_targets), "Cllr"]
    rows = [heads]
    for system in systems:
        cells = [_cell(system["eer"], True)]
        cells += [_cell(system["min_dcf"][p], False) for p in p_targets]
        cells.append(_cell(system["min_cllr"], False))
        if is_calibrated:
            costs = system["act_dcf"] or {}
            cells += [_cell(costs.get(p), False) for p in p_targets]
            cells.append(_cell(system["cllr"], False))
        rows.append([_short(system["name"]), *(value for value, _ in cells)])
        if any(found for _, found in cells):
            rows.append(["", *(found for _, found in cells)])
    return align(rows)


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, two spaces between them; the first to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else "..." + name[3 - _MAX_NAME :]


def _threshold_lines(system: dict[str, Any]) -> list[str]:
    name = _short(system["name"])
    lines = [f"{name}: threshold at the EER {system['eer']['threshold']:.4f}"]
    for entry in system["thresholds"]:
        lines.append(
            f"{name}: threshold for at most {100 * entry['wanted_false_accept_rate']:g}% false "
            f"accepts {entry['threshold']:.4f} "
            f"(false accepts {percent(entry['false_accept_rate'])}, "
            f"misses {percent(entry['miss_rate'])})"
        )
    return lines


def _comparison_lines(comparison: dict[str, Any]) -> list[str]:
    low, high = comparison["eer_difference_interval"]
    cost_low, cost_high = comparison["min_dcf_difference_interval"]
    return [
        f"{_short(comparison['after'])} against {_short(comparison['before'])}:",
        f"  EER    {100 * comparison['eer_difference']:+.2f} points "
        f"[{100 * low:+.2f}, {100 * high:+.2f}]: {comparison['verdict']}",
        f"  minDCF({comparison['p_target']:g}) {comparison['min_dcf_difference']:+.3f} "
        f"[{cost_low:+.3f}, {cost_high:+.3f}]",
    ]


def _breakdown_lines(systems: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for kind, groups in systems[0]["breakdown"].items():
        rows = [[f"EER by {kind}", "targets", "nontargets", *(_short(s["name"]) for s in systems)]]
        for number, counts in enumerate(groups):
            found = [system["breakdown"][kind][number]["eer"] for system in systems]
            eers = ["-" if eer is None else percent(eer) for eer in found]
            sizes = [str(counts["num_targets"]), str(counts["num_nontargets"])]
            rows.append([counts["group"], *sizes, *eers])
        lines += ["", *align(rows)]
    return lines

"""The parts of an evaluation's report, the most wanted first, from what `results.json` holds."""

from collections.abc import Mapping, Sequence
from typing import Any

Section = tuple[str, Any]
"""A heading, and what `tables.show_section` shows below it."""
FIGURES = ("eer", "min_dcf", "act_dcf", "cllr", "min_cllr")
SHOWN_ELSEWHERE = {*FIGURES, "name", "thresholds", "breakdown", "num_targets", "num_nontargets"}
TOP_KEYS = {"systems", "comparisons"}


def report_sections(results: Mapping[str, Any]) -> list[Section]:
    """What a report shows, in order.

    Args:
        results: what `results.json` holds. Results of another shape are shown as they are.

    Returns:
        Error rates of all systems in one table, their comparisons, thresholds, breakdowns with
        the systems side by side, then everything else.
    """
    systems = _systems(results)
    if not systems:
        return [("Results", results)]
    sections: list[Section] = [("Error rates", _figures(systems))]
    if results.get("comparisons"):
        sections.append(("Comparisons", results["comparisons"]))
    thresholds = _thresholds(systems)
    if thresholds:
        sections.append(("Thresholds", thresholds))
    return sections


def detail_sections(results: Mapping[str, Any]) -> list[Section]:
    """What stands below the pictures of a report.

    Args:
        results: what `results.json` holds.

    Returns:
        Breakdowns with the systems side by side, then what was measured and how.
    """
    systems = _systems(results)
    if not systems:
        return []
    sections: list[Section] = [
        (f"By {kind.replace('_', ' ')}", _breakdown(systems, kind)) for kind in _kinds(systems)
    ]
    rest = {key: value for key, value in results.items() if key not in TOP_KEYS}
    parts = {key: value for key, value in rest.items() if isinstance(value, Mapping)}
    sections += [(key.replace("_", " ").capitalize(), value) for key, value in parts.items()]
    for system in systems:
        details = {key: value for key, value in system.items() if key not in SHOWN_ELSEWHERE}
        sections.append((str(system["name"]), details))
    singles = {key: value for key, value in rest.items() if key not in parts}
    return [*sections, ("This report", singles)] if singles else sections


def interval_note(results: Mapping[str, Any]) -> str:
    """What the brackets in the tables are; empty when nothing tells.

    Args:
        results: what `results.json` holds.

    Returns:
        A sentence.
    """
    for system in _systems(results):
        draws = system.get("bootstrap")
        if isinstance(draws, Mapping) and {"confidence", "num_draws"} <= set(draws):
            share = 100 * float(draws["confidence"])
            return (
                f"In brackets: the interval that holds {share:g} % of {draws['num_draws']} "
                "bootstrap draws."
            )
    return ""


def _systems(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The systems of results that have them, else none."""
    systems = results.get("systems")
    if not isinstance(systems, Sequence) or isinstance(systems, str):
        return []
    is_known = all(isinstance(system, Mapping) and "name" in system for system in systems)
    return list(systems) if is_known else []


def _figures(systems: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each system; figures that no system has are left out."""
    keys = [key for key in FIGURES if any(system.get(key) is not None for system in systems)]
    keys += [key for key in ("num_targets", "num_nontargets") if key in systems[0]]
    return [
        {"system": system["name"]} | {key: system.get(key) for key in keys} for system in systems
    ]


def _thresholds(systems: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for system in systems:
        eer = system.get("eer")
        if isinstance(eer, Mapping) and "threshold" in eer:
            value = eer.get("value")
            rows.append(
                {"system": system["name"], "wanted": "equal error rate",
                 "threshold": eer["threshold"], "false_accept_rate": value, "miss_rate": value}
            )  # fmt: skip
        for found in system.get("thresholds") or []:
            wanted = found.get("wanted_false_accept_rate")
            rows.append(
                {"system": system["name"]}
                | (
                    {}
                    if wanted is None
                    else {"wanted": f"at most {100 * wanted:g} % false accepts"}
                )
                | {key: v for key, v in found.items() if key != "wanted_false_accept_rate"}
            )
    return rows


def _kinds(systems: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(kind for s in systems for kind in s.get("breakdown") or {}))


def _breakdown(systems: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """One row for each group, the EER of each system beside the other."""
    rows: dict[str, dict[str, Any]] = {}
    for system in systems:
        name = "EER" if len(systems) == 1 else f"EER, {system['name']}"
        for group in (system.get("breakdown") or {}).get(kind) or []:
            row = rows.setdefault(str(group.get("group")), {"group": group.get("group")})
            row |= {key: v for key, v in group.items() if key not in ("group", "eer")}
            row[name] = group.get("eer")
    return list(rows.values())

"""Figures of JSON-ready results as HTML tables: percent, intervals, and nested groups."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from speaker_encoder.plots.page import escape

INTERVAL = "_interval"
MAX_ROWS = 500
MAX_ITEMS = 20
NAMES = {
    "eer": "EER",
    "min_dcf": "minDCF",
    "act_dcf": "actual DCF",
    "actual_dcf": "actual DCF",
    "cllr": "Cllr",
    "min_cllr": "minCllr",
    "p_target": "p_target",
    "num_trials": "trials",
    "false_accept_rate": "false accepts",
    "miss_rate": "misses",
    "num_min_cllr_draws": "draws for minCllr",
    "weights_sha256": "SHA-256 of the weights",
    "speaker_encoder": "speaker-encoder",
    "num_targets": "targets",
    "num_nontargets": "nontargets",
    "sha256": "SHA-256",
}
PARTS = {"eer": "EER", "dcf": "DCF", "cllr": "Cllr", "ids": "ids", "id": "id"}
VALUE_KEYS = ("value", "estimate", "figure")


def show_name(key: object) -> str:
    """A key of the results as a heading: `min_dcf_difference` -> minDCF difference.

    Args:
        key: of a mapping.

    Returns:
        Words; what is no plain lower-case key stays as it is.
    """
    text = str(key)
    if text in NAMES:
        return NAMES[text]
    if not (text.isidentifier() and text == text.lower()):
        return text
    text = text.removeprefix("num_")
    for known, name in NAMES.items():
        if text.startswith(f"{known}_"):
            return f"{name} {text.removeprefix(f'{known}_').replace('_', ' ')}"
    return " ".join(PARTS.get(part, part) for part in text.split("_"))


def show_value(key: object, value: Any, interval: Any = None) -> str:
    """One value as text: rates in percent, an interval in brackets.

    Args:
        key: what the value is; error rates are recognised by it.
        value: a text, a number, True, False, None, or a sequence or mapping of such.
        interval: (low, high) of a number, or None.

    Returns:
        Text, not yet escaped.
    """
    if isinstance(value, Mapping):
        plain = _with_interval(value)
        if plain is not None:
            return show_value(key, *plain)
        return ", ".join(f"{show_name(k)} {show_value(k, v)}" for k, v in value.items())
    if _is_sequence(value):
        if not value:
            return "none"
        shown = [show_value(key, item) for item in list(value)[:MAX_ITEMS]]
        more = len(value) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "")
    text = _show_number(key, value)
    if _is_sequence(interval) and len(interval) == 2:
        low, high = (
            _show_number(key, end).removesuffix(" %").removesuffix(" points") for end in interval
        )
        text += f" ({low} to {high})"
    return text


def show_section(value: Any, *, level: int = 2) -> str:
    """Results of any depth as HTML: tables, and headings where tables hold tables.

    Args:
        value: a mapping, a sequence of mappings, or a single value.
        level: of the headings inside.

    Returns:
        HTML; all text in it is escaped.
    """
    if isinstance(value, Mapping) and _with_interval(value) is None:
        if value and all(_is_row(row) for row in value.values()):
            rows = [{"": name} | dict(row) for name, row in value.items()]
            return _table(rows)
        return _mapping(value, level)
    if _is_sequence(value) and value and all(isinstance(row, Mapping) for row in value):
        if all(_is_row(row) for row in value):
            return _table([dict(row) for row in value])
        return "".join(show_section(row, level=level) for row in value)
    return f"<p>{escape(show_value('', value))}</p>"


def _mapping(values: Mapping[Any, Any], level: int) -> str:
    """Single values in a table of two columns, then each part under its heading."""
    singles = {k: v for k, v in values.items() if not _is_part(v)}
    rows = "".join(
        f"<tr><th>{escape(show_name(key))}</th>"
        f"<td>{escape(show_value(key, value, values.get(f'{key}{INTERVAL}')))}</td></tr>"
        for key, value in singles.items()
        if not (str(key).endswith(INTERVAL) and str(key).removesuffix(INTERVAL) in singles)
    )
    found = [f'<div class="scroll"><table>{rows}</table></div>'] if rows else []
    tag = f"h{min(level, 4)}"
    for key, value in values.items():
        if _is_part(value):
            found.append(f"<{tag}>{escape(show_name(key))}</{tag}>")
            found.append(show_section(value, level=level + 1))
    return "".join(found)


def _table(rows: Sequence[Mapping[Any, Any]]) -> str:
    """One row for each mapping; the columns are all keys, in the order they come up."""
    rows = [_flat(row) for row in rows]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    keys = [k for k in keys if not (str(k).endswith(INTERVAL) and _base(k) in keys)]
    numeric = {key for key in keys if all(_is_number(row.get(key)) for row in rows)}
    classes = {key: ' class="number"' if key in numeric else "" for key in keys}
    head = "".join(f"<th{classes[key]}>{escape(show_name(key))}</th>" for key in keys)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{classes[key]}>"
            + (escape(show_value(key, row[key], row.get(f"{key}{INTERVAL}"))) if key in row else "")
            + "</td>"
            for key in keys
        )
        + "</tr>"
        for row in rows[:MAX_ROWS]
    )
    more = len(rows) - MAX_ROWS
    note = f'<p class="note">{more:,} more rows are in the JSON file.</p>' if more > 0 else ""
    return (
        '<div class="scroll"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )


def _flat(row: Mapping[Any, Any]) -> dict[Any, Any]:
    """A row whose mappings have become columns of their own: minDCF 0.01, minDCF 0.05."""
    flat: dict[Any, Any] = {}
    for key, value in row.items():
        if _is_part(value):
            name = show_name(key)
            flat |= {f"{name} {show_name(part)}": cell for part, cell in value.items()}
        else:
            flat[key] = value
    return flat


def _base(key: object) -> str:
    return str(key).removesuffix(INTERVAL)


def _is_number(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _with_interval(value) is not None
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_part(value: Any) -> bool:
    """Whether a value gets a heading of its own rather than a row."""
    if isinstance(value, Mapping):
        return bool(value) and _with_interval(value) is None
    return _is_sequence(value) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _is_row(value: Any) -> bool:
    """Whether a mapping holds nothing deeper than what fits into the cells of a row."""
    return (
        isinstance(value, Mapping)
        and _with_interval(value) is None
        and not all(map(_is_part, value.values()))
        and not any(_is_part(cell) and not _is_short(cell) for cell in value.values())
    )


def _is_short(value: Any) -> bool:
    """A mapping of a few single values, such as minDCF by p_target."""
    return (
        isinstance(value, Mapping)
        and len(value) <= 4
        and not any(_is_part(item) for item in value.values())
    )


def _with_interval(value: Mapping[Any, Any]) -> tuple[Any, Any] | None:
    """(value, interval) of a mapping that is a figure with its interval, else None."""
    for key in VALUE_KEYS:
        if key in value and not isinstance(value[key], Mapping) and len(value) <= 3:
            if "interval" in value:
                return value[key], value["interval"]
            if "low" in value and "high" in value:
                return value[key], (value["low"], value["high"])
    return None


def _is_rate(key: object) -> bool:
    words = re.findall("[a-z]+", str(key).lower())
    return ("eer" in words or words[-1:] == ["rate"]) and "sampling" not in words


def _is_cost(key: object) -> bool:
    return any(part in str(key).lower() for part in ("dcf", "cllr", "threshold"))


def _show_number(key: object, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if str(key).endswith(("_difference", "_difference_interval")):
        return f"{100 * value:+.2f} points" if _is_rate(key) else f"{value:+.3f}"
    if _is_rate(key) and abs(value) <= 1:
        return f"{100 * value:.2f} %"
    if _is_cost(key) and abs(value) < 1000:
        return f"{value:.3f}"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 100 else f"{value:,.1f}"

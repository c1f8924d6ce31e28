"""Dataclasses that were written as JSON, read back."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from speaker_encoder.errors import UserError

_MAX_SHOWN = 60


def read_back(kind: Any, value: Any, where: str) -> Any:
    """Gives what `dataclasses.asdict` made a JSON value of; keys that are not known are left out.

    Args:
        kind: a dataclass, or the type of one of its fields.
        value: as JSON gave it.
        where: what holds it, for the error: a file's path, and what is looked at in it.

    Raises:
        UserError: a part is missing, or not of its type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):  # with None
        return None if value is None else read_back(arguments[0], value, where)
    if is_dataclass(kind) and isinstance(value, dict):
        return _read_fields(kind, value, where)
    if origin is list and isinstance(value, list | tuple):
        return [read_back(arguments[0], one, f"{where}[{n}]") for n, one in enumerate(value)]
    if origin is tuple and isinstance(value, list | tuple) and len(value) == len(arguments):
        return tuple(map(read_back, arguments, value, [where] * len(value)))
    if origin is dict and isinstance(value, dict):
        return {name: read_back(arguments[1], one, where) for name, one in value.items()}
    is_known = value in arguments if origin is Literal else kind is str and isinstance(value, str)
    if is_known:
        return value
    is_number = isinstance(value, int | float | str) and not isinstance(value, bool)
    if kind in (int, float) and is_number:
        try:
            return kind(value)
        except (ValueError, OverflowError):
            pass
    found = repr(value)
    found = found if len(found) <= _MAX_SHOWN else f"{found[:_MAX_SHOWN]}..."
    wanted = "an object" if is_dataclass(kind) else str(getattr(kind, "__name__", kind))
    raise _wrong(where, f"{wanted} was looked for, found {found}")


def _read_fields(kind: Any, values: dict[str, Any], where: str) -> Any:
    types, found = get_type_hints(kind), {}
    for field in fields(kind):
        is_needed = field.default is MISSING and field.default_factory is MISSING
        if is_needed and field.name not in values:
            raise _wrong(where, f"it has no {field.name!r}")
        if is_needed or values.get(field.name) is not None:
            place = f"{where}, {field.name}"
            found[field.name] = read_back(types[field.name], values[field.name], place)
    return kind(**found)


def _wrong(where: str, what: str) -> UserError:
    return UserError(
        f"{where}: {what}. The file is damaged or of another version of speaker-encoder. Delete or "
        "repair it."
    )

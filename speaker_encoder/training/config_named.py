"""Kinds of value with options of their own: optimizer, schedule, adapters; and lists of texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from speaker_encoder.training.config_kinds import JsonSchema, Kind, Refused, Text, shown

Option = tuple[Kind, Any]
"""The kind of an option, and its default as in the JSON file."""


@dataclass(frozen=True)
class TextList(Kind):
    """A list of texts, or one; null is none.

    Attributes:
        what: they are, in words.
        names: nothing else is possible; () allows every text.
    """

    what: str = "texts"
    names: tuple[str, ...] = ()
    nullable: bool = True
    when_null: ClassVar[Any] = ()

    def _possible(self) -> str:
        among = f" among {', '.join(shown(name) for name in self.names)}" if self.names else ""
        return f"a list of {self.what}{among}"

    def _read(self, value: Any) -> tuple[str, ...]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)):
            raise self._refuse(value)
        for text in texts:
            if not isinstance(text, str) or not text or (self.names and text not in self.names):
                raise self._refuse(value)
        return tuple(dict.fromkeys(texts))

    def _schema(self) -> JsonSchema:
        item = {"enum": list(self.names)} if self.names else Text().schema()
        return {"anyOf": [item, {"type": "array", "items": item}]}


@dataclass(frozen=True)
class ObjectList(Kind):
    """A list of objects; null is none."""

    nullable: bool = True
    when_null: ClassVar[Any] = ()

    def _possible(self) -> str:
        return "a list of objects, [{...}, ...]"

    def _read(self, value: Any) -> tuple[dict[str, Any], ...]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, dict) for v in value):
            raise self._refuse(value)
        return tuple(dict(one) for one in value)

    def _schema(self) -> JsonSchema:
        return {"type": "array", "items": {"type": "object"}}


@dataclass(frozen=True)
class Options(Kind):
    """An object with known options; read, it has every one of them.

    Attributes:
        known: option -> its kind and default.
    """

    known: Mapping[str, Option]
    nullable: bool = False

    def _possible(self) -> str:
        return f"an object with any of {', '.join(self.known)}"

    def _read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._refuse(value)
        return read_options("it", self.known, value)

    def _schema(self) -> JsonSchema:
        return _object_schema(self.known, {}, [])


@dataclass(frozen=True)
class Named(Kind):
    """A name, or {"name": ..., its options}; read, it is always the object with every option.

    Attributes:
        known: name -> its options.
    """

    known: Mapping[str, Mapping[str, Option]]
    nullable: bool = False

    def _possible(self) -> str:
        names = [
            shown(name) + (f" (options {', '.join(options)})" if options else "")
            for name, options in self.known.items()
        ]
        return f'one of {", ".join(names)}, or {{"name": one of these, and its options}}'

    def _read(self, value: Any) -> dict[str, Any]:
        given = {"name": value} if isinstance(value, str) else value
        name = given.get("name") if isinstance(given, dict) else None
        if not isinstance(name, str) or name not in self.known:
            raise self._refuse(value)
        options = {option: inner for option, inner in given.items() if option != "name"}
        return {"name": name, **read_options(name, self.known[name], options)}

    def _schema(self) -> JsonSchema:
        objects = [
            _object_schema(options, {"name": {"const": name}}, ["name"])
            for name, options in self.known.items()
        ]
        return {"anyOf": [{"enum": list(self.known)}, *objects]}


def read_options(
    name: str, known: Mapping[str, Option], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Gives every option with the value that is given, or its default.

    Raises:
        Refused: an unknown option, or an impossible value.
    """
    for option in given:
        if option not in known:
            listed = ", ".join(known) or "none"
            raise Refused(f"found the option {shown(option)}, the options of {name} are {listed}")
    read = {}
    for option, (kind, default) in known.items():
        try:
            value = kind.read(given.get(option, default))
        except Refused as refusal:
            raise Refused(f"its option {option}: {refusal}") from refusal
        read[option] = list(value) if isinstance(value, tuple) else value
    return read


def _object_schema(
    known: Mapping[str, Option], fixed: dict[str, JsonSchema], required: list[str]
) -> JsonSchema:
    properties = {
        option: {**kind.schema(), "default": default} for option, (kind, default) in known.items()
    }
    schema: JsonSchema = {"type": "object", "additionalProperties": False}
    return {**schema, "required": required, "properties": {**fixed, **properties}}

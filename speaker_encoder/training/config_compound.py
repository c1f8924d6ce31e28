"""Kinds of value with parts: paths, ranges, lists, mappings, losses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from speaker_encoder.errors import UserError
from speaker_encoder.training.config_kinds import (
    JsonSchema,
    Kind,
    Number,
    Refused,
    integer,
    shown,
)

_WEIGHT = Number(above=0)
_SHARD_SUFFIXES = (".tar", ".parquet")
_VARIABLE = r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}"


def expand_path(text: str) -> str:
    """Puts environment variables, ${NAME}, and the home folder, ~, into a path.

    Raises:
        Refused: a variable is not set, or the home folder is unknown.
    """
    unset = [name for name in re.findall(_VARIABLE, text) if name not in os.environ]
    if unset:
        raise Refused(
            f"found {shown(text)}, and the environment has no variable {unset[0]}. "
            f"Set {unset[0]}, or write the path in full"
        )
    expanded = os.path.expanduser(re.sub(_VARIABLE, lambda match: os.environ[match[1]], text))
    if not expanded:
        raise Refused(f"found {shown(text)}, which is empty once its variables are filled in")
    return expanded


def _refuse_secrets(path: str) -> None:
    if "://" not in path:
        return
    from speaker_encoder.corpora.shards import refuse_secrets

    try:
        refuse_secrets(path)
    except UserError as error:
        raise Refused(str(error).removesuffix(".")) from None


@dataclass(frozen=True)
class FilePath(Kind):
    """A path, with ~ and ${VARIABLE} filled in.

    Attributes:
        must_exist: "any" file or folder, a "file", or "" when it may be made later.
        words: other texts that are no path, such as "demo".
        may_be_shards: takes the URL of shards too, and names of tar and parquet files with
            wildcards; the scan finds out whether they exist.
    """

    must_exist: str = ""
    words: tuple[str, ...] = ()
    nullable: bool = False
    may_be_shards: bool = False

    def _possible(self) -> str:
        what = {"any": "a folder or file that exists", "file": "a file that exists", "": "a path"}
        return " or ".join([what[self.must_exist], *(shown(word) for word in self.words)])

    def _read(self, value: Any) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise self._refuse(value)
        if value in self.words:
            return value
        _refuse_secrets(value)
        path = expand_path(value)
        _refuse_secrets(path)
        found = shown(value) if path == value else f"{shown(value)} ({path})"
        if self.may_be_shards and ("://" in path or path.endswith(_SHARD_SUFFIXES)):
            return path
        if self.must_exist and not os.path.exists(path):
            raise Refused(f"found {found}, which does not exist, {self._wanted()}")
        if self.must_exist == "file" and not os.path.isfile(path):
            raise Refused(f"found {found}, which is not a file, {self._wanted()}")
        return path

    def _schema(self) -> JsonSchema:
        return {"type": "string", "minLength": 1, "pattern": "^[^\\u0000]+$"}


@dataclass(frozen=True)
class PathList(Kind):
    """Folders or files that exist: a list, one path, or null for none.

    Attributes:
        words: other texts that are no path.
    """

    words: tuple[str, ...] = ()
    nullable: bool = True
    when_null: ClassVar[Any] = ()

    def _possible(self) -> str:
        return " or ".join(["a list of folders or files that exist", *map(shown, self.words)])

    def _read(self, value: Any) -> tuple[str, ...]:
        paths = [value] if isinstance(value, str) else value
        if not isinstance(paths, (list, tuple)):
            raise self._refuse(value)
        item = FilePath("any", self.words)
        return tuple(dict.fromkeys(item.read(path) for path in paths))

    def _schema(self) -> JsonSchema:
        item = FilePath()._schema()
        return {"anyOf": [item, {"type": "array", "items": item}]}


@dataclass(frozen=True)
class NumberOrRange(Kind):
    """A number, or [least, most]."""

    number: Number
    always_range: bool = False
    nullable: bool = False

    def _possible(self) -> str:
        return f"{self.number.possible()}, or [least, most] of such numbers"

    def _read(self, value: Any) -> float | tuple[float, float]:
        if isinstance(value, (list, tuple)):
            if len(value) != 2:
                raise self._refuse(value)
            try:
                low, high = (float(self.number.read(bound)) for bound in value)
            except Refused:
                raise self._refuse(value) from None
            if low > high:
                raise Refused(f"found {shown(value)}, whose first number is larger than its second")
            return (low, high)
        try:
            single = float(self.number.read(value))
        except Refused:
            raise self._refuse(value) from None
        return (single, single) if self.always_range else single

    def _schema(self) -> JsonSchema:
        number = self.number.schema()
        pair = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
        return {"anyOf": [number, pair]}


@dataclass(frozen=True)
class IntegerList(Kind):
    """A list of different whole numbers from 0."""

    nullable: bool = False

    def _possible(self) -> str:
        return "a list of different whole numbers at least 0"

    def _read(self, value: Any) -> tuple[int, ...]:
        if not isinstance(value, (list, tuple)):
            raise self._refuse(value)
        try:
            numbers = tuple(int(integer(0).read(number)) for number in value)
        except Refused:
            raise self._refuse(value) from None
        if len(set(numbers)) != len(numbers):
            raise self._refuse(value)
        return numbers

    def _schema(self) -> JsonSchema:
        items = {"type": "integer", "minimum": 0}
        return {"type": "array", "items": items, "uniqueItems": True}


@dataclass(frozen=True)
class Mapping(Kind):
    """A JSON object that is handed on.

    Attributes:
        refused: name inside -> what to write instead, for names that have a key of their own.
    """

    refused: tuple[tuple[str, str], ...] = ()
    nullable: bool = False

    def _possible(self) -> str:
        return "an object, {...}"

    def _read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._refuse(value)
        found = [f"{name}: {instead}" for name, instead in self.refused if name in value]
        if found:
            raise Refused(f"found names that this package sets itself ({'; '.join(found)})")
        return dict(value)

    def _schema(self) -> JsonSchema:
        schema: JsonSchema = {"type": "object"}
        if self.refused:
            schema["propertyNames"] = {"not": {"enum": [name for name, _ in self.refused]}}
        return schema


@dataclass(frozen=True)
class LossChoice(Kind):
    """The name of a loss, {"name": ..., its options}, or a list of such with weights: their sum."""

    known: Callable[[], tuple[str, ...]]
    variants: tuple[str, ...]
    nullable: bool = False

    def _possible(self) -> str:
        names = ", ".join(shown(name) for name in self.known())
        return (
            f'one of {names}, {{"name": one of these, and its options}}, or a list of such, each '
            'with its "weight" in their sum'
        )

    def _read(self, value: Any) -> dict[str, Any] | list[dict[str, Any]]:
        if not isinstance(value, (list, tuple)):
            return self._read_one(value, value)
        if not value:
            raise self._refuse(value)
        return [self._read_part(part, value) for part in value]

    def _read_part(self, part: Any, value: Any) -> dict[str, Any]:
        loss = self._read_one(part, value)
        try:
            weight = _WEIGHT.read(loss.pop("weight", 1.0))
        except Refused as refusal:
            raise Refused(f"the weight of {loss['name']}: {refusal}") from refusal
        return {"name": loss.pop("name"), "weight": weight, **loss}

    def _read_one(self, loss: Any, value: Any) -> dict[str, Any]:
        loss = {"name": loss} if isinstance(loss, str) else loss
        if not isinstance(loss, dict) or loss.get("name") not in self.known():
            raise self._refuse(value)
        if loss["name"] == "ge2e":
            loss = {"name": "ge2e", "variant": "softmax", **loss}
            variant = loss["variant"]
            if not isinstance(variant, str) or variant not in self.variants:
                names = ", ".join(shown(name) for name in self.variants)
                raise Refused(f"found the variant {shown(variant)}, possible is one of {names}")
        return dict(loss)

    def _schema(self) -> JsonSchema:
        name = {"enum": list(self.known())}
        ge2e = {"properties": {"name": {"const": "ge2e"}}}
        one = {
            "type": "object",
            "properties": {"name": name},
            "required": ["name"],
            "if": ge2e,
            "then": {"properties": {"variant": {"enum": list(self.variants)}}},
        }
        part = {**one, "properties": {"name": name, "weight": _WEIGHT.schema()}}
        parts = {"type": "array", "items": {"anyOf": [name, part]}, "minItems": 1}
        return {"anyOf": [name, one, parts]}

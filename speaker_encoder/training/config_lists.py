"""Kinds of value that are lists of numbers or of names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speaker_encoder.training.config_kinds import (
    Choice,
    JsonSchema,
    Kind,
    Number,
    Refused,
    integer,
    shown,
)


@dataclass(frozen=True)
class NumberList(Kind):
    """A list of different numbers, none of them 1."""

    number: Number
    nullable: bool = False

    def _possible(self) -> str:
        return f"a list of different numbers, each {self.number.possible()}, and not 1"

    def _read(self, value: Any) -> tuple[float, ...]:
        if not isinstance(value, (list, tuple)):
            raise self._refuse(value)
        try:
            numbers = tuple(float(self.number.read(item)) for item in value)
        except Refused:
            raise self._refuse(value) from None
        if len(set(numbers)) != len(numbers) or 1.0 in numbers:
            raise self._refuse(value)
        return numbers

    def _schema(self) -> JsonSchema:
        items = {**self.number.schema(), "not": {"const": 1}}
        return {"type": "array", "items": items, "uniqueItems": True}


@dataclass(frozen=True)
class ChoiceList(Kind):
    """A list of different names, at least one."""

    choice: Choice
    nullable: bool = False

    def _possible(self) -> str:
        return f"a list with some of {self.choice.possible().removeprefix('one of ')}"

    def _read(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)) or not value:
            raise self._refuse(value)
        try:
            names = tuple(self.choice.read(item) for item in value)
        except Refused:
            raise self._refuse(value) from None
        if len(set(names)) != len(names):
            raise self._refuse(value)
        return names

    def _schema(self) -> JsonSchema:
        items = self.choice.schema()
        return {"type": "array", "items": items, "uniqueItems": True, "minItems": 1}


@dataclass(frozen=True)
class IntegerRange(Kind):
    """[least, most] of whole numbers, or one for both."""

    least: int
    nullable: bool = False

    def _possible(self) -> str:
        return f"a whole number at least {self.least}, or [least, most] of such numbers"

    def _read(self, value: Any) -> tuple[int, int]:
        bounds = value if isinstance(value, (list, tuple)) else (value, value)
        try:
            low, high = (int(integer(self.least).read(bound)) for bound in bounds)
        except (Refused, ValueError):
            raise self._refuse(value) from None
        if low > high:
            raise Refused(f"found {shown(value)}, whose first number is larger than its second")
        return low, high

    def _schema(self) -> JsonSchema:
        number = integer(self.least).schema()
        pair = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
        return {"anyOf": [number, pair]}

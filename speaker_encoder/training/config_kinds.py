"""Kinds of value that a key of the config may have: each reads and describes itself."""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

JsonSchema = dict[str, Any]


class Refused(ValueError):
    """A value that a key cannot have; its text says what is possible."""


class Kind(ABC):
    """One kind of value.

    Attributes:
        nullable: null is possible too.
        when_null: what null is read as.
    """

    nullable: bool = False
    when_null: ClassVar[Any] = None

    def read(self, value: Any) -> Any:
        """Gives the value as the program uses it.

        Raises:
            Refused: the value is not of this kind.
        """
        if value is None:
            if self.nullable:
                return self.when_null
            raise Refused(f"found null, {self._wanted()}")
        return self._read(value)

    def schema(self) -> JsonSchema:
        """The JSON schema (draft 2020-12) of this kind."""
        schema = self._schema()
        if not self.nullable:
            return schema
        if "enum" in schema:
            return {**schema, "enum": [*schema["enum"], None]}
        if isinstance(schema.get("type"), str):
            return {**schema, "type": [schema["type"], "null"]}
        return {"anyOf": [schema, {"type": "null"}]}

    def possible(self) -> str:
        """What values are possible, in words."""
        return f"{self._possible()} or null" if self.nullable else self._possible()

    def _wanted(self) -> str:
        return f"possible is {self.possible()}"

    def _refuse(self, value: Any) -> Refused:
        found = f"found {shown(value)}"
        if isinstance(value, str) and _is_number(value):
            found += f", a text; write the number without quotes: {value.strip()}"
        return Refused(f"{found}, {self._wanted()}")

    @abstractmethod
    def _possible(self) -> str: ...

    @abstractmethod
    def _read(self, value: Any) -> Any: ...

    @abstractmethod
    def _schema(self) -> JsonSchema: ...


_LONGEST_SHOWN = 300  # a path must be readable whole


def shown(value: Any) -> str:
    """A value as it stands in the JSON file, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _fits_float(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@dataclass(frozen=True)
class Boolean(Kind):
    """true or false."""

    nullable: bool = False

    def _possible(self) -> str:
        return "true or false"

    def _read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._refuse(value)
        return value

    def _schema(self) -> JsonSchema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Number(Kind):
    """A finite number, or a whole one.

    Attributes:
        least, most: bounds, both possible themselves.
        above: the number must be larger than this.
        whole: no fraction.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    whole: bool = False
    nullable: bool = False

    def _possible(self) -> str:
        limits = {"at least": self.least, "above": self.above, "at most": self.most}
        words = [f"{word} {bound:g}" for word, bound in limits.items() if bound is not None]
        name = "a whole number" if self.whole else "a number"
        return f"{name} {' and '.join(words)}".rstrip()

    def _read(self, value: Any) -> float | int:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._refuse(value)
        if not _fits_float(value) or (self.whole and value != int(value)):
            raise self._refuse(value)
        too_low = (self.least is not None and value < self.least) or (
            self.above is not None and value <= self.above
        )
        if too_low or (self.most is not None and value > self.most):
            raise self._refuse(value)
        return int(value) if self.whole else float(value)

    def _schema(self) -> JsonSchema:
        bounds = {"minimum": self.least, "exclusiveMinimum": self.above, "maximum": self.most}
        kept = {name: bound for name, bound in bounds.items() if bound is not None}
        return {"type": "integer" if self.whole else "number", **kept}


def integer(
    least: float | None = None, most: float | None = None, *, nullable: bool = False
) -> Number:
    """A whole number."""
    return Number(least=least, most=most, whole=True, nullable=nullable)


@dataclass(frozen=True)
class Choice(Kind):
    """One of some values; `known` is called late, so that tables of other modules may name them."""

    known: Callable[[], tuple[Any, ...]]
    nullable: bool = False

    def _possible(self) -> str:
        return "one of " + ", ".join(shown(name) for name in self.known())

    def _read(self, value: Any) -> Any:
        for name in self.known():
            if value == name and not isinstance(value, bool):
                return name
        raise self._refuse(value)

    def _schema(self) -> JsonSchema:
        return {"enum": list(self.known())}


def choice(*names: Any, nullable: bool = False) -> Choice:
    """One of the given values."""
    return Choice(lambda: names, nullable)


@dataclass(frozen=True)
class NumberOrWord(Kind):
    """A number, or one of some words."""

    number: Number
    words: tuple[str, ...]
    nullable: bool = False

    def _possible(self) -> str:
        return f"{', '.join(map(shown, self.words))}, or {self.number.possible()}"

    def _read(self, value: Any) -> str | float | int:
        if value in self.words:
            return value
        if isinstance(value, str):
            raise self._refuse(value)
        return self.number.read(value)

    def _schema(self) -> JsonSchema:
        return {"anyOf": [{"enum": list(self.words)}, self.number.schema()]}


@dataclass(frozen=True)
class Text(Kind):
    """A text that is not empty.

    Attributes:
        pattern: regular expression that must be found in it, and `what` says in words.
    """

    pattern: str | None = None
    what: str = "a text"
    nullable: bool = False
    is_secret: bool = False

    def _possible(self) -> str:
        return self.what

    def _read(self, value: Any) -> str:
        fits = isinstance(value, str) and value != ""
        if not fits or (self.pattern is not None and not re.search(self.pattern, value)):
            if self.is_secret:
                raise Refused(f"found something else (not shown, it is a secret), {self._wanted()}")
            raise self._refuse(value)
        return value

    def _schema(self) -> JsonSchema:
        if self.pattern is not None:
            return {"type": "string", "minLength": 1, "pattern": self.pattern}
        return {"type": "string", "minLength": 1}

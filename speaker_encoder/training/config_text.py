"""The text of a JSON or YAML config and of `key=value` overrides, read into plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from speaker_encoder.errors import UserError

YAML_SUFFIXES = (".yaml", ".yml")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')


class ConfigError(UserError):
    """A config that cannot be used.

    Attributes:
        problems: all that is wrong with it, each with its key.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{source} has {count}:\n" + "\n".join(f"  {p}" for p in problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.source, self.problems)


def read_config(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or in a YAML file by its name's ending.

    Raises:
        ConfigError: the file cannot be read, is not JSON or YAML, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"it is not text in UTF-8 (byte {error.start})"
        raise ConfigError(str(path), [problem]) from error
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}. Give the path of a JSON or YAML file"
        raise ConfigError(str(path), [problem]) from error
    is_yaml = path.suffix.lower() in YAML_SUFFIXES
    values, repeated = _yaml_values(path, text) if is_yaml else _json_values(path, text)
    if not isinstance(values, dict):
        raise ConfigError(str(path), ["it does not hold an object, { ... }, with the keys inside"])
    if repeated:
        raise ConfigError(str(path), repeated)
    return values


def _json_values(path: Path, text: str) -> tuple[Any, list[str]]:
    """What a JSON text holds, and the problems of keys that stand twice."""
    try:
        return json.loads(text, parse_constant=_refuse_constant), duplicate_keys(text)
    except json.JSONDecodeError as error:
        raise ConfigError(str(path), [_syntax_problem(text, error)]) from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(str(path), [f"it is not plain JSON: {error}"]) from error


def _yaml_values(path: Path, text: str) -> tuple[Any, list[str]]:
    """What a YAML text holds, and the problems of keys that stand twice."""
    from speaker_encoder.training.config_yaml import YamlProblem, read_yaml

    try:
        values, repeated = read_yaml(text)
        json.dumps(values)  # a mapping can hold itself
    except YamlProblem as error:
        raise ConfigError(str(path), [str(error)]) from error
    except (RecursionError, ValueError) as error:
        raise ConfigError(str(path), [f"it is not plain data: {error}"]) from error
    return values, repeated


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f"line {line} column {position - text.rfind(chr(10), 0, position)}"


def _syntax_problem(text: str, error: json.JSONDecodeError) -> str:
    """What is wrong with the JSON and where; never the text itself, there may be a key in it."""
    before = text[: error.pos].rstrip()
    at = text[error.pos :].lstrip()[:1]
    if text[error.pos : error.pos + 1] == "," and text[error.pos + 1 :].lstrip()[:1] in ("}", "]"):
        before, at = text[: error.pos + 1], "}"  # where Python 3.13 points to
    if before.endswith(",") and at in ("}", "]"):
        place = _place(text, len(before) - 1)
        return f"{place}: a trailing comma; remove it, JSON allows none after the last entry"
    return f"{_place(text, error.pos)}: not JSON: {error.msg}"


def duplicate_keys(text: str) -> list[str]:
    """The problems of keys that stand twice in one object, of a text that is valid JSON."""
    problems: list[str] = []
    open_objects: list[dict[str, int] | None] = []
    tokens = list(_TOKEN.finditer(text))
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token[0] in "{[":
            open_objects.append({} if token[0] == "{" else None)
        elif token[0] in "}]":
            open_objects.pop()
        elif token[0][0] == '"' and following is not None and following[0] == ":":
            seen, name = open_objects[-1], json.loads(token[0])
            line = text.count("\n", 0, token.start()) + 1
            assert seen is not None
            if name in seen:
                problems.append(f"{name}: stands twice, in line {seen[name]} and line {line}")
            seen.setdefault(name, line)
    return problems


def parse_override(text: str) -> tuple[list[str], str]:
    """Splits `key=value` and `key.inner=value` into the parts of the key, and the value's text.

    Raises:
        ConfigError: it is not of this form.
    """
    name, sign, value = text.partition("=")
    parts = name.strip().split(".")
    if not sign or not all(re.fullmatch(r"\w+", part) for part in parts):
        shown = name.strip() if sign else re.split(r"[^\w.]", text.strip())[0]
        raise ConfigError("--override", [f"{shown}: write it as key=value, found no such form"])
    return parts, value


def parse_override_value(text: str) -> Any:
    """A JSON value, or the bare text where it is none."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except ValueError:
        return text

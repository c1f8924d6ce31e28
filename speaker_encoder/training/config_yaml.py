"""The text of a YAML config, read into the plain values that JSON has."""

from __future__ import annotations

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
}
"""The core schema of YAML 1.2: `off`, `no` and `12:30` are texts, `1e-5` is a number."""


class YamlProblem(ValueError):
    """What is wrong with a YAML text and where, without the text itself."""


class _Loader(yaml.SafeLoader):
    """Reads plain data with the core schema of YAML 1.2, and remembers keys that stand twice."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (yaml's name; not those of YAML 1.1)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: list[str] = []

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        name = node.tag.removeprefix(_TAG)
        pattern = _SCALARS.get(name)
        is_scalar = isinstance(node, yaml.ScalarNode)
        if pattern is None:
            is_plain = name in ("str", "seq", "map")
        else:
            is_plain = is_scalar and re.fullmatch(pattern, node.value) is not None
        if not is_plain:
            raise YamlProblem(
                f"line {node.start_mark.line + 1}: not YAML of plain data: a tag, such as !!binary "
                "or !!timestamp, that JSON has no value for. Leave the tag out, and put a text "
                "between quotes"
            )
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != f"{_TAG}str":
                raise YamlProblem(f"line {line}: a key that is no text; put it between quotes")
            name = key_node.value
            if name in lines:
                self.repeated.append(f"{name}: stands twice, in line {lines[name]} and line {line}")
            lines.setdefault(name, line)
        return super().construct_mapping(node, deep)


for _name, _pattern in _SCALARS.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), None)
_Loader.add_constructor(f"{_TAG}int", lambda loader, node: int(node.value))
_Loader.add_constructor(f"{_TAG}float", lambda loader, node: float(node.value))


def read_yaml(text: str) -> tuple[Any, list[str]]:
    """Gives what a YAML text holds, and the problems of keys that stand twice in one mapping.

    Raises:
        YamlProblem: it is not YAML, or holds more than plain data.
    """
    try:
        loader = _Loader(text)
        return loader.get_single_data(), loader.repeated
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1} column {mark.column + 1}: " if mark else ""
        is_grammar = isinstance(error, (yaml.scanner.ScannerError, yaml.parser.ParserError))
        reason = error.problem if is_grammar else "more than one document of plain data"
        raise YamlProblem(f"{place}not YAML: {reason}") from error
    except yaml.YAMLError as error:
        raise YamlProblem("not YAML: it holds a character that is no text") from error

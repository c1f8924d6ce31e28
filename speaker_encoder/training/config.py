"""The config of a training run: one JSON or YAML file, checked whole before anything is loaded."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from speaker_encoder.training.config_checks import check_together, fill_in, nearest
from speaker_encoder.training.config_kinds import Kind, Refused, shown
from speaker_encoder.training.config_named import Named
from speaker_encoder.training.config_stages import OF_THE_WHOLE, stage_values
from speaker_encoder.training.config_tables import ALIASES, IGNORED_KEYS
from speaker_encoder.training.config_text import (
    ConfigError,
    parse_override,
    parse_override_value,
    read_config,
)
from speaker_encoder.training.keys import (
    REQUIRED,
    AugmentationKeys,
    ClosenessKeys,
    DataKeys,
    ModelKeys,
    OptimisationKeys,
    RecordKeys,
)
from speaker_encoder.training.recipe_table import left_to_recipe

__all__ = ["ConfigError", "TrainConfig", "config_keys"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    RecordKeys, ClosenessKeys, OptimisationKeys, AugmentationKeys, DataKeys, ModelKeys
):
    """All settings of a training run; what follows from other keys is filled in.

    Read it with `from_json` or `from_dict`, or give the keys as arguments. Its text and `to_dict`
    never hold a secret. The keys, their kinds and defaults are in `keys`.

    Raises:
        ConfigError: a value is not possible; the message lists every problem.
    """

    _given: ClassVar[dict[str, Any]]  # of this config, before what follows is filled in
    named: ClassVar[frozenset[str]]  # the keys that were given, their defaults or not

    def __new__(cls, **given: Any) -> TrainConfig:
        """Notes which keys are given, which their values alone do not tell."""
        config = super().__new__(cls)
        object.__setattr__(config, "named", frozenset(given))
        return config

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in config_keys()}
        values, problems = _read_values(given)
        problems += check_together(values, {*(set(given) - set(values)), *self.left_to_recipe})
        problems = problems or _check_stages(values)
        if problems:
            raise ConfigError("The config", problems)
        object.__setattr__(self, "_given", values)
        for name, value in fill_in(values).items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> TrainConfig:
        """The config in a JSON file, or in a YAML file by its ending, .yaml or .yml.

        Args:
            path: of the file.
            overrides: `key=value` with a JSON value or a bare text; `loss.variant=contrast`
                reaches into an object. They win over the file, the last one over those before.

        Raises:
            ConfigError: with every problem of the file and the overrides.
        """
        values = read_config(Path(path).expanduser())
        return cls.from_dict(values, overrides, source=str(path))

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        overrides: Iterable[str] = (),
        *,
        source: str = "The config",
    ) -> TrainConfig:
        """The config in a mapping of keys as they stand in the JSON file.

        Args:
            values: key -> plain JSON value.
            overrides: as in `from_json`.
            source: what the error calls the config.

        Raises:
            ConfigError: with every problem.
        """
        named, problems = _name_keys(values)
        problems += _apply_overrides(named, overrides)
        missing = [name for name, kind in _required().items() if name not in named]
        problems += [f"{name}: missing, it has no default" for name in missing]
        whole = {**_defaults(), **named}
        good, more = _read_values({name: v for name, v in whole.items() if v is not REQUIRED})
        problems += more
        left = left_to_recipe(good.get("recipe"), named)
        problems += check_together(good, {*(set(whole) - set(good)), *left})
        problems = problems or _check_stages(good)
        if problems:
            raise ConfigError(source, problems)
        return cls(**named)

    def to_dict(self) -> dict[str, Any]:
        """Every key with its plain JSON value, secrets left out; `from_dict` reads it again.

        With stages, what follows from other keys is as it was given, null say: it follows from
        each stage's own keys.
        """
        names = [name for name, key in config_keys().items() if not key.metadata["is_secret"]]
        values = {name: getattr(self, name) for name in names}
        if self.stages:
            values |= {name: self._given[name] for name in names if name not in OF_THE_WHOLE}
        return {name: _plain(value) for name, value in values.items()}

    def stage_configs(self, *, chained: bool = True) -> tuple[TrainConfig, ...]:
        """The config of each stage as a run of its own; none without the key `stages`.

        Args:
            chained: the stages after the first start from the model of the one before; False: all
                start from the first encoder, to be checked before there is any other.
        """
        run_dir = Path(self.output_dir) / self.run_id
        whole = {**self._given, "stages": [_name_keys(stage)[0] for stage in self.stages]}
        return tuple(TrainConfig(**one) for one in stage_values(whole, run_dir, chained=chained))

    @property
    def left_to_recipe(self) -> tuple[str, ...]:
        """The keys that the recipe has still to choose: those that were not given."""
        return left_to_recipe(self.recipe, self.named)

    def completed(self, chosen: Mapping[str, Any]) -> TrainConfig:
        """The config with what its recipe chose; all its values count as given.

        Args:
            chosen: key -> value.

        Raises:
            ConfigError: a value chosen contradicts one that was given.
        """
        return TrainConfig(**{**self._given, **chosen})

    @property
    def comet_api_key(self) -> str | None:
        """Comet's key: of the config, else of the environment variable COMET_API_KEY."""
        return self.comet_key or os.environ.get("COMET_API_KEY") or None


def config_keys() -> dict[str, dataclasses.Field[Any]]:
    """The keys of the config in the order of the documentation: model, data, ... record."""
    return {field.name: field for field in dataclasses.fields(TrainConfig)}


def _kind(name: str) -> Kind:
    return config_keys()[name].metadata["kind"]


def _defaults() -> dict[str, Any]:
    return {name: field.metadata["default"] for name, field in config_keys().items()}


def _required() -> dict[str, Any]:
    return {name: default for name, default in _defaults().items() if default is REQUIRED}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return copy.deepcopy(value)


def _read_values(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Reads each value; gives the good ones and the problems of the others."""
    good: dict[str, Any] = {}
    problems = []
    for name, value in given.items():
        try:
            good[name] = _kind(name).read(value)
        except Refused as refusal:
            problems.append(f"{name}: {refusal}.")
    return good, problems


def _name_keys(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Gives values under the keys' own names, and the problems of the names."""
    named: dict[str, Any] = {}
    problems = []
    for given, value in values.items():
        if given in IGNORED_KEYS:
            continue
        name = ALIASES.get(given, given)
        if name not in config_keys():
            problems.append(_unknown(given))
        elif name in named:
            spellings = [name, *(alias for alias, key in ALIASES.items() if key == name)]
            both = " and ".join(spelling for spelling in spellings if spelling in values)
            problems.append(f"{name}: given twice, as {both}. Keep one of them.")
        else:
            named[name] = value
    return named, problems


def _check_stages(values: Mapping[str, Any]) -> list[str]:
    """The problems of the stages, of a config that is right otherwise."""
    problems, named = [], []
    for number, stage in enumerate(values["stages"], 1):
        own, found = _name_keys(stage)
        named.append(own)
        found += [f"{key}: is said once, outside of stages." for key in own if key in OF_THE_WHOLE]
        problems += [f"stages: stage {number}: {problem}" for problem in found]
    if problems:
        return problems
    whole = {**values, "stages": named}
    for number, stage in enumerate(stage_values(whole, Path("."), chained=False), 1):
        try:
            TrainConfig(**stage)
        except ConfigError as error:
            problems += [f"stages: stage {number}: {problem}" for problem in error.problems]
    return problems


def _unknown(name: Any) -> str:
    hint = nearest(str(name), [*config_keys(), *ALIASES])
    if not hint:
        hint = f" Known keys: {', '.join(config_keys())}."
    return f"{name}: an unknown key.{hint}"


def _apply_overrides(named: dict[str, Any], overrides: Iterable[str]) -> list[str]:
    """Changes values in place; gives the problems of the overrides."""
    problems = []
    for text in overrides:
        try:
            parts, value_text = parse_override(text)
        except ConfigError as error:
            problems += [f"override {problem}" for problem in error.problems]
            continue
        name, *inner = parts
        name = ALIASES.get(name, name)
        if name not in config_keys():
            problems.append(f"override {_unknown(name)}")
        elif inner:
            problem = _set_inside(named, name, inner, parse_override_value(value_text))
            problems += [problem] if problem else []
        else:
            named[name] = _override_value(_kind(name), value_text)
    return problems


def _override_value(kind: Kind, text: str) -> Any:
    """The JSON value in a text, or the text itself where only that fits: run_id=5."""
    value = parse_override_value(text)
    if isinstance(value, str):
        return value
    try:
        kind.read(value)
    except Refused:
        try:
            kind.read(text)
        except Refused:
            return value
        return text
    return value


def _set_inside(named: dict[str, Any], name: str, inner: list[str], value: Any) -> str | None:
    """Sets a value inside an object; gives the problem when the key holds none."""
    default = _defaults()[name]
    if not isinstance(default, dict) and "object" not in str(_kind(name).schema()):
        return f"override {'.'.join([name, *inner])}: {name} is no object, write {name}=value."
    target = named.get(name, default)
    if isinstance(target, str) and (name == "loss" or isinstance(_kind(name), Named)):
        target = {"name": target}
    if target is not None and not isinstance(target, dict):
        return f"override {'.'.join([name, *inner])}: {name} is {shown(target)}, no object."
    whole = dict(target or {})
    named[name] = place = whole
    for part in inner[:-1]:
        deeper = place.get(part)
        place[part] = dict(deeper) if isinstance(deeper, dict) else {}
        place = place[part]
    place[inner[-1]] = value
    return None

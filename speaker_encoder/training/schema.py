"""The JSON schema of the config, so that editors complete and check its keys.

`python -m speaker_encoder.training.schema` writes `train_config.schema.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speaker_encoder.training.config import config_keys
from speaker_encoder.training.config_stages import OF_THE_WHOLE
from speaker_encoder.training.config_tables import ALIASES, IGNORED_KEYS
from speaker_encoder.training.keys import REQUIRED

SCHEMA_FILE_NAME = "train_config.schema.json"


def config_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the config.

    It refuses what the reader refuses for a key's own sake: unknown keys, wrong types, impossible
    values. What depends on other keys or on the machine (paths, devices, the names inside
    `training_arguments`) only the reader knows.
    """
    properties: dict[str, Any] = {name: {"type": "string"} for name in IGNORED_KEYS}
    required = []
    for name, field in config_keys().items():
        properties[name] = {
            "description": field.metadata["help"],
            **field.metadata["kind"].schema(),
        }
        if field.metadata["default"] is REQUIRED:
            required.append(name)
        elif not field.metadata["is_secret"]:
            properties[name]["default"] = field.metadata["default"]
    own = [name for name in config_keys() if name not in OF_THE_WHOLE]
    properties["stages"]["items"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {"$ref": f"#/properties/{name}"}
            for name in (*own, *(alias for alias, key in ALIASES.items() if key in own))
        },
    }
    for alias, name in ALIASES.items():
        properties[alias] = {
            **field_schema(name),
            "description": f"Another spelling of {name}.",
            "deprecated": True,
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "speaker-encoder training config",
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
        "allOf": [{"not": {"required": [alias, name]}} for alias, name in ALIASES.items()],
    }


def field_schema(name: str) -> dict[str, Any]:
    """The schema of one key's value."""
    return config_keys()[name].metadata["kind"].schema()


def schema_text() -> str:
    """What `train_config.schema.json` holds."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


def keys_table() -> str:
    """The keys as a Markdown table for the documentation."""
    lines = ["| key | default | possible | meaning |", "|---|---|---|---|"]
    for name, field in config_keys().items():
        default, kind = field.metadata["default"], field.metadata["kind"]
        written = "required" if default is REQUIRED else f"`{json.dumps(default)}`"
        cells = [f"`{name}`", written, kind.possible(), field.metadata["help"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the schema, or the table of keys.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m speaker_encoder.training.schema",
        description="Writes the JSON schema of the training config.",
        epilog="example: python -m speaker_encoder.training.schema",
    )
    parser.add_argument("--output", type=Path, default=Path(SCHEMA_FILE_NAME))
    parser.add_argument("--table", action="store_true", help="write the keys as Markdown instead")
    options = parser.parse_args(arguments)
    options.output.write_text(keys_table() if options.table else schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main()

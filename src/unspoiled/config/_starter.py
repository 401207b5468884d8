"""The starter config that `unspoiled init` writes, with the JSON schema that editors complete it by."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from unspoiled.config._run import RunConfig
from unspoiled.config._yaml import json_schema
from unspoiled.errors import ConfigError

SCHEMA_NAME = "unspoiled.schema.json"


def write_starter(path: Path) -> list[Path]:
    """Write a commented starter config to `path` and the schema beside it; return what was written.

    Raises:
        ConfigError: There is a file at `path` already, or no such directory.
    """
    schema = path.parent / SCHEMA_NAME
    text = resources.files("unspoiled.config").joinpath("starter.yaml").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"# yaml-language-server: $schema={SCHEMA_NAME}\n{text}")
    except FileExistsError:
        raise ConfigError(f"{path} exists: name another file, as in `unspoiled init other.yaml`.") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Make the directory first.") from error
    schema.write_text(json.dumps(json_schema(RunConfig), indent=2) + "\n", encoding="utf-8")
    return [path, schema]

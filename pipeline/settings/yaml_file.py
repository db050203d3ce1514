"""The settings file, read; what is wrong with it as YAML, in one line."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import SettingsError


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"can't read the settings file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not YAML: it is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {_yaml_trouble(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected a mapping of sections such as 'kafka:' and 's3:'")
    return values


def _yaml_trouble(error: yaml.YAMLError) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    first = problem or str(error).splitlines()[0]
    return f"{first} (line {mark.line + 1}, column {mark.column + 1})" if mark else first

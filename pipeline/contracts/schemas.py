"""The contracts as JSON Schema files."""

import json
from pathlib import Path

from pipeline.contracts.events import CONTRACTS


def schema_files() -> dict[str, str]:
    """File name to text, one for each contract."""
    return {
        f"{name}.schema.json": json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", **contract.model_json_schema()}, indent=2
        )
        + "\n"
        for name, contract in CONTRACTS.items()
    }


def export(folder: Path) -> list[Path]:
    """Write the schemas into ``folder``; returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in schema_files().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths

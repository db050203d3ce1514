"""docs/schemas is what the code says, and real messages fit it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.contracts.events import CONTRACTS, ClaimCheck, InspectionEvent, Release
from pipeline.contracts.schemas import export, schema_files
from pipeline.fakes import MemoryStore
from pipeline.stream.output import output_messages
from tests.pipeline.stream.test_output import PLAIN, VERSION, inspected

FOLDER = Path(__file__).parents[3] / "docs" / "schemas"
REGENERATE = "run 'linewatch schemas docs/schemas', look at the difference, and commit it"


def test_the_committed_schemas_are_the_codes() -> None:
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert sorted(committed) == sorted(schema_files()), REGENERATE
    for name, text in schema_files().items():
        assert committed[name] == text, f"{name} differs: {REGENERATE}"


def test_export_writes_every_contract(tmp_path: Path) -> None:
    paths = export(tmp_path / "new" / "folder")
    assert sorted(path.name for path in paths) == sorted(f"{name}.schema.json" for name in CONTRACTS)
    assert all(json.loads(path.read_text())["$schema"].endswith("2020-12/schema") for path in paths)


def test_every_field_of_an_event_is_in_its_schema_and_required() -> None:
    schema = json.loads(schema_files()["inspection-event.schema.json"])
    sent = json.loads(output_messages(inspected(), PLAIN, MemoryStore())[-1].value or b"")
    assert set(sent) == set(schema["properties"])
    later = {"review", "review_rate"}  # events from before lack them
    assert set(schema["required"]) == set(sent) - later
    for part, name in (("mask", "MaskReference"), ("times", "Times"), ("source", "SourceOffset")):
        assert set(sent[part]) == set(schema["$defs"][name]["properties"])
    assert sent["verdict"] in schema["properties"]["verdict"]["enum"]


def test_events_fit_the_schema_in_a_validators_eyes() -> None:
    validator = pytest.importorskip("jsonschema", reason="jsonschema is not installed here")
    schema = json.loads(schema_files()["inspection-event.schema.json"])
    for peak in (1.0, 1.9, 3.0):
        sent = json.loads(output_messages(inspected(peak), PLAIN, MemoryStore())[-1].value or b"")
        validator.validate(sent, schema)
        assert InspectionEvent.model_validate(sent).model_dump(mode="json") == sent


def test_readers_of_today_take_fields_of_tomorrow() -> None:
    sent = json.loads(output_messages(inspected(), PLAIN, MemoryStore())[-1].value or b"")
    assert InspectionEvent.model_validate({**sent, "operator": "Ada"}) == InspectionEvent.model_validate(sent)
    now = datetime.now(UTC)
    release = Release.model_validate({"product": "cap", "version": VERSION, "promoted_at": now, "note": "x"})
    assert release.version == VERSION
    claim = {"uri": "s3://b/images/k", "sha256": "0" * 64, "size": 1, "content_type": "image/png", "x": 1}
    assert ClaimCheck.model_validate(claim).size == 1

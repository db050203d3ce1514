"""What clients are told to do, before a broker is asked."""

from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.kafka.clients import connection
from pipeline.settings import Settings


def test_authorities_that_cannot_be_read_are_no_broker_that_does_not_answer() -> None:
    Path("empty.pem").write_text("no certificate\n")
    for file, said in (("gone.pem", "can't be read: No such file"), ("empty.pem", "is not a PEM file of certificates")):
        kafka = Settings.from_values({"kafka": {"security_protocol": "SSL", "ca_file": file}}).kafka
        with pytest.raises(SettingsError, match=rf"kafka\.ca_file {file} {said}"):
            connection(kafka)

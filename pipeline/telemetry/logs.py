"""Log lines: text for people, or one JSON object a line for machines."""

import json
import logging
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, and what the caller gave as `extra`: image, camera, product, event, trace."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {name: value for name, value in vars(record).items() if name not in _USUAL}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def set_up_logging(form: LogFormat) -> None:
    """For a replica's process; replaces what was set up before."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # Who joins and leaves the group and what each is given is worth its lines. That a broker is away is not, a hundred
    # times a second: whoever waits for it says so once.
    levels = {"kafka": logging.WARNING, "kafka.coordinator": logging.INFO, "kafka.net": logging.CRITICAL}
    for name, level in {**levels, "kafka.cluster": logging.CRITICAL}.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger("kafka.coordinator.consumer").addFilter(_not_kept_back)


def _not_kept_back(record: logging.LogRecord) -> bool:
    """Without "unknown" errors, ten a second, of an offset that an open transaction may still change: the session that
    waits for it says so.
    """
    return "UnstableOffsetCommit" not in record.getMessage()

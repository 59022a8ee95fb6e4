"""Logs as JSON lines with stable keys; no traceback's text, since it may name records."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from cluster.errors import UnweaveError

EXTRAS: Final = (
    "event",
    "code",
    "method",
    "route",
    "status",
    "duration_s",
    "role",
    "key_id",
    "request_id",
    "batch_id",
    "delivery_id",
    "state",
    "shard",
    "shards",
    "replica",
    "generation",
    "epoch",
    "worker",
    "failures",
)
MAX_FRAMES: Final = 12
QUIET: Final = ("uvicorn.access",)  # it logs paths with their queries
TALKATIVE: Final = (
    "sqlalchemy",
    "python_multipart",
    "multipart",
    "httpx",
    "httpcore",
    "asyncio",
    "numba",
    "matplotlib",
)  # at lower levels these repeat statements, bodies or URLs
HANDLERS: Final = ("uvicorn", "uvicorn.error")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``at, level, logger, message``, known extras, and where it failed."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a message with an exception keeps its place, and of its text nothing."""
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        line |= {name: getattr(record, name) for name in EXTRAS if hasattr(record, name)}
        if record.exc_info and record.exc_info[1] is not None:
            line |= where_failed(record.exc_info[1])
        return json.dumps(line, default=str)


def _message(record: logging.LogRecord) -> str:
    """What is said; of asyncio the first line alone, since the next ones show errors with text."""
    text = record.getMessage()
    return text.partition("\n")[0] if record.name == "asyncio" else text


def where_failed(error: BaseException) -> dict[str, Any]:
    """Type, code and frames of an error, without its message."""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    code = error.code if isinstance(error, UnweaveError) else type(error).__name__
    return {
        "code": code,
        "error": type(error).__name__,
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


def configure_logs(level: int | str = logging.INFO, stream: TextIO | None = None) -> None:
    """Have everything in this process logged as JSON lines, uvicorn's access log left out."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in HANDLERS:
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    for name in QUIET:
        logging.getLogger(name).handlers = []
        logging.getLogger(name).disabled = True

"""Logging: one JSON object a line on standard error, or plain text on a terminal. No secrets get this far."""

from __future__ import annotations

import logging
import sys
import time
from functools import lru_cache

import msgspec

from dormice.telemetry.log_stream import LogStream

_PLAIN = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_encoder = msgspec.json.Encoder(enc_hook=str)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record with whatever fields it was given by `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        entry: dict[str, object] = {
            "at": f"{_second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return _encoder.encode(entry).decode()


@lru_cache(maxsize=8)
def _second(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))


def log_to_stderr(level: str) -> None:
    """Set logging up for a process."""
    # Nobody prints these, and finding them out takes longer than the rest of a record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.stderr is None:  # it was closed before we started
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        return
    handler = logging.StreamHandler(LogStream(sys.stderr.fileno()))
    handler.setFormatter(logging.Formatter(_PLAIN) if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

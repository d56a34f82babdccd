"""The daemon's log, in logrus' text or JSON form on standard error."""

import json
import logging
import sys
import time

log = logging.getLogger("brickyard.daemon")

LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
"""buildkitd's names of levels."""


def _level(record: logging.LogRecord) -> str:
    return {"WARNING": "warning", "CRITICAL": "fatal"}.get(record.levelname, record.levelname.lower())


def _when(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))


class TextFormatter(logging.Formatter):
    """`time=… level=… msg=…`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; line breaks in the message are escaped, so that no client can forge a line."""
        line = f"time={json.dumps(_when(record))} level={_level(record)} msg={json.dumps(record.getMessage())}"
        return f"{line} stack={json.dumps(self.formatException(record.exc_info))}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields = {"level": _level(record), "msg": record.getMessage(), "time": _when(record)}
        if record.exc_info:
            fields["stack"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def setup(level: str, form: str) -> None:
    """Begin to log to standard error.

    Raises:
        ValueError: for a level or form that is not known.
    """
    if level not in LEVELS:
        raise ValueError(f"unsupported log level {level!r}: known are {', '.join(LEVELS)}")
    if form not in ("text", "json", ""):
        raise ValueError(f"unsupported log type {form!r}: known are text and json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    log.handlers[:] = [handler]
    log.setLevel(LEVELS[level])
    log.propagate = False

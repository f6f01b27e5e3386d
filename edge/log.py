"""The log: one line an event on stderr (X-5).

Under journald (JOURNAL_STREAM) a line begins with `<N>`, the syslog level, and has no time of its own; elsewhere it
begins with an ISO time. Tensor bytes, keys and tokens are never logged.
"""

import datetime
import logging
import os
import sys

_SYSLOG_LEVELS = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def _one_line(text: str) -> str:
    """Keep an event on its line, whatever a client put into a name."""
    return (
        text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") if "\n" in text or "\r" in text else text
    )


class _Formatter(logging.Formatter):
    def __init__(self, journald: bool) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += " | " + self.formatException(record.exc_info)
        text = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
        if self._journald:
            level = next((n for limit, n in _SYSLOG_LEVELS if record.levelno >= limit), _DEBUG)
            return f"<{level}>{record.name}: {_one_line(text)}"
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        return f"{at} {record.levelname} {record.name}: {_one_line(text)}"


def setup(verbose: bool) -> None:
    """Send the log of the whole program to stderr; `verbose` adds debug events."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(journald="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for chatty in ("grpc", "asyncio", "concurrent"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.raiseExceptions = False

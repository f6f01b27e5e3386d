"""The trace that a call belongs to, as its caller says by W3C Trace Context: https://www.w3.org/TR/trace-context/#traceparent-header.

Nothing is traced here. What the caller sent is kept with the call, in its lines of the log and in its capture, so that a trace
leads to them.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KEY = "traceparent"  # of gRPC metadata
# Version, trace, parent, flags. Of a later version as much as this one has.
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class _Current(threading.local):
    text = ""


_current = _Current()


def read(value: str | None) -> str:
    """A traceparent as it is kept; empty where there is none, or what is there has not its form."""
    if value is None:
        return ""
    found = _FORM.match(value)
    if found is None or (value != found[0] and (value.startswith("00") or value[found.end()] != "-")):
        return ""
    return found[0]


@contextmanager
def of_call(metadata: Callable[[str], str | None]) -> Iterator[None]:
    """Have what this thread logs name the trace of the call that has this metadata."""
    before, _current.text = _current.text, read(metadata(KEY))
    try:
        yield
    finally:
        _current.text = before


def current() -> str:
    """The trace of the call that this thread is at, where it says so; else empty."""
    return _current.text

"""W3C traceparent: what is kept of it, and where [Q-6]."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import traceparent

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (GOOD, GOOD),
        (f"00-{TRACE}-{PARENT}-ff", f"00-{TRACE}-{PARENT}-ff"),
        (f"cc-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01"),
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", f"cc-{TRACE}-{PARENT}-01"),
        (f"cc-{TRACE}-{PARENT}-01x", ""),
        (f"{GOOD}-x", ""),
        (f"{GOOD}\n", ""),
        (f" {GOOD}", ""),
        (f"ff-{TRACE}-{PARENT}-01", ""),
        (f"00-{TRACE.upper()}-{PARENT}-01", ""),
        (f"00-{'0' * 32}-{PARENT}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE}-{PARENT}-1", ""),
        (f"00-{TRACE}-{PARENT}", ""),
        (f"00-{TRACE[:-1]}g-{PARENT}-01", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_form(given: str | None, kept: str) -> None:
    assert traceparent.read(given) == kept


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.{0,4}"))
def test_what_is_kept_is_short_and_plain(value: str) -> None:
    kept = traceparent.read(value)
    assert kept == "" or (len(kept) == 55 and value.startswith(kept) and set(kept) <= set("0123456789abcdef-"))


def test_within_one_another() -> None:
    with traceparent.of_call({"traceparent": GOOD}.get):
        with traceparent.of_call({"traceparent": "none"}.get):
            assert traceparent.current() == ""
        assert traceparent.current() == GOOD
    assert traceparent.current() == ""


def test_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    from edge import log

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    log.setup(verbose=False)
    writer = root.handlers[0]
    try:
        with traceparent.of_call({"traceparent": GOOD}.get):
            logging.getLogger("edge.test").warning("of a call")
        logging.getLogger("edge.test").warning("of none")
        writer.flush()
        first, second = capfd.readouterr().err.splitlines()
        assert first.endswith(f"edge.test: of a call [traceparent {GOOD}]") and second.endswith("edge.test: of none")
    finally:
        writer.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.raiseExceptions = True

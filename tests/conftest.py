"""What all tests share: a check that none leaks."""

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

SETTLE_SECONDS = 5.0

# How long an example takes says something of the machine, not of the code.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


def _segments() -> set[int]:
    """Shared-memory segments made by this process."""
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {int(row[1]) for row in rows if int(row[4]) == os.getpid()}


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


def _files() -> set[str]:
    """Open files by what they lead to; sockets and pipes of the test runner's own libraries do not count."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        if target.startswith("/") and not target.startswith(("/dev/", "/proc/")):
            found.add(f"{fd.name} {target}")
    return found


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def _leaks(before: dict[str, set[object]]) -> dict[str, set[object]]:
    now = _state()
    return {kind: now[kind] - before[kind] for kind in now if now[kind] - before[kind]}


def _state() -> dict[str, set[object]]:
    return {"threads": {*_threads()}, "files": {*_files()}, "children": {*_children()}, "segments": {*_segments()}}


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread, a file, a child process or a shared-memory segment behind.

    Fixtures of a wider scope are set up before the first look, so what they hold does not count.
    """
    for name in request.fixturenames:
        definition = request._fixturemanager.getfixturedefs(name, request.node)
        if definition and definition[-1].scope in ("session", "module", "package"):
            request.getfixturevalue(name)
    before = _state()
    yield
    deadline = time.monotonic() + SETTLE_SECONDS
    while (leaks := _leaks(before)) and time.monotonic() < deadline:
        gc.collect()
        threading.Event().wait(0.02)
    assert not leaks, f"left behind: {leaks}"

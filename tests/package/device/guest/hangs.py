"""Hangs: each leads to a restart, and a slow model to none."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import (
    CLIENT,
    STAGE,
    UNIT,
    WATCHDOG_SECONDS,
    check,
    client,
    configure,
    drop_in,
    eventually,
    journal,
    load,
    records,
    restart,
    run,
    show,
)

# --- hangs --------------------------------------------------------------------


def hang(cause: Callable[[], Any]) -> float:
    """Seconds until systemd has it running again, as another process."""
    pid, restarts, start = show("MainPID"), int(show("NRestarts")), time.monotonic()
    cause()
    eventually(
        lambda: int(show("NRestarts")) > restarts and show("ActiveState") == "active" and show("MainPID") != pid,
        WATCHDOG_SECONDS * 3 + 60,
        "the agent is restarted",
    )
    return time.monotonic() - start


@check("a slow but working model is left alone")
def _() -> None:
    drop_in("test", f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}\nRestartSec=1\n")
    configure(core_capture_data_push_period_seconds=3600, core_capture_data_batch_size=29)
    restart()
    load()
    load("slow", "slow")
    rounds, seconds = 10, 0.0
    while seconds < 0.5:
        rounds *= 4
        (STAGE / "rounds.json").write_text(f"[{rounds}]")
        answer = json.loads(client("predict", "--json", "slow", str(STAGE / "rounds.json")))
        seconds = answer["milliseconds"] / 1000
    rounds = int(rounds * 1.5 * WATCHDOG_SECONDS / seconds)
    (STAGE / "rounds.json").write_text(f"[{rounds}]")
    client("predict", "--timeout", "600", "slow", str(STAGE / "rounds.json"))
    assert show("NRestarts") == "0", journal()[-3000:]
    (STAGE / "rounds.json").write_text(f"[{min(2**31 - 1, rounds * 100)}]")


@check("a stopped process is restarted within the interval, and nothing accepted is lost")
def _() -> None:
    taken = [
        json.loads(client("predict", "--json", "--capture", "digits", str(STAGE / "seven.bmp")))["capture"]
        for _ in "ab"
    ]
    assert [one["status"] for one in taken] == ["IN_PROGRESS"] * 2, taken
    known = len(records())
    seconds = hang(lambda: run("systemctl", "kill", "--kill-who=main", "-s", "STOP", UNIT))
    print(f"{seconds:.1f} s from hang to running, WatchdogSec={WATCHDOG_SECONDS}")
    assert "Watchdog timeout" in run("journalctl", "-u", UNIT, "--no-pager")
    assert "most recent call first" in journal(), "no stacks in the journal"
    for one in taken:
        assert client("capture-status", "--wait", "30", one["id"]).strip() == "SUCCESS"
    ids = [r["eventMetadata"]["eventId"] for r in records()]
    assert len(ids) == known + 2 == len(set(ids)), ids


@check("an inference without end is ended, and nothing is restarted")
def _() -> None:
    configure(edge_inference_stuck_seconds=2)
    restart()
    load("slow", "slow")
    restarts = show("NRestarts")
    said = client("predict", "--timeout", "600", "slow", str(STAGE / "rounds.json"), ok=False)
    assert "edge_inference_stuck_seconds" in said, said
    (STAGE / "few.json").write_text("[10]")
    client("predict", "slow", str(STAGE / "few.json"))
    assert show("NRestarts") == restarts, journal()[-3000:]


@check("one that the engine cannot end is restarted, and the journal says what was stuck and where")
def _() -> None:
    configure(edge_inference_stuck_seconds=2, edge_engine="tflite")
    restart()
    load("slow", "slow")
    command = ["runuser", "-u", "app", "--", CLIENT, "predict", "--timeout", "600", "slow", str(STAGE / "rounds.json")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as caller:
        seconds = hang(lambda: None)
        caller.kill()
    print(f"{seconds:.1f} s from the call to running again")
    text = journal()
    assert "is not a known key" not in text, text
    assert "an inference has been running for" in text, text[-3000:]
    assert re.search(r"threads: .*Predictions.predict", text), text[-5000:]
    configure(edge_inference_stuck_seconds=60, edge_engine=None)


TRACER = """
import ctypes, os, sys
libc, thread = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
for request in (0x4206, 0x4207):  # linux/ptrace.h: PTRACE_SEIZE, PTRACE_INTERRUPT
    if libc.ptrace(request, thread, None, None):
        sys.exit(os.strerror(ctypes.get_errno()))
for _ in ("stop", "end"):
    os.waitpid(thread, 0x40000000)  # linux/wait.h: __WALL
"""


def stop_thread(name: str) -> "subprocess.Popen[bytes]":
    """Stops one thread of the agent, and no other, as a debugger does."""
    tasks = Path(f"/proc/{show('MainPID')}/task")
    [thread] = [task.name for task in tasks.iterdir() if (task / "comm").read_text().strip() == name]
    return subprocess.Popen([sys.executable, "-c", TRACER, thread])


@check("a dead capture worker is restarted, and the journal says so")
def _() -> None:
    tracers: list[Any] = []
    seconds = hang(lambda: tracers.append(stop_thread("captures")))
    print(f"{seconds:.1f} s from hang to running; a worker counts as dead after 60 s")
    assert "the capture worker has made no progress for" in journal()
    tracers[0].wait(30)

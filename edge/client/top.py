"""`top`, and `status --watch`: what the agent is doing, again and again on a terminal, once elsewhere."""

import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from typing import NoReturn

from edge.client import show
from edge.client.commands import agent_of
from edge.client.connection import OPERATIONS, Agent
from edge.client.outcome import Exit, UnreachableError
from edge.client.rates import Row, rows
from edge.client.screen import Screen, is_live
from edge.rpc._generated import operations_pb2 as ops
from edge.text import printable

HEAD = ["MODEL", "PACKAGE", "STATE", "CALLS/S", "FAILED/S", "P50", "P99", "RUNNING", "WAITING", "MEMORY"]
LEAST_SECONDS = 0.1  # between two looks
FIRST_SECONDS = 0.5  # between the first two

View = Callable[[ops.GetStatusResponse, ops.GetStatusResponse, float], str]


def ask(agent: Agent) -> ops.GetStatusResponse:
    """The agent's own account of itself."""
    return agent.call(OPERATIONS + "GetStatus", ops.GetStatusRequest(), ops.GetStatusResponse)


def top(options: Namespace) -> Exit:
    """Models with their calls and latencies between two looks."""
    interval = max(LEAST_SECONDS, options.interval)
    if is_live(sys.stdout) and not options.json:
        return watch(options, interval, as_text)
    with agent_of(options) as agent:
        before, begun = ask(agent), time.monotonic()
        time.sleep(interval)
        now, seconds = ask(agent), time.monotonic() - begun
    if options.json:
        captures = {"captures_waiting": now.captures.pending, "captures_refused": now.captures.refused}
        show.as_json({"seconds": seconds, "models": [asdict(row) for row in rows(before, now, seconds)], **captures})
    else:
        print(as_text(before, now, seconds))
    return Exit.OK


def watch(options: Namespace, interval: float, view: View) -> Exit:
    """Show a view again and again, until Ctrl-C. An agent that goes away is waited for."""
    with agent_of(options) as agent:
        ask(agent)  # where nobody answers from the beginning, that is told as any command tells it
    try:
        with Screen() as screen:
            while True:
                try:
                    _follow(options, interval, lambda *looks: screen.show(view(*looks)))
                except UnreachableError as error:
                    screen.show(f"{printable(str(error), show.PATH_CHARACTERS)}\nwaiting for it; Ctrl-C ends this")
                    time.sleep(interval)
    except KeyboardInterrupt:
        return Exit.OK


def _follow(
    options: Namespace,
    interval: float,
    tell: Callable[[ops.GetStatusResponse, ops.GetStatusResponse, float], None],
) -> NoReturn:
    """Tell of two looks at the agent and the seconds between them, for as long as it answers; of the first two soon."""
    with agent_of(options) as agent:
        before, begun = ask(agent), time.monotonic()
        pause = min(interval, FIRST_SECONDS)
        while True:
            time.sleep(pause)
            now, ended = ask(agent), time.monotonic()
            tell(before, now, ended - begun)
            before, begun, pause = now, ended, interval


def as_text(before: ops.GetStatusResponse, now: ops.GetStatusResponse, seconds: float) -> str:
    """The agent, the table, and captures."""
    found = rows(before, now, seconds)
    lines = [show.agent(now, time.time())]
    calls, failed = sum(row.calls_per_second for row in found), sum(row.failed_per_second for row in found)
    lines.append(f"{calls:.1f} calls/s, {failed:.1f} failed/s over {seconds:.1f} s")
    lines += ["", show.table(list(map(_cells, found)), HEAD) if found else "no models are loaded"]
    lines += ["", show.captures(now.captures, time.time())]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        f"{row.package} {row.version}".strip(),
        row.state,
        f"{row.calls_per_second:.1f}",
        f"{row.failed_per_second:.1f}",
        _time(row.p50_seconds),
        _time(row.p99_seconds),
        str(row.running),
        str(row.waiting),
        show.size(row.memory_bytes),
    ]


def _time(seconds: float | None) -> str:
    """A latency as people say it."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"

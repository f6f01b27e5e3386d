"""`python -m bench.soak --calls N`: Predicts by clients that come and go, inline and by shared memory in turn.

Four clients at a time, each with a new connection and a new segment every few hundred calls. The agent's memory, open
files, threads and attached segments are read between portions; after the first tenth they must not grow.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.rig import Rig, load

CLIENTS = 4
RECONNECT_CALLS = 250
PORTIONS = 20
SETTLE_SECONDS = 5.0  # until unused segments are detached and kept memory is returned
ALLOWED_RSS_MIB = 8.0
ALLOWED_FILES = 2
ALLOWED_THREADS = 2


@dataclass(frozen=True)
class Footprint:
    """What a process holds."""

    rss_mib: float
    files: int
    threads: int
    segments: int

    @classmethod
    def of(cls, pid: int) -> "Footprint":
        proc = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
        maps = (proc / "maps").read_text().splitlines()
        return cls(
            int(status["VmRSS"].split()[0]) / 1024,
            sum(1 for _ in (proc / "fd").iterdir()),
            int(status["Threads"]),
            sum("/SYSV" in line for line in maps),
        )

    def __str__(self) -> str:
        return (
            f"RSS {self.rss_mib:.1f} MiB, {self.files} files, {self.threads} threads, {self.segments} segments attached"
        )


def settled(pid: int) -> Footprint:
    """The footprint once nothing is under way."""
    time.sleep(SETTLE_SECONDS)
    return Footprint.of(pid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    options = parser.parse_args()
    portion = max(1, options.calls // PORTIONS // CLIENTS)
    with Rig() as rig:
        agent = rig.agent()
        agent.client.load(rig.package("tiny", instances=2), "tiny")
        made, base = 0, None
        started = time.monotonic()
        print(f"{0:>9} calls: {settled(agent.pid)}", flush=True)
        for turn in range(PORTIONS):
            found = load(
                agent.socket, model="tiny", mode="mixed", clients=CLIENTS, calls=portion, warmup=0,
                reconnect=RECONNECT_CALLS,
            )  # fmt: skip
            made += found["calls"]
            now = settled(agent.pid)
            print(f"{made:>9} calls: {now}", flush=True)
            if turn == PORTIONS // 10 - 1:
                base = now
        assert base is not None
        print(f"{made} calls, none failed, every answer right, {time.monotonic() - started:.0f} s")
        grown = [
            name
            for name, more, allowed in (
                ("memory", now.rss_mib - base.rss_mib, ALLOWED_RSS_MIB),
                ("files", now.files - base.files, ALLOWED_FILES),
                ("threads", now.threads - base.threads, ALLOWED_THREADS),
                ("segments", now.segments - base.segments, 0),
            )
            if more > allowed
        ]
    if grown:
        print("grown: " + ", ".join(grown))
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())

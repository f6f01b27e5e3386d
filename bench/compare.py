"""`python -m bench.compare BASE [--rounds N]`: this tree's agent and the one of revision BASE, by turns.

The agents of both revisions run side by side from source with the same packages, and are asked one after the other, a
fraction of a second each, the first of each pair by turns. A ratio above 1 says that this tree takes longer.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.rig import ASKING, CPUS, SERVING, Measurement, Measurements, Rig, pin
from tests.system.harness import ROOT, AgentProcess

# What is compared: the load generator's options, and the calls of a turn and before it.
CASES: dict[str, tuple[dict[str, Any], int, int]] = {
    "empty call": ({}, 300, 700),
    "tiny inline": ({"model": "tiny"}, 300, 700),
    "tiny shared": ({"model": "tiny", "mode": "shared"}, 300, 700),
    "MobileNetV2 float32 inline": ({"model": "float32"}, 20, 3),
    "MobileNetV2 float32 shared": ({"model": "float32", "mode": "shared"}, 20, 3),
    "12.6 MB inline": ({"model": "large"}, 20, 20),
    "12.6 MB shared": ({"model": "large", "mode": "shared"}, 40, 400),
}
LOADED = ("tiny", "float32", "large")
TURNS = 8  # of a round
FIRST_TURNS = 10  # of a round, that are not counted: an agent's housekeeping looks at what calls do once a second


def checked_out(revision: str, folder: Path) -> Path:
    """The tree of a revision, without a repository.

    Raises:
        SystemExit: there is no such revision.
    """
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True, check=False)
    if archive.returncode:
        raise SystemExit(archive.stderr.decode())
    tree = folder / "base"
    tree.mkdir()
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    return tree


def turn(pair: list[Measurement], first: int, percentile: int) -> list[float]:
    """A percentile of both, in microseconds; `first` of them begins."""
    found = [0.0, 0.0]
    for which in (first, 1 - first):
        found[which] = float(pair[which]()[f"p{percentile}_us"])
    return found


def round_of(
    cases: Iterable[str], agents: list[AgentProcess], percentile: int, note: Callable[[str, list[float]], None]
) -> None:
    """Each case in TURNS turns, with clients started anew."""
    for case in cases:
        options, calls, warmup = CASES[case]
        with Measurements() as start:
            pair = [start.load(agent.socket, calls=calls, warmup=warmup, cpus=ASKING, **options) for agent in agents]
            for number in range(FIRST_TURNS):
                turn(pair, number % 2, percentile)
            for number in range(TURNS):
                note(case, turn(pair, number % 2, percentile))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="a revision of this repository")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="WORD", help="the cases with this in their name")
    parser.add_argument(
        "--percentile",
        type=int,
        default=50,
        choices=(10, 50),
        help="of a turn's calls; 10 is what they cost while nothing else wants the cores",
    )
    parser.add_argument(
        "--settings",
        type=json.loads,
        default={},
        metavar="JSON",
        help="of this tree's agent alone: what a setting costs",
    )
    options = parser.parse_args()
    results: dict[str, list[list[float]]] = {case: [] for case in CASES if options.only in case}
    with Rig() as rig, tempfile.TemporaryDirectory(prefix="edge-base-") as folder:
        base = checked_out(options.base, Path(folder))
        # Packages are made by the base: what it makes, both must read.
        before = [sys.executable, str(base / "agent.py")]
        packages = {name: rig.package(name, command=before) for name in LOADED}
        for number in range(options.rounds):
            agents = [rig.agent(command=before), rig.agent(**options.settings)]
            for agent in agents:
                assert agent.process
                pin(agent.process.pid, SERVING)
                for name, package in packages.items():
                    agent.client.load(package, name)
            round_of(results, agents, options.percentile, lambda case, found: results[case].append(found))
            for agent in agents:
                agent.stop()
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    what = f"p{options.percentile} of {options.rounds * TURNS} turns on {len(CPUS)} cores, medians"
    print(f"this tree / {shlex.quote(options.base)}, {what}\n")
    print("| case | before, µs | after, µs | ratio |\n|---|---|---|---|")
    for case, turns in results.items():
        old, new = (statistics.median(one[which] for one in turns) for which in (0, 1))
        ratio = statistics.median(after / before for before, after in turns)
        print(f"| {case} | {old:.0f} | {new:.0f} | {ratio:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Fuzzes the formats that come from outside, side by side: `python -m tests.fuzz [TARGET ...] [--seconds N] [--seed N]`.

`--seconds` is for all of them together. An input that fails is saved in tests/fuzz/corpus, and the exit code is 1.
"""

import argparse
import multiprocessing
import os
import secrets
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.fuzz.explore import explore_by_name, save
from tests.fuzz.targets import TARGETS

DEFAULT_SECONDS = 600.0


def main() -> int:
    """Parse the words and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all, if none is named")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="for all targets together (600)")
    parser.add_argument("--seed", type=int, help="of a run that is to be repeated")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    names = options.targets or list(TARGETS)
    number = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    workers = min(len(names), len(os.sched_getaffinity(0)))
    each = options.seconds * workers / len(names)
    print(f"seed {number}: {len(names)} targets, {each:.0f} s each, {workers} at a time", flush=True)
    failed = 0
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {name: pool.submit(explore_by_name, name, number, each) for name in names}
        for name, job in running.items():
            result = job.result()
            if result.failing is None:
                print(f"{name}: {result.tried} inputs, none failed", flush=True)
                continue
            failed += 1
            path = save(name, result.failing)
            print(f"{name}: input {result.tried} failed, saved as {path}\n{result.trace}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

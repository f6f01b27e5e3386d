"""What several connections gain over a link with a delay: small batches into `rclone serve s3`, by 1 connection and by 4.

    python -m bench.link [--batches N] [--delay-ms MS]

A proxy of the tests' own delays what passes, both ways together by MS. Each case drains a spool of N batches of one capture in
a process of its own, in the same run. Fails where 4 connections are not 3.5 times as fast as 1.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.cloud import REGION, fill, settings
from edge.capture.service import CaptureService
from edge.clock import SystemClock

AIM = 3.5
CONNECTIONS = (1, 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=1000, help="batches of one capture of 1 KiB (default 1000)")
    parser.add_argument("--delay-ms", type=float, default=100.0, help="delay of the link, there and back (default 100)")
    parser.add_argument("--drain", nargs=3, metavar=("FOLDER", "URL", "CONNECTIONS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drain:
        print(json.dumps(drain(Path(options.drain[0]), options.drain[1], int(options.drain[2]))))
        return 0
    results = [measure(options.batches, options.delay_ms / 1000, connections) for connections in CONNECTIONS]
    gain = results[0]["seconds"] / results[-1]["seconds"]
    print("| connections | batches | seconds | batches/s | CPU ms a batch |\n|---|---|---|---|---|")
    for connections, result in zip(CONNECTIONS, results, strict=True):
        rate = options.batches / result["seconds"]
        cpu = 1000 * result["cpu_seconds"] / options.batches
        print(f"| {connections} | {options.batches} | {result['seconds']:.1f} | {rate:.1f} | {cpu:.2f} |")
    print(f"\n{gain:.2f} times as fast by {CONNECTIONS[-1]} (at least {AIM})")
    return int(gain < AIM)


def measure(batches: int, delay: float, connections: int) -> dict[str, float]:
    """Fill a spool and drain it over the link."""
    from tests.fakes.link import Link
    from tests.fakes.stores import start_rclone

    with tempfile.TemporaryDirectory(prefix="bench-link-") as name:
        folder = Path(name)
        fill(folder, batches, 1 << 10, records_per_file=1)
        store = start_rclone(folder)
        link = Link(int(store.url.rpartition(":")[2]), delay=delay)
        try:
            words = [sys.executable, "-m", "bench.link", "--drain", str(folder), link.url, str(connections)]
            done = subprocess.run(
                words, env={**os.environ, **store.environment()}, stdout=subprocess.PIPE, text=True, check=True
            )
            result: dict[str, float] = json.loads(done.stdout)
            stored = sum(path.suffix == ".jsonl" for path in (folder / "data").rglob("*"))
            if stored != batches:
                raise SystemExit(f"{stored} of {batches} batches are in the store")
            return result
        finally:
            link.close()
            store.close()


def drain(folder: Path, url: str, connections: int) -> dict[str, Any]:
    """Upload the backlog as the agent does."""
    from edge.cloud.aws.client import S3Location
    from edge.cloud.aws.credentials import EnvironmentCredentials
    from edge.cloud.aws.s3 import S3Store
    from edge.cloud.aws.trust import public_trust
    from edge.cloud.uploader import Uploader

    clock = SystemClock()
    store = S3Store(S3Location("sagemaker-test", REGION, url), EnvironmentCredentials(), clock, public_trust)
    service = CaptureService(settings(folder), clock, Uploader(store, clock, connections=connections))
    begun = time.monotonic()
    service.start()
    while service.snapshot().pending:
        time.sleep(0.05)
    seconds, usage = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
    service.stop(10)
    return {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime}


if __name__ == "__main__":
    sys.exit(main())

"""What uploads cost: memory and time to drain a backlog of captures into an S3-compatible store on this machine.

    python -m bench.cloud [--captures N] [--json]

Each case captures into a spool without a network, ends, and drains the spool in a new process into `rclone serve s3`.
The growth is the peak resident memory over that of the process before it imports the client. For comparison the same
objects are put by boto3.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.capture.record import CapturedTensor, CaptureRequest
from edge.capture.service import CaptureService
from edge.capture.settings import CaptureSettings
from edge.clock import SystemClock
from edge.errors import BufferFullError
from edge.tensors import DType

KIB = 1 << 10
AIM_KIB = 16 * KIB
REGION = "us-east-1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--captures", type=int, default=10_000, help="captures of 1 KiB (default 10000)")
    parser.add_argument("--json", action="store_true", help="one JSON object a case instead of a table")
    parser.add_argument("--drain", nargs=2, metavar=("FOLDER", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--boto3", nargs=2, metavar=("FOLDER", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drain:
        print(json.dumps(drain(Path(options.drain[0]), options.drain[1])))
        return 0
    if options.boto3:
        print(json.dumps(put_by_boto3(Path(options.boto3[0]), options.boto3[1])))
        return 0
    cases = [(options.captures // 10, KIB), (options.captures, KIB), (options.captures // 10, 100 * KIB)]
    results = [result for count, size in [*cases, (20, 10_000 * KIB)] for result in measure(count, size)]
    for result in results:
        if options.json:
            print(json.dumps(result))
    if not options.json:
        print(table(results))
    return int(any(r["client"] == "ours" and r["growth_kib"] > AIM_KIB for r in results))


def measure(count: int, size: int) -> Iterator[dict[str, Any]]:
    """Fill a spool and drain it, by this agent's client and by boto3."""
    from tests.fakes.stores import start_rclone

    with tempfile.TemporaryDirectory(prefix="bench-cloud-") as name:
        folder = Path(name)
        fill(folder, count, size)
        store = start_rclone(folder)
        try:
            for client in ("boto3", "drain"):  # boto3 leaves the spool as it is
                words = [sys.executable, "-m", "bench.cloud", f"--{client}", str(folder), store.url]
                done = subprocess.run(
                    words, env={**os.environ, **store.environment()}, capture_output=True, text=True, check=True
                )
                result = json.loads(done.stdout)
                yield {"client": "ours" if client == "drain" else client, "captures": count, "bytes": size, **result}
        finally:
            store.close()


def settings(folder: Path, **changes: Any) -> CaptureSettings:
    """Destination Cloud, with the default batch."""
    return CaptureSettings(
        device="device",
        fleet="fleet",
        folder_prefix="",
        spool_path=folder / "spool",
        disk_path=None,
        bucket="sagemaker-test",
        buffer_captures=20,
        spool_min_free=0,
        **changes,
    )


def fill(folder: Path, count: int, size: int, **changes: Any) -> None:
    """Make a backlog of `count` captures with a tensor of `size` bytes."""
    service = CaptureService(settings(folder, **changes), SystemClock(), None)
    service.start()
    for number in range(count):
        tensor = CapturedTensor("input", DType.UINT8, (size,), os.urandom(size))
        request = CaptureRequest("model", "1.0", f"c-{number}", None, input_tensors=(tensor,))
        while True:
            try:
                service.submit(request)
                break
            except BufferFullError:
                time.sleep(0.002)
    service.stop(60)


def drain(folder: Path, url: str) -> dict[str, Any]:
    """Upload the backlog as the agent does."""
    before = memory_kib("VmRSS")
    from edge.cloud.aws.client import S3Location
    from edge.cloud.aws.credentials import EnvironmentCredentials
    from edge.cloud.aws.s3 import S3Store
    from edge.cloud.aws.trust import public_trust
    from edge.cloud.uploader import Uploader

    clock = SystemClock()
    location = S3Location("sagemaker-test", REGION, url)
    store = S3Store(location, EnvironmentCredentials(), clock, public_trust)
    service = CaptureService(settings(folder), clock, Uploader(store, clock, connections=4))
    files = sum(path.is_file() for path in (folder / "spool" / "sealed").rglob("*"))
    begun = time.monotonic()
    service.start()
    while service.snapshot().pending:
        time.sleep(0.1)
    result = figures(files, before, begun)
    service.stop(10)
    return result


def put_by_boto3(folder: Path, url: str) -> dict[str, Any]:
    """Put the same files with boto3, one after the other."""
    root = folder / "spool" / "sealed"
    before, begun = memory_kib("VmRSS"), time.monotonic()
    import boto3
    from botocore.config import Config

    client = boto3.client("s3", endpoint_url=url, region_name=REGION, config=Config(s3={"addressing_style": "path"}))
    files = 0
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as body:
                client.put_object(Bucket="sagemaker-test", Key="boto3/" + path.relative_to(root).as_posix(), Body=body)
            files += 1
    return figures(files, before, begun)


def figures(objects: int, before_kib: int, begun: float) -> dict[str, Any]:
    """What a drain took."""
    seconds, usage = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "objects": objects,
        "objects_a_second": round(objects / seconds),
        "cpu_ms_an_object": round((usage.ru_utime + usage.ru_stime) * 1000 / max(objects, 1), 2),
        "growth_kib": memory_kib("VmHWM") - before_kib,
    }


def memory_kib(field: str) -> int:
    """A field of this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def table(results: list[dict[str, Any]]) -> str:
    """The figures for people, as Markdown."""
    rows = [
        "| client | captures | of KiB | objects | objects/s | CPU ms an object | RSS growth, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        words = (r["client"], r["captures"], r["bytes"] // KIB, r["objects"], r["objects_a_second"])
        rows.append("| " + " | ".join(map(str, words)) + f" | {r['cpu_ms_an_object']} | {r['growth_kib'] / KIB:.1f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())

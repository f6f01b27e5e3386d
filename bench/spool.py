"""What captures cost: accepted a second, bytes written to the device for each byte of payload, fsyncs a capture.

    python -m bench.spool [--paced] [--json]

Each payload (one UINT8 tensor) is captured as fast as the agent's capture side takes it, with the default batch (10) and
buffer (30), destination Disk; a refused capture (C-6) is sent again and counts once. Two counts of written bytes:

- device: sectors written to an ext4 file system of its own (a loop device), journal and inodes included, up to and with
  its unmounting. Needs the right to mount; otherwise it is left out.
- process: `write_bytes` of /proc/self/io, whole pages that the process dirtied, journal and inodes not included. The aims
  are for this count, which is the same on any file system.

fsyncs are counted where os.fsync is called, flushes of the device's cache by the device. A paced run (one capture each 0.5 s, as a camera does) shows what batches by
time rather than by count cost.
"""

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.capture.record import CapturedTensor, CaptureRequest
from edge.capture.service import CaptureService
from edge.capture.settings import CaptureSettings
from edge.clock import SystemClock
from edge.errors import BufferFullError
from edge.tensors import DType

KIB, MIB = 1 << 10, 1 << 20
# payload bytes, captures, aim for written / payload
CASES = [(1 * KIB, 2000, 3.5), (100 * KIB, 500, 1.1), (1200 * KIB, 100, 1.05)]
SECTOR_BYTES = 512
IMAGE_BYTES = 1 << 30


@dataclass
class Result:
    """Figures of one payload size; written / payload by either count."""

    payload_bytes: int
    captures: int
    captures_a_second: float
    device_amplification: float | None
    process_amplification: float
    aim: float
    fsyncs_a_capture: float
    flushes_a_capture: float | None
    refused: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--paced", action="store_true", help="add the paced run (30 s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    cases = [(size, count, aim, 0.0) for size, count, aim in CASES]
    if arguments.paced:
        cases.append((1 * KIB, 60, 0.0, 0.5))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        results = [measure(Path(scratch), *case) for case in cases]
    if arguments.json:
        json.dump([asdict(result) for result in results], sys.stdout, indent=2)
    else:
        show(results)
    return int(any(r.process_amplification > r.aim for r in results if r.aim))


def show(results: list[Result]) -> None:
    print(
        f"{'payload':>10} {'captures/s':>11} {'device':>8} {'process':>8} {'aim':>6} {'fsyncs/capture':>15} {'refused':>8}"
    )
    for r in results:
        device = f"{r.device_amplification:.2f}x" if r.device_amplification is not None else "-"
        flushes = f"{r.flushes_a_capture:.2f}" if r.flushes_a_capture is not None else "-"
        print(
            f"{r.payload_bytes // KIB:>6} KiB {r.captures_a_second:>11.0f} {device:>8} {r.process_amplification:>7.2f}x "
            f"{r.aim or '-':>6} {r.fsyncs_a_capture:>7.2f} {flushes:>8} {r.refused:>8}"
        )


def measure(scratch: Path, size: int, count: int, aim: float, pause: float) -> Result:
    """Capture `count` payloads of `size` bytes, `pause` seconds apart."""
    folder = scratch / f"{size}-{count}"
    folder.mkdir()
    with file_system(folder) as device:
        before, flushes, dirtied = *device_counts(device), process_bytes()
        with counted_fsyncs() as fsyncs:
            seconds, refused = pour(folder, size, count, pause)
        dirtied = process_bytes() - dirtied
        settle(folder, device)
        after, flushes_after = device_counts(device)
    payload = size * count
    return Result(
        payload_bytes=size,
        captures=count,
        captures_a_second=count / seconds,
        device_amplification=None if device is None else (after - before) / payload,
        process_amplification=dirtied / payload,
        aim=aim,
        fsyncs_a_capture=len(fsyncs) / count,
        flushes_a_capture=None if device is None else (flushes_after - flushes) / count,
        refused=refused,
    )


def pour(folder: Path, size: int, count: int, pause: float) -> tuple[float, int]:
    """Returns the seconds until all were durable, and how often a capture was refused."""
    data = os.urandom(size)
    settings = CaptureSettings(
        device="bench", fleet="bench", folder_prefix="", spool_path=folder / "captures/.spool",
        disk_path=folder / "captures", bucket=None,
    )  # fmt: skip
    service = CaptureService(settings, SystemClock(), None)
    service.start()
    refused, never = 0, threading.Event()
    begun = time.monotonic()
    for number in range(count):
        tensor = CapturedTensor("input", DType.UINT8, (1, size), data)
        request = CaptureRequest("model", "1.0", f"00000000-0000-0000-0000-{number:012d}", None, (tensor,))
        while True:
            try:
                service.submit(request)
                break
            except BufferFullError:
                refused += 1
                never.wait(0.001)
        if pause:
            never.wait(pause)
    service.stop(60)
    return time.monotonic() - begun, refused


@contextlib.contextmanager
def file_system(folder: Path) -> Iterator[str | None]:
    """An ext4 file system of its own on `folder`, as the name of its loop device; None without the right to mount."""
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    made = subprocess.run(
        ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)],
        check=False,
        capture_output=True,
    )
    if (
        made.returncode
        or subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=False, capture_output=True).returncode
    ):
        yield None
        return
    try:
        os.sync()
        source = subprocess.run(["findmnt", "-no", "SOURCE", str(folder)], check=True, capture_output=True, text=True)
        yield Path(source.stdout.strip()).name
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        image.unlink()


def settle(folder: Path, device: str | None) -> None:
    """Bring everything that is still in memory to the device, the journal's own checkpoint too."""
    if device is not None:
        subprocess.run(["sync", "-f", str(folder)], check=True)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def device_counts(device: str | None) -> tuple[int, int]:
    """Bytes written to a block device so far, and flushes of its cache."""
    if device is None:
        return 0, 0
    fields = Path(f"/sys/block/{device}/stat").read_text().split()
    return int(fields[6]) * SECTOR_BYTES, int(fields[15])


def process_bytes() -> int:
    """Bytes of pages that this process has dirtied so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


@contextlib.contextmanager
def counted_fsyncs() -> Iterator[list[int]]:
    """Notes each call of os.fsync."""
    calls: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        calls.append(fd)
        real(fd)

    os.fsync = fsync
    try:
        yield calls
    finally:
        os.fsync = real


if __name__ == "__main__":
    sys.exit(main())

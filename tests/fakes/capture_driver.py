"""A process around CaptureService that captures as fast as it can, until it is killed.

Arguments: destination (disk or cloud), folder, round. It writes each accepted id as a line to stdout, after submit
returned and in one write, so that what the reader has seen was accepted.
"""

import os
import sys
import threading
from itertools import count
from pathlib import Path

from edge.capture.service import CaptureService
from edge.clock import SystemClock
from edge.errors import BufferFullError
from tests.fakes import captures

THREADS = 4


def main() -> None:
    destination, folder, number = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    settings = (captures.disk_settings if destination == "disk" else captures.cloud_settings)(
        folder, push_period=0.05, batch_captures=5
    )
    service = CaptureService(settings, SystemClock(), None)
    service.start()

    def pour(thread: int) -> None:
        for i in count():
            capture_id = f"r{number}-{thread}-{i}"
            made = captures.large(capture_id) if i % 3 == 0 else captures.small(capture_id, model=f"model{i % 2}")
            try:
                service.submit(made)
            except BufferFullError:
                continue
            os.write(1, f"{capture_id}\n".encode())

    os.write(1, b"ready\n")
    for thread in range(THREADS):
        threading.Thread(target=pour, args=(thread,)).start()


if __name__ == "__main__":
    main()

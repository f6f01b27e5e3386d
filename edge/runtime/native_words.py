"""What the engine's native code writes to stderr, as lines of the log (X-5)."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edge.text import printable

log = logging.getLogger(__name__)

STDERR = 2
MAX_BYTES = 64 << 10  # kept of what the engine prints
_turn = threading.Lock()  # stderr is one for all threads


@contextmanager
def as_log_lines() -> Iterator[None]:
    """Within the block, stderr goes to the log; where that would drop it, as in a model's trial, it stays as it is."""
    if not log.isEnabledFor(logging.INFO):
        yield
        return
    with _turn:
        kept, usual = os.memfd_create("stderr", os.MFD_CLOEXEC), os.dup(STDERR)
        os.dup2(kept, STDERR, inheritable=True)
        try:
            yield
        finally:
            os.dup2(usual, STDERR, inheritable=True)
            os.close(usual)
            words = os.pread(kept, MAX_BYTES, 0).decode(errors="replace")
            os.close(kept)
            for line in words.splitlines():
                log.info("the engine says: %s", printable(line.removeprefix("INFO: ")))

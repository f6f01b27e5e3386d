"""What the engine's native code writes to stderr, as lines of the log (X-5)."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from edge.durable import why
from edge.errors import MemoryLimitError
from edge.text import printable

log = logging.getLogger(__name__)

STDERR = 2
MAX_BYTES = 64 << 10  # kept of what the engine prints
_turn = threading.Lock()  # stderr is one for all threads


@contextmanager
def as_log_lines() -> Iterator[None]:
    """Within the block, stderr goes to the log; where that would drop it, as in a model's trial, it stays as it is.

    Raises:
        MemoryLimitError: the system gives no descriptors for it, nor would it to the engine.
    """
    if not log.isEnabledFor(logging.INFO):
        yield
        return
    with _turn, ExitStack() as files:
        try:
            kept = os.memfd_create("stderr", os.MFD_CLOEXEC)
            files.callback(os.close, kept)
            usual = os.dup(STDERR)
            files.callback(os.close, usual)
        except OSError as error:
            raise MemoryLimitError(f"the engine cannot open a model now: {why(error)}") from None
        os.dup2(kept, STDERR, inheritable=True)
        try:
            yield
        finally:
            os.dup2(usual, STDERR, inheritable=True)
            words = os.pread(kept, MAX_BYTES, 0).decode(errors="replace")
            for line in words.splitlines():
                log.info("the engine says: %s", printable(line.removeprefix("INFO: ")))

"""The log: one line an event on stderr or stdout (X-5), at no one's pace but its own.

Under journald a line begins with `<N>`, the syslog level, and has no time of its own; elsewhere it begins with an ISO time.
Tensor bytes, keys and tokens are never logged.

A thread writes the lines, so that a reader who does not read (a full pipe, a stalled disk) holds up no call and no stop. What
waits is bounded; lines beyond it are dropped and counted. An event that comes again and again is written BURST times in
WINDOW_SECONDS and then counted, so that a client cannot fill the log.
"""

import contextlib
import datetime
import logging
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge import traceparent
from edge.clock import SystemClock
from edge.selfexec import called_as
from edge.text import printable

MAX_LINE_CHARACTERS = 33_000  # of a line of the log: journald cuts it at 48 KiB
MAX_WAITING_BYTES = 1 << 20  # of log lines that nobody reads; further lines are dropped and counted
FLUSH_SECONDS = 0.5  # at the exit, for lines that still wait
BURST = 20
WINDOW_SECONDS = 10.0
MAX_KINDS = 1000  # kinds of log events that are counted apart; further ones are counted together
_STDOUT, _STDERR = 1, 2
_SYSLOG_LEVELS = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7
ORIGINAL_NAME = "sagemaker_edge_agent_binary"


class _Formatter(logging.Formatter):
    def __init__(self, *, journald: bool) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if trace := getattr(record, "traceparent", ""):
            text += f" [traceparent {trace}]"
        if record.exc_info:
            text += " | " + self.formatException(record.exc_info)
        text = printable(text, MAX_LINE_CHARACTERS)
        if self._journald:
            level = next((n for limit, n in _SYSLOG_LEVELS if record.levelno >= limit), _DEBUG)
            return f"<{level}>{record.name}: {text}"
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        return f"{at} {record.levelname} {record.name}: {text}"


_OTHERS = ("", 0, "")


@dataclass
class _Kind:
    """Events from one place in the code, since its window began."""

    since: float
    count: int = 0
    last: logging.LogRecord | None = None  # of those that were only counted


class Repeats:
    """Which events are written, and which only counted. Not thread-safe."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def admits(self, record: logging.LogRecord, now: float) -> bool:
        """Whether the event is written; `now` in seconds."""
        key = (record.name, record.levelno, str(record.msg))
        if key not in self._kinds and len(self._kinds) >= MAX_KINDS:
            key = _OTHERS
        kind = self._kinds.setdefault(key, _Kind(since=now))
        kind.count += 1
        if kind.count <= BURST:
            return True
        kind.last = record
        return False

    def ended(self, now: float) -> list[logging.LogRecord]:
        """The windows that are over, as events that say how many more there were; those without more just end."""
        counted = []
        while self._kinds:
            key, kind = next(iter(self._kinds.items()))  # the oldest
            if now - kind.since < WINDOW_SECONDS:
                break
            del self._kinds[key]
            if kind.last is not None:
                counted.append(_counted(kind.count - BURST, kind.last))
        return counted


def _counted(more: int, last: logging.LogRecord) -> logging.LogRecord:
    text = f"… {more} more in {WINDOW_SECONDS:g} s, the last: {printable(last.getMessage())}"
    return logging.LogRecord(last.name, last.levelno, last.pathname, last.lineno, text, None, None)


class LogWriter(logging.Handler):
    """Writes lines to a file descriptor from a thread of its own."""

    def __init__(self, fd: int, monotonic: Callable[[], float] | None = None) -> None:
        """`fd` stays its owner's."""
        super().__init__()
        self._fd = fd
        self._monotonic = monotonic or SystemClock().monotonic
        self._repeats = Repeats()
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()  # the first is being written
        self._waiting_bytes = 0
        self._dropped = 0
        self._full = self._over = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over; never waits for the reader."""
        now = self._monotonic()
        record.traceparent = traceparent.current()
        with self._changed:
            for one in self._repeats.ended(now):
                self._add(one)
            if self._repeats.admits(record, now):
                self._add(record)

    def _add(self, record: logging.LogRecord) -> None:
        try:
            line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        except Exception:  # noqa: BLE001 - arguments that do not fit the text must not end a call
            line = f"{record.name}: an event that cannot be written: {printable(str(record.msg))}\n".encode()
        if self._full or self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
            self._full = True  # until the reader has caught up: the count then stands where the gap is
            self._dropped += 1
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        self._changed.notify_all()

    def _run(self) -> None:
        while (line := self._next()) is not None:
            written = _write(self._fd, line)
            with self._changed:
                self._dropped += not written
                self._waiting.popleft()
                self._waiting_bytes -= len(line)
                if not self._waiting:
                    self._full = False
                    if self._dropped and written:
                        self._tell_dropped()
                self._changed.notify_all()

    def _next(self) -> bytes | None:
        """The next line, once there is one; None at the end."""
        with self._changed:
            while not self._waiting:
                if self._over:
                    return None
                self._changed.wait(WINDOW_SECONDS)
                for one in self._repeats.ended(self._monotonic()):
                    self._add(one)
            return self._waiting[0]

    def _tell_dropped(self) -> None:
        text = f"{self._dropped} lines of the log were dropped: they could not be written in time"
        self._dropped = 0
        self._add(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))

    def flush(self) -> None:
        """Wait until all is written, FLUSH_SECONDS at most."""
        with self._changed:
            for one in self._repeats.ended(float("inf")):
                self._add(one)
            self._changed.wait_for(lambda: not self._waiting, FLUSH_SECONDS)

    def close(self) -> None:
        """Write what waits and end the thread; one whose line nobody reads is left behind. Idempotent."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join(FLUSH_SECONDS)
        super().close()


def _write(fd: int, data: bytes) -> bool:
    """Write all of it, however long that takes; false where it cannot be written."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # whoever shares the descriptor made it non-blocking
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError:
            return False
    return True


def _is_journal(fd: int) -> bool:
    """Whether `fd` is the stream to journald that JOURNAL_STREAM names (systemd.exec(5)): the variable is inherited, a file not."""
    with contextlib.suppress(OSError, ValueError):
        device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
        status = os.fstat(fd)
        return (status.st_dev, status.st_ino) == (int(device), int(inode))
    return False


def _let_go(fd: int) -> None:
    """See to it that nothing that writes to a pipe waits for its reader: the libraries' own C code does so from any thread.

    The pipe is opened anew, for others may share this opening of it.
    """
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
            os.dup2(own, fd)
            os.close(own)


def usual_stream() -> str:
    """`stdout` for whoever starts the program by its old name and reads what the original wrote there, else `stderr`."""
    by_systemd = (  # systemd.exec(5), sd_notify(3); these are not inherited, or compared with what is ours
        os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
        or "NOTIFY_SOCKET" in os.environ
        or any(_is_journal(fd) for fd in (_STDOUT, _STDERR))
    )
    return "stdout" if called_as() == ORIGINAL_NAME and not by_systemd else "stderr"


def setup(verbose: bool, stream: str = "stderr", *, apart: bool = False) -> None:
    """Send the log of the whole program to a standard stream; `verbose` adds debug events. Call it once signals are blocked.

    With `apart` it keeps its way when the stream is led elsewhere, as `edge.engine.native_words` does now and then.
    """
    fd = _STDOUT if stream == "stdout" else _STDERR
    for each in {fd, _STDERR}:
        _let_go(each)
    handler = LogWriter(os.dup(fd) if apart else fd)
    handler.setFormatter(_Formatter(journald=_is_journal(fd)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for chatty in ("grpc", "asyncio", "concurrent"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.raiseExceptions = False
    # What would go to stderr by itself, in a thread that serves.
    threading.excepthook = lambda fault: root.critical(
        "the thread %s ended by a fault", fault.thread and fault.thread.name, exc_info=fault.exc_value
    )
    sys.unraisablehook = lambda fault: root.error(
        "%s: %r", fault.err_msg or "a fault that nobody can handle", fault.object, exc_info=fault.exc_value
    )

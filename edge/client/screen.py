"""A terminal that shows one picture after another, and is at the end as it was before.

By ANSI's escapes alone (ECMA-48, and xterm's private modes 7, 25 and 1049: lines that do not wrap, the cursor, the other screen).
"""

import contextlib
import os
import shutil
import signal
import sys
from types import FrameType, TracebackType
from typing import TextIO

_BEGIN = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_END = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def is_live(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can be painted on."""
    try:
        return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    except ValueError:  # it is closed
        return False


class Screen:
    """The other screen of a terminal, for the length of the `with` block, however that ends."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream

    def __enter__(self) -> "Screen":
        self._handlers = {number: signal.signal(number, _end) for number in _ENDING}
        self._stream.write(_BEGIN)
        return self

    def show(self, text: str) -> None:
        """Put a picture in place of the one before; what has no room is left out."""
        width, height = shutil.get_terminal_size()
        lines = text.split("\n")
        if len(lines) > height > 1:
            lines = [*lines[: height - 1], f"... {len(lines) - height + 1} more lines"]
        self._stream.write("\x1b[H" + "\r\n".join(f"{line[:width]}\x1b[K" for line in lines) + "\x1b[J")
        self._stream.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # nobody looks any more
            self._stream.write(_END)
            self._stream.flush()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # as shells say it

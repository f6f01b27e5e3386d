"""Reading the kernel's small files, in /proc and /sys, where calls are served meanwhile."""

import os
from pathlib import Path

_READ_BYTES = 1 << 16


def text_of(path: Path) -> str:
    """What is in a file, in half the system calls that `Path.read_text` makes.

    At each of them the interpreter lock changes hands, and whoever serves calls has to wait for it to come back.

    Raises:
        OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        read = []
        while piece := os.read(fd, _READ_BYTES):
            read.append(piece)
    finally:
        os.close(fd)
    return b"".join(read).decode(errors="surrogateescape")


def lines_of(path: Path) -> list[str]:
    """The lines of such a file. Names in it may be anybody's, of any bytes: of these only the newline is escaped.

    Raises:
        OSError: it cannot be read.
    """
    return [line for line in text_of(path).split("\n") if line]

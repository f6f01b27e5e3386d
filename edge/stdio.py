"""The standard descriptors; and a command's output: brought out before the exit code is decided, and its failures in a sentence.

Python flushes it at the interpreter's exit, where a reader that went away or a full disk ends in a traceback and 120.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable

_STDERR = 2
INTERRUPTED = 128 + signal.SIGINT  # as shells say it


def fill() -> None:
    """Put /dev/null where a standard descriptor is closed; else the next file opened would be taken for it."""
    with contextlib.suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            os.set_inheritable(fd, True)
        os.close(fd)


def run(command: Callable[[], int], program: str) -> int:
    """Run a command; returns its exit code.

    A reader that has seen enough (`| head`) is no failure. An output that cannot be written, a full disk, is 1.
    """
    importing = signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # set by agent.py for the time of its imports
    try:
        if importing:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a locale without a character must not end the command
        try:
            return _ended(command)
        finally:
            for stream in (sys.stdout, sys.stderr):  # argparse leaves in stderr what it could not write
                if stream is not None:
                    stream.flush()
    except BrokenPipeError:
        _discard()
        return 0
    except OSError as error:
        _discard()
        what = error.filename or "the output cannot be written"
        print(f"{program}: {what}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _discard()
        return INTERRUPTED
    finally:
        if importing:  # what is left is the interpreter's own end, which would tell of it in a traceback too
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _ended(command: Callable[[], int]) -> int:
    try:
        return command()
    except SystemExit as end:  # how argparse ends --help and wrong usage
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0


def _discard() -> None:
    """Let what is left unwritten go, so that the interpreter does not try again at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)

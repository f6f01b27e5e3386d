"""Captures of a source, one after the other; what is no capture is told of and left out."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from edge.capture import packing
from edge.client.captures.records import MAX_LINE_BYTES, Capture, GoneError, RecordError, parse
from edge.client.captures.sources import Source, is_record_name
from edge.text import printable

log = logging.getLogger(__name__)

MAX_UNPACKED_BYTES = 256 << 20  # of a compressed record file: some times what an agent's batch has
_PATH_CHARACTERS = 4096
Line = TypeVar("Line")


@dataclass(frozen=True)
class Refusal:
    """A record that cannot be used: the file, the line (0: the file as a whole), and why."""

    origin: str
    line: int
    reason: str

    def __str__(self) -> str:
        place = printable(self.origin, _PATH_CHARACTERS) + (f":{self.line}" if self.line else "")
        return f"{place}: {printable(self.reason, 500)}"


Refused = Callable[[Refusal], None]


def captures_of(
    source: Source, refused: Refused | None = None, wanted: Callable[[str], bool] | None = None
) -> Iterator[Capture]:
    """Every capture of the record files whose keys are `wanted`. `refused` is told of the records that cannot be used;
    without it, they are logged as warnings.

    Raises:
        InputError: the source cannot be looked at.
    """
    tell = refused or _log
    for key in source.files():
        if is_record_name(key.rpartition("/")[2]) and (wanted is None or wanted(key)):
            yield from lines_of(source, key, tell, partial(parse, origin=key, raw=_raw_beside(source, key)))


def lines_of(source: Source, key: str, tell: Refused, parsed: Callable[[bytes], Line]) -> Iterator[Line]:
    """What `parsed` makes of each line of a file; `tell` is told of those that it refuses by RecordError."""
    number = 0
    try:
        with source.open(key) as opened:
            file = packing.unpacked(opened)
            for number, line in _lines(file if file is opened else _Bounded(file), key, tell):
                try:
                    made = parsed(line)
                except RecordError as error:
                    tell(Refusal(key, number, str(error)))
                else:
                    yield made
    except GoneError:
        return
    except RecordError as error:
        tell(Refusal(key, number, str(error)))
    except packing.DAMAGES as error:
        tell(Refusal(key, number, f"cannot be read to its end: {error}"))


def _raw_beside(source: Source, key: str) -> Callable[[str], bytes]:
    folder = key.rpartition("/")[0]
    return lambda reference: source.raw(f"{folder}/{reference}" if folder else reference)


class _Lines(Protocol):
    def readline(self, size: int, /) -> bytes: ...


class _Bounded:
    """Lines of what is unpacked, up to a bound: a small file may hold a thousand times its size."""

    def __init__(self, file: _Lines) -> None:
        self._file = file
        self._left = MAX_UNPACKED_BYTES

    def readline(self, size: int, /) -> bytes:
        line = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise RecordError(f"it holds more than {MAX_UNPACKED_BYTES >> 20} MiB; the rest is not read")
        return line


def _lines(file: _Lines, key: str, tell: Refused) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers; an object that is spread over lines, as some readers' tools write it, counts as one."""
    number, whole = 0, bytearray()
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES or len(whole) + len(line) > MAX_LINE_BYTES:
            tell(Refusal(key, number, f"longer than {MAX_LINE_BYTES >> 20} MiB"))
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
            whole.clear()
            continue
        if whole or line.strip() == b"{":
            whole += line
            if line.rstrip() == b"}":
                yield number, bytes(whole)
                whole.clear()
        elif line.strip():
            yield number, line
    if whole:
        yield number, bytes(whole)


def _log(refusal: Refusal) -> None:
    log.warning("%s", refusal)

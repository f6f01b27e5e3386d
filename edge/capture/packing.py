"""Record files that are compressed (R-18): a batch is one gzip member, as RFC 1952 has it, made when the batch is sealed.

While it is open, a batch whose name says `.gz` holds plain lines, so that a kill costs it no more than any other; its first bytes
tell which of the two it is. No time and no name is in the member: the same lines make the same bytes.
"""

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from edge import durable
from edge.capture import layout

log = logging.getLogger(__name__)

_MAGIC = b"\x1f\x8b"
_LEVEL = 6  # of 9: more takes twice the time for a hundredth of the size
_WBITS = 16 + zlib.MAX_WBITS  # with gzip's head and sum around it


def packs(key: str) -> bool:
    """Whether the record file of a key is compressed in its place."""
    return key.endswith(layout.PACKED)


def packed(chunks: Iterable[bytes], beat: Callable[[], None] = lambda: None) -> Iterator[bytes]:
    """One member of what the chunks hold; `beat` is called between them."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WBITS)
    for chunk in chunks:
        beat()
        yield packer.compress(chunk)
    yield packer.flush()


def unpacked(file: BinaryIO) -> BinaryIO:
    """What a record file holds, from its begin: itself, or what it was before it was compressed, as it is read.

    Reading the latter raises `DAMAGES` where it is cut off or damaged; lines before that place are given first.
    """
    if not _is_packed(file):
        return file
    import gzip  # not for those who compress nothing

    return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))


DAMAGES = (EOFError, zlib.error, OSError)  # gzip.BadGzipFile, without its import; but also what the disk raises


def _is_packed(file: BinaryIO) -> bool:
    begin = file.read(len(_MAGIC))
    file.seek(0)
    return begin == _MAGIC


def is_packed(path: Path) -> bool:
    """Whether a record file is compressed, whatever its name.

    Raises:
        OSError: it cannot be read.
    """
    with durable.reader(path) as file:
        return _is_packed(file)


def lines(path: Path, damaged: Callable[[], None] = lambda: None) -> Iterator[bytes]:
    """The lines of a record file; `damaged` is called at the end of one whose compressed bytes are no whole member.

    Raises:
        OSError: it cannot be read.
    """
    with durable.reader(path) as file:
        content = unpacked(file)
        if content is file:
            yield from file
            return
        try:
            yield from content
        except DAMAGES as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk, which may answer the next time; gzip's own has no number
            log.error("%s: its compressed bytes are damaged: %s", path.name, error)
            damaged()

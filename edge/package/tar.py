"""Reading a tar stream of hostile making, and writing one that is the same each time. Pure: bytes in, members out.

Format: POSIX.1-2017 `pax`, "ustar Interchange Format", and GNU tar's long names. The standard library's reader keeps
headers of any size in memory, follows links and knows sparse files; here a member is a regular file or a folder, and a
header has a bound.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edge.errors import PackageError
from edge.text import shown

BLOCK_BYTES = 512
MAX_HEADER_BYTES = 64 * 1024  # of a pax header or a GNU long name in an archive
MAX_HEADER_RECORDS = 100  # records of a pax header
MAX_HEADERS = 4  # pax headers and GNU long names before one file of an archive
_FILE_TYPES = (b"0", b"\0", b"7")
_FOLDER_TYPE = b"5"
_HEADER_TYPES = (b"L", b"x", b"g")
_OTHER_TYPES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"S": "a sparse file",
}
_FILE_MODE = 0o644
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file or folder of the archive. `path` is as written, without a trailing slash; `size` in bytes."""

    path: str
    size: int
    is_folder: bool


class TarReader:
    """Members in their order. `read(n)` gives 1 to n bytes of the stream, or none at its end."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = 0  # bytes of the member's data not read yet
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Members; the data of each is to be read before the next is asked for, else it is skipped.

        Raises:
            PackageError: not a tar, cut short, or a member that is neither file nor folder.
        """
        long_name: str | None = None
        pax: dict[str, str] = {}
        headers = 0
        while True:
            for _ in self.chunks():
                pass
            header = self._exactly(BLOCK_BYTES, may_end=True)
            if not header.strip(b"\0"):
                return
            _check_sum(header)
            kind = header[156:157]
            self._expect(_number(header[124:136]))
            headers += kind in _HEADER_TYPES
            if headers > MAX_HEADERS:
                raise PackageError(f"the archive has more than {MAX_HEADERS} headers for one member")
            if kind == b"L":
                long_name = _text(self._small().rstrip(b"\0"))
                continue
            if kind in (b"x", b"g"):
                found = _pax(self._small())
                if kind == b"x":
                    pax = found
                elif {"path", "size"} & found.keys():
                    raise PackageError("the archive gives all members one path or size")
                continue
            path = pax.get("path", long_name if long_name is not None else _name(header))
            if any(key.startswith("GNU.sparse.") for key in pax):
                kind = b"S"
            if kind not in (*_FILE_TYPES, _FOLDER_TYPE):
                what = _OTHER_TYPES.get(kind, f"of the unknown type {shown(kind.decode('latin-1'))}")
                raise PackageError(
                    f"the archive's member {shown(path)} is {what}; only files and folders are allowed (L-11)"
                )
            if "size" in pax:
                self._expect(_decimal(pax["size"]))
            is_folder = kind == _FOLDER_TYPE or path.endswith("/")
            if is_folder and self._left:
                raise PackageError(f"the archive's folder {shown(path)} has contents")
            long_name, pax, headers = None, {}, 0
            yield Member(path.rstrip("/") if is_folder else path, self._left, is_folder)

    def chunks(self) -> Iterator[bytes]:
        """The rest of the current member's data, in pieces.

        Raises:
            PackageError: the archive ends first.
        """
        while self._left:
            data = self._read(min(self._left, _CHUNK_BYTES))
            if not data:
                raise PackageError("the archive is cut short")
            self._left -= len(data)
            yield data
        self._exactly(self._padding)
        self._padding = 0

    def _expect(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK_BYTES

    def _small(self) -> bytes:
        if self._left > MAX_HEADER_BYTES:
            raise PackageError(f"the archive has a header of {self._left} bytes; at most {MAX_HEADER_BYTES} are read")
        return b"".join(self.chunks())

    def _exactly(self, size: int, *, may_end: bool = False) -> bytes:
        data = b""
        while len(data) < size:
            more = self._read(size - len(data))
            if not more:
                if may_end and not data:
                    return b""
                raise PackageError("the archive is cut short")
            data += more
        return data


def file_header(path: str, size: int) -> bytes:
    """The header of a file of `size` bytes; its data and `padding(size)` follow."""
    name = path.encode()
    if len(name) > 100 or size >= 8**11:
        record = b"".join(_pax_record(key, value) for key, value in (("path", path), ("size", str(size))))
        before = _block(b"././@PaxHeader", len(record), b"x") + record + padding(len(record))
        return before + _block(name[:100].decode(errors="ignore").encode(), min(size, 8**11 - 1), b"0")
    return _block(name, size, b"0")


def padding(size: int) -> bytes:
    """What fills a member's last block."""
    return bytes(-size % BLOCK_BYTES)


END = bytes(2 * BLOCK_BYTES)


def _block(name: bytes, size: int, kind: bytes) -> bytes:
    fields = (
        name.ljust(100, b"\0"), b"%07o\0" % _FILE_MODE, b"%07o\0" % 0, b"%07o\0" % 0, b"%011o\0" % size, b"%011o\0" % 0,
        b" " * 8, kind, bytes(100), b"ustar\0" b"00", bytes(32), bytes(32), b"%07o\0" % 0, b"%07o\0" % 0,
    )  # fmt: skip
    block = b"".join(fields).ljust(BLOCK_BYTES, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _pax_record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def _check_sum(header: bytes) -> None:
    # The checksum is of the header with its own field as spaces; some old writers summed signed bytes.
    blank = header[:148] + b" " * 8 + header[156:]
    written = _number(header[148:156])
    if written != sum(blank) and written != sum(byte - 256 if byte > 127 else byte for byte in blank):
        raise PackageError("the archive is not a tar, or is damaged")


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # GNU: base 256, for sizes from 8 GiB
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        if not digits:
            return 0
        raise PackageError("the archive is not a tar, or is damaged")
    return int(digits, 8)


def _decimal(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 19):
        raise PackageError("the archive has a size that is not a number")
    return int(value)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].split(b"\0")[0]):
        name = prefix + b"/" + name
    return _text(name)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise PackageError(
            f"the archive's member {shown(name.decode('utf-8', 'backslashreplace'))} has a name that is not UTF-8"
        ) from error


def _pax(data: bytes) -> dict[str, str]:
    """Records `<length> <key>=<value>\\n`; a value that is not UTF-8 only matters where it is used."""
    records: dict[str, str] = {}
    at = 0
    for _ in range(MAX_HEADER_RECORDS):
        if at == len(data):
            return records
        space = data.find(b" ", at, at + 7)
        digits = data[at:space]
        if space < 0 or not digits.isdigit() or not len(digits) + 3 <= int(digits) <= len(data) - at:
            raise PackageError("the archive has a header that cannot be read")
        end = at + int(digits)
        key, equals, value = data[space + 1 : end].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise PackageError("the archive has a header that cannot be read")
        name = key.decode(errors="replace")
        records[name] = _text(value[:-1]) if name in ("path", "size") else ""
        at = end
    if at < len(data):
        raise PackageError(f"the archive has a header of more than {MAX_HEADER_RECORDS} records")
    return records

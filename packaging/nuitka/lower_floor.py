"""Let a shared library be loaded where the C library is older than the one it was linked with.

lower_floor.py IN OUT GLIBC GLIBCXX: symbols of versions above these (as 2.31 and 3.4.28) are looked up by their names alone,
and the versions are no longer asked for. Where such a name does not exist in the older library, something else that the
library needs must have it. Little-endian ELF of 64 bits; sections as in the System V ABI and its GNU symbol versions.
"""

import argparse
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DYNSYM, VERNEED, VERSYM = 11, 0x6FFFFFFE, 0x6FFFFFFF
HEADER_SECTIONS, SECTION, SYMBOL = (40, "<Q10xHHH"), "<IIQQQQIIQQ", "<IBBHQQ"
NEED = "<HHIII"  # Verneed: version, count, file, first, next
WANTED = "<IHHII"  # Vernaux: hash, flags, number, name, next
ANY = 1  # VER_NDX_GLOBAL: a symbol of no version


@dataclass(frozen=True)
class Section:
    """Where a section lies in the file, and the section that it refers to."""

    kind: int
    offset: int
    size: int
    link: int


class Library:
    """A library's bytes."""

    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise SystemExit("not a little-endian ELF file of 64 bits")
        self.data = bytearray(data)
        at, form = HEADER_SECTIONS
        start, size, count, _ = struct.unpack_from(form, data, at)
        found = (struct.unpack_from(SECTION, data, start + size * number) for number in range(count))
        self._sections = [Section(one[1], one[4], one[5], one[6]) for one in found]
        self._by_kind = {section.kind: section for section in self._sections}

    def _text(self, section: Section, at: int) -> str:
        start = self._sections[section.link].offset + at
        return self.data[start : self.data.index(0, start)].decode()

    def drop_versions(self, floors: dict[str, tuple[int, ...]]) -> list[str]:
        """Drop every wanted version above the floors, by their prefix; gives the symbols that have none any more."""
        dropped = {number: name for start in self._needs() for number, name in self._drop_of(start, floors)}
        symbols, versions = self._by_kind[DYNSYM], self._by_kind[VERSYM]
        freed = []
        for number in range(symbols.size // struct.calcsize(SYMBOL)):
            place = versions.offset + 2 * number
            (version,) = struct.unpack_from("<H", self.data, place)
            if version in dropped:
                name, *_ = struct.unpack_from(SYMBOL, self.data, symbols.offset + number * struct.calcsize(SYMBOL))
                struct.pack_into("<H", self.data, place, ANY)
                freed.append(f"{self._text(symbols, name)}@{dropped[version]}")
        return freed

    def _needs(self) -> Iterator[int]:
        """Where each library's versions are listed."""
        at = self._by_kind[VERNEED].offset
        while True:
            yield at
            step = struct.unpack_from(NEED, self.data, at)[4]
            if not step:
                return
            at += step

    def _drop_of(self, start: int, floors: dict[str, tuple[int, ...]]) -> list[tuple[int, str]]:
        """Take what is above the floors out of one library's list of versions."""
        version, _, file, first, after = struct.unpack_from(NEED, self.data, start)
        kept, dropped = [], []
        at, step = start + first, first
        while step:
            _, _, number, name, step = struct.unpack_from(WANTED, self.data, at)
            text = self._text(self._by_kind[VERNEED], name)
            if _above(text, floors):
                dropped.append((number, text))
            else:
                kept.append(at)
            at += step
        if not kept:
            raise SystemExit(f"every version of {self._text(self._by_kind[VERNEED], file)} is above the floor")
        for at, following in zip(kept, [*kept[1:], None], strict=True):
            struct.pack_into("<I", self.data, at + 12, following - at if following else 0)
        struct.pack_into(NEED, self.data, start, version, len(kept), file, kept[0] - start, after)
        return dropped


def _above(version: str, floors: dict[str, tuple[int, ...]]) -> bool:
    prefix, _, numbers = version.partition("_")
    return prefix in floors and tuple(map(int, numbers.split("."))) > floors[prefix]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("glibc", help="the newest GLIBC version that may be asked for")
    parser.add_argument("glibcxx", help="the newest GLIBCXX version that may be asked for")
    options = parser.parse_args()
    library = Library(options.library.read_bytes())
    floors = {
        prefix: tuple(map(int, text.split(".")))
        for prefix, text in (("GLIBC", options.glibc), ("GLIBCXX", options.glibcxx))
    }
    print("\n".join(library.drop_versions(floors)))
    options.output.write_bytes(library.data)


if __name__ == "__main__":
    main()

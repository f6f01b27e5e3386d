"""Which memory is put on huge pages, in this process's own memory."""

import ctypes
import mmap
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.host import huge_pages
from edge.host.huge_pages import use_huge_pages
from tests.system.harness import eventually

SETTING = Path("/sys/kernel/mm/transparent_hugepage")
BLOCK = int((SETTING / "hpage_pmd_size").read_text()) if SETTING.exists() else 0
LINUX = tuple(int(number) for number in platform.release().split("-")[0].split(".")[:2])
ENABLED = (SETTING / "enabled").read_text() if BLOCK else "[never]"
needs_huge_pages = pytest.mark.skipif(
    LINUX < (6, 1) or "[never]" in ENABLED, reason="this kernel has no huge pages on request, or shall not use them"
)
needs_to_ask = pytest.mark.skipif("[always]" in ENABLED, reason="this kernel gives huge pages to everybody")


class Watched:
    """A keeper, and when it would have used huge pages."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[int] = []
        self.seconds = 0.0  # that it takes
        self._now = 0.0
        self._keeper = huge_pages.Keeper(lambda: self._now)
        monkeypatch.setattr(huge_pages, "use_huge_pages", self._use)

    def look(self, second: int, served: int, requests: int, *, crowded: bool = False) -> None:
        self._now = second
        self._keeper.look(served, requests, crowded=crowded)

    def _use(self) -> None:
        self.done.append(int(self._now))
        self._now += self.seconds


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_a_model_that_began_to_serve_is_put_on_huge_pages_once(watched: Watched) -> None:
    for second, served in enumerate((0, 1, 1, 3, 3)):
        watched.look(second, served, 0)
    assert watched.done == [1, 3]


def test_what_large_requests_take_is_put_on_huge_pages_while_they_come(watched: Watched) -> None:
    for second in range(5):
        watched.look(second, 0, 5 * second)
    assert watched.done == [2, 3, 4]  # not in the first in which some came


def test_that_takes_a_hundredth_of_the_time_at_most(watched: Watched) -> None:
    watched.seconds = 0.2
    for second in range(60):
        watched.look(second, 0, second)
    assert watched.done == [2, 23, 44]


def test_what_several_clients_send_at_a_time_is_not(watched: Watched) -> None:
    for second in range(6):
        watched.look(second, 0, 5 * second, crowded=second < 4)
    assert watched.done == [5]


def test_large_requests_now_and_then_are_not(watched: Watched) -> None:
    for second in range(20):
        watched.look(second, 0, second // 2)
    assert watched.done == []


class Memory:
    """One block's worth of memory, which may become a huge page, between pages that nobody may use."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, 3 * BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._array = (ctypes.c_ubyte * len(self.map)).from_buffer(self.map)
        start = ctypes.addressof(self._array)
        self.offset = mmap.PAGESIZE + -(start + mmap.PAGESIZE) % BLOCK
        for page in (start + self.offset - mmap.PAGESIZE, start + self.offset + BLOCK):
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0

    def fill(self, pages: int) -> None:
        for page in range(pages):
            self.map[self.offset + page * mmap.PAGESIZE] = 7

    def huge_bytes(self) -> int:
        """Of this memory, by /proc/self/smaps."""
        found, inside = 0, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            word = line.split()[0]
            if "-" in word:
                start, stop = (int(part, 16) for part in word.split("-"))
                inside = start == ctypes.addressof(self._array) + self.offset and stop == start + BLOCK
            elif inside and word == "AnonHugePages:":
                found += int(line.split()[1]) * 1024
        return found

    def close(self) -> None:
        del self._array
        self.map.close()


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    made.close()


@needs_huge_pages
def test_what_is_in_use_is_put_on_huge_pages(memory: Memory) -> None:
    memory.fill(BLOCK // mmap.PAGESIZE)
    # The system may have none to give just now.
    eventually(lambda: use_huge_pages() >= 1 and memory.huge_bytes() == BLOCK, what="it is on huge pages")
    assert memory.map[memory.offset] == memory.map[memory.offset + BLOCK - mmap.PAGESIZE] == 7
    assert use_huge_pages() >= 1


@needs_huge_pages
@needs_to_ask
def test_what_is_not_in_use_is_left_alone(memory: Memory) -> None:
    memory.fill(BLOCK // mmap.PAGESIZE // 2)
    use_huge_pages()
    assert memory.huge_bytes() == 0


@pytest.mark.parametrize("enabled", ["always madvise [never]\n", None])
@needs_huge_pages
@needs_to_ask
def test_where_the_system_wants_none(memory: Memory, tmp_path: Path, enabled: str | None) -> None:
    folder = tmp_path / "kernel/mm/transparent_hugepage"
    folder.mkdir(parents=True)
    (folder / "hpage_pmd_size").write_text(f"{BLOCK}\n")
    if enabled:
        (folder / "enabled").write_text(enabled)
    memory.fill(BLOCK // mmap.PAGESIZE)
    assert use_huge_pages(sys=tmp_path) == 0
    assert memory.huge_bytes() == 0


def test_other_memory_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/maps").write_text(
        "1000-2000 r-xp 00000000 08:01 12 /usr/bin/program with a space\n"
        "2000-3000 rw-p 00000000 00:00 0 \n"
        "3000-4000 r--p 00000000 00:00 0 \n"
        "4000-5000 rw-p 00000000 00:00 0 [heap]\n"
        "5000-6000 rw-s 00000000 00:01 5 /SYSV00000000 (deleted)\n"
        "6000-7000 rw-p 00000000 00:00 0 [stack]\n"
    )
    with (tmp_path / "self/maps").open("ab") as file:  # as clients may call what they lend
        for name in (b"\xff", b"a\x0cb kB", b"a\r7000-8000 rw-p 0 0 0", "a\x857000-8000 rw-p 0 0 0".encode()):
            file.write(b"8000-9000 rw-s 00000000 00:01 5 /dev/shm/" + name + b"\n")
    assert list(huge_pages._anonymous(tmp_path)) == [(0x2000, 0x3000), (0x4000, 0x5000)]


def test_without_a_proc_file_system_nothing_is_done(tmp_path: Path) -> None:
    assert use_huge_pages(proc=tmp_path) == 0

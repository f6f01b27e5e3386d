"""Clients' files that are cut short while an inference reads them where they are mapped (O-20, ADR 43)."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.clock import SystemClock
from edge.engine.engine import SessionOptions
from edge.engine.litert import LitertEngine
from edge.engine.litert_memory import copy
from edge.engine.tflite import TfliteEngine
from edge.errors import RegionNotFoundError, SharedMemoryError
from edge.shm.guard import Guard
from edge.shm.mapping import is_written
from edge.shm.posix import Loan, Regions
from edge.shm.sysv import KEEP_UNUSED_SECONDS
from tests.data.make_models import add_one
from tests.fakes.shm import SetClock
from tests.system.segments import ShmFile

PAGE = 4096
SIZE = 64 * PAGE
ONES = np.ones(SIZE // 4, np.float32).tobytes()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def regions(clock: SetClock) -> Iterator[Regions]:
    guard = Guard(SystemClock())
    made = Regions(clock, guard=guard)
    yield made
    made.close()
    guard.close()
    assert not mapped()


@pytest.fixture
def file(regions: Regions) -> Iterator[ShmFile]:
    with ShmFile(SIZE) as made:
        made.write(ONES)
        regions.register("r", made.key, 0, SIZE)
        yield made


def mapped() -> list[str]:
    """The files of this test that are in memory."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "/edge-test-" in line]


def lent(regions: Regions, name: str = "r", offset: int = 0, size: int = SIZE) -> Loan:
    loan = regions.lend(name, offset, size, 64)
    assert loan is not None
    return loan


def read(loan: Loan) -> bytes:
    """What an engine finds there, which gives up the interpreter lock."""
    own = np.empty(loan.lent.size, np.uint8)
    copy(own.ctypes.data, own.nbytes, loan.lent)
    return own.tobytes()


def cut(file: ShmFile, size: int = 0) -> None:
    with file.path.open("r+b") as opened:
        opened.truncate(size)


def test_it_is_read_where_it_lies(regions: Regions, file: ShmFile, clock: SetClock) -> None:  # [O-20]
    loan = lent(regions, offset=PAGE, size=3 * PAGE)
    assert read(loan) == ONES[: 3 * PAGE]
    file.write(b"abcd", PAGE)
    assert read(loan)[:4] == b"abcd"
    assert len(mapped()) == 1
    assert regions.take_back(loan) is None
    again = lent(regions)
    assert again.lent.address + PAGE == loan.lent.address, "the mapping is kept"
    assert regions.take_back(again) is None
    regions.sweep()
    assert mapped()
    clock.at += KEEP_UNUSED_SECONDS
    regions.sweep()
    assert not mapped(), "but not for long"


def test_a_part_that_does_not_begin_at_a_page(regions: Regions) -> None:  # [O-20]
    with ShmFile(2 * SIZE) as file:
        file.write(ONES + bytes(range(128)) * 512)
        regions.register("odd", file.key, SIZE + 64, 8192)
        loan = lent(regions, "odd", 64, 192)
        assert read(loan) == bytes(range(128)) + bytes(range(64))
        assert regions.take_back(loan) is None
        assert regions.lend("odd", 32, 64, 64) is None, "the engine wants it at a multiple of 64"


def test_pages_that_nobody_wrote_are_read_by_descriptor(regions: Regions) -> None:  # [B-6]
    with ShmFile(4 * PAGE) as file:
        regions.register("sparse", file.key, 0, 3 * PAGE)
        assert regions.lend("sparse", 0, PAGE, 64) is None
        file.write(b"x" * 3 * PAGE)
        assert regions.take_back(lent(regions, "sparse", 0, PAGE)) is None
        cut(file, PAGE)
        cut(file, 4 * PAGE)  # it has holes again
        assert regions.lend("sparse", 0, PAGE, 64) is None
        buffer = regions.read("sparse", 0, 3 * PAGE)
        assert bytes(buffer.memory[: 3 * PAGE]) == b"x" * PAGE + bytes(2 * PAGE)
        assert file.path.stat().st_blocks * 512 == PAGE, "nothing was made"


def test_a_look_for_pages_in_what_is_gone(file: ShmFile) -> None:  # [O-20]
    with file.path.open("rb") as opened:
        assert is_written(opened.fileno(), 0, SIZE)
        cut(file)
        assert not is_written(opened.fileno(), PAGE, PAGE)


@pytest.mark.parametrize("left", [0, PAGE, SIZE - 1])
def test_one_that_is_cut_short(regions: Regions, file: ShmFile, left: int) -> None:  # [O-20]
    loan = lent(regions)
    cut(file, left)
    found = read(loan)
    before, now = (np.frombuffer(one, np.uint8, left) for one in (ONES, found))
    assert ((now == before) | (now == 0)).all(), "zeros come over a page of which some was read, too"
    assert not any(found[left:])
    fault = regions.take_back(loan)
    assert isinstance(fault, SharedMemoryError)
    assert "was cut short" in str(fault)
    with pytest.raises(SharedMemoryError, match="was cut short"):
        regions.lend("r", 0, SIZE, 64)
    file.write(ONES)
    loan = lent(regions)
    assert read(loan) == ONES, "the next call has the file's bytes, not what lay over them"
    assert regions.take_back(loan) is None


def test_one_that_was_cut_and_is_as_long_again(regions: Regions, file: ShmFile) -> None:  # [O-20]
    loan, other = lent(regions), lent(regions)
    cut(file)
    assert not any(read(loan))
    file.write(ONES)
    assert not any(read(other)), "what lies over it stays"
    for one in (loan, other):
        assert "was cut short" in str(regions.take_back(one))
    loan = lent(regions)
    assert read(loan) == ONES
    assert regions.take_back(loan) is None


def test_a_copy_for_others(regions: Regions, file: ShmFile) -> None:  # [O-20]
    loan = lent(regions, offset=64, size=PAGE)
    copied = loan.lent.memory
    assert bytes(copied) == ONES[64 : 64 + PAGE]
    cut(file)
    assert not any(loan.lent.memory), "it is made without the interpreter lock"
    assert any(copied)
    assert regions.take_back(loan) is not None
    with pytest.raises(ValueError, match="after the inference"):
        _ = loan.lent.memory


def test_others_are_left_alone(regions: Regions, file: ShmFile) -> None:  # [O-20]
    with ShmFile(SIZE) as second:
        second.write(ONES)
        regions.register("second", second.key, 0, SIZE)
        loan, other = lent(regions), lent(regions, "second")
        cut(file)
        assert not any(read(loan))
        assert read(other) == ONES
        assert regions.take_back(other) is None
        assert regions.take_back(loan) is not None


def test_unregistered_while_it_is_read(regions: Regions, file: ShmFile) -> None:  # [O-17]
    loan = lent(regions)
    regions.unregister()
    with pytest.raises(RegionNotFoundError):
        regions.lend("r", 0, SIZE, 64)
    regions.register("r", file.key, 0, SIZE)
    assert read(loan) == ONES
    cut(file)
    assert not any(read(loan))
    assert regions.take_back(loan) is not None
    assert not mapped()


Open = Callable[..., Any]


@pytest.fixture
def open_model(tmp_path: Path) -> Iterator[Open]:
    (tmp_path / "model.tflite").write_bytes(add_one((1, SIZE // 4)))
    made: list[Any] = []

    def opened(name: str, borrows: tuple[int, ...]) -> Any:
        engine: Any = TfliteEngine() if name == "tflite" else LitertEngine()
        engine.prepare()
        options = SessionOptions(engine=name, borrows=borrows)
        made.append(engine.open(str(tmp_path / "model.tflite"), options))
        return made[-1]

    yield opened
    while made:
        made.pop().close()


@pytest.mark.parametrize(
    ("engine", "borrows"), [("litert", (0,)), ("litert", ()), ("tflite", ())]
)  # () as where its own memory is not to be lent: it copies
def test_engines_survive_it(
    regions: Regions, file: ShmFile, open_model: Open, engine: str, borrows: tuple[int, ...]
) -> None:  # [O-20]
    session = open_model(engine, borrows)
    assert session.borrows == frozenset(borrows)
    shapes = ((1, SIZE // 4),)
    for _ in range(10):
        file.write(ONES)
        loan = lent(regions)
        (whole,) = session.run([loan.lent], shapes)
        assert np.all(np.asarray(whole).view(np.float32) == 2)
        cut(file)
        (short,) = session.run([loan.lent], shapes)
        assert np.all(np.asarray(short).view(np.float32) == 1)
        assert regions.take_back(loan) is not None


def test_cut_again_and_again(regions: Regions, file: ShmFile) -> None:  # [O-20]
    over, fd = threading.Event(), os.open(file.path, os.O_RDWR)

    def attack() -> None:
        while not over.is_set():
            os.ftruncate(fd, 0)
            os.pwrite(fd, ONES, 0)

    attacker = threading.Thread(target=attack)
    attacker.start()
    short = 0
    try:
        while short < 20:
            try:
                loan = regions.lend("r", 0, SIZE, 64)
            except SharedMemoryError:
                continue
            if loan is not None:
                read(loan)
                short += regions.take_back(loan) is not None
    finally:
        over.set()
        attacker.join()
        os.close(fd)


ELSEWHERE = """
import ctypes, logging, mmap, os, resource, sys
from edge.clock import SystemClock
from edge.engine.litert_memory import copy
from edge.shm.guard import Guard
from edge.shm.mapping import is_written
from edge.shm.posix import Regions
from tests.system.segments import ShmFile
import faulthandler
logging.basicConfig(level=logging.INFO)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if "faulthandler" in sys.argv:
    faulthandler.enable()
regions = Regions(SystemClock(), guard=Guard(SystemClock()))
with ShmFile(65536) as file, ShmFile(65536) as other:
    file.write(b"x" * 65536)
    regions.register("r", file.key, 0, 65536)
    loan = regions.lend("r", 0, 65536, 64)
    if "unused" in sys.argv:
        regions.take_back(loan)
    fd = os.open(other.path, os.O_RDWR)
    its = mmap.mmap(fd, 65536)
    address = ctypes.addressof(ctypes.c_char.from_buffer(its))
    other.path.unlink(), file.path.unlink()
    os.ftruncate(fd, 0)
    own = ctypes.create_string_buffer(4096)
    memcpy = ctypes.CDLL(None).memcpy
    print("touching", flush=True)
    memcpy(ctypes.byref(own), ctypes.c_void_p(address), 4096)
    print("survived", flush=True)
"""


@pytest.mark.parametrize("words", [(), ("unused",), ("faulthandler",)])
def test_a_fault_elsewhere_ends_the_process(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "touching\n"
    # faulthandler may itself fall over the stack of a thread that runs.
    assert done.returncode == -signal.SIGBUS or ("faulthandler" in words and done.returncode < 0)
    assert ("memory that is no client's" in done.stderr) == ("unused" not in words)
    assert ("Fatal Python error: Bus error" in done.stderr) == ("faulthandler" in words)

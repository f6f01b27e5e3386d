"""Packages that are made to take time or memory, and packages that change while they are read ([L-6], [L-12], [S-8])."""

import fcntl
import gzip
import os
import signal
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from edge.package import tar
from edge.package.manifest import MANIFEST_FILE, SIGNATURE_FILE
from tests.adversary.conftest import MAX_GROWTH_BYTES, Stand, start_stand
from tests.fakes.packages import entry, tar_of

BUDGET_MIB = 64
LOADS_AT_ONCE = 4


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, signer: Any, package_of: Any) -> Iterator[Stand]:
    """A stand whose agent has little memory for models."""
    folder = tmp_path_factory.mktemp("stand")
    made = start_stand(folder, signer.roots, package_of("add_one"), edge_memory_budget_mib=BUDGET_MIB)
    yield made
    made.close()
    assert made.agent.stop() == 0, made.agent.log


def copies(stand: Stand) -> int:
    """Bytes of the models' files that the agent has copied: they are no part of its resident size."""
    total = 0
    for link in Path(f"/proc/{stand.agent.pid}/fd").iterdir():
        try:
            total += link.stat().st_size * ("memfd:model" in str(link.readlink()))
        except FileNotFoundError:
            continue  # closed meanwhile
    return total


# --- unsigned ---------------------------------------------------------------------


def keys(count: int) -> bytes:
    return b'{"mediaType": 0,' + b",".join(b'"%d": 0' % number for number in (*range(count), count - 1)) + b"}"


def with_signature(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        folder.mkdir()
        (folder / MANIFEST_FILE).write_bytes(b"{}")
        (folder / SIGNATURE_FILE).write_bytes(data)
        return folder

    return make


def archive(data: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(gzip.compress(data, mtime=0))
        return path

    return make


def pax_headers() -> bytes:
    records = b"6 a=b\n" * 10_000
    header = tar._block(b"h", len(records), b"x") + records + tar.padding(len(records))
    return (header + tar_of([entry("f", b"")])[:512]) * 250


UNSIGNED: dict[str, tuple[Callable[[], Callable[[Path], Path]], str]] = {
    "signature of many keys": (lambda: with_signature(keys(40_000)), "too many values"),
    "signature of many lists": (lambda: with_signature(b'{"a":[' + b"[]," * 1_300_000 + b"0]}"), "too many values"),
    "archive of pax headers": (lambda: archive(pax_headers()), "more than 100 records"),
    "archive of folders": (
        lambda: archive(tar_of([entry("p/", kind=tarfile.DIRTYPE)])[:512] * 100_000), "more than 10000 files"
    ),
    "archive of empty gzip members": (lambda: with_members(200_000), "no manifest"),
}  # fmt: skip


def with_members(count: int) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(gzip.compress(b"", mtime=0) * count)
        return path

    return make


@pytest.mark.parametrize("name", UNSIGNED)
def test_unsigned_packages_that_are_dear_to_check(stand: Stand, refused: Any, tmp_path: Path, name: str) -> None:
    make, word = UNSIGNED[name]
    path = make()(tmp_path / "p")
    with stand.attack() as going_on:
        errors: list[BaseException] = []

        def attack(number: int) -> None:
            try:
                while going_on():
                    with refused("FAILED_PRECONDITION", word):
                        stand.agent.client.load(path, f"attack-{number}")
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=attack, args=(number,)) for number in range(LOADS_AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors


# --- signed -----------------------------------------------------------------------


def test_a_signed_model_that_grows_while_it_is_read(stand: Stand, signer: Any) -> None:
    package = signer.sign_anything(bytes(1 << 20))
    (model,) = package.glob("*.tflite")
    stop, largest = threading.Event(), [0]

    def grow() -> None:
        size = 0
        while not stop.is_set():
            size = (size + (4 << 20)) % (2 << 30)
            os.truncate(model, max(size, 1 << 20))
            largest[0] = max(largest[0], copies(stand))

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        with stand.attack() as going_on:
            while going_on():
                with pytest.raises(grpc.RpcError) as refused:
                    stand.agent.client.load(package, "growing")
                code: Any = refused.value
                assert code.code().name in ("FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"), code
    finally:
        stop.set()
        thread.join()
    assert largest[0] <= BUDGET_MIB << 20 < MAX_GROWTH_BYTES


def test_a_model_file_that_is_larger_than_the_budget(stand: Stand, refused: Any, signer: Any) -> None:
    package = signer.sign_anything(bytes((BUDGET_MIB + 16) << 20))
    with stand.attack() as going_on:
        while going_on():
            with refused("RESOURCE_EXHAUSTED", "the model's file needs", "are available"):
                stand.agent.client.load(package, "large")
            assert copies(stand) < 1 << 20  # the honest client's model


@pytest.mark.parametrize("name", [SIGNATURE_FILE, MANIFEST_FILE])
def test_a_lease_on_a_file_of_a_package(stand: Stand, refused: Any, signer: Any, package_of: Any, name: str) -> None:
    package = signer.sign_anything(b"leased")
    with stand.attack() as going_on:
        while going_on():
            fd = os.open(package / name, os.O_RDWR)
            try:
                fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # how it is asked for back; by default it means nothing
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
                with refused("FAILED_PRECONDITION", "holds a lease on it"):
                    stand.agent.client.load(package, "leased")
            finally:
                os.close(fd)
            stand.agent.client.load(package_of("two_by_two"), "other")
            stand.agent.client.unload("other")

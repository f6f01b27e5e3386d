"""Captures that a disk or a server holds up, beside an honest client ([R-7], [R-10], [R-12])."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.capture.record import MAX_ENTRIES
from edge.rpc._generated import agent_pb2 as pb
from tests.adversary.conftest import HONEST_MODEL, Stand, start_stand
from tests.fakes import s3_stub
from tests.fakes.compiler import shared_library
from tests.fakes.s3_stub import BUCKET, REGION, S3Stub, answering, refusing
from tests.system.harness import EVENT_PATIENCE, eventually, tensor_of

WATCHDOG_SECONDS = 6
CALLERS = 100
KEYS = {"AWS_ACCESS_KEY_ID": s3_stub.ACCESS, "AWS_SECRET_ACCESS_KEY": s3_stub.SECRET}


def capture(stand: Stand, capture_id: str, size: int = 64) -> str:
    """Capture; what the call is answered."""
    data = tensor_of(np.zeros((1, size), np.uint8), "x")
    try:
        stand.agent.client.capture(model_name=HONEST_MODEL, capture_id=capture_id, input_tensors=[data])
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


# --- the disk ------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(60 * EVENT_PATIENCE)
        yield end


def wait_alive(manager: socket.socket, times: int) -> None:
    """Wait until the watchdog has told so often from now on that the evidence holds."""
    manager.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            manager.recv(4096)
    manager.settimeout(60 * EVENT_PATIENCE)
    while times:
        times -= manager.recv(4096) == b"WATCHDOG=1"


@pytest.mark.skipif("AGENT_EMULATED" in os.environ, reason="an emulator is what would be preloaded")
def test_a_write_that_stalls(manager: socket.socket, tmp_path: Path, signer: Any, package_of: Any) -> None:
    """[R-12] For longer than the watchdog's interval; a hundred callers want to capture meanwhile."""
    source, flag = Path(__file__).with_name("stalling_write.c"), tmp_path / "stall"
    library = shared_library(source, tmp_path / "stalling_write.so")
    environment = {
        "LD_PRELOAD": str(library),
        "STALL_WORD": ".jsonl.open",
        "STALL_WHILE": str(flag),
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": str(WATCHDOG_SECONDS * EVENT_PATIENCE * 1_000_000),
    }
    changes = {"core_capture_data_buffer_size": 1000}
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"), environment, **changes)
    try:
        assert capture(stand, "before") == "OK"
        stand.agent.client.wait_captured("before")
        flag.touch()
        with stand.attack(), ThreadPoolExecutor(CALLERS) as callers:
            answers = [callers.submit(capture, stand, f"c-{i}") for i in range(CALLERS)]
            same = [callers.submit(capture, stand, "c-0") for _ in range(CALLERS)]
            wait_alive(manager, 3)  # one may come before the status line is asked for
            assert "captures are refused" in stand.agent.client.status().captures.last_error
            flag.unlink()
            assert {answer.result() for answer in answers} == {"OK", "RESOURCE_EXHAUSTED"}
            assert {answer.result() for answer in same} <= {"OK", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED"}
        assert 1 <= stand.agent.log.count("captures are refused") < 5  # a line a minute
        assert capture(stand, "after") == "OK"
        stand.agent.client.wait_captured("after")
    finally:
        flag.unlink(missing_ok=True)
        stand.close()
        assert stand.agent.stop() == 0, stand.agent.log


def test_captures_of_many_files(stand: Stand, refused: Any) -> None:  # [C-5]
    """Each entry is a file to be flushed: no more than is allowed, and what is does not hold up the captures of others."""

    def request(capture_id: str, count: int, size: int) -> dict[str, Any]:
        entries = [pb.AuxiliaryData(name=f"e{i}", encoding=pb.NONE, byte_data=b"\xff" * size) for i in range(count)]
        return {"model_name": HONEST_MODEL, "capture_id": capture_id, "inputs": entries}

    others = [f"other-{i}" for i in range(20)]
    with stand.attack():
        for count in (20_000, MAX_ENTRIES + 1):
            with refused("INVALID_ARGUMENT", "are allowed"):
                stand.agent.client.capture(**request("too-many", count, 1))
        stand.agent.client.capture(**request("many", MAX_ENTRIES, 4096))
        assert {capture(stand, capture_id) for capture_id in others} == {"OK"}
        for capture_id in others:
            stand.agent.client.wait_captured(capture_id)
        stand.agent.client.wait_captured("many")


# --- the store -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def store() -> S3Stub:
    """A store that has an address."""
    made = S3Stub()
    made.start()
    made.close()
    return made


@pytest.fixture
def stub(store: S3Stub) -> Iterator[S3Stub]:
    """The store, which answers."""
    store.start()
    yield store
    store.heal()
    store.close()


@pytest.fixture(scope="module")
def uploading(store: S3Stub, tmp_path_factory: pytest.TempPathFactory, signer: Any, package_of: Any) -> Iterator[Stand]:
    """A stand whose agent uploads to the store at once."""
    folder = tmp_path_factory.mktemp("uploading")
    cloud = {
        "core_capture_data_destination": "Cloud",
        "core_capture_data_disk_path": None,
        "core_capture_data_batch_size": 1,
        "core_region": REGION,
        "core_endpoint_override": store.url,
        "provider_s3_bucket_name": BUCKET,
        "edge_spool_path": str(folder / "spool"),
        "edge_spool_max_mib": 4,
    }
    made = start_stand(folder, signer.roots, package_of("add_one"), KEYS, **cloud)
    yield made
    made.close()
    assert made.agent.stop() == 0, made.agent.log


HOSTILE: dict[str, tuple[Callable[..., bool], str]] = {
    "login page": (answering(200, b"<html>", {"ETag": '"1"'}), "not that of an object store"),
    "100 Continue for ever": (s3_stub.continue_for_ever, "does not end"),
    "year 9999": (
        refusing(403, "RequestTimeTooSkewed", headers={"Date": "Fri, 31 Dec 9999 23:59:59 GMT"}),
        "clock or the store's is off",
    ),
    "key in an error": (
        refusing(403, "InvalidAccessKeyId", f"<AWSAccessKeyId>{s3_stub.ACCESS}</AWSAccessKeyId>"),
        "InvalidAccessKeyId",
    ),
    "bare 413": (answering(413), "accepts nothing of this size"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_store(uploading: Stand, stub: S3Stub, name: str) -> None:
    """It is told, stops nothing but its upload, and nothing is lost once an honest one answers."""
    fault, words = HOSTILE[name]
    capture_id = "-".join(name.split())
    stub.inject(fault, 1_000_000)
    with uploading.attack():
        assert capture(uploading, capture_id) == "OK"
        eventually(lambda: words in uploading.agent.client.status().captures.last_error, what=words)
        stub.heal()
    uploading.agent.client.wait_captured(capture_id)
    assert capture_id in stub.records() and not stub.complaints
    assert s3_stub.ACCESS not in uploading.agent.log


def test_a_store_that_fills_the_spool(uploading: Stand, stub: S3Stub) -> None:
    """Refused at its bound, which operators see, at no more than a line of the log a minute."""
    stub.inject(answering(200), 1_000_000)
    told = uploading.agent.log.count("captures are refused")
    refused = uploading.agent.client.status().captures.refused
    count = 0
    with uploading.attack() as going_on:
        while going_on() or uploading.agent.client.status().captures.refused == refused:
            capture(uploading, f"fill-{count}", 200_000)
            count += 1
        assert uploading.agent.client.status().captures.refusing_since_unix_seconds
    assert uploading.agent.log.count("captures are refused") < told + 5  # a line a minute
    stub.heal()
    eventually(lambda: uploading.agent.client.status().captures.pending == 0, 120, "the spool drains")
    assert capture(uploading, "room-again") == "OK"
    assert uploading.agent.client.status().captures.refusing_since_unix_seconds == 0

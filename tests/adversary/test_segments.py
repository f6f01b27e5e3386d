"""Shared memory that costs the agent more than the client, or that is not the caller's ([P-3], [P-11], [B-6])."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.adversary.conftest import HONEST_MODEL, Stand
from tests.system.harness import eventually
from tests.system.segments import Segment, segments_there

MIB = 1 << 20
# Becomes somebody else, connects, and stays until its standard input ends.
SOMEBODY = """
import ctypes, os, socket, sys
if sys.argv[2] == "nobody":
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
elif ctypes.CDLL(None, use_errno=True).unshare(0x08000000):  # CLONE_NEWIPC
    sys.exit(os.strerror(ctypes.get_errno()))
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
print("connected", os.readlink("/proc/self/ns/ipc"), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def somebody(stand: Stand, who: str) -> Iterator[str]:
    """A client of another kind beside the test; its IPC namespace."""
    with subprocess.Popen(
        [sys.executable, "-c", SOMEBODY, stand.agent.socket, who],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        words = process.stdout.readline().split()
        if not words:
            pytest.skip("the kernel gives no IPC namespace")
        yield words[1]
        process.communicate()


def predict(stand: Stand, segment: Segment, size: int = 16) -> str:
    """Predict from a segment: OK, or what it is refused with."""
    handle = pb.SharedMemoryHandle(segment_id=segment.id, size=size)
    try:
        stand.agent.client.predict(HONEST_MODEL, [pb.Tensor(shared_memory_handle=handle)])
    except grpc.RpcError as error:
        refused: Any = error
        return f"{refused.code().name}: {refused.details()}"
    return "OK"


def never_attached() -> Segment:
    """A segment of an application that the agent has not attached yet."""
    return Segment(4096).write(b"x" * 4096).set_mode(0o400)


def test_segments_that_were_never_written(stand: Stand, refused: Any) -> None:  # [B-6] [C-5]
    with stand.attack(seconds=2) as going_on, contextlib.ExitStack() as segments:
        while going_on():
            segment = segments.enter_context(Segment(24 * MIB)).set_mode(0o400)
            handle = pb.SharedMemoryHandle(segment_id=segment.id, size=segment.size)
            for name, encoding in (("", pb.NONE), ("x", 7), ("x", pb.BASE64)):
                entry = pb.AuxiliaryData(name=name, encoding=encoding, shared_memory_handle=handle)
                with refused("INVALID_ARGUMENT"):
                    stand.agent.client.capture(model_name=HONEST_MODEL, capture_id="sparse", inputs=[entry])


def test_a_mode_that_changes_again_and_again(stand: Stand) -> None:  # [P-3]
    with Segment(4096) as segment, stand.attack(seconds=2) as going_on:
        while going_on():
            segment.set_mode(0o400)
            predict(stand, segment)
            segment.set_mode(0o000)
            predict(stand, segment)
    eventually(lambda: segment.id not in segments_there(), what="nobody has it attached any more, so that it goes")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: to connect as another user")
def test_an_application_that_may_not_read_the_segment(stand: Stand) -> None:  # [P-3]
    folder = Path(stand.agent.socket).parent
    open_up = [(path, path.stat().st_mode) for path in (folder, *folder.parents) if path.stat().st_uid == os.getuid()]
    for path, mode in open_up:
        path.chmod(mode | 0o001)
    Path(stand.agent.socket).chmod(0o666)
    try:
        with stand.attack(), somebody(stand, "nobody"), never_attached() as segment:
            eventually(lambda: "as user 65534, may not read it" in predict(stand, segment), what="it is refused")
            assert predict(stand, segment.set_mode(0o444)) == "OK"
        with never_attached() as segment:
            eventually(lambda: predict(stand, segment) == "OK", what="alone it may")
            with somebody(stand, "nobody"):  # each look is a use of it, so that it stays attached
                eventually(
                    lambda: "as user 65534, may not read it" in predict(stand, segment), what="it is refused again"
                )
    finally:
        Path(stand.agent.socket).chmod(0o660)
        for path, mode in open_up:
            path.chmod(mode)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: to be told of another's namespace")
def test_an_application_that_means_another_segment(stand: Stand) -> None:  # [P-3]
    with never_attached() as segment:
        with stand.attack(), somebody(stand, "in another IPC namespace"):
            eventually(lambda: "is in another IPC namespace" in predict(stand, segment), what="it is refused")
        eventually(lambda: predict(stand, segment) == "OK", what="alone it may")


def test_a_segment_that_was_removed(stand: Stand) -> None:  # [P-11]
    with stand.attack() as going_on:
        while going_on():
            with never_attached() as segment:
                assert predict(stand, segment) == "OK"
                segment.remove()
                assert "no such segment" in predict(stand, segment)

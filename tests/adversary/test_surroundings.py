"""What lies around the agent and others may change: its roots, its disk, its limits, its log ([S-4], [R-6], [R-10], [L-6], [X-7])."""

import itertools
import os
import resource
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.adversary.conftest import HONEST_MODEL, Stand, start_stand
from tests.adversary.http2 import GOAWAY, Connection, frame
from tests.fakes.disk import file_system
from tests.system.conftest import run_tool
from tests.system.harness import Client, eventually, tensor_of
from tests.system.test_trials import pids_group

__all__ = ["pids_group"]

ESCAPE = "\x1b[31m"
SENDERS = 48


def capture(stand: Stand, size: int = 64, **fields: Any) -> str:
    """Capture; OK, or the status and the words that refuse it."""
    data = tensor_of(np.zeros((1, size), np.uint8), "x")
    words = {"model_name": HONEST_MODEL, "capture_id": str(uuid.uuid4()), "input_tensors": [data], **fields}
    try:
        stand.agent.client.capture(**words)
    except grpc.RpcError as error:
        refused: Any = error
        return f"{refused.code().name}: {refused.details()}"
    return "OK"


# --- the folder of trusted roots -----------------------------------------------------


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, signer: Any, package_of: Any) -> Iterator[tuple[Stand, Path]]:
    """A stand whose agent has a trust folder of its own, and that folder."""
    folder = tmp_path_factory.mktemp("trusting")
    roots = Path(shutil.copytree(signer.roots, folder / "roots"))
    made = start_stand(folder, roots, package_of("add_one"))
    yield made, roots
    made.close()
    assert made.agent.stop() == 0, made.agent.log


def open_to_others(roots: Path) -> None:
    roots.chmod(0o777)


def of_another_user(roots: Path) -> None:
    os.chown(next(roots.glob("*.pem")), 65534, -1)


def linked_to_another_user_s(roots: Path) -> None:
    root = next(roots.glob("*.pem"))
    elsewhere = roots.with_name("elsewhere")
    elsewhere.mkdir(mode=0o755)
    os.chown(elsewhere, 65534, -1)
    root.rename(elsewhere / root.name)
    root.symlink_to(elsewhere / root.name)


WEAK: dict[str, tuple[Callable[[Path], None], str]] = {
    "a folder that others may write to": (open_to_others, "has mode 0777"),
    "a root of another user": (of_another_user, "belongs to user 65534"),
    "a link to another user's": (linked_to_another_user_s, "belongs to user 65534"),
}


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: only it gives files away")
@pytest.mark.parametrize("name", WEAK)
def test_roots_that_others_could_change(
    trusting: tuple[Stand, Path], package_of: Any, refused: Any, signer: Any, name: str
) -> None:  # [S-4]
    stand, roots = trusting
    weaken, words = WEAK[name]
    weaken(roots)
    try:
        with stand.attack() as going_on:
            while going_on():
                with refused("FAILED_PRECONDITION", words):
                    stand.agent.client.load(package_of("two_by_two"), "other")
    finally:
        shutil.rmtree(roots)
        shutil.copytree(signer.roots, roots)
    stand.agent.client.load(package_of("two_by_two"), "other")
    stand.agent.client.unload("other")


# --- the disk ------------------------------------------------------------------------


def test_a_disk_that_others_fill(tmp_path: Path, signer: Any, package_of: Any) -> None:
    """Captures are refused, which operators see; the rest goes on, and captures once there is room again."""
    with file_system(tmp_path / "disk", "size=8m") as disk:
        changes: dict[str, Any] = {
            "core_capture_data_disk_path": str(disk / "captures"),
            "edge_spool_min_free_mib": 4,
        }
        stand = start_stand(tmp_path, signer.roots, package_of("add_one"), **changes)
        try:
            assert capture(stand) == "OK"
            others = disk / "others"
            with stand.attack() as going_on:
                others.write_bytes(bytes(6 << 20))
                while going_on():
                    assert capture(stand).startswith("RESOURCE_EXHAUSTED")
                told = stand.agent.client.status().captures
                assert told.refused and told.refusing_since_unix_seconds and "captures are refused" in told.last_error
                assert 1 <= stand.agent.log.count("captures are refused") < 5  # a line a minute
                others.unlink()
                eventually(lambda: capture(stand) == "OK", what="there is room again")
        finally:
            stand.close()
            assert stand.agent.stop() == 0, stand.agent.log


def test_a_spool_that_others_prepared(tmp_path: Path, signer: Any, package_of: Any) -> None:
    """A pipe in the place of the list of states, links in the place of records: nobody waits for them or writes through them."""
    spool, victim = tmp_path / "captures" / ".spool", tmp_path / "victim"
    victim.write_text("precious")
    (spool / "open").mkdir(parents=True)
    os.mkfifo(spool / "statuses.log")
    (spool / "open" / "20250615T150640000Z-device-1-0badcafe-000009.jsonl.open").symlink_to(victim)
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"))
    try:
        with stand.attack():
            for name in ("one", "two", "three"):
                assert capture(stand, capture_id=name) == "OK"
                stand.agent.client.wait_captured(name)
    finally:
        stand.close()
        assert stand.agent.stop() == 0, stand.agent.log
    assert victim.read_text() == "precious"


# --- limits of the process -----------------------------------------------------------

LIMITS = {
    "descriptors for captures": (resource.RLIMIT_NOFILE, 3, "LimitNOFILE="),
    "the size of a file": (resource.RLIMIT_FSIZE, 20_000, "LimitFSIZE="),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_the_process(stand: Stand, name: str) -> None:  # [C-6]
    kind, most, words = LIMITS[name]
    before = resource.prlimit(stand.agent.pid, kind)
    with stand.attack() as going_on:
        resource.prlimit(stand.agent.pid, kind, (most, before[1]))
        try:
            while going_on():
                answer = capture(stand, 50_000)
                assert answer.startswith("RESOURCE_EXHAUSTED") and words in answer
        finally:
            resource.prlimit(stand.agent.pid, kind, before)
    assert capture(stand, 50_000) == "OK"


@pytest.mark.parametrize("spare", [2, 4])
def test_loads_without_threads(
    tmp_path: Path, signer: Any, package_of: Any, refused: Any, pids_group: Path, spare: int
) -> None:  # [L-6] [L-8]
    """The system gives a few more threads or processes, and then none."""
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"))
    (pids_group / "cgroup.procs").write_text(str(stand.agent.pid))
    try:
        with stand.attack() as going_on:
            tasks = psutil.Process(stand.agent.pid).num_threads()
            (pids_group / "pids.max").write_text(str(tasks + spare))
            while going_on():
                with refused("RESOURCE_EXHAUSTED"):
                    stand.agent.client.load(package_of("two_by_two"), "other")
            (pids_group / "pids.max").write_text("max")
    finally:
        stand.close()
        assert stand.agent.stop() == 0, stand.agent.log


def test_calls_without_threads(tmp_path: Path, signer: Any, package_of: Any, pids_group: Path) -> None:  # [L-8]
    """gRPC counts threads that it was not given among its own: it would wait for them at the stop, for ever."""
    stand = start_stand(tmp_path, signer.roots, package_of("add_one"))
    (pids_group / "cgroup.procs").write_text(str(stand.agent.pid))

    def flood(going_on: Callable[[], bool]) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        while going_on():
            with grpc.insecure_channel(f"unix:{stand.agent.socket}", options=options) as channel:
                for _ in range(10):
                    Client(channel).call("ListModels", pb.ListModelsRequest(), pb.ListModelsResponse)

    try:
        (pids_group / "pids.max").write_text("1")
        with stand.attack(seconds=3) as going_on, ThreadPoolExecutor(SENDERS) as threads:
            for done in [threads.submit(flood, going_on) for _ in range(SENDERS)]:
                done.result()
    finally:
        stand.close()
        assert stand.agent.stop() == 0, stand.agent.log


def test_loads_without_descriptors(stand: Stand, package_of: Any, refused: Any) -> None:  # [L-6]
    limit = resource.RLIMIT_NOFILE
    before = resource.prlimit(stand.agent.pid, limit)
    with stand.attack() as going_on:
        used = sum(1 for _ in Path(f"/proc/{stand.agent.pid}/fd").iterdir())
        resource.prlimit(stand.agent.pid, limit, (used + 10, before[1]))
        try:
            while going_on():
                with refused("RESOURCE_EXHAUSTED", "LimitNOFILE"):
                    stand.agent.client.load(package_of("two_by_two"), "other")
        finally:
            resource.prlimit(stand.agent.pid, limit, before)
    stand.agent.client.load(package_of("two_by_two"), "other")
    stand.agent.client.unload("other")


def test_times_that_cannot_be(stand: Stand) -> None:  # [C-4]
    with stand.attack() as going_on:
        for seconds in itertools.cycle((time.time() + 86_400, 9_300_000_000, 253_402_300_799, 2**62, -(2**62))):
            if not going_on():
                break
            answer = capture(stand, inference_timestamp=pb.Timestamp(seconds=int(seconds)))
            assert answer.startswith("OUT_OF_RANGE"), (seconds, answer)


# --- the log and the terminal --------------------------------------------------------


def test_last_words_that_look_like_log_lines(stand: Stand) -> None:
    words = f"\n2026-01-01T00:00:00.000+00:00 CRITICAL edge.forged: {ESCAPE}gone".encode()
    with stand.attack() as going_on:
        while going_on():
            with Connection(stand.agent.socket) as connection:
                connection.write(frame(GOAWAY, 0, 0, bytes(4) + (11).to_bytes(4) + words))
                connection.read(0.01)
    assert "forged" not in stand.agent.log and "\x1b" not in stand.agent.log


def test_a_path_that_steers_the_terminal(stand: Stand, package_of: Any, tmp_path: Path) -> None:
    package = shutil.copytree(package_of("two_by_two"), tmp_path / f"{ESCAPE}p")
    name = "steering"
    with stand.attack():
        stand.agent.client.load(package, name)
        for words in (("list",), ("describe", name), ("status",)):
            shown = run_tool(*words, "-a", stand.agent.socket)
            assert name in shown.stdout and "\x1b" not in shown.stdout + shown.stderr
        stand.agent.client.unload(name)
    assert "\x1b" not in stand.agent.log

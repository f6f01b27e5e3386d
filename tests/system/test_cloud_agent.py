"""The agent itself, from a capture over its socket to objects in the bucket, with credentials from the IoT endpoint."""

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.fakes import captures, s3_stub
from tests.fakes.iot_endpoint import THING, IotEndpoint
from tests.fakes.pki import Ca
from tests.fakes.s3_stub import BUCKET, REGION, S3Stub, refusing
from tests.fakes.stores import start_rclone
from tests.fakes.web import server_context
from tests.system.harness import AgentProcess, client_command, eventually, tensor_of

MODEL = "digits"
BACKLOG = int(os.environ.get("BACKLOG_CAPTURES", "10000"))
GROWTH_KIB = 16 * 1024  # most RSS that a backlog may cost
KILLS = int(os.environ.get("UPLOAD_KILL_ROUNDS", "6"))


@pytest.fixture
def stub() -> Iterator[S3Stub]:
    made = S3Stub()
    made.start()
    yield made
    made.close()


@pytest.fixture
def iot(stub: S3Stub, tmp_path: Path) -> Iterator[IotEndpoint]:
    made = IotEndpoint(tmp_path, stub)
    made.start()
    yield made
    made.close()


def cloud(stub_url: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings of destination Cloud."""
    return {
        "core_capture_data_destination": "Cloud",
        "core_capture_data_disk_path": None,
        "core_capture_data_buffer_size": 1000,
        "core_region": REGION,
        "core_endpoint_override": stub_url,
        "core_folder_prefix": "plant a/of two",
        "provider_s3_bucket_name": BUCKET,
        "edge_spool_path": str(folder / "spool"),
        **changes,
    }


def by_iot(iot: IotEndpoint) -> dict[str, Any]:
    """Settings of credentials by mutual TLS."""
    return {
        "core_iot_thing_name": THING,
        "provider_aws_ca_cert_file": str(iot.server_ca.file),
        "provider_aws_cert_file": str(iot.device.certificate_file),
        "provider_aws_cert_pk_file": str(iot.device.key_file),
        "provider_aws_iot_cred_endpoint": iot.credentials_url,
    }


ENVIRONMENT = {"AWS_ACCESS_KEY_ID": s3_stub.ACCESS, "AWS_SECRET_ACCESS_KEY": s3_stub.SECRET}


def capture(agent: AgentProcess, ids: list[str], large_every: int = 2) -> None:
    """Capture, every so many with a tensor that gets an object of its own; a full buffer is asked again."""
    for i, capture_id in enumerate(ids):
        size = 5000 if i % large_every == 0 else 64
        data = np.frombuffer((capture_id.encode() + b"-").ljust(size, b"x"), np.uint8).reshape(1, size)
        while True:
            try:
                agent.client.capture(model_name=MODEL, capture_id=capture_id, input_tensors=[tensor_of(data, "input")])
                break
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error  # type: ignore[attr-defined]


def wait_success(agent: AgentProcess, ids: list[str], seconds: float = 60) -> None:
    for capture_id in ids:
        agent.client.wait_captured(capture_id, seconds)


def waiting_files(folder: Path) -> list[Path]:
    return [path for name in ("sealed", "open") for path in (folder / "spool" / name).rglob("*") if path.is_file()]


def assert_whole(stub: S3Stub, ids: list[str]) -> None:
    """Each capture once, its bytes what was captured, read as the field's readers do."""
    records = stub.records()
    assert sorted(records) == sorted(ids)
    assert stub.complaints == []
    for capture_id, event in records.items():
        [entry] = event["deviceFleetInputs"]
        kind, shape = captures.parse_content_type(entry["observedContentType"])
        reference = entry.get("data-ref", "").removeprefix(f"s3://{BUCKET}/")
        data = stub.objects[reference].body if reference else captures.entry_bytes(entry, Path("/"))
        assert kind == "UINT8" and len(data) == shape[0] * shape[1]
        assert data.rstrip(b"x") == capture_id.encode() + b"-"


def test_from_the_socket_to_the_bucket(
    agents: Callable[..., AgentProcess], digits: Path, stub: S3Stub, iot: IotEndpoint, tmp_path: Path
) -> None:
    """[R-1] [R-2] [R-3] [G-2] [G-3] IN_PROGRESS until the bucket has acknowledged everything, SUCCESS then."""
    agent = agents(**cloud(stub.url, tmp_path, **by_iot(iot))).start()
    agent.client.load(digits, MODEL)
    ids = [f"c-{i}" for i in range(25)]
    stub.delay.clear()
    capture(agent, ids)
    eventually(stub.arrived.is_set, 30, "an object is on its way")
    assert {agent.client.capture_status(i) for i in ids} == {pb.IN_PROGRESS}
    stub.delay.set()
    wait_success(agent, ids)
    assert_whole(stub, ids)
    assert all(key.startswith("plant a/of two/fleet-1/digits/") for key in stub.objects)
    assert iot.given == 1
    eventually(lambda: not waiting_files(tmp_path), 10, "the spool is empty")
    eventually(lambda: agent.client.status().captures.pending == 0, 10, "nothing is pending")
    status = agent.client.status().captures
    assert (status.destination, status.pending, status.pending_bytes, status.failed) == ("Cloud", 0, 0, 0)
    assert agent.stop() == 0
    for key in stub.keys.values():  # the secrets of this run are not in its log
        assert key.secret not in agent.log
        assert not key.token or key.token not in agent.log


def test_credentials_of_the_service_and_objects_that_are_asked_for(
    agents: Callable[..., AgentProcess], digits: Path, stub: S3Stub, iot: IotEndpoint, tmp_path: Path
) -> None:
    """[R-9] [R-7] As systemd's LoadCredential= passes them; and edge_upload_verify."""
    settings = {
        name: str(value).replace(f"{tmp_path}/", "$CREDENTIALS_DIRECTORY/") for name, value in by_iot(iot).items()
    }
    agent = agents(**cloud(stub.url, tmp_path, **settings, edge_upload_verify="head"))
    agent.start(env={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    agent.client.load(digits, MODEL)
    capture(agent, ["one"])
    wait_success(agent, ["one"])
    assert_whole(stub, ["one"])
    assert sorted(stub.heads) == sorted(stub.objects)


def test_status_tells_what_waits_and_why(
    agents: Callable[..., AgentProcess], digits: Path, stub: S3Stub, iot: IotEndpoint, tmp_path: Path
) -> None:
    """A key that others may read is refused with the fix; captures wait, and arrive once it is mended."""
    iot.device.key_file.chmod(0o644)
    agent = agents(**cloud(stub.url, tmp_path, **by_iot(iot))).start()
    fix = f"chmod 0400 {iot.device.key_file}"
    eventually(lambda: fix in agent.log, 20, "the log has it at once")
    agent.client.load(digits, MODEL)
    capture(agent, ["a", "b"])
    eventually(lambda: fix in agent.client.status().captures.last_error, 20, "the status has it")
    words = [*client_command(), "status", "--socket", agent.socket]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "2 wait" in text and fix in text
    assert agent.client.capture_status("a") == pb.IN_PROGRESS
    iot.device.key_file.chmod(0o400)
    wait_success(agent, ["a", "b"])
    assert_whole(stub, ["a", "b"])
    assert "last error" not in subprocess.run(words, capture_output=True, text=True, check=True).stdout.lower()


def test_restart_while_the_network_is_down(
    agents: Callable[..., AgentProcess], digits: Path, stub: S3Stub, tmp_path: Path
) -> None:
    """[G-5] [R-5] Statuses survive, and what waited arrives."""
    stub.close()
    agent = agents(**cloud(stub.url, tmp_path))
    agent.start(env=ENVIRONMENT)
    agent.client.load(digits, MODEL)
    ids = [f"c-{i}" for i in range(12)]
    capture(agent, ids)
    eventually(lambda: "cannot be reached" in agent.client.status().captures.last_error, 20, "it is told")
    assert agent.stop() == 0
    agent.start(env=ENVIRONMENT)
    assert {agent.client.capture_status(i) for i in ids} == {pb.IN_PROGRESS}
    assert agent.client.status().captures.pending == 12
    stub.start()
    wait_success(agent, ids)
    assert_whole(stub, ids)


def test_kills_while_batches_are_on_their_way(
    agents: Callable[..., AgentProcess], digits: Path, stub: S3Stub, tmp_path: Path
) -> None:
    """[R-5] [G-5] SIGKILL at any moment of a batch: each capture arrives, and a repetition overwrites itself."""
    moments = random.Random(20260131)
    agent = agents(**cloud(stub.url, tmp_path, core_capture_data_batch_size=4))
    ids: list[str] = []
    for number in range(KILLS):
        agent.start(force=number > 0, env=ENVIRONMENT)
        agent.client.load(digits, MODEL)
        new = [f"k-{number}-{i}" for i in range(20)]
        stub.delay.clear()
        stub.arrived.clear()
        capture(agent, new)
        ids += new
        stored = len(stub.order) + moments.randrange(12)
        eventually(stub.arrived.is_set, 30, "an object is on its way")
        stub.delay.set()
        eventually(lambda n=stored: len(stub.order) >= n, 30, "some are stored")  # type: ignore[misc]
        agent.kill()
    agent.start(force=True, env=ENVIRONMENT)
    wait_success(agent, ids)
    assert_whole(stub, ids)
    eventually(lambda: not waiting_files(tmp_path), 10, "the spool is empty")


def test_disk_first_then_the_cloud(
    agents: Callable[..., AgentProcess], digits: Path, stub: S3Stub, tmp_path: Path
) -> None:
    """[G-3] Periodic upload: SUCCESS on the disk, then in the bucket too."""
    stub.inject(refusing(503, "SlowDown"), 2)
    changes = {
        "core_capture_data_destination": "Disk",
        "core_capture_data_disk_path": str(tmp_path / "captures"),
        "core_capture_data_periodic_upload": True,
        "core_capture_data_periodic_upload_period_seconds": 1,
        "edge_spool_path": None,
    }
    agent = agents(**cloud(stub.url, tmp_path, **changes))
    agent.start(env=ENVIRONMENT)
    agent.client.load(digits, MODEL)
    ids = [f"c-{i}" for i in range(12)]
    capture(agent, ids)
    wait_success(agent, ids)
    eventually(lambda: len(stub.records()) == len(ids), 30, "all are uploaded")
    assert_whole(stub, ids)
    eventually(lambda: not list((tmp_path / "captures" / "plant a").rglob("*.jsonl")), 10, "they left the disk")


def test_bandwidth_is_bounded(agents: Callable[..., AgentProcess], digits: Path, stub: S3Stub, tmp_path: Path) -> None:
    """A stop is not held up by it, and what is under way is sent by the next start."""
    agent = agents(**cloud(stub.url, tmp_path, edge_upload_max_kib_per_second=4))
    agent.start(env=ENVIRONMENT)
    agent.client.load(digits, MODEL)
    size = 1_000_000  # four minutes
    data = np.zeros((1, size), np.uint8)
    agent.client.capture(model_name=MODEL, capture_id="big", input_tensors=[tensor_of(data, "input")])
    eventually(lambda: stub.puts, 30, "it is on its way")
    assert agent.client.capture_status("big") == pb.IN_PROGRESS
    assert agent.stop() == 0
    assert not stub.objects
    config = json.loads(agent.config_path.read_text())
    del config["edge_upload_max_kib_per_second"]
    agent.config_path.write_text(json.dumps(config))
    agent.start(env=ENVIRONMENT)
    wait_success(agent, ["big"])
    assert any(len(stored.body) == size for stored in stub.objects.values())


def test_another_store(agents: Callable[..., AgentProcess], digits: Path, tmp_path: Path) -> None:
    """rclone, started only after the captures were made."""
    first = start_rclone(tmp_path)
    first.close()
    agent = agents(**cloud(first.url, tmp_path))
    agent.start(env=first.environment())
    agent.client.load(digits, MODEL)
    ids = [f"c-{i}" for i in range(12)]
    capture(agent, ids)
    first.log.unlink()
    second = start_rclone(tmp_path, int(first.url.rpartition(":")[2]))
    try:
        wait_success(agent, ids)
        lines = [line for key, body in second.objects().items() if key.endswith(".jsonl") for line in body.splitlines()]
        assert sorted(json.loads(line)["eventMetadata"]["eventId"] for line in lines) == sorted(ids)
    finally:
        agent.stop()
        second.close()


def test_the_store_shows_a_certificate_that_the_system_trusts(
    agents: Callable[..., AgentProcess], digits: Path, tmp_path: Path
) -> None:
    """Where it shows another, nothing is sent and nothing lost; with the right root all arrives."""
    trusted, other = Ca(tmp_path, "store-ca"), Ca(tmp_path, "other-ca")
    identity = trusted.issue("store", host="localhost")
    store = S3Stub(tls=server_context(identity.certificate_file, identity.key_file))
    store.start()
    agent = agents(**cloud(store.url, tmp_path))
    ids = [f"c-{i}" for i in range(4)]
    try:
        agent.start(env={**ENVIRONMENT, "SSL_CERT_FILE": str(other.file)})
        agent.client.load(digits, MODEL)
        capture(agent, ids)
        eventually(lambda: "certificate" in agent.client.status().captures.last_error, 60, "it says what is wrong")
        assert {agent.client.capture_status(i) for i in ids} == {pb.IN_PROGRESS}
        assert not store.objects
        assert agent.stop() == 0
        agent.start(env={**ENVIRONMENT, "SSL_CERT_FILE": str(trusted.file)})
        wait_success(agent, ids)
        assert_whole(store, ids)
    finally:
        agent.stop()
        store.close()


def memory_kib(agent: AgentProcess, field: str) -> int:
    """VmRSS, or VmHWM, the peak since it was reset last."""
    lines = Path(f"/proc/{agent.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def test_ten_thousand_captures_made_offline(
    agents: Callable[..., AgentProcess], digits: Path, stub: S3Stub, tmp_path: Path
) -> None:
    """[R-5] [R-6] All arrive, each object once; nothing is left in the spool, its disk space is given back, and memory
    stays bounded."""
    agent = agents(**cloud(stub.url, tmp_path, core_capture_data_push_period_seconds=2))
    agent.start(env=ENVIRONMENT)
    agent.client.load(digits, MODEL)
    ids = [f"b-{i}" for i in range(BACKLOG)]
    capture(agent, ids[:100], 10)
    wait_success(agent, ids[:100])
    Path(f"/proc/{agent.pid}/clear_refs").write_text("5")  # resets the peak
    base = memory_kib(agent, "VmRSS")
    stub.close()
    capture(agent, ids[100:], 10)
    # A batch that is just being sealed may be counted a moment late.
    eventually(lambda: agent.client.status().captures.pending == BACKLOG - 100, 60, "all of them wait")
    assert agent.client.status().captures.pending_bytes > 100 * BACKLOG
    stub.start()
    eventually(lambda: agent.client.status().captures.pending == 0, 120, "all is uploaded")
    wait_success(agent, [ids[0], ids[100], ids[-1]])
    growth = memory_kib(agent, "VmHWM") - base
    assert_whole(stub, ids)
    assert {stored.count for stored in stub.objects.values()} == {1}
    assert waiting_files(tmp_path) == []
    used = sum(path.stat().st_blocks * 512 for path in (tmp_path / "spool").rglob("*") if path.is_file())
    assert used < 4 << 20  # the log of statuses
    print(f"growth {growth} KiB of {base} KiB")
    assert growth <= GROWTH_KIB

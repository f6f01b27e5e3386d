"""CaptureData and GetCaptureDataStatus over the socket (C, G, R)."""

import resource
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.fakes import captures
from tests.system.conftest import run_tool
from tests.system.harness import AgentProcess, Client, eventually, tensor_of
from tests.system.segments import Segment

MODEL = "pictures"


@pytest.fixture
def loaded(client: Client, digits: Path) -> Iterator[Client]:
    client.load(digits, MODEL)
    yield client


def picture(name: str = "input", size: int = 64) -> Any:
    return tensor_of(np.arange(size, dtype=np.float32).reshape(1, size), name)


def shared(segment: Segment, name: str, count: int, **handle: int) -> Any:
    metadata = pb.TensorMetadata(name=name, data_type=pb.FLOAT32, shape=[1, count])
    return pb.Tensor(
        tensor_metadata=metadata, shared_memory_handle=pb.SharedMemoryHandle(segment_id=segment.id, **handle)
    )


def record_of(agent: AgentProcess, capture_id: str) -> tuple[Path, dict[str, Any]]:
    found = [(p, e) for p, e in captures.records(agent.captures) if e["eventMetadata"]["eventId"] == capture_id]
    assert len(found) == 1
    return found[0]


def test_a_capture_as_the_samples_send_it(agent: AgentProcess, loaded: Client) -> None:  # [R-1] [R-2] [G-2] [G-3]
    capture_id = str(uuid.uuid4())
    loaded.capture(
        model_name=MODEL,
        capture_id=capture_id,
        input_tensors=[picture("input")],
        output_tensors=[picture("output", 10)],
        inputs=[pb.AuxiliaryData(name="note", encoding=pb.JSON, byte_data=b'{"lamp": 3}')],
    )
    assert loaded.capture_status(capture_id) in (pb.IN_PROGRESS, pb.SUCCESS)
    loaded.wait_captured(capture_id)
    path, event = record_of(agent, capture_id)
    year, month, day, hour = path.parent.relative_to(agent.captures / "fleet-1" / "digits").parts
    assert time.strptime(f"{year}{month}{day}{hour}", "%Y%m%d%H")
    metadata = event["eventMetadata"]
    assert metadata["modelName"] == "digits" and metadata["deviceId"] == "device-1"  # the package's, not the alias
    [entry] = event["deviceFleetInputs"]
    assert captures.parse_content_type(entry["observedContentType"]) == ("FLOAT32", (1, 64))
    assert captures.entry_bytes(entry, agent.captures) == np.arange(64, dtype="<f4").tobytes()
    assert event["deviceFleetAuxiliaryInputs"][0]["data"] == '{"lamp": 3}'


def test_a_large_tensor_is_a_file(agent: AgentProcess, loaded: Client) -> None:
    loaded.capture(model_name=MODEL, capture_id="large", input_tensors=[picture("image", 50_000)])
    loaded.wait_captured("large")
    path, event = record_of(agent, "large")
    [entry] = event["deviceFleetInputs"]
    assert entry["data-ref"].startswith(f"file://{path.parent}/raw-data/input-tensors/")
    assert captures.entry_bytes(entry, agent.captures) == np.arange(50_000, dtype="<f4").tobytes()


def test_shared_memory_is_copied_before_the_answer(agent: AgentProcess, loaded: Client) -> None:  # [C-7] [P-3]
    data = np.arange(2000, dtype="<f4").tobytes()
    with Segment(8000) as segment:
        segment.write(data).set_mode(0o400)
        loaded.capture(
            model_name=MODEL,
            capture_id="shared",
            input_tensors=[shared(segment, "input", 2000)],
            outputs=[
                pb.AuxiliaryData(
                    name="raw",
                    encoding=pb.NONE,
                    shared_memory_handle=pb.SharedMemoryHandle(segment_id=segment.id, size=12, offset=4),
                )
            ],
        )
        segment.set_mode(0o600).write(bytes(8000))
    loaded.wait_captured("shared")
    _, event = record_of(agent, "shared")
    assert captures.entry_bytes(event["deviceFleetInputs"][0], agent.captures) == data
    assert captures.entry_bytes(event["deviceFleetAuxiliaryOutputs"][0], agent.captures) == data[4:16]


def test_the_client_s_time_is_kept(agent: AgentProcess, loaded: Client) -> None:  # [R-2] [C-4]
    at = pb.Timestamp(seconds=1_600_000_000, nanos=999_999_000)
    loaded.capture(model_name=MODEL, capture_id="timed", inference_timestamp=at)
    loaded.capture(model_name=MODEL, capture_id="zero", inference_timestamp=pb.Timestamp())
    loaded.wait_captured("timed")
    loaded.wait_captured("zero")
    assert record_of(agent, "timed")[1]["eventMetadata"]["inferenceTime"] == "2020-09-13T12:26:40"
    assert record_of(agent, "zero")[1]["eventMetadata"]["inferenceTime"] > "2025"


Refused = Callable[..., Any]


@pytest.mark.parametrize("capture_id", ["", "-x", "a b", "a" * 129])
def test_ids_outside_the_form(loaded: Client, refused: Refused, capture_id: str) -> None:  # [C-1]
    with refused("INVALID_ARGUMENT", "capture id"):
        loaded.capture(model_name="absent", capture_id=capture_id)


def test_a_model_that_is_not_loaded(loaded: Client, refused: Refused) -> None:  # [C-2]
    with refused("NOT_FOUND", "absent"):
        loaded.capture(model_name="absent", capture_id="fine")
    with refused("NOT_FOUND", "digits"):
        loaded.capture(model_name="digits", capture_id="fine")  # the package's name is not the alias


def test_an_id_twice(loaded: Client, refused: Refused) -> None:  # [C-3]
    loaded.capture(model_name=MODEL, capture_id="twice")
    future = pb.Timestamp(seconds=int(time.time()) + 1000)
    with refused("ALREADY_EXISTS", "twice"):
        loaded.capture(model_name=MODEL, capture_id="twice", inference_timestamp=future)
    loaded.wait_captured("twice")
    with refused("ALREADY_EXISTS", "twice"):
        loaded.capture(model_name=MODEL, capture_id="twice")


@pytest.mark.parametrize("seconds", [1000, -(10**12), 10**15])
def test_a_time_that_cannot_be(loaded: Client, refused: Refused, seconds: int) -> None:  # [C-4]
    with refused("OUT_OF_RANGE"):
        loaded.capture(
            model_name=MODEL,
            capture_id="future",
            inference_timestamp=pb.Timestamp(seconds=int(time.time()) + seconds),
            input_tensors=[pb.Tensor()],
        )


METADATA = pb.TensorMetadata(name="x", data_type=pb.FLOAT32, shape=[1, 2])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input_tensors": [pb.Tensor(byte_data=b"1")]}, ["metadata"]),
        ({"input_tensors": [pb.Tensor(tensor_metadata=METADATA, byte_data=b"1")]}, ["'x'", "got 1", "expected 8"]),
        ({"output_tensors": [picture("")]}, ["name"]),
        ({"output_tensors": [picture("y"), picture("y")]}, ["'y'", "repeated"]),
        ({"inputs": [pb.AuxiliaryData(name="", byte_data=b"1")]}, ["name"]),
        ({"inputs": [pb.AuxiliaryData(name="z", encoding=pb.CSV, byte_data=b"\xff")]}, ["'z'", "UTF-8"]),
        ({"outputs": [pb.AuxiliaryData(name="z", encoding=pb.BASE64, byte_data=b"!")]}, ["'z'", "base64"]),
        ({"outputs": [pb.AuxiliaryData(name="z", encoding=17)]}, ["'z'", "17"]),
        (
            {
                "input_tensors": [
                    pb.Tensor(tensor_metadata=pb.TensorMetadata(name="x", data_type=99, shape=[1]), byte_data=b"1")
                ]
            },
            ["99"],
        ),
        (
            {
                "input_tensors": [
                    pb.Tensor(
                        tensor_metadata=METADATA, shared_memory_handle=pb.SharedMemoryHandle(segment_id=2**31 - 1)
                    )
                ]
            },
            ["segment"],
        ),
    ],
)
def test_malformed_content(loaded: Client, refused: Refused, fields: dict[str, Any], words: list[str]) -> None:  # [C-5]
    with refused("INVALID_ARGUMENT", *words):
        loaded.capture(model_name=MODEL, capture_id="malformed", **fields)
    with refused("NOT_FOUND"):
        loaded.capture_status("malformed")


def test_a_writable_segment(loaded: Client, refused: Refused) -> None:  # [C-5] [P-3]
    with Segment(8) as segment, refused("INVALID_ARGUMENT", "mode"):
        loaded.capture(model_name=MODEL, capture_id="writable", input_tensors=[shared(segment, "x", 2)])


@pytest.mark.parametrize("capture_id", ["never", "", "../../etc/passwd"])
def test_an_unknown_id(loaded: Client, refused: Refused, capture_id: str) -> None:  # [G-1]
    with refused("NOT_FOUND"):
        loaded.capture_status(capture_id)


def test_a_full_buffer(agents: Any, digits: Path, refused: Refused) -> None:  # [C-6]
    agent = agents(
        core_capture_data_buffer_size=2, core_capture_data_batch_size=2, core_capture_data_push_period_seconds=3600,
        edge_capture_buffer_mib=1,
    ).start()  # fmt: skip
    agent.client.load(digits, MODEL)
    with refused("RESOURCE_EXHAUSTED", "edge_capture_buffer_mib"):
        agent.client.capture(model_name=MODEL, capture_id="huge", input_tensors=[picture("x", 300_000)])
    agent.client.capture(model_name=MODEL, capture_id="fits", input_tensors=[picture("x", 100)])
    assert agent.client.capture_status("fits") == pb.IN_PROGRESS
    assert agent.client.status().captures.pending == 1
    assert agent.stop() == 0
    assert record_of(agent, "fits")  # what was accepted is flushed


def test_a_full_disk(agents: Any, digits: Path, refused: Refused) -> None:  # [C-6]
    agent = agents(edge_spool_min_free_mib=1 << 24).start()
    agent.client.load(digits, MODEL)
    with refused("RESOURCE_EXHAUSTED", "edge_spool_min_free_mib"):
        agent.client.capture(model_name=MODEL, capture_id="one")
    captures_now = agent.client.status().captures
    assert captures_now.refused == 1 and captures_now.refusing_since_unix_seconds
    assert "captures are refused: the spool is full" in captures_now.last_error
    assert agent.log.count("captures are refused") == 1
    shown = run_tool("doctor", "--socket", agent.socket, "-c", str(agent.config_path), check=False)
    assert "FAIL  captures: refused for" in shown.stdout


def test_limits_of_the_process(agents: Any, digits: Path, refused: Refused) -> None:  # [C-6]
    """They are named as what they are, and harm nobody once they are raised."""
    agent = agents().start()
    agent.client.load(digits, MODEL)
    for kind, most, words in (
        (resource.RLIMIT_FSIZE, 20_000, "LimitFSIZE="),
        (resource.RLIMIT_NOFILE, 3, "LimitNOFILE="),
    ):
        before = resource.prlimit(agent.pid, kind)
        resource.prlimit(agent.pid, kind, (most, before[1]))
        with refused("RESOURCE_EXHAUSTED", words):
            agent.client.capture(model_name=MODEL, capture_id=words[:-1], input_tensors=[picture("x", 50_000)])
        resource.prlimit(agent.pid, kind, before)
        agent.client.capture(model_name=MODEL, capture_id=words[:-1], input_tensors=[picture("x", 50_000)])


def test_the_capture_folder_is_taken_away(agents: Any, digits: Path) -> None:
    """Captures go on in a new one, without a restart."""
    agent = agents().start()
    agent.client.load(digits, MODEL)
    agent.client.capture(model_name=MODEL, capture_id="before")
    agent.client.wait_captured("before")
    shutil.rmtree(agent.captures)

    def taken() -> bool:
        try:
            agent.client.capture(model_name=MODEL, capture_id="after")
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
            assert "removed, replaced or mounted over" in agent.client.status().captures.last_error
            return False
        return True

    eventually(taken, 60, "captures are taken again")
    agent.client.wait_captured("after")
    assert record_of(agent, "after")
    assert agent.client.status().captures.last_error == ""
    assert "removed, replaced or mounted over" in agent.log


def test_states_survive_a_restart(agents: Any, digits: Path, refused: Refused) -> None:  # [G-5] [C-3]
    agent = agents(core_capture_data_push_period_seconds=3600).start()
    agent.client.load(digits, MODEL)
    agent.client.capture(model_name=MODEL, capture_id="before")
    agent.kill()
    agent.start(force=True)
    agent.client.wait_captured("before")
    agent.client.load(digits, MODEL)
    with refused("ALREADY_EXISTS", "before"):
        agent.client.capture(model_name=MODEL, capture_id="before")
    assert agent.stop() == 0
    agent.start()
    assert agent.client.capture_status("before") == pb.SUCCESS

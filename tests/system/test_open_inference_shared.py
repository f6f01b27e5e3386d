"""The Open Inference Protocol's tensors in POSIX shared memory (docs/spec/open-inference.md)."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge import address
from edge.rpc._generated import open_inference_pb2 as pb
from tests.system import triton as calls
from tests.system.harness import AgentProcess, Client, array_of, eventually, tensor_of, zeros_for
from tests.system.segments import ShmFile

Triton = Callable[..., Any]
PackageOf = Callable[[str], Path]
X = pb.ModelInferRequest.InferInputTensor
SOMEBODY = """
import os, socket, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.read()
"""


def service(agent: AgentProcess, method: str, request: Any, answer: Any = None) -> Any:
    """A call, on the module's connection."""
    raw = agent.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(
        request.SerializeToString(), timeout=60
    )
    return answer.FromString(raw) if answer else None


def place(message: Any, region: str, size: int, offset: int = 0) -> Any:
    """Say of an input or an output that it is in a region."""
    message.parameters["shared_memory_region"].string_param = region
    message.parameters["shared_memory_byte_size"].int64_param = size
    if offset:
        message.parameters["shared_memory_offset"].int64_param = offset
    return message


def request(region: str, size: int = 16, rows: int = 1, model: str = "m") -> Any:
    tensor = place(X(name="x", datatype="FP32", shape=(rows, 4)), region, size)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor])


def infer(agent: AgentProcess, asked: Any) -> Any:
    return service(agent, "ModelInfer", asked, pb.ModelInferResponse)


@pytest.fixture
def regions(agent: AgentProcess) -> Iterator[Callable[..., ShmFile]]:
    """Makes files with a registered region of the whole of each, which are gone after the test."""
    with contextlib.ExitStack() as files:

        def make(name: str, size: int, mode: int = 0o600) -> ShmFile:
            file = files.enter_context(ShmFile(size, mode))
            register(agent, name, file.key, size)
            return file

        yield make
        service(agent, "SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest())


def register(agent: AgentProcess, name: str, key: str, size: int, offset: int = 0) -> None:
    asked = pb.SystemSharedMemoryRegisterRequest(name=name, key=key, offset=offset, byte_size=size)
    service(agent, "SystemSharedMemoryRegister", asked)


def test_the_clients_own_tools(
    triton: Triton, agent: AgentProcess, client: Client, digits: Path
) -> None:  # [O-17] [O-20]
    model = client.load(digits, "m")
    (given,), (made,) = model.input_tensor_metadatas, model.output_tensor_metadatas
    sent = np.random.default_rng(1).random(tuple(given.shape), np.float32)
    predicted = client.predict("m", [tensor_of(sent, given.name)])[0]
    found, answer, status = triton(
        calls.infer_shared, address.target(agent.socket), "m", given.name, sent, made.name, tuple(made.shape)
    )
    assert found.tobytes() == predicted.byte_data
    (output,) = answer["outputs"]
    size = str(len(predicted.byte_data))
    assert output["parameters"] == {
        "shared_memory_region": {"string_param": "output-region"},
        "shared_memory_byte_size": {"int64_param": size},
        "shared_memory_offset": {"int64_param": "64"},
    }
    assert answer["raw_output_contents"] == [""]
    regions = status["regions"]
    assert regions["input-region"]["byte_size"] == str(sent.nbytes)
    assert sorted(regions) == ["input-region", "output-region"]
    left = service(
        agent,
        "SystemSharedMemoryStatus",
        pb.SystemSharedMemoryStatusRequest(),
        pb.SystemSharedMemoryStatusResponse,
    )
    assert not left.regions


def test_some_inputs_and_outputs_in_regions(
    agent: AgentProcess, client: Client, package_of: PackageOf, regions: Callable[..., ShmFile]
) -> None:  # [O-20]
    model = client.load(package_of("mixed_types"), "m")
    inputs = [tensor_of(array_of(zeros_for(one)) + 1, one.name) for one in model.input_tensor_metadatas]
    expected = client.predict("m", inputs)
    described = service(agent, "ModelMetadata", pb.ModelMetadataRequest(name="m"), pb.ModelMetadataResponse).inputs
    tensors = [X(name=one.name, datatype=one.datatype, shape=one.shape) for one in described]
    file = regions("r", 4096)
    file.write(inputs[0].byte_data, 128)
    place(tensors[0], "r", len(inputs[0].byte_data), 128)
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=one.name) for one in model.output_tensor_metadatas]
    last = len(expected[-1].byte_data)
    place(wanted[-1], "r", last + 8, 1024)  # more than it needs
    asked = pb.ModelInferRequest(
        model_name="m", inputs=tensors, outputs=wanted, raw_input_contents=[one.byte_data for one in inputs[1:]]
    )
    for _ in range(2):  # the second is recognised by its bytes
        file.write(bytes(last), 1024)
        answer = infer(agent, asked)
        assert list(answer.raw_output_contents) == [one.byte_data for one in expected[:-1]] + [b""]
        assert file.read()[1024 : 1024 + last] == expected[-1].byte_data
    assert answer.outputs[-1].parameters["shared_memory_byte_size"].int64_param == last


def test_it_is_read_anew_by_every_call(
    agent: AgentProcess, client: Client, package_of: PackageOf, regions: Callable[..., ShmFile]
) -> None:  # [O-20]
    client.load(package_of("dynamic_batch"), "m")
    file = regions("r", 64)
    for rows in (1, 3, 1):
        sent = np.random.default_rng(rows).random((rows, 4), np.float32)
        file.write(sent.tobytes())
        (expected,) = client.predict("m", [tensor_of(sent, "x")])
        assert infer(agent, request("r", 16 * rows, rows)).raw_output_contents[0] == expected.byte_data


def test_what_is_refused(
    agent: AgentProcess, client: Client, package_of: PackageOf, regions: Callable[..., ShmFile], refused: Any
) -> None:  # [O-17] [O-18] [O-19] [O-20]
    client.load(package_of("dynamic_batch"), "m")
    file = regions("r", 64)
    for asked, status, words in (
        (request("other"), "NOT_FOUND", "no shared memory region 'other' is registered"),
        (request("r", 32), "INVALID_ARGUMENT", "got 32 bytes, expected 16"),
        (request("r", 16 * 5, 5), "INVALID_ARGUMENT", "reach past its end; 64 bytes are registered"),
        (request("", 16), "INVALID_ARGUMENT", "expected shared_memory_region as string_param"),
        (request("r", 0), "INVALID_ARGUMENT", "shared_memory_byte_size as int64_param, more than 0"),
    ):
        with refused(status, words):
            infer(agent, asked)
    both = request("r")
    both.raw_input_contents.append(bytes(16))
    with refused("INVALID_ARGUMENT", "got 1 raw_input_contents for 0 inputs that are not in shared memory"):
        infer(agent, both)
    typed = request("r")
    typed.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    with refused("INVALID_ARGUMENT", "got typed contents and shared memory"):
        infer(agent, typed)
    nameless = request("r")
    del nameless.inputs[0].parameters["shared_memory_region"]
    with refused("INVALID_ARGUMENT", "expected the parameter shared_memory_region beside"):
        infer(agent, nameless)
    small = request("r")
    place(small.outputs.add(name=client.describe("m").output_tensor_metadatas[0].name), "r", 2)
    with refused("INVALID_ARGUMENT", "more than its shared_memory_byte_size, 2"):
        infer(agent, small)
    with refused("ALREADY_EXISTS", "'r' is registered already"):
        register(agent, "r", file.key, 64)
    with refused("INVALID_ARGUMENT", "are no part of it; it has 64 bytes"):
        register(agent, "s", file.key, 65)
    with refused("INVALID_ARGUMENT", "expected a name as shm_open takes it"):
        register(agent, "s", "/../../etc/passwd", 16)
    with refused("NOT_FOUND", "'s'"):
        service(agent, "SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name="s"))
    with refused("RESOURCE_EXHAUSTED", "the most there may be"):
        register(agent, "s", file.key, 1 << 31)
    service(agent, "SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name="s"))
    infer(agent, request("r"))


def test_a_file_that_is_cut_short(
    agent: AgentProcess, client: Client, package_of: PackageOf, regions: Callable[..., ShmFile], refused: Any
) -> None:  # [O-20]
    client.load(package_of("dynamic_batch"), "m")
    file = regions("r", 1 << 20)
    rows = (1 << 20) // 16
    assert infer(agent, request("r", 1 << 20, rows))
    for size in (1 << 19, 0):
        os.truncate(file.path, size)
        with refused("INVALID_ARGUMENT", "it was cut short since it was registered"):
            infer(agent, request("r", 1 << 20, rows))
    os.truncate(file.path, 1 << 20)
    assert infer(agent, request("r", 1 << 20, rows))


def is_served(agent: AgentProcess) -> bool:
    try:
        infer(agent, request("mine"))
    except grpc.RpcError:
        return False
    return True


@pytest.mark.skipif(os.geteuid() != 0, reason="to become another user takes root")
def test_what_another_client_may_not_read(
    agent: AgentProcess, client: Client, package_of: PackageOf, regions: Callable[..., ShmFile], refused: Any
) -> None:  # [O-19]
    client.load(package_of("dynamic_batch"), "m")
    regions("mine", 64)
    regions("read", 64, 0o644)
    Path(agent.socket).chmod(0o666)
    folders = [one for one in Path(agent.socket).parents if not one.stat().st_mode & 0o001]
    for one in folders:
        one.chmod(one.stat().st_mode | 0o011)
    with subprocess.Popen(
        [sys.executable, "-c", SOMEBODY, agent.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as nobody:
        assert nobody.stdout
        assert nobody.stdout.readline()
        eventually(lambda: not is_served(agent))  # once the last judgement of the file is old
        with refused("INVALID_ARGUMENT", "a client as user 65534, may not read it"):
            infer(agent, request("mine"))
        assert infer(agent, request("read"))
        output = client.describe("m").output_tensor_metadatas[0].name
        written = request("read")
        place(written.outputs.add(name=output), "read", 64)
        with refused("INVALID_ARGUMENT", "a client as user 65534, may not write it"):
            infer(agent, written)
        with ShmFile(16) as file, refused("INVALID_ARGUMENT", "may not read it"):
            register(agent, "new", file.key, 16)
        nobody.communicate()

"""All services over TCP, on loopback (edge_listen) [X-13]."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.system import triton as calls
from tests.system.harness import AgentProcess, Client, eventually, tensor_of
from tests.system.segments import Segment

PackageOf = Callable[[str], Path]


def free_address(host: str) -> str:
    """A place where nobody listens."""
    with closing(socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        port = probe.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.fixture(params=[("core", "127.0.0.1"), ("core", "::1"), ("grpc", "127.0.0.1")], ids="-".join)
def listening(request: Any, agents: Any) -> Iterator[tuple[AgentProcess, str]]:
    """An agent that listens, and where."""
    kind, host = request.param
    where = free_address(host)
    yield agents(edge_listen=where, edge_rpc_server=kind).start(), where


def test_all_services_are_there(
    listening: tuple[AgentProcess, str], triton: Callable[..., Any], package_of: PackageOf
) -> None:
    agent, where = listening
    agent.client.load(package_of("dynamic_batch"), "m")
    one = np.ones((2, 4), np.float32)
    (expected,) = agent.client.predict("m", [tensor_of(one, "x")])
    with grpc.insecure_channel(where) as channel:
        assert Client(channel).predict("m", [tensor_of(one, "x")]) == [expected]
    assert triton(calls.call, where, "is_server_ready") is True
    found, _ = triton(calls.infer, where, "m", {"x": one})
    assert [array.tobytes() for array in found.values()] == [expected.byte_data]

    def count() -> str:
        (stats,) = triton(calls.call, where, "get_inference_statistics", "m")["model_stats"]
        return str(stats["inference_count"])

    eventually(lambda: count() == "3")  # a call is counted when its answer is away
    with pytest.raises(calls.Refused) as refused:
        triton(calls.infer, where, "m", {"y": one})
    assert refused.value.args[0] == "INVALID_ARGUMENT"
    assert f"any user of this machine can connect to {where}" in agent.log


def test_no_shared_memory_beside_a_client_on_tcp(
    listening: tuple[AgentProcess, str], package_of: PackageOf, refused: Any
) -> None:  # [X-13] [P-3]
    agent, where = listening
    agent.client.load(package_of("add_one"), "m")

    def predict() -> None:
        handle = pb.SharedMemoryHandle(segment_id=segment.id)
        agent.client.predict("m", [pb.Tensor(shared_memory_handle=handle)])

    def is_served() -> bool:
        try:
            predict()
        except grpc.RpcError as error:
            assert "connected over TCP" in error.details()  # type: ignore[attr-defined]
            return False
        return True

    with Segment(16) as segment:
        segment.set_mode(0o400)
        predict()
        with grpc.insecure_channel(where) as channel:
            grpc.channel_ready_future(channel).result(60)
            Client(channel).models()
            eventually(lambda: not is_served())  # once the last judgement of the segment is old
            with refused("INVALID_ARGUMENT", "connect every client to the Unix socket"):
                predict()
        eventually(is_served)


def test_an_address_that_is_in_use(agents: Any) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        agent = agents(edge_listen=f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(AssertionError, match="the agent ended with 1"):
            agent.start()
    assert "edge_listen 127.0.0.1:" in agent.log
    assert "Traceback" not in agent.log
    assert not Path(agent.socket).exists()


@pytest.mark.parametrize("where", ["0.0.0.0:8001", "192.168.1.1:8001", "localhost:8001", "127.0.0.1", "127.0.0.1:0"])
def test_other_addresses_are_refused(agents: Any, where: str) -> None:
    agent = agents(edge_listen=where)
    with pytest.raises(AssertionError, match="the agent ended with"):
        agent.start()
    assert f'"{where}" is not allowed; expected 127.0.0.1:PORT or [::1]:PORT' in agent.log
    assert "with TLS" in agent.log or "other addresses need TLS" in agent.log

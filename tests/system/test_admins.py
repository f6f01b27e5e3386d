"""Who may load, unload and replace models (edge_admins) [X-15]."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edge import address
from edge.rpc._generated import agent_pb2 as api
from edge.rpc._generated import open_inference_pb2 as pb
from edge.rpc._generated import operations_pb2 as ops
from tests.system.harness import CALL_SECONDS, ROOT, AgentProcess, Client, client_command, from_source, tensor_of
from tests.system.test_predict import Slow

PackageOf = Callable[[str], Path]
ADMIN, OTHER, GROUP = 60_001, 60_002, 60_003
# As another user: connects to a socket, and says what came of it.
CONNECT = """
import os, socket, sys
os.setgroups([int(group) for group in sys.argv[3].split(",") if group]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except OSError as error:
    print(error.strerror)
else:
    print("connected")
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="to become another user takes root")


@pytest.fixture(params=["core", "grpc"])
def agent(request: Any, agents: Any) -> Iterator[AgentProcess]:
    """An agent whose administrators are a user and a group that own nothing here."""
    try:
        yield agents(edge_admins=[f"user:{ADMIN}", f"group:{GROUP}"], edge_rpc_server=request.param).start()
    except AssertionError as error:
        if "Operation not supported" in str(error):
            pytest.skip("the file system takes no access control lists")
        raise


@pytest.fixture
def admin(agent: AgentProcess) -> Iterator[grpc.Channel]:
    """A connection to the administrators' socket."""
    with grpc.insecure_channel(address.target(address.for_admins(agent.socket))) as channel:
        yield channel


def ask(channel: grpc.Channel, method: str, request: Any) -> None:
    channel.unary_unary(method)(request.SerializeToString(), timeout=CALL_SECONDS)


def test_what_is_theirs_and_what_is_everybodys(
    agent: AgentProcess, admin: grpc.Channel, package_of: PackageOf, refused: Any
) -> None:
    everybody, administrator = agent.client, Client(admin)
    denied = (
        "is for administrators (edge_admins: user:60001, group:60003)",
        f"unix:{address.for_admins(agent.socket)}",
    )
    load = pb.RepositoryModelLoadRequest(model_name="n")
    load.parameters["url"].string_param = str(package_of("add_one"))
    theirs = {
        "/AWS.SageMaker.Edge.Agent/LoadModel": api.LoadModelRequest(name="m", url=str(package_of("add_one"))),
        "/AWS.SageMaker.Edge.Agent/UnLoadModel": api.UnLoadModelRequest(name="m"),
        "/edge.v1.Operations/ApplyModels": ops.ApplyModelsRequest(),
        "/edge.v1.Operations/RollbackModel": ops.RollbackModelRequest(name="m"),
        "/edge.v1.Operations/CheckFleet": ops.CheckFleetRequest(**{"from": "/nowhere"}),
        "/inference.GRPCInferenceService/RepositoryModelLoad": load,
        "/inference.GRPCInferenceService/RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name="m"),
    }
    model = administrator.load(package_of("add_one"), "m").input_tensor_metadatas[0]
    for method, request in theirs.items():
        with refused("PERMISSION_DENIED", method.rpartition("/")[2], *denied):
            ask(agent.channel, method, request)
    one = tensor_of(np.ones(tuple(model.shape), np.float32), model.name)
    assert everybody.predict("m", [one]) == administrator.predict("m", [one])
    assert [one.name for one in everybody.models()] == ["m"]
    assert everybody.status().version
    everybody.capture(model_name="m", capture_id="c", input_tensors=[one])
    everybody.wait_captured("c")
    for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
        ask(admin, f"/inference.GRPCInferenceService/{method}", theirs[f"/inference.GRPCInferenceService/{method}"])
    ask(admin, "/edge.v1.Operations/ApplyModels", ops.ApplyModelsRequest())
    assert [one.name for one in everybody.models()] == ["n"]
    administrator.unload("n")
    assert everybody.models() == []


def test_the_stop_is_one_for_both_sockets(
    agent: AgentProcess, admin: grpc.Channel, package_of: PackageOf
) -> None:
    """While a call on one has its grace, the other takes none either."""
    Client(admin).load(package_of("slow"), "slow")
    slow = Slow(agent)
    slow.start(size=2_000_000)
    slow.until(1, 0)
    watched = health_pb2_grpc.HealthStub(admin).Watch(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
    agent.signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
        list(watched)
    assert not slow.calls[0].done()
    assert agent.wait(60) == 0
    agent.close_channel()


def connects(path: str, uid: int, *groups: int) -> str:
    """What comes of connecting to a socket as another user."""
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, path, str(uid), ",".join(map(str, groups))],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def open_to_all(agent: AgentProcess) -> None:
    """Let every user reach the folder of the socket, and use it."""
    for folder in Path(agent.socket).parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    Path(agent.socket).chmod(0o666)


@needs_root
@pytest.mark.usefixtures("open_to_all")
def test_the_kernel_lets_only_them_connect(agent: AgentProcess) -> None:
    socket = address.for_admins(agent.socket)
    assert connects(socket, ADMIN) == "connected"
    assert connects(socket, OTHER, 5, GROUP) == "connected"
    assert connects(socket, OTHER) == "Permission denied"
    assert connects(socket, OTHER, ADMIN) == "Permission denied"
    assert connects(agent.socket, OTHER) == "connected"


@needs_root
@pytest.mark.skipif(not from_source(), reason="the binary may lie where another user cannot run it")
@pytest.mark.usefixtures("open_to_all")
def test_the_command_line_finds_its_way(agent: AgentProcess, package_of: PackageOf) -> None:
    package = package_of("add_one")
    done = run_client(agent, "load", str(package), "m")
    assert done.returncode == 0, done.stderr
    assert [model.name for model in agent.client.models()] == ["m"]


def run_client(agent: AgentProcess, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*client_command(), *command, "--socket", agent.socket], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_folder_is_gone_after_the_agent_and_made_anew(agents: Any, package_of: PackageOf) -> None:
    agent = agents(edge_admins=[f"group:{os.getegid()}"]).start()
    folder = Path(address.for_admins(agent.socket)).parent
    assert folder.stat().st_mode & 0o007 == 0
    agent.kill()
    assert folder.is_dir()
    agent.start(force=True)
    with grpc.insecure_channel(address.target(address.for_admins(agent.socket))) as channel:
        Client(channel).load(package_of("add_one"), "m")
    agent.stop()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("admins", "text"),
    [
        (["user:nobody-of-that-name"], "this machine knows no user 'nobody-of-that-name'"),
        (["group:no-such-group", "user:0"], "this machine knows no group 'no-such-group'"),
        (["root"], 'edge_admins: ["root"] is not allowed; expected a list of "user:NAME" and "group:NAME"'),
        ("user:root", 'edge_admins: "user:root" is not allowed; expected a list'),
    ],
)
def test_names_that_are_none(agents: Any, admins: Any, text: str) -> None:
    agent = agents(edge_admins=admins)
    with pytest.raises(AssertionError, match="the agent ended with 1"):
        agent.start()
    assert text in agent.log, json.dumps(agent.log)
    assert not Path(agent.socket).exists()


def test_a_folder_that_is_anothers(agents: Any) -> None:
    agent = agents(edge_admins=[f"user:{os.geteuid()}"])
    folder = Path(address.for_admins(agent.socket)).parent
    folder.symlink_to("/tmp")
    with pytest.raises(AssertionError, match="the agent ended with 1"):
        agent.start()
    assert "the folder for edge_admins, is another's; remove it" in agent.log
    folder.unlink()

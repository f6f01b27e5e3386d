"""The socket: any name, gone, taken, and clients that keep asking whether it is there (X-1, X-10, X-11)."""

import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from edge import address
from tests.adversary.http2 import PING, Connection, frame
from tests.system.conftest import good_config, run_tool
from tests.system.harness import CALL_SECONDS, AgentProcess, Client, agent_command, eventually

PackageOf = Callable[[str], Path]


class Manager:
    """A service manager's end of the notification socket."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(30)

    def next(self) -> str:
        """The next message."""
        return self._socket.recv(65536).decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Any:
    with contextlib.closing(Manager(tmp_path / "notify")) as made:
        yield made


@pytest.mark.parametrize("name", ["cam#1 quest?ion", "per%20cent"])
@pytest.mark.parametrize("kind", ["core", "grpc"])
def test_any_path_will_do(
    tmp_path: Path, signer: Any, package_of: PackageOf, manager: Manager, name: str, kind: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    agent = AgentProcess(folder, good_config(folder, signer.roots, {"edge_rpc_server": kind}))
    try:
        agent.start(env=manager.environment)
        assert "READY=1" in iter(manager.next, None)
        assert "WATCHDOG=1" in iter(manager.next, None)
        for socket_word in (agent.socket, address.target(agent.socket)):
            run_tool("status", "-a", socket_word)
        run_tool("load", "-a", agent.socket, str(package_of("add_one")), "m")
        assert [model.name for model in agent.client.models()] == ["m"]
    finally:
        assert agent.stop() == 0
    assert not Path(agent.socket).exists()


def test_an_abstract_name(agents: Any, package_of: PackageOf, manager: Manager) -> None:
    agent = agents()
    word = f"unix-abstract:{agent.folder}/edge"
    command = [*agent_command(), "-c", str(agent.config_path), "-a", word]
    with agent.log_path.open("ab") as log:
        agent.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | manager.environment,
            cwd=agent.folder,
        )
    assert "WATCHDOG=1" in iter(manager.next, None)
    run_tool("load", "-a", word, str(package_of("add_one")), "m")
    with grpc.insecure_channel(word) as channel:
        assert [model.name for model in Client(channel).models()] == ["m"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
    assert second.returncode == 1
    assert f"socket {word}: another agent answers on it" in second.stderr
    assert agent.stop() == 0
    assert not list(agent.folder.glob("*edge*"))
    assert "any program in this network namespace can connect" in agent.log


def test_a_socket_that_was_removed_is_evidence(agents: Any, manager: Manager) -> None:
    agent = agents().start(env=manager.environment)
    assert "WATCHDOG=1" in iter(manager.next, None)
    assert agent.client.models() == []  # a client that stays connected
    Path(agent.socket).unlink()
    wrong = f"STATUS=stuck: the socket {agent.socket} was removed or replaced"
    told = itertools.islice(iter(manager.next, None), 20)
    assert any(message.startswith(wrong) for message in told), "it goes on telling that all is well"
    manager._socket.settimeout(3)  # one and a half intervals
    with pytest.raises(TimeoutError):
        manager.next()
    eventually(lambda: "the agent is stuck: the socket" in agent.log, 30)
    agent.signal(15)
    assert agent.wait() == 0


@pytest.mark.parametrize("make", ["datagram", "foreign"])
def test_a_socket_of_which_nothing_can_be_told_is_not_another_agent(agents: Any, make: str) -> None:
    agent = agents()
    kind = socket.SOCK_DGRAM if make == "datagram" else socket.SOCK_STREAM
    with socket.socket(socket.AF_UNIX, kind) as held:
        held.bind(agent.socket)
        if make == "foreign":
            held.listen()
            if os.geteuid() == 0:
                return  # root may connect to any
            Path(agent.socket).chmod(0)
        command = [*agent_command(), "-a", agent.socket, "-c", str(agent.config_path), "-f"]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
    assert refused.returncode == 1
    assert "it cannot be determined whether an agent answers on it (" in refused.stderr
    assert Path(agent.socket).exists()


@pytest.mark.parametrize("kind", ["core", "grpc"])
def test_clients_that_ask_often_whether_it_is_there(agents: Any, kind: str) -> None:
    agent = agents(edge_rpc_server=kind).start()
    with Connection(agent.socket) as connection:
        connection.open("/grpc.health.v1.Health/Watch")
        for asked in range(1, 21):
            connection.write(frame(PING, 0, 0, bytes(8)))
            eventually(
                lambda count=asked: (connection.read(0.1), connection.closed or connection.answered_pings >= count)[1],
                30,
                "the ping is answered",
            )
        assert not connection.closed
        assert connection.answered_pings == 20

"""Calls over TLS with client certificates (edge_listen) [X-16]."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.fakes.pki import Ca, Identity
from tests.system import triton as calls
from tests.system.harness import AgentProcess, Client, tensor_of
from tests.system.test_listen import free_address

PackageOf = Callable[[str], Path]


@dataclass(frozen=True)
class Pki:
    """The device's CA and certificate, the clients' CA and a client's certificate, and a stranger's."""

    ca: Ca
    server: Identity
    clients: Ca
    client: Identity
    stranger: Identity

    def settings(self, where: str, **changes: Any) -> dict[str, Any]:
        """The keys of a configuration."""
        return {
            "edge_listen": where,
            "edge_listen_cert_file": str(self.server.certificate_file),
            "edge_listen_key_file": str(self.server.key_file),
            "edge_listen_client_ca_file": str(self.clients.file),
            **changes,
        }

    def channel(self, where: str, client: Identity | None, ca: Ca | None = None) -> grpc.Channel:
        """A connection as a client."""
        mine = (client.key_file.read_bytes(), client.certificate_file.read_bytes()) if client else (None, None)
        return grpc.secure_channel(where, grpc.ssl_channel_credentials((ca or self.ca).file.read_bytes(), *mine))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    folder = tmp_path_factory.mktemp("pki")
    ca, clients, strangers = Ca(folder, "devices"), Ca(folder, "clients"), Ca(folder, "strangers")
    return Pki(
        ca,
        ca.issue("device-1", host="127.0.0.1 ::1"),
        clients,
        clients.issue("client-1"),
        strangers.issue("stranger-1"),
    )


@pytest.mark.parametrize(("kind", "everywhere"), [("core", False), ("core", True), ("grpc", True)])
def test_clients_with_a_certificate(
    agents: Any, pki: Pki, triton: Callable[..., Any], package_of: PackageOf, kind: str, everywhere: bool
) -> None:
    where = free_address("127.0.0.1")
    listen = where.replace("127.0.0.1", "0.0.0.0") if everywhere else where
    agent: AgentProcess = agents(**pki.settings(listen), edge_rpc_server=kind).start()
    agent.client.load(package_of("dynamic_batch"), "m")
    one = np.ones((2, 4), np.float32)
    (expected,) = agent.client.predict("m", [tensor_of(one, "x")])
    with pki.channel(where, pki.client) as channel:
        assert Client(channel).predict("m", [tensor_of(one, "x")]) == [expected]
    found, _ = triton(
        calls.infer_tls,
        where,
        [str(pki.ca.file), str(pki.client.key_file), str(pki.client.certificate_file)],
        "m",
        {"x": one},
    )
    assert [array.tobytes() for array in found.values()] == [expected.byte_data]
    for channel in (
        pki.channel(where, None),
        pki.channel(where, pki.stranger),
        pki.channel(where, pki.client, pki.clients),  # whom the client does not know
        grpc.insecure_channel(where),
    ):
        with channel, pytest.raises(grpc.RpcError) as refused:
            Client(channel).models()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    assert f"clients with a certificate of {pki.clients.file} can connect to {listen}" in agent.log


def test_no_administrator_comes_by_tcp(agents: Any, pki: Pki, package_of: PackageOf, refused: Any) -> None:
    where = free_address("127.0.0.1")
    agents(**pki.settings(where), edge_admins=["user:0"]).start()
    with (
        pki.channel(where, pki.client) as channel,
        refused("PERMISSION_DENIED", "LoadModel is for administrators"),
    ):
        Client(channel).load(package_of("add_one"), "m")


def test_no_shared_memory_beside_a_client_on_tls(agents: Any, pki: Pki) -> None:  # [O-19]
    from edge.rpc._generated import open_inference_pb2 as pb
    from tests.system.segments import ShmFile

    where = free_address("127.0.0.1")
    agent = agents(**pki.settings(where.replace("127.0.0.1", "0.0.0.0"))).start()
    register = agent.channel.unary_unary("/inference.GRPCInferenceService/SystemSharedMemoryRegister")
    with ShmFile(16) as file, pki.channel(where, pki.client) as channel:
        Client(channel).models()
        with pytest.raises(grpc.RpcError, match="connected over TCP"):
            register(pb.SystemSharedMemoryRegisterRequest(name="r", key=file.key, byte_size=16).SerializeToString())


def refused_start(agents: Any, **settings: Any) -> str:
    agent: AgentProcess = agents(**settings)
    with pytest.raises(AssertionError, match="the agent ended with 1"):
        agent.start()
    assert "Traceback" not in agent.log
    assert not Path(agent.socket).exists()
    return agent.log


def test_a_key_that_others_may_read(agents: Any, pki: Pki, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    key.write_bytes(pki.server.key_file.read_bytes())
    key.chmod(0o644)
    log = refused_start(agents, **pki.settings(free_address("127.0.0.1"), edge_listen_key_file=str(key)))
    assert f"the private key {key} can be used by" in log

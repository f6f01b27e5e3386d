"""Uploads through squid, a real HTTP proxy: CONNECT, with a user and a password."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.rpc._generated import agent_pb2 as pb
from tests.fakes.iot_endpoint import IotEndpoint
from tests.fakes.pki import Ca
from tests.fakes.s3_stub import S3Stub
from tests.fakes.squid import Squid, start_squid, why_absent
from tests.fakes.web import server_context
from tests.system.harness import AgentProcess, eventually
from tests.system.test_cloud_agent import ENVIRONMENT, MODEL, assert_whole, by_iot, capture, cloud, wait_success

STORE, IOT = "store.example", "iot.example"  # names that squid alone knows
IDS = ["a", "b", "c"]

pytestmark = pytest.mark.skipif(bool(why_absent()), reason=why_absent())


@pytest.fixture(scope="module")
def squid() -> Iterator[Squid]:
    made = start_squid(STORE, IOT)
    yield made
    made.close()


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(tmp_path, "private-ca")


@pytest.fixture
def store(tmp_path: Path, ca: Ca) -> Iterator[S3Stub]:
    identity = ca.issue("store", host=f"{STORE} localhost")
    made = S3Stub(tls=server_context(identity.certificate_file, identity.key_file))
    made.start()
    yield made
    made.close()


def test_bucket_and_credentials(
    agents: Callable[..., AgentProcess], digits: Path, squid: Squid, store: S3Stub, ca: Ca, tmp_path: Path
) -> None:
    """[R-14] [R-15] Both by CONNECT; the store's private CA is named in the configuration."""
    iot = IotEndpoint(tmp_path, store, host=IOT)
    iot.start()
    try:
        settings = by_iot(iot)
        settings["provider_aws_iot_cred_endpoint"] = iot.credentials_url.replace("localhost", IOT)
        url = f"https://{STORE}:{store.port}"
        agent = agents(**cloud(url, tmp_path, **settings, edge_ca_bundle=str(ca.file), log_verbose=True))
        agent.start(env={"HTTPS_PROXY": squid.url, "NO_PROXY": "elsewhere.example"})
        agent.client.load(digits, MODEL)
        capture(agent, IDS)
        wait_success(agent, IDS)
        assert_whole(store, IDS)
        assert iot.given == 1
        assert agent.stop() == 0
    finally:
        iot.close()
    eventually(lambda: squid.log.count("CONNECT") >= 2, 20, "squid has noted both connections")
    for host in (f"{STORE}:{store.port}", f"{IOT}:{iot.port}"):
        assert f"CONNECT {host}" in squid.log
    for secret in ("p@ss", "p%40ss", "Basic"):
        assert secret not in agent.log


def test_a_wrong_password_is_told_and_not_shown(
    agents: Callable[..., AgentProcess], digits: Path, squid: Squid, store: S3Stub, ca: Ca, tmp_path: Path
) -> None:
    """[R-14]"""
    agent = agents(**cloud(f"https://{STORE}:{store.port}", tmp_path, edge_ca_bundle=str(ca.file), log_verbose=True))
    agent.start(env={**ENVIRONMENT, "HTTPS_PROXY": squid.url.replace("word", "w0rd")})
    agent.client.load(digits, MODEL)
    capture(agent, IDS)
    eventually(lambda: "answers CONNECT" in agent.client.status().captures.last_error, 30, "the error is told")
    told = agent.client.status().captures.last_error
    assert "407" in told and f"127.0.0.1:{squid.port}" in told and "does not accept user and password" in told
    assert {agent.client.capture_status(i) for i in IDS} == {pb.IN_PROGRESS}
    assert not store.puts
    assert agent.stop() == 0
    assert "w0rd" not in agent.log


def test_what_no_proxy_names_is_reached_directly(
    agents: Callable[..., AgentProcess], digits: Path, store: S3Stub, ca: Ca, tmp_path: Path
) -> None:
    """[R-14] As are plain HTTP and this machine itself; nothing listens where the proxy is said to be."""
    agent = agents(**cloud(store.url, tmp_path, edge_ca_bundle=str(ca.file)))
    agent.start(env={**ENVIRONMENT, "HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "localhost"})
    agent.client.load(digits, MODEL)
    capture(agent, IDS)
    wait_success(agent, IDS)
    assert_whole(store, IDS)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("http://127.0.0.1:1", "the proxy 127.0.0.1:1: Connection refused"),
        ("http://me:secret-word@proxy:port", "HTTPS_PROXY in the agent's environment is not http://HOST:PORT"),
    ],
)
def test_a_proxy_that_is_not_there(
    agents: Callable[..., AgentProcess], digits: Path, ca: Ca, tmp_path: Path, proxy: str, words: str
) -> None:
    """[R-14] Captures wait, and the error names the proxy."""
    agent = agents(**cloud(f"https://{STORE}", tmp_path, edge_ca_bundle=str(ca.file)))
    agent.start(env={**ENVIRONMENT, "HTTPS_PROXY": proxy})
    agent.client.load(digits, MODEL)
    capture(agent, ["a"])
    eventually(lambda: words in agent.client.status().captures.last_error, 30, "the error is told")
    assert agent.client.capture_status("a") == pb.IN_PROGRESS
    assert "secret-word" not in agent.log

"""Credentials that a program on this machine hands out, as the token exchange service of AWS IoT Greengrass does."""

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.cloud.aws.answer import Patience
from edge.cloud.aws.credentials import CONTAINER_TOKEN, CONTAINER_URI, ContainerCredentials
from edge.cloud.build import build_store
from edge.cloud.store import StoreError
from edge.config import parse_config
from tests.fakes.cloud import SkewedClock, assert_all_stored, pipeline, s3_store, submit_some
from tests.fakes.s3_stub import Key, S3Stub
from tests.fakes.web import Handler, Web

PATH = "/2016-11-01/credentialprovider/"


class _Handler(Handler):
    def do_GET(self) -> None:
        service: TokenExchange = self.server.owner  # type: ignore[attr-defined]
        if self.path != PATH or self.headers["authorization"] != service.token:
            self.answer(403, b"Forbidden")
            return
        access, secret, token = "ASIA00000001", secrets.token_hex(20), secrets.token_urlsafe(100)
        service.stub.keys[access] = Key(secret, token)
        end = datetime.fromtimestamp(service.now() + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"AccessKeyId": access, "SecretAccessKey": secret, "Token": token, "Expiration": end}
        self.answer(200, json.dumps(keys).encode())


class TokenExchange(Web):
    """Gives keys of the stub's to whoever has the token."""

    handler = _Handler

    def __init__(self, stub: S3Stub) -> None:
        super().__init__()
        self.stub, self.token = stub, secrets.token_hex(16)

    def now(self) -> float:
        return self.stub.now()

    @property
    def environment(self) -> dict[str, str]:
        """What Greengrass sets for a component that depends on it."""
        return {CONTAINER_URI: f"http://localhost:{self.port}{PATH}", CONTAINER_TOKEN: self.token}


@pytest.fixture
def stub() -> Iterator[S3Stub]:
    made = S3Stub()
    made.keys.clear()
    made.start()
    yield made
    made.close()


@pytest.fixture
def service(stub: S3Stub) -> Iterator[TokenExchange]:
    made = TokenExchange(stub)
    made.start()
    yield made
    made.close()


def source(environment: dict[str, str]) -> ContainerCredentials:
    return ContainerCredentials(SkewedClock(0), environment, Patience(connect_seconds=2.0, stall_seconds=5.0))


def test_captures_go_with_its_keys(stub: S3Stub, service: TokenExchange, tmp_path: Path) -> None:
    with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source(service.environment))) as made:
        ids = submit_some(made)
        made.wait_states(ids)
    assert_all_stored(stub, ids)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({CONTAINER_TOKEN: "wrong"}, "the credentials service of this machine"),
        ({CONTAINER_URI: "http://10.0.0.1/x"}, "expected http:// and this machine's own address"),
        ({CONTAINER_URI: "https://localhost/x"}, "expected http://"),
        ({CONTAINER_URI: "http://[x"}, "expected http://"),
        ({CONTAINER_TOKEN: "a\nb"}, "characters that a token cannot have"),
    ],
)
def test_what_it_refuses(service: TokenExchange, changes: dict[str, str], words: str) -> None:
    with pytest.raises(StoreError, match=words) as refused:
        source(service.environment | changes).get()
    assert service.token not in str(refused.value)


def test_the_environment_chooses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(
        json.dumps(
            {
                "sagemaker_edge_core_device_name": "d",
                "sagemaker_edge_core_device_fleet_name": "f",
                "sagemaker_edge_core_root_certs_path": "/roots",
                "sagemaker_edge_core_region": "us-west-2",
                "sagemaker_edge_core_capture_data_destination": "Cloud",
                "sagemaker_edge_provider_s3_bucket_name": "sagemaker-b",
            }
        ).encode()
    ).config
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv(CONTAINER_URI, "http://10.0.0.1/")
    with pytest.raises(StoreError, match=CONTAINER_URI):
        build_store(config, SkewedClock(0)).check()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    build_store(config, SkewedClock(0)).check()

"""How buckets of AWS are addressed; the names lead to a stub on this machine."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.cloud import assert_all_stored, pipeline, s3_store, submit_some
from tests.fakes.pki import Ca
from tests.fakes.s3_stub import BUCKET, REGION, Redirect, S3Stub
from tests.fakes.web import server_context

DOTTED = "sagemaker.with.dots"
HOSTS = (
    f"{BUCKET}.s3.{REGION}.amazonaws.com {BUCKET}.s3.us-west-2.amazonaws.com {BUCKET}.s3.cn-north-1.amazonaws.com.cn "
    f"s3.{REGION}.amazonaws.com"
)


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(tmp_path, "aws-ca")


@pytest.fixture
def stub(tmp_path: Path, ca: Ca) -> Iterator[S3Stub]:
    identity = ca.issue("aws", host=HOSTS)
    made = S3Stub(tls=server_context(identity.certificate_file, identity.key_file))
    made.start()
    yield made
    made.close()


@pytest.fixture
def asked(stub: S3Stub, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
    """The names and ports that were looked up; all lead to the stub."""
    real, names = socket.getaddrinfo, set()

    def getaddrinfo(host: str, port: int, *rest: Any, **options: Any) -> Any:
        names.add((host, port))
        return real("127.0.0.1", stub.port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


@pytest.mark.parametrize(
    ("region", "host"),
    [
        (REGION, f"{BUCKET}.s3.{REGION}.amazonaws.com"),
        ("cn-north-1", f"{BUCKET}.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_a_bucket_has_its_host_name(
    stub: S3Stub, ca: Ca, asked: set[tuple[str, int]], tmp_path: Path, region: str, host: str
) -> None:
    stub.region = region
    with pipeline(tmp_path / "a", s3_store("", ca_file=ca.file, region=region)) as made:
        ids = submit_some(made)
        made.wait_states(ids)
    assert_all_stored(stub, ids)
    assert asked == {(host, 443)}


def test_a_name_with_dots_is_in_the_path(stub: S3Stub, ca: Ca, asked: set[tuple[str, int]], tmp_path: Path) -> None:
    """No certificate covers it as a host name."""
    with pipeline(tmp_path / "a", s3_store("", ca_file=ca.file, bucket=DOTTED)) as made:
        submit_some(made)
        made.wait(lambda: "NoSuchBucket" in made.error(), "the stub saw the bucket's name in the path")
    assert asked == {(f"s3.{REGION}.amazonaws.com", 443)}


def test_another_region_is_another_host(stub: S3Stub, ca: Ca, asked: set[tuple[str, int]], tmp_path: Path) -> None:
    """The redirect's own address is not followed; the region's is made."""
    stub.inject(Redirect(301, stub, {"x-amz-bucket-region": REGION}))
    with pipeline(tmp_path / "a", s3_store("", ca_file=ca.file, region="us-west-2")) as made:
        ids = submit_some(made)
        made.wait_states(ids)
    assert_all_stored(stub, ids)
    assert asked == {(f"{BUCKET}.s3.{r}.amazonaws.com", 443) for r in ("us-west-2", REGION)}

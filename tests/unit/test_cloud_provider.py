"""The parts between uploads and stores: bodies, bandwidth, and which store a configuration asks for."""

import hashlib
import json
import logging
import threading
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.clock import SystemClock
from edge.cloud.aws.s3 import S3Store
from edge.cloud.build import build_store
from edge.cloud.store import CHUNK_BYTES, Bandwidth, Body, StoppedError, StoreError, Throttle
from edge.config import parse_config
from edge.settings import full_key
from tests.fakes.cloud import QuickClock


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "file"
    path.write_bytes(bytes(i % 251 for i in range(3 * CHUNK_BYTES + 5)))
    yield path


def test_a_body_is_read_a_chunk_at_a_time(file: Path) -> None:
    data = file.read_bytes()
    body = Body(file, len(data))
    assert b"".join(body.chunks()) == data
    assert max(len(chunk) for chunk in body.chunks()) == CHUNK_BYTES
    assert max(len(chunk) for chunk in body.chunks(1000)) == 1000
    digest = body.digest()
    assert (digest.sha256, digest.crc32) == (hashlib.sha256(data).hexdigest(), zlib.crc32(data))


@given(cuts=st.lists(st.integers(0, 3 * CHUNK_BYTES + 5), min_size=1, max_size=8))
def test_a_body_of_ranges(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    path = tmp_path_factory.mktemp("body") / "file"
    data = bytes(i % 251 for i in range(3 * CHUNK_BYTES + 5))
    path.write_bytes(data)
    ranges = [(a, b - a) for a, b in pairwise(sorted(cuts))][::2]
    body = Body(path, len(data), ranges)
    expected = b"".join(data[at : at + length] for at, length in ranges)
    assert b"".join(body.chunks(777)) == expected
    assert body.size == len(expected)


def test_a_file_that_became_shorter(file: Path) -> None:
    body = Body(file, file.stat().st_size + 1)
    with pytest.raises(OSError, match="expected"):
        body.digest()


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Body(tmp_path / "gone", 5).digest()


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(OSError, match="symbolic links"):
        Body(tmp_path / "link", 5).digest()


@pytest.mark.parametrize("rate", [1024, 100 * 1024, 10 << 20])
def test_bandwidth(rate: int) -> None:
    """Ten seconds' worth of bytes take ten seconds, and no pause is long enough for a stall."""
    clock = QuickClock()
    throttle = Throttle(Bandwidth(rate, clock), threading.Event())
    begun, sent = clock.monotonic(), 0
    clock.waits.clear()
    while sent < 10 * rate:
        throttle.pay(throttle.chunk_bytes)
        sent += throttle.chunk_bytes
        if len(clock.waits) > 200:
            break
    throttle.pay(1)
    took = clock.monotonic() - begun
    assert took >= 0.99 * sent / rate
    assert all(wait <= 0.3 for wait in clock.waits)


def test_no_bound_waits_for_nothing() -> None:
    clock = QuickClock()
    throttle = Throttle(Bandwidth(0, clock), threading.Event())
    for _ in range(1000):
        throttle.pay(1 << 20)
    assert clock.waits == []


@pytest.mark.parametrize("rate", [0, 1024])
def test_a_stop_ends_the_waiting(rate: int) -> None:
    stop = threading.Event()
    throttle = Throttle(Bandwidth(rate, SystemClock()), stop)
    throttle.pay(1 << 30)
    stop.set()
    with pytest.raises(StoppedError):
        throttle.pay(1)


def config(**changes: Any) -> Any:
    values = {
        "core_device_name": "d",
        "core_device_fleet_name": "f",
        "core_root_certs_path": "/roots",
        "core_capture_data_disk_path": "/captures",
        "core_region": "eu-west-1",
        "provider_s3_bucket_name": "sagemaker-b",
        **changes,
    }
    return parse_config(json.dumps({full_key(key): value for key, value in values.items()}).encode()).config


def test_provider_none() -> None:
    assert build_store(config(provider_provider="None"), SystemClock()) is None


def test_provider_aws() -> None:
    store = build_store(config(), SystemClock())
    assert isinstance(store, S3Store)
    assert store.uri("a/b") == "s3://sagemaker-b/a/b"


def test_without_credentials_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    store = build_store(config(), SystemClock())
    assert store is not None
    with pytest.raises(StoreError, match="AWS_ACCESS_KEY_ID"):
        store.check()


@pytest.mark.parametrize(
    ("endpoint", "warned"),
    [
        ("http://127.0.0.1:9000", False),
        ("http://[::1]:9000", False),
        ("http://localhost:9000", False),
        ("https://minio.example", False),
        ("http://192.168.1.5:9000", True),
        ("http://minio.example", True),
    ],
)
def test_plain_http_beyond_this_machine_is_warned_of(
    endpoint: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    build_store(config(core_endpoint_override=endpoint), SystemClock())
    assert ("unencrypted" in caplog.text) == warned


def test_configuration_of_the_guide() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operate-cloud.md").read_text()
    block = text.partition("```json\n")[2].partition("```")[0]
    assert parse_config(block.encode()).warnings == ()

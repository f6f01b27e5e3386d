"""A repository in a private bucket: where it is, and what requests are signed with (F-14)."""

import json
from pathlib import Path
from typing import Any

import pytest

from edge.config import parse_config
from edge.errors import ConfigError
from edge.fleet import bucket, web
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import DAY, NOW, FleetServer, Operator

BASE = {
    "sagemaker_edge_core_device_name": "d",
    "sagemaker_edge_core_device_fleet_name": "f",
    "sagemaker_edge_core_root_certs_path": "/roots",
    "sagemaker_edge_core_capture_data_disk_path": "/captures",
    "sagemaker_edge_core_region": "eu-west-1",
    "edge_fleet_root": "/root.json",
    "edge_fleet_path": "/fleet",
    "edge_package_store_path": "/store",
}


def config(**more: Any) -> Any:
    return parse_config(json.dumps({**BASE, **more}).encode()).config


def test_where_it_is() -> None:  # [F-14]
    assert bucket.url_of("s3://models/repo", config()) == "https://models.s3.eu-west-1.amazonaws.com/repo"
    assert bucket.url_of("s3://my.models/repo", config()) == "https://s3.eu-west-1.amazonaws.com/my.models/repo"
    here = config(sagemaker_edge_core_endpoint_override="https://minio:9000/")
    assert bucket.url_of("s3://models/a/b", here) == "https://minio:9000/models/a/b"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"edge_fleet_repository": "ftp://x/y"}, "edge_fleet_repository"),
        ({"edge_fleet_repository": "s3://UPPER/y"}, "edge_fleet_repository"),
        ({"edge_fleet_repository": "/repo", "edge_fleet_root": ""}, "edge_fleet_root: missing"),
        ({"edge_fleet_repository": "s3://models/y", "sagemaker_edge_core_region": ""}, "core_region: missing"),
        ({"edge_fleet_reports": "bucket"}, "provider_s3_bucket_name: missing"),
        ({"edge_fleet_reports": "elsewhere"}, "edge_fleet_reports"),
    ],
)
def test_settings_that_do_not_go_together(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**change)
    assert text in str(caught.value)


def test_the_stores_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # [F-14]
    """A device whose clock is a month behind is refused once, then signs by the store's clock."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    operator = Operator.made(tmp_path, FakeClock(NOW.timestamp()))
    server = FleetServer(operator.folder)
    server.start()
    clock = FakeClock(NOW.timestamp() - 30 * DAY)

    def skewed(handler: Any, name: str) -> None:
        if handler.headers["x-amz-date"].startswith("20261128"):
            handler.send_file(operator.folder / "metadata/timestamp.json")
        else:
            handler.answer(403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>")

    try:
        server.bent = {"timestamp": skewed}
        made = web.connect("s3://models", clock, config(sagemaker_edge_core_endpoint_override=server.url))
        with made.open("metadata/timestamp.json", most=10_000) as got:
            data = b"".join(got.chunks())
        assert data == (operator.folder / "metadata/timestamp.json").read_bytes()
        made.close()
        assert len(server.asked) == 2
        assert all(
            headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIA/2026")
            for _, headers in map(_cased, server.asked)
        )
    finally:
        server.close()


def _cased(one: tuple[str, dict[str, str]]) -> tuple[str, dict[str, str]]:
    return one[0], {name.title(): value for name, value in one[1].items()}

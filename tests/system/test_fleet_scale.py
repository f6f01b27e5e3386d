"""Many devices, which run the real client with a stub of what serves, through a rollout in stages and back: all of them converge.

FLEET_DEVICES says how many (20). They poll nginx where that is installed, else a small server of the tests, and a private bucket of
rclone's.
"""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edge.config import parse_config
from edge.fleet.document import Where
from edge.fleet.source import Source
from edge.fleet.web import connect as connect_as_agent
from edge.settings import full_key
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import FLEET, NOW, FleetDevice, FleetServer, Operator, RealClock, connect
from tests.fakes.stores import BUCKET, REGION, StoreProcess, start_rclone
from tests.system.fleet import nginx
from tests.system.harness import from_source
from tests.system.test_fleet_buckets import operator_of

DEVICES = int(os.environ.get("FLEET_DEVICES", "20"))
THREADS = 16
PREFIX = "models"

pytestmark = pytest.mark.skipif(not from_source(), reason="the devices run the source tree")


@contextmanager
def served(root: Path, folder: Path) -> Iterator[str]:
    """The repository on a server."""
    if shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin"):
        with nginx(root, folder) as url:
            yield url
        return
    server = FleetServer(root)
    server.start()
    try:
        yield server.url
    finally:
        server.close()


class Polled:
    """A repository that devices poll, and how one of them connects to it."""

    def __init__(self, operator: Operator, root: Path, repository: str, config: bytes = b"") -> None:
        self.operator, self.root, self.repository = operator, root, repository
        self._config = parse_config(config).config if config else None

    def round(self, device: FleetDevice) -> None:
        """A device's round."""
        source: Source
        if self._config is None:
            source = connect(self.repository, device.clock)
        else:
            source = connect_as_agent(self.repository, RealClock(device.clock), self._config)
        try:
            device.fleet.round(source, self.repository)
        finally:
            source.close()


def in_a_bucket(store: StoreProcess, folder: Path) -> Polled:
    """One that rclone serves to those who sign."""
    operator = operator_of(store, folder, PREFIX)
    root = folder / "root.json"
    root.write_bytes(store.objects()[f"{PREFIX}/metadata/1.root.json"])
    values = {
        "core_device_name": "d",
        "core_device_fleet_name": FLEET,
        "core_root_certs_path": str(folder),
        "core_capture_data_disk_path": str(folder / "captures"),
        "core_region": REGION,
        "core_endpoint_override": store.url,
        "edge_fleet_root": str(root),
        "edge_fleet_path": str(folder / "fleet"),
        "edge_fleet_repository": f"s3://{BUCKET}/{PREFIX}",
        "edge_package_store_path": str(folder / "store"),
    }
    config = json.dumps({full_key(key): value for key, value in values.items()}).encode()
    return Polled(operator, root, f"s3://{BUCKET}/{PREFIX}", config)


@pytest.fixture(params=["static", "rclone"])
def polled(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Polled]:
    with ExitStack() as held:
        if request.param == "static":
            operator = Operator.made(tmp_path, FakeClock(NOW.timestamp()))
            yield Polled(operator, operator.root, held.enter_context(served(operator.folder, tmp_path / "server")))
            return
        store = start_rclone(tmp_path)
        held.callback(store.close)
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        yield in_a_bucket(store, tmp_path)


def test_a_rollout_in_stages(polled: Polled, tmp_path: Path) -> None:  # [F-9] [F-14]
    operator = polled.operator
    archives = tmp_path / "archives"
    archives.mkdir()
    for version in ("1.0", "1.1"):
        archive = archives / f"{version}.tar.gz"
        archive.write_bytes(version.encode() * 20_000)
        operator.act(lambda repository, a=archive, v=version: repository.publish(a, "digits", v))  # type: ignore[misc]
    operator.deploy("n-0", "1.0")
    devices = [FleetDevice(tmp_path / f"d-{n}", operator, f"press-{n:04d}", root=polled.root) for n in range(DEVICES)]
    with ThreadPoolExecutor(THREADS) as pool:

        def all_poll() -> int:
            def one(device: FleetDevice) -> bool:
                polled.round(device)
                device.serving.commit()
                device.fleet.look()
                return device.runs == {"digits": "digits/1.1"}

            return sum(pool.map(one, devices))

        assert all_poll() == 0
        counts = []
        for name, percent in (("n-1", 10.0), ("n-2", 50.0), ("n-3", 100.0)):
            operator.deploy(name, {"digits": "packages/digits/1.1.tar.gz"}, Where(percent, "d11"))
            counts.append(all_poll())
        assert counts == sorted(counts)
        assert counts[-1] == DEVICES
        assert abs(counts[0] - DEVICES / 10) <= max(4, DEVICES / 20)
        operator.deploy("n-4", "1.0")
        assert all_poll() == 0
    assert all(not device.litter and not device.fleet.refused for device in devices)
    ended = [[(one.deployment, dict(one.reasons)) for one in device.ended] for device in devices]
    assert all(one[-1] == ("n-4", {}) for one in ended)

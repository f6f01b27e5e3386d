"""Many devices, which run the real client with a stub of what serves, through a rollout in stages and back: all of them converge.

FLEET_DEVICES says how many (20). They poll nginx where that is installed, else a small server of the tests.
"""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.fleet.document import Where
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import NOW, FleetDevice, FleetServer, Operator
from tests.system.fleet import nginx
from tests.system.harness import from_source

DEVICES = int(os.environ.get("FLEET_DEVICES", "20"))
THREADS = 16

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


def test_a_rollout_in_stages(tmp_path: Path) -> None:  # [F-9]
    operator = Operator.made(tmp_path, FakeClock(NOW.timestamp()))
    for version in ("1.0", "1.1"):
        operator.publish(version)
    operator.deploy("n-0", "1.0")
    devices = [FleetDevice(tmp_path / f"d-{n}", operator, f"press-{n:04d}") for n in range(DEVICES)]
    with served(operator.folder, tmp_path / "server") as url, ThreadPoolExecutor(THREADS) as pool:

        def all_poll() -> int:
            def one(device: FleetDevice) -> bool:
                device.poll(SimpleNamespace(url=url))  # type: ignore[arg-type]
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

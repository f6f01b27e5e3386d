"""The whole story of a fleet, behind nginx and in a private bucket of rclone's: what is published arrives, proves itself under load,
goes back where it is bad, and is told of.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.data import make_models
from tests.fakes.stores import BUCKET, REGION, start_rclone
from tests.system.conftest import Signer, run_tool
from tests.system.fleet import FLEET, WAIT_SECONDS, Member, Operator, archive, nginx
from tests.system.harness import eventually


@dataclass
class Place:
    """Where a repository is and reports go: how an agent and its operator name it, and what was told, by key."""

    operator: Operator
    repository: str
    reports: str
    settings: dict[str, Any]
    environment: dict[str, str]
    told: Callable[[], dict[str, bytes]]

    def tells(self, key: str) -> Any:
        """Wait for a report."""
        eventually(lambda: key in self.told(), WAIT_SECONDS, key)
        return json.loads(self.told()[key])


@pytest.fixture(params=["nginx", "rclone"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with ExitStack() as held:
        if request.param == "nginx":
            operator, told = Operator(tmp_path), tmp_path / "told"
            url = held.enter_context(nginx(operator.folder, tmp_path / "nginx"))

            def files() -> dict[str, bytes]:
                return {str(path.relative_to(told)): path.read_bytes() for path in told.rglob("*.json")}

            yield Place(operator, url, str(told), {"edge_fleet_reports": str(told)}, {}, files)
            return
        store = start_rclone(tmp_path)
        held.callback(store.close)
        surroundings = {**store.environment(), "AWS_REGION": REGION, "AWS_ENDPOINT_URL_S3": store.url}
        for name, value in surroundings.items():
            monkeypatch.setenv(name, value)
        where = f"s3://{BUCKET}/models"
        settings = {
            "edge_fleet_reports": "bucket",
            "provider_s3_bucket_name": BUCKET,
            "core_region": REGION,
            "core_endpoint_override": store.url,
        }
        yield Place(Operator(tmp_path, where), where, f"s3://{BUCKET}", settings, store.environment(), store.objects)


def test_the_story(agents: Any, signer: Signer, place: Place, tmp_path: Path) -> None:
    # [F-1] [F-9] [F-10] [F-12] [F-13] [F-14] [F-22]
    operator = place.operator
    models = {"1.0": (0.0, None), "1.1": (1.0, None), "2.0": (2.0, make_models.two_by_two())}
    archives = [archive(signer, version, amount, tmp_path, model) for version, (amount, model) in models.items()]
    operator("publish", *map(str, archives))
    root = str(shutil.copy(operator.root, tmp_path / "root.json"))
    member = Member.of(agents, tmp_path, root, place.repository, **place.settings)
    operator("deploy", FLEET, "add=adder/1.0", "--name", "n-1")
    member.agent.start(env=place.environment)
    try:
        _story(member, place, operator, tmp_path)
    finally:
        member.agent.stop()


def _story(member: Member, place: Place, operator: Operator, folder: Path) -> None:
    member.until("n-1", "trying")
    member.agent.client.capture(model_name="add", capture_id="c-1")
    member.prove()
    member.until("n-1", "committed")
    assert place.tells(f"reports/{FLEET}/n-1/ok/device-1.json")["models"]["add"]["status"] == "ok"

    sums = _under_load(member, lambda: operator("deploy", FLEET, "add=adder/1.1", "--name", "n-2"))
    assert set(sums) == {0.0, 1.0}
    assert sums == sorted(sums), "never back, never a failure"

    operator("deploy", FLEET, "add=adder/2.0", "--name", "n-3")
    refused = member.until("n-2", "refused")
    assert "unless changed tensors are allowed" in refused.models[0].refused
    assert member.added("add") == 1
    assert "refused:" in run_tool("status", "-a", member.agent.socket).stdout
    assert "changed tensors" in place.tells(f"reports/{FLEET}/n-3/failed/device-1.json")["models"]["add"]["reason"]
    seen = operator.look("status", "--reports", place.reports)["told"][FLEET]
    assert "changed tensors" in seen["failed"]["device-1"]["add"]
    assert seen["versions"] == {"add": {"adder 1.1": 1}}
    _check_heartbeat(place)

    assert operator("take-back", FLEET, "--name", "n-4")["deployment"] == "n-4"
    member.until("n-4", "committed")
    assert len(member.packages()) <= 2
    assert not list((folder / "fleet/packages").iterdir()), "archives are gone once they are accepted"
    ended = {key.split("/")[2] for key in place.told() if key.startswith(f"reports/{FLEET}/")}
    assert {"n-1", "n-2", "n-3"} <= ended


def _under_load(member: Member, deploy: Callable[[], object]) -> list[float]:
    """What each call has added while a deployment came and proved itself."""
    stop, sums = threading.Event(), list[float]()

    def load() -> None:
        while not stop.is_set():
            sums.append(member.added("add"))

    client = threading.Thread(target=load)
    client.start()
    try:
        deploy()
        member.until("n-2", "committed")
    finally:
        stop.set()
        client.join()
    return sums


def _check_heartbeat(place: Place) -> None:
    """One comes with the end of each deployment."""

    def of_now() -> bool:
        return bool(place.tells(f"heartbeats/{FLEET}/device-1.json")["state"] == "refused")

    eventually(of_now, WAIT_SECONDS, "a heartbeat of the refused deployment")
    beat = place.tells(f"heartbeats/{FLEET}/device-1.json")
    assert (beat["deployment"], beat["last_error"]) == ("n-2", "")
    assert beat["disk_free_bytes"] > 0
    assert beat["memory_available_bytes"] > 0
    assert type(beat["clock_synchronised"]) is bool
    assert beat["judged_by"]
    model = beat["models"]["add"]
    assert (model["version"], model["failed"]) == ("adder 1.1", 0)
    assert model["predicted"] >= 1
    assert 0 <= beat["at"] - model["last_inference"] < 3600
    assert 0 <= beat["at"] - model["last_capture"] < 3600
    assert beat["captures"]["refused"] == 0

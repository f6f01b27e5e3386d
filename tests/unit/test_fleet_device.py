"""A device of a fleet among good and bad deployments: what serves, what goes back, what is not tried again (F-2 to F-15)."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge.errors import FleetError
from edge.fleet import metadata as fleet_metadata
from edge.fleet import packages as fleet_packages
from edge.fleet.document import Where
from edge.fleet.packages import NoRoomError
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import DAY, FLEET, NOW, FleetDevice, FleetServer, Operator, gives

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    made = Operator.made(tmp_path, FakeClock(NOW.timestamp()))
    for version in ("1.0", "1.1", "1.2"):
        made.publish(version)
    made.deploy("n-1", "1.0")
    return made


@pytest.fixture
def device(operator: Operator, tmp_path: Path) -> FleetDevice:
    return FleetDevice(tmp_path / "device", operator)


def proved(device: FleetDevice) -> None:
    device.serving.commit()
    device.fleet.look()


def test_a_deployment_serves_and_proves_itself(operator: Operator, device: FleetDevice) -> None:  # [F-9] [F-15]
    assert device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    assert device.ended == []
    proved(device)
    assert [(one.deployment, dict(one.reasons)) for one in device.ended] == [("n-1", {})]
    assert device.litter == set(), "the package store has what it was"
    device.start()
    assert device.runs == {"digits": "digits/1.0"}
    assert device.serving.declared().keys() == {"digits"}


def test_a_poll_without_news_is_one_conditional_request(operator: Operator, device: FleetDevice) -> None:  # [F-1] [F-2]
    server = FleetServer(operator.folder)
    server.start()
    try:
        assert device.poll(server)
        server.asked.clear()
        assert not device.poll(server)
        ((name, headers),) = server.asked
        assert name == "metadata/timestamp.json"
        assert "if-none-match" in headers
        server.bent = {"timestamp": gives((operator.folder / "metadata/timestamp.json").read_bytes())}
        server.asked.clear()
        assert not device.poll(server), "a server without ETags"
        assert len(server.asked) == 1
        device.clock.advance(DAY + 1)
        assert device.poll(server), "once a day all is gone through"
    finally:
        server.close()


def test_unchanged_means_since_the_last_round_that_went_through(
    operator: Operator, device: FleetDevice
) -> None:  # [F-2]
    device.poll()
    operator.deploy("n-2", "1.1")
    (package,) = operator.folder.glob("targets/packages/digits/*.1.1.tar.gz")
    away = package.rename(package.with_name("away"))
    with pytest.raises(FleetError, match="there is no"):
        device.poll()
    with pytest.raises(FleetError, match="there is no"):
        device.poll()
    away.rename(package)
    assert device.poll()
    assert device.runs == {"digits": "digits/1.1"}


def test_a_package_that_is_refused(operator: Operator, device: FleetDevice) -> None:  # [F-10]
    device.poll()
    proved(device)
    device.serving.judge = lambda alias, path: "golden output differs"
    operator.deploy("n-2", "1.1")
    device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    assert dict(device.ended[-1].reasons) == {"digits": "golden output differs"}
    assert device.fleet.refused == {"digits": "golden output differs"}
    device.serving.judge = lambda alias, path: ""
    operator.deploy("n-3", "1.1")
    device.start()
    device.poll()
    assert device.runs == {"digits": "digits/1.0"}, "nor by another deployment of the same bytes"
    assert "not tried again: golden output differs" in device.ended[-1].reasons["digits"]
    operator.deploy("n-4", "1.2")
    device.poll()
    assert device.runs == {"digits": "digits/1.2"}
    assert device.litter == set()


def test_want_of_memory_says_nothing_of_a_package(operator: Operator, device: FleetDevice) -> None:  # [F-10]
    device.poll()
    proved(device)
    device.serving.judge, device.serving.passing = (lambda alias, path: "no memory"), True
    operator.deploy("n-2", "1.1")
    with pytest.raises(FleetError, match="no memory"):
        device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    device.serving.judge = lambda alias, path: ""
    device.poll()
    assert device.runs == {"digits": "digits/1.1"}


@pytest.mark.parametrize("restart", [False, True])
def test_a_version_that_is_taken_back(operator: Operator, device: FleetDevice, restart: bool) -> None:  # [F-10]
    device.poll()
    proved(device)
    operator.deploy("n-2", "1.1")
    device.poll()
    device.serving.take_back("digits", "a Predict ended with INTERNAL")
    if restart:
        device.start()
    device.fleet.look()
    assert device.runs == {"digits": "digits/1.0"}
    assert (device.ended[-1].deployment, dict(device.ended[-1].reasons)) == (
        "n-2",
        {"digits": "a Predict ended with INTERNAL"},
    )
    device.start()
    device.poll()
    assert device.runs == {"digits": "digits/1.0"}


def test_one_alias_of_two_fails(operator: Operator, device: FleetDevice) -> None:  # [F-10]
    operator.publish("1.0", name="faces")
    packages = {"digits": "packages/digits/1.1.tar.gz", "faces": "packages/faces/1.0.tar.gz"}
    device.poll()
    proved(device)
    device.serving.judge = lambda alias, path: "no" if alias == "faces" else ""
    operator.deploy("n-2", packages)
    device.poll()
    assert device.runs == {"digits": "digits/1.0"}, "rollback"
    operator.publish("1.1", name="faces")
    packages["faces"] = "packages/faces/1.1.tar.gz"
    operator.deploy("n-3", packages, rollback=False)
    device.poll()
    assert device.runs == {"digits": "digits/1.1"}, "keep"
    assert device.fleet.refused == {"faces": "no"}


def test_aliases_that_switch_together_are_declared_so(operator: Operator, device: FleetDevice) -> None:  # [F-10] [W-9]
    operator.publish("1.0", name="faces")
    operator.deploy("n-2", {"faces": "packages/faces/1.0.tar.gz"})
    device.poll()
    digits, faces = (device.serving.declared()[alias].deployment for alias in ("digits", "faces"))
    assert digits is not None
    assert digits == faces
    assert digits.models == ("digits", "faces")


def test_an_alias_leaves_the_fleet(operator: Operator, device: FleetDevice) -> None:
    from edge.fleet import rollout

    device.poll()

    def change(repository: object) -> None:
        before = repository.document(FLEET)  # type: ignore[attr-defined]
        repository.deploy(FLEET, rollout.remove(before, "n-2", ["digits"]))  # type: ignore[attr-defined]

    operator.act(change)
    device.poll()
    assert device.runs == {}
    assert device.serving.get("digits") is None


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_deployment_drops_serves_until_that_has_proved_itself(  # [F-10] [W-9]
    operator: Operator, device: FleetDevice, fails: bool
) -> None:
    from edge.fleet import rollout

    operator.publish("1.0", name="faces")
    operator.deploy("n-2", {"faces": "packages/faces/1.0.tar.gz"})
    device.poll()
    proved(device)
    assert device.litter == set()

    def change(repository: object) -> None:
        before = repository.document(FLEET)  # type: ignore[attr-defined]
        repository.deploy(FLEET, rollout.remove(before, "n-3", ["faces"]))  # type: ignore[attr-defined]

    operator.act(change)
    operator.deploy("n-4", "1.1")
    if fails:
        device.serving.judge = lambda alias, path: "no"
    device.poll()
    assert [one.name for one in device.serving.aliases.values() if one.serves] == ["digits", "faces"]
    proved(device)
    assert device.runs == ({"digits": "digits/1.0", "faces": "faces/1.0"} if fails else {"digits": "digits/1.1"})
    assert {one.name for one in device.serving.aliases.values() if one.serves} == device.runs.keys()


def test_stages(operator: Operator, tmp_path: Path) -> None:
    devices = [FleetDevice(tmp_path / f"d{n}", operator, f"press-{n}") for n in range(12)]
    counts = []
    for name, percent in (("n-2", 10.0), ("n-3", 50.0), ("n-4", 100.0)):
        operator.deploy(name, {"digits": "packages/digits/1.1.tar.gz"}, Where(percent, "d11"))
        for one in devices:
            one.poll()
        counts.append({one.home.name for one in devices if one.runs == {"digits": "digits/1.1"}})
    assert counts[0] < counts[1] < counts[2]
    assert len(counts[2]) == 12


def test_pinned(operator: Operator, device: FleetDevice) -> None:  # [F-11]
    device.serving.pin("digits")
    device.poll()
    assert device.runs == {}
    assert device.fleet.pinned == ("digits",)
    device.serving.pin("digits", pinned=False)
    device.start()
    device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    device.serving.pin("digits")
    assert device.serving.declared() == {}, "pinned from now on"


def test_a_stick_that_is_older(operator: Operator, device: FleetDevice, tmp_path: Path) -> None:  # [F-15]
    import shutil

    shutil.copytree(operator.folder, tmp_path / "stick")
    operator.deploy("n-2", "1.1")
    server = FleetServer(operator.folder)
    server.start()
    try:
        device.poll(server)
    finally:
        server.close()
    with pytest.raises(FleetError, match="BadVersionNumber"):
        device.poll(tmp_path / "stick")
    shutil.rmtree(tmp_path / "stick")
    operator.deploy("n-3", "1.2")
    shutil.copytree(operator.folder, tmp_path / "stick")
    assert device.poll(tmp_path / "stick")
    assert device.runs == {"digits": "digits/1.2"}


def test_a_full_disk(operator: Operator, device: FleetDevice, monkeypatch: pytest.MonkeyPatch) -> None:  # [F-8]
    device.poll()
    operator.deploy("n-2", "1.1")
    monkeypatch.setattr(fleet_packages, "MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(NoRoomError, match="the package needs"):
        device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    monkeypatch.undo()
    device.poll()
    assert device.runs == {"digits": "digits/1.1"}


def test_state_that_cannot_be_read(operator: Operator, device: FleetDevice) -> None:
    device.poll()
    (device.home / "fleet/state.json").write_text("{")
    device.start()
    assert device.fleet.declared() is None  # so what serves goes on
    device.poll()
    assert device.runs == {"digits": "digits/1.0"}
    assert device.fleet.declared()


def test_no_document_and_no_root(operator: Operator, tmp_path: Path) -> None:
    stranger = FleetDevice(tmp_path / "stranger", operator, fleet="elsewhere")
    with pytest.raises(FleetError, match=r"no document for this fleet: fleets/elsewhere/models\.json"):
        stranger.poll()
    rootless = FleetDevice(tmp_path / "rootless", operator, root=tmp_path / "nothing.json")
    with pytest.raises(FleetError, match=r"nothing\.json cannot be read"):
        rootless.poll()


def test_metadata_is_flushed(operator: Operator, device: FleetDevice, monkeypatch: pytest.MonkeyPatch) -> None:  # [F-5]
    """ngclient renames without a flush: every file of metadata goes through the one durable write instead."""
    written: list[str] = []
    real = fleet_metadata.durable.write_file
    monkeypatch.setattr(
        fleet_metadata.durable, "write_file", lambda path, data: (written.append(Path(path).name), real(path, data))[1]
    )
    device.poll()
    metadata = {path.name for path in (device.home / "fleet/tuf").rglob("*.json") if not path.is_symlink()}
    assert metadata <= set(written)
    assert {"1.root.json", "timestamp.json", "snapshot.json", "targets.json", f"{FLEET}.json"} <= metadata
    written.clear()
    device.start()
    device.poll()
    assert set(written) <= {"state.json"}, "nothing new, nothing written"


def test_an_agent_in_no_fleet_loads_none_of_it() -> None:
    look = "import edge.app, edge.client.main, sys; edge.client.main.make_parser('x'); print([m for m in sys.modules if m.startswith(('tuf', 'securesystemslib', 'edge.fleet'))])"
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_fleet_needs_no_urllib3() -> None:
    look = (
        "import sys; sys.modules['urllib3'] = None; sys.modules['boto3'] = None; import edge.fleet.web, edge.fleet.metadata, edge.fleet.repository;"
        "print('tuf.ngclient.updater' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"

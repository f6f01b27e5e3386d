"""Doctor on a fleet: every trouble it knows is provoked, and each finding that is not OK says what to do (F-23)."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from edge.client import doctor_fleet
from edge.client.findings import Finding, Level
from edge.config import Config, parse_config
from edge.rpc._generated import operations_pb2 as ops
from edge.settings import full_key
from tests.fakes.clock import FakeClock
from tests.fakes.fleet import DAY, FleetDevice, FleetServer, Operator, gives


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    made = Operator.made(tmp_path, FakeClock(float(int(time.time()))))
    made.publish("1.0")
    made.deploy("n-1", "1.0")
    return made


def config(tmp_path: Path, operator: Operator, repository: str, **more: str) -> Config:
    values = {
        "core_device_name": "d",
        "core_device_fleet_name": "f",
        "core_root_certs_path": str(tmp_path),
        "core_capture_data_disk_path": str(tmp_path / "captures"),
        "edge_fleet_root": str(operator.root),
        "edge_fleet_path": str(tmp_path / "device" / "fleet"),
        "edge_fleet_repository": repository,
        "edge_package_store_path": str(tmp_path / "store"),
    } | more
    return parse_config(json.dumps({full_key(k): v for k, v in values.items()}).encode()).config


def levels(findings: list[Finding]) -> list[Level]:
    assert all(bool(f.fix) == (f.level is not Level.OK) for f in findings), "a fix for all that is not OK"
    return [f.level for f in findings]


def test_a_fleet_that_is_well(tmp_path: Path, operator: Operator) -> None:  # [F-23]
    found = list(doctor_fleet.check_fleet(config(tmp_path, operator, str(operator.folder)), os.geteuid()))
    assert levels(found) == [Level.OK] * 3
    assert "version 1 (installed: 1), 2 of 3 keys, timestamp by 1 of 1" in found[0].text
    assert "timestamp" in found[2].text


def test_the_newest_root_counts(tmp_path: Path, operator: Operator) -> None:  # [F-23]
    installed = tmp_path / "root.json"
    shutil.copy(operator.root, installed)
    installed.chmod(0o444)
    operator.act(lambda repository: repository.rotate("root", None))
    device = FleetDevice(tmp_path / "device", operator)
    device.poll()

    def look(days: float) -> Finding:
        (found,) = doctor_fleet.check_root(
            installed, tmp_path / "device/fleet", os.geteuid(), operator.clock.now() + days * DAY
        )
        return found

    assert "version 2 (installed: 1)" in look(0).text
    assert look(3600).level is Level.WARN
    assert look(3700).level is Level.FAIL


def test_a_root_that_is_none(tmp_path: Path, operator: Operator) -> None:  # [F-16] [F-23]
    def look(place: Path, user: int = os.geteuid()) -> list[Finding]:
        return list(doctor_fleet.check_root(place, tmp_path / "fleet", user, operator.clock.now()))

    place = tmp_path / "root.json"
    assert levels(look(place)) == [Level.FAIL]
    place.write_text("{}")
    place.chmod(0o644)
    assert "is no root file" in look(place)[-1].text
    place.write_bytes((operator.folder / "metadata/timestamp.json").read_bytes())
    assert "is no root file" in look(place)[-1].text
    place.write_bytes(operator.root.read_bytes())
    place.chmod(0o666)
    found = look(place)
    assert levels(found) == [Level.FAIL, Level.OK]
    assert found[0].fix == f"chmod go-w {place}"


def test_repositories(tmp_path: Path, operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:  # [F-23]
    server = FleetServer(operator.folder)
    server.start()

    def look(where: str) -> Finding:
        (found,) = doctor_fleet.check_repository(config(tmp_path, operator, where))
        return found

    try:
        assert look(server.url).level is Level.OK
        server.bent = {"timestamp": gives(b"<html>log in</html>")}
        assert look(server.url).level is Level.FAIL
        server.bent = {"timestamp": gives(b"", 403)}
        assert "403" in look(server.url).text
    finally:
        server.close()
    away = look(server.url)
    assert away.level is Level.FAIL
    assert "HTTPS_PROXY" in away.fix
    operator.clock.advance(-15 * DAY)
    operator.timestamp()
    old = look(str(operator.folder))
    assert old.level is Level.FAIL
    assert "ended 1.0 days ago" in old.text
    assert look(str(tmp_path / "nowhere")).level is Level.FAIL
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    through = look("https://models.example.invalid/repo")
    assert "through the proxy 127.0.0.1:9" in through.text
    assert "secret" not in through.text


def test_a_folder_without_room(tmp_path: Path, operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:  # [F-23]
    def look() -> list[Finding]:
        return list(doctor_fleet.check_room(tmp_path / "fleet", os.geteuid()))

    assert levels(look()) == [Level.OK]
    monkeypatch.setattr(doctor_fleet, "LOW_BYTES", 1 << 60)
    assert levels(look()) == [Level.WARN]
    monkeypatch.setattr("edge.fleet.packages.MIN_FREE_BYTES", 1 << 60)
    assert levels(look()) == [Level.FAIL]
    (tmp_path / "fleet").write_text("")
    assert "is not a folder" in look()[0].text


def test_how_the_last_round_ended() -> None:  # [F-23]
    def look(**status: object) -> list[Finding]:
        return list(doctor_fleet.standing(ops.FleetStatus(fleet="f", **status), 100_000.0))

    good = look(deployment="n-1", state="committed", checked_unix_seconds=99_000, judged_by="the clock")
    assert levels(good) == [Level.OK]
    assert "deployment n-1, committed" in good[0].text
    assert levels(look()) == [Level.OK]
    assert levels(look(last_error="503", checked_unix_seconds=99_000)) == [Level.WARN]
    assert levels(look(last_error="503", checked_unix_seconds=5_000)) == [Level.FAIL]
    assert levels(look(last_error="503")) == [Level.FAIL]
    bad = look(models=[ops.FleetModel(name="digits", refused="golden output differs")], checked_unix_seconds=99_000)
    assert levels(bad) == [Level.FAIL]


def test_an_agent_in_no_fleet(tmp_path: Path, operator: Operator) -> None:
    settings = config(tmp_path, operator, str(operator.folder))
    from dataclasses import replace

    assert list(doctor_fleet.check_fleet(replace(settings, edge_fleet_root=""), 0)) == []

"""`doctor` on models that stay: declarations and the package store (M-13)."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edge.client.doctor_models import check_models
from edge.client.findings import Level
from edge.deploy.declaration import Declaration, Together
from tests.fakes import packages
from tests.unit.test_deployment_together import write
from tests.unit.test_deployments import Device, damage, device, proven

__all__ = ["device"]


def found(device: Device, *, agent: int | None = None, most: int = 100, **changes: Any) -> dict[Level, list[str]]:
    """What it finds, by level."""
    config: Any = SimpleNamespace(
        edge_models_path=str(device.models),
        edge_package_store_path=str(device.home / "store"),
        edge_package_store_max_mib=most,
        core_root_certs_path=str(packages.trust(device.home)),
    )
    listed: dict[Level, list[str]] = {level: [] for level in Level}
    for one in check_models(config, os.geteuid() if agent is None else agent):
        listed[one.level].append(f"{one.text} -> {one.fix}")
    return listed


def test_nothing_declared_is_nothing_to_say(device: Device) -> None:  # [M-13]
    assert not any(found(device).values())


def test_what_serves_is_well(device: Device) -> None:  # [M-13]
    proven(device, "1")
    proven(device, "2")
    said = found(device)
    assert (said[Level.WARN], said[Level.FAIL], len(said[Level.OK])) == ([], [], 4), said


def test_faulty_declarations(device: Device) -> None:  # [M-13] [M-3]
    proven(device, "1")
    (device.models / "bad.json").write_text("{")
    write(device, "gone", Declaration("/nowhere"))
    write(device, "half", Declaration(str(device.package("1")), deployment=Together("d", ("half", "m"))))
    (device.models / "half.json").chmod(0o666)
    said = found(device)
    assert any("bad.json is not JSON" in one and "models set bad PACKAGE" in one for one in said[Level.FAIL])
    assert any("gone: there is no package at /nowhere" in one for one in said[Level.FAIL])
    assert any("the deployment d is not whole: m is not declared as of it" in one for one in said[Level.WARN])
    assert any("half.json has mode 0666" in one and "chmod go-w" in one for one in said[Level.WARN])


def test_a_folder_that_is_none(device: Device) -> None:  # [M-13]
    device.models.rmdir()
    device.models.write_text("")
    assert "cannot be read" in found(device)[Level.FAIL][0]


def test_packages_that_are_missing_or_damaged(device: Device) -> None:  # [M-13] [M-6]
    proven(device, "1")
    proven(device, "2")
    state = device.managed.state
    assert state.current is not None and state.previous is not None
    damage(device.store.path(state.current))
    shutil.rmtree(device.store.path(state.previous))
    said = found(device)[Level.FAIL]
    assert any("adder 2" in one and "altered" in one for one in said)
    assert any("m: adder 1 is missing" in one and "models set m " in one for one in said)


def test_a_store_that_is_full_or_not_the_agents(device: Device) -> None:  # [M-13] [M-6]
    assert device.declare(device.package("1", spare=1 << 20)).refused == ""
    said = found(device, most=1)
    assert any("it is full, or nearly so" in one for one in said[Level.WARN])
    said = found(device, agent=os.geteuid() + 1)
    assert any("does not belong to the agent's user" in one and "chown -R" in one for one in said[Level.FAIL])
    store = device.home / "store"
    (store / "state.json.unreadable").write_text("")
    store.chmod(0o777)
    said = found(device)
    assert any("others may write to" in one for one in said[Level.WARN])
    assert any("was set aside" in one for one in said[Level.WARN])
    (store / "state.json").write_text("{")
    assert "state.json is not JSON" in found(device)[Level.FAIL][0]


def test_a_store_that_one_may_not_read(device: Device, tmp_path: Path) -> None:  # [M-13]
    proven(device, "1")
    (device.home / "store" / "state.json").unlink()
    (device.home / "store" / "state.json").symlink_to(tmp_path / "elsewhere")
    said = found(device)
    assert any("cannot be examined" in one for one in said[Level.WARN]) and not said[Level.FAIL]

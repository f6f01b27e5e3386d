"""Declared models where something is amiss: with the store, the disk, or the end of the agent (M-3, M-6, W-7)."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from edge.deploy.declaration import MAX_DECLARATIONS, MAX_PATH_CHARACTERS
from edge.deploy.state import MAX_BAD, MAX_STATE_BYTES, AliasState, Bad, Version, parse, to_bytes
from edge.deploy.store import MIB, Store
from edge.serving.registry import MAX_NAME_CHARACTERS
from tests.unit.test_deployments import Device, device, proven

__all__ = ["device"]


# --- the folder of the store -----------------------------------------------------


def test_what_is_not_the_stores_own_stays(device: Device) -> None:  # [M-6]
    theirs = device.home / "store" / "captures"
    theirs.mkdir(parents=True)
    (theirs / "one").write_text("1")
    (device.home / "store" / "notes.tmp").write_text("2")
    proven(device, "1")
    device.restart()
    assert (theirs / "one").read_text() == "1"
    assert (device.home / "store" / "notes.tmp").read_text() == "2"


def test_a_package_that_cannot_be_removed_keeps_no_other(  # [M-6]
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven(device, "1")
    left = [device.home / "store" / (digit * 64 + ".tmp") for digit in "01"]
    for path in left:
        path.mkdir()
    remove, fails = shutil.rmtree, [True]

    def rmtree(path: Path, **options: bool) -> None:
        if fails.pop():
            fails.append(False)
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        fails.append(False)
        remove(path, **options)

    monkeypatch.setattr("edge.deploy.store.shutil.rmtree", rmtree)
    device.restart()
    assert (device.predict(), sum(path.exists() for path in left)) == (1, 1)


def test_while_a_state_is_set_aside_no_package_is_removed(device: Device) -> None:  # [M-6]
    proven(device, "1")
    proven(device, "2")
    device.end()
    (device.home / "store" / "state.json").write_text("{")
    device.start()
    device.restart()
    assert len([path for path in (device.home / "store").iterdir() if path.is_dir()]) == 2
    (device.home / "store" / "state.json.unreadable").unlink()
    device.restart()
    assert len([path for path in (device.home / "store").iterdir() if path.is_dir()]) == 1


def test_the_longest_state_can_be_read_again() -> None:  # [M-6]
    path = "/" + "\x01" * (MAX_PATH_CHARACTERS - 1)
    version = Version("0" * 64, path, "n" * 255, "v" * 255, 1.0)
    state = AliasState(version, version, version, 1, [Bad("0" * 64, path, str(version), "r" * 255)] * MAX_BAD)
    data = to_bytes({"m" * MAX_NAME_CHARACTERS: state})
    assert parse(data) == {"m" * MAX_NAME_CHARACTERS: state}
    assert len(data) * MAX_DECLARATIONS <= MAX_STATE_BYTES


def test_a_store_that_cannot_be_looked_into_is_none(tmp_path: Path) -> None:  # [M-3]
    device = Device(tmp_path)
    device.make()
    device.store = Store(tmp_path / ("n" * 300), MIB, device._accept)
    device.deployments._store = device.store
    assert device.deployments.prepare() == []

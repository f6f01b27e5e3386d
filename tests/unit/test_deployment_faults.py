"""Declared models where something is amiss: with the store, the disk, or the end of the agent (M-3, M-6, W-7)."""

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge import durable
from edge.deploy import folder, store
from edge.deploy.declaration import MAX_DECLARATIONS, MAX_DEPLOYMENT_CHARACTERS, MAX_PATH_CHARACTERS
from edge.deploy.proof import COMMIT_PREDICTS
from edge.deploy.state import MAX_BAD, MAX_STATE_BYTES, AliasState, Bad, Standing, State, Version, parse, to_bytes
from edge.deploy.store import MIB, Store
from edge.errors import ModelNotFoundError, StoreError
from edge.serving.loading import LoadedModel
from edge.serving.registry import MAX_NAME_CHARACTERS
from tests.fakes import signing_pki
from tests.unit.test_deployments import Device, damage, device, proven
from tests.unit.test_loads import Call

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
    state.deployment, state.waiting, state.elsewhere = "d" * MAX_DEPLOYMENT_CHARACTERS, True, True
    kept = State({"m" * MAX_NAME_CHARACTERS: state}, [Standing("d", "refused", "r")])
    data = to_bytes(kept)
    assert parse(data) == kept
    assert len(data) * MAX_DECLARATIONS <= MAX_STATE_BYTES


def test_a_store_that_cannot_be_looked_into_is_none(tmp_path: Path) -> None:  # [M-3]
    device = Device(tmp_path)
    device.make()
    device.store = Store(tmp_path / ("n" * 300), MIB, device._accept, device._signed)
    device.deployments._kept.store = device.store
    assert device.deployments.prepare() == []


def test_what_nobody_trusted_has_signed_is_not_copied(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:  # [M-6]
    copied: list[str] = []
    write = store._write
    monkeypatch.setattr(store, "_write", lambda path, chunks: (copied.append(path.name), write(path, chunks))[1])
    stranger = signing_pki.root("stranger", number=9)
    assert "not trusted" in device.declare(device.package("1", signing_pki.signer(stranger))).refused
    assert copied == []
    unsigned = device.package("2")
    (unsigned / "a").write_bytes(bytes(1 << 20))
    assert "'a' is not signed" in device.declare(unsigned).refused
    assert "a" not in copied
    assert not [path for path in (device.home / "store").iterdir() if path.is_dir()]


# --- a damaged package -------------------------------------------------------------


def test_a_damaged_package_is_copied_again(device: Device) -> None:  # [M-6]
    proven(device, "1")
    proven(device, "2")
    device.end()
    current = device.managed.state.current
    assert current is not None
    damage(device.store.path(current))
    device.start()
    assert (device.predict(), device.managed.refused, device.state) == (2, "", ("", "2", "1"))
    device.end()
    damage(device.store.path(current))
    (device.home / "store" / "state.json").unlink()
    device.start()  # it is not known which it was
    assert (device.predict(), device.managed.refused) == (2, "")


def test_a_version_that_was_taken_back_says_so_though_its_file_is_gone(device: Device) -> None:  # [W-7] [M-3]
    proven(device, "1")
    two = device.package("2")
    device.declare(two)
    shutil.rmtree(two)
    device.restart()
    device.restart()
    assert (device.predict(), device.state) == (1, ("", "1", ""))
    assert "adder 2 was taken back: the agent ended 2 times" in device.managed.refused


# --- an end that is clean ----------------------------------------------------------


def test_a_clean_stop_during_a_change_counts_for_nothing(device: Device) -> None:  # [W-7]
    proven(device, "1")
    device.declare(device.package("2"))
    for _ in range(3):
        with device.deployments._work:  # a change is under way, and takes its time
            device.end(cleanly=True)
        device.start()
        assert (device.predict(), device.state) == (2, ("2", "1", ""))


def test_a_clean_end_counts_once(device: Device) -> None:  # [W-7]
    proven(device, "1")
    device.declare(device.package("2"))
    device.restart(cleanly=True)
    device.restart()
    assert device.state == ("2", "1", "")
    device.restart()
    assert (device.predict(), device.state) == (1, ("", "1", ""))


def test_a_stop_during_a_start_leaves_the_version_on_trial(device: Device) -> None:  # [W-7]
    proven(device, "1")
    two = device.package("2")
    device.declare(two)
    shutil.rmtree(two)
    device.end(cleanly=True)
    device.make()
    device.deployments.prepare()
    device.registry.stop_loads()
    device.deployments.start(lambda name: None)
    device.restart(cleanly=True)
    assert (device.predict(), device.state) == (2, ("2", "1", ""))


def test_a_version_on_trial_that_finds_no_memory_is_kept(device: Device) -> None:  # [W-7] [L-6]
    proven(device, "1")
    device.declare(device.package("2"))
    device.end(cleanly=True)
    device.make(budget_bytes=1)
    device.deployments.prepare()
    device.deployments.start(lambda name: None)
    assert device.state == ("2", "1", "")
    device.restart(cleanly=True)
    assert device.predict() == 2


def test_runs_that_had_no_memory_for_it_say_nothing_of_a_version(device: Device) -> None:  # [W-7] [L-6]
    proven(device, "1")
    device.declare(device.package("2"))
    for _ in range(3):  # each run finds no memory for it, and crashes
        device.end()
        device.make(budget_bytes=1)
        device.deployments.prepare()
        device.deployments.start(lambda name: None)
        assert device.state == ("2", "1", "")
    device.restart()
    assert (device.predict(), device.state) == (2, ("2", "1", ""))
    device.restart()
    assert (device.predict(), device.state) == (1, ("", "1", ""))


def test_a_version_that_never_served_does_not_hold_up_what_did(  # [M-6] [W-1]
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven(device, "1")
    device.declare(device.package("2"))
    device.end(cleanly=True)
    device.make()
    device.deployments.prepare()
    trying = device.managed.state.trying
    assert trying is not None and trying.since
    device.managed.state.trying = dataclasses.replace(trying, since=0.0)  # as a stop in its trial leaves it
    served: list[str] = []
    begin = device.registry.swap

    def swap(name: str, url: str, caller: Call, **options: bool) -> LoadedModel:
        model = begin(name, url, caller, **options)
        served.append(model.manifest.model_version)
        return model

    monkeypatch.setattr(device.registry, "swap", swap)
    device.deployments.start(lambda name: None)
    assert (served, device.predict(), device.state) == (["1", "2"], 2, ("2", "1", ""))
    device.restart(cleanly=True)
    assert device.managed.state.trying is not None and device.managed.state.trying.since


# --- a disk that is full, or read only ------------------------------------------------


class Disk:
    """A disk that takes no state while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int = errno.ENOSPC) -> None:
        self.full = True
        write = durable.write_file

        def write_file(path: Path, data: bytes) -> None:
            if self.full:
                raise OSError(number, os.strerror(number), str(path))
            write(path, data)

        monkeypatch.setattr(durable, "write_file", write_file)


def test_with_a_full_disk_what_is_in_the_store_serves(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:  # [M-3]
    proven(device, "1")
    device.declare(device.package("2"))
    Disk(monkeypatch)
    device.restart()
    assert (device.predict(), device.managed.refused, device.state) == (2, "", ("2", "1", ""))


def test_a_state_that_could_not_be_read_is_not_written_over(  # [M-6]
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven(device, "1")
    device.end(cleanly=True)
    known = (device.home / "store" / "state.json").read_bytes()
    reader = durable.reader

    def failing(path: Path) -> Any:
        if path == device.home / "store" / "state.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return reader(path)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "reader", failing)
        device.start()
        device.deployments._kept.unsaved = True  # as after a change that could not be written down
        device.deployments.look()
        device.end(cleanly=True)
    assert (device.home / "store" / "state.json").read_bytes() == known
    device.start()
    assert device.predict() == 1


def test_a_read_only_store_serves(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:  # [M-3] [M-6]
    proven(device, "1")
    device.declare(device.package("2"))
    device.end()
    Disk(monkeypatch, errno.EROFS)
    opened = os.open

    def read_only(path: Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY and Path(path).parent == device.home / "store":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", read_only)
    device.start()
    assert (device.predict(), device.managed.refused) == (2, "")
    with pytest.raises(StoreError, match="another agent's"):
        Store(device.home / "store", MIB, device._accept, device._signed).claim()


def test_a_proof_is_written_down_once_the_disk_has_room(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """[W-6]"""
    proven(device, "1")
    device.declare(device.package("2"))
    disk = Disk(monkeypatch)
    device.predict(COMMIT_PREDICTS)
    device.deployments.look()
    disk.full = False
    device.deployments.look()
    device.restart()
    assert (device.predict(), device.state) == (2, ("", "2", "1"))


def test_a_rollback_is_written_down_once_the_disk_has_room(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """[W-7]"""
    proven(device, "1")
    proven(device, "2")
    disk = Disk(monkeypatch)
    with pytest.raises(StoreError, match=r"adder 1 serves again, which is not written down yet: .*No space left"):
        device.deployments.rollback("m", Call())
    assert (device.predict(), device.managed.refused) == (1, "adder 2 was taken back: it was rolled back by hand")
    disk.full = False
    device.deployments.look()
    device.restart()
    assert (device.predict(), device.state) == (1, ("", "1", ""))


def test_a_name_that_cannot_be_forgotten_serves_on(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:  # [M-2] [M-3]
    proven(device, "1")
    disk = Disk(monkeypatch)
    folder.write(folder.path_of(device.models, "m"), None)
    (one,) = device.deployments.apply(["m"], Call())
    assert "cannot be written: No space left" in one.refused
    assert (device.predict(), device.deployments.get("m")) == (1, one)
    disk.full = False
    (one,) = device.deployments.apply(["m"], Call())
    assert (one.refused, device.deployments.get("m")) == ("", None)
    with pytest.raises(ModelNotFoundError):
        device.predict()


def test_what_served_before_goes_when_the_store_is_full(tmp_path: Path) -> None:  # [F-8] [M-6]
    """The version before the current one, never that one, and only where there is no room without."""
    device = Device(tmp_path, store_mib=1)
    device.start()
    try:
        for version in ("1", "2"):
            assert device.declare(device.package(version, spare=400_000)).refused == ""
            device.predict(COMMIT_PREDICTS)
            device.deployments.look()
        assert device.state == ("", "2", "1")
        assert device.declare(device.package("3", spare=400_000)).refused == ""
        assert device.state == ("3", "2", "")
        device.predict(COMMIT_PREDICTS)
        device.deployments.look()
        assert device.state == ("", "3", "2")
        refused = device.declare(device.package("4", spare=1 << 20)).refused
        assert "no room in the store" in refused
        assert device.predict() == 3
        device.restart()
        assert device.predict() == 3
        assert device.state == ("", "3", "")
    finally:
        device.end()

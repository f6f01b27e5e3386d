"""Declared models where something cannot be done now: it is done later, and costs nothing else (W-6, M-3, F-8)."""

import errno
import os
import threading
from typing import Any

import pytest

from edge.deploy.deployments import TAKE_BACK_SECONDS
from edge.deploy.proof import COMMIT_PREDICTS
from edge.errors import MemoryLimitError
from tests.unit.test_deployments import Device, device, proven

__all__ = ["device"]


def taken_back(device: Device) -> None:
    """Have the housekeeping look, and what that begins be over."""
    device.deployments.look()
    for thread in threading.enumerate():
        if thread.name == "take back m":
            thread.join()


def test_what_failed_is_taken_back_once_that_can_be_done(  # [W-6]
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    proven(device, "1")
    device.declare(device.package("2"))
    device.registry.get("m").remarks.count_failed()
    with monkeypatch.context() as patch:
        patch.setattr(device.registry, "swap", fails_with(MemoryLimitError("it needs more than there is")))
        taken_back(device)
        device.predict(COMMIT_PREDICTS)
        taken_back(device)
    assert (device.predict(), device.state) == (2, ("2", "1", "")), "nor has it proved itself meanwhile"
    device.clock.advance(TAKE_BACK_SECONDS)
    taken_back(device)
    assert (device.predict(), device.state) == (1, ("", "1", ""))
    assert "INTERNAL" in device.managed.refused


def fails_with(error: Exception) -> Any:
    def fails(*given: object, **named: object) -> Any:
        raise error

    return fails


@pytest.mark.parametrize(("number", "passing"), [(errno.EIO, True), (errno.EFBIG, True), (errno.ENAMETOOLONG, False)])
def test_only_where_room_is_wanted_earlier_versions_make_some(  # [F-8] [M-3]
    device: Device, monkeypatch: pytest.MonkeyPatch, number: int, passing: bool
) -> None:
    proven(device, "1")
    proven(device, "2")
    monkeypatch.setattr("edge.deploy.store._write", fails_with(OSError(number, os.strerror(number))))
    one = device.declare(device.package("3"))
    assert os.strerror(number) in one.refused and one.passing is passing
    assert (device.predict(), device.state) == (2, ("", "2", "1"))

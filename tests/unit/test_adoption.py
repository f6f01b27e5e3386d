"""READY while declared models take long, and the LoadModel of one that is still on its way (M-4)."""

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edge.deploy import declaration, folder
from edge.deploy.adoption import MAX_READY_SECONDS, Models
from edge.deploy.declaration import Declaration
from edge.deploy.note import CRASHES_SECONDS, Note
from edge.errors import ModelExistsError, ModelNotFoundError, StoppingError
from edge.package.open import Package
from edge.rpc._generated import open_inference_pb2 as pb
from edge.rpc.oip.servicer import InferenceServicer
from edge.rpc.servicer import Servicer
from tests.unit.test_deployments import Device
from tests.unit.test_loads import PATIENCE_SECONDS, Call, in_thread


class Slow(Device):
    """A device with a declared model whose package is checked once `go` is set; a start is under way."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.go, self.asked, self.ready = threading.Event(), threading.Event(), threading.Event()
        self.make()
        wanted = declaration.to_bytes(Declaration(str(self.package("1"))))
        folder.write(folder.path_of(self.models, "m"), wanted)
        self.calls = Models(self.registry, self.deployments, Note(None, self.clock), self.clock)
        self.calls.prepare(self.ready.set)
        self.calls.start()
        assert self.asked.wait(PATIENCE_SECONDS)

    def _accept(self, url: str, go_on: Callable[[], None]) -> Package:
        self.asked.set()
        assert self.go.wait(PATIENCE_SECONDS)
        return super()._accept(url, go_on)


class Waits(Call):
    """A call that tells when it begins to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def time_remaining(self) -> float | None:
        self.asked.set()
        return super().time_remaining()


def noted(home: Path) -> dict[str, str]:
    """The models in the note."""
    found: dict[str, str] = json.loads((home / "models.json").read_text())["models"]
    return found


def server_is_ready(device: Slow) -> bool:
    """The answer of ServerReady."""
    no: Any = None
    servicer = Servicer(
        device.registry, no, no, models=device.calls, max_message_bytes=1 << 20, describe=lambda: None, regions=no
    )
    door = InferenceServicer(servicer, device.registry, device.calls, device.clock, version="1")
    return bool(pb.ServerReadyResponse.FromString(door.server_ready(b"", Call())).ready)


def test_ready_comes_in_time_and_a_load_of_a_declared_name_waits(tmp_path: Path) -> None:  # [M-4] [M-8] [O-2]
    device = Slow(tmp_path)
    loaded: list[str] = []
    caller, errors = in_thread(lambda: loaded.append(device.calls.load("m", "/elsewhere", Call()).url))
    device.clock.advance(MAX_READY_SECONDS - 1)
    device.calls.look()
    assert not device.ready.is_set() and not server_is_ready(device) and not loaded
    device.go.set()
    caller.join(PATIENCE_SECONDS)
    assert not errors and loaded == [device.registry.get("m").url]
    assert device.ready.wait(PATIENCE_SECONDS) and server_is_ready(device)
    device.end()


def test_ready_does_not_wait_for_ever(tmp_path: Path) -> None:  # [M-4]
    device = Slow(tmp_path)
    device.clock.advance(MAX_READY_SECONDS)
    device.calls.look()
    assert device.ready.is_set()
    device.go.set()
    for thread in threading.enumerate():
        if thread.name == "declared models":
            thread.join()
    assert device.predict() == 1
    device.end()


def test_the_repositorys_load_adopts_a_declared_model_and_replaces_none(tmp_path: Path) -> None:  # [O-15] [M-9] [M-10]
    device = Slow(tmp_path)
    device.go.set()
    assert device.ready.wait(PATIENCE_SECONDS)
    declared = device.registry.get("m")
    other = str(device.package("2"))
    assert device.calls.replace("m", lambda: other, Call()) is declared
    with pytest.raises(ModelExistsError):
        device.calls.replace("m", lambda: other, Call())
    device.calls.unload("m")
    assert device.registry.get("m") is declared
    device.end()


def test_the_repositorys_load_replaces_what_an_application_loaded(tmp_path: Path) -> None:  # [O-15] [M-7]
    device = Device(tmp_path)
    device.make()
    calls = Models(device.registry, device.deployments, Note(tmp_path, device.clock), device.clock)
    calls.prepare(lambda: None)
    calls.start()
    for version in ("1", "2"):
        url = str(device.package(version))
        assert calls.replace("m", partial(str, url), Call()).manifest.model_version == version
        assert noted(tmp_path) == {"m": url}
    calls.unload("m")
    assert noted(tmp_path) == {}
    device.end()


def test_a_load_that_comes_before_the_start_waits_for_it(tmp_path: Path) -> None:  # [M-4] [M-8]
    device = Device(tmp_path)
    device.make()
    folder.write(folder.path_of(device.models, "m"), declaration.to_bytes(Declaration(str(device.package("1")))))
    calls = Models(device.registry, device.deployments, Note(None, device.clock), device.clock)
    calls.prepare(lambda: None)
    loaded: list[str] = []
    waits = Waits()
    caller, errors = in_thread(lambda: loaded.append(calls.load("m", str(device.package("2")), waits).url))
    assert waits.asked.wait(PATIENCE_SECONDS) and not loaded
    calls.start()
    caller.join(PATIENCE_SECONDS)
    assert not errors and loaded == [device.registry.get("m").url]
    assert device.predict() == 1 and device.managed.refused == ""
    device.end()


def test_a_load_that_waits_ends_with_the_agent(tmp_path: Path) -> None:  # [L-12] [M-4]
    device = Slow(tmp_path)
    waits = Waits()
    caller, errors = in_thread(lambda: device.calls.load("m", "/elsewhere", waits))
    assert waits.asked.wait(PATIENCE_SECONDS)
    device.registry.stop_loads()
    device.calls.end_waits()
    caller.join(PATIENCE_SECONDS)
    assert [type(error) for error in errors] == [StoppingError]
    device.go.set()
    assert device.ready.wait(PATIENCE_SECONDS)
    device.end()


def test_a_restored_name_that_was_loaded_first_stays_noted(tmp_path: Path) -> None:  # [M-7]
    device = Device(tmp_path)
    device.make()
    url = str(device.package("1"))
    Note(tmp_path, device.clock).put("m", url)
    calls = Models(device.registry, device.deployments, Note(tmp_path, device.clock), device.clock)
    ready = threading.Event()
    calls.prepare(ready.set)
    device.registry.load("m", url, Call())  # as the LoadModel of a call that is over its time to wait does
    calls.start()
    assert ready.wait(PATIENCE_SECONDS)
    assert noted(tmp_path) == {"m": url} and device.predict() == 1
    device.end()


def test_a_name_whose_declaration_fails_is_the_applications(tmp_path: Path) -> None:  # [M-3] [M-8] [M-10]
    device = Device(tmp_path)
    device.make()
    folder.write(folder.path_of(device.models, "m"), declaration.to_bytes(Declaration("/nowhere")))
    calls = Models(device.registry, device.deployments, Note(None, device.clock), device.clock)
    ready = threading.Event()
    calls.prepare(ready.set)
    calls.start()
    assert ready.wait(PATIENCE_SECONDS)
    for version in ("1", "2"):
        calls.load("m", str(device.package(version)), Call())
        assert device.predict() == float(version)
        with pytest.raises(ModelExistsError):
            calls.load("m", "/elsewhere", Call())
        calls.unload("m")
        with pytest.raises(ModelNotFoundError):
            device.registry.get("m")
    with pytest.raises(ModelNotFoundError):
        calls.unload("m")
    device.end()


def test_what_a_declared_model_replaced_is_not_restored(tmp_path: Path) -> None:  # [M-1] [M-7]
    device = Device(tmp_path)
    device.make()
    calls = Models(device.registry, device.deployments, Note(tmp_path, device.clock), device.clock)
    calls.prepare(lambda: None)
    calls.start()
    url = str(device.package("1"))
    calls.load("m", url, Call())
    assert device.declare(Path("/nowhere")).refused and noted(tmp_path) == {"m": url}
    assert device.declare(device.package("2")).refused == "" and device.predict() == 2
    assert noted(tmp_path) == {}
    device.end()


def test_what_serves_where_the_declaration_fails_is_restored(tmp_path: Path) -> None:  # [M-1] [M-3] [M-7]
    device = Device(tmp_path)
    url, package = str(device.package("1")), device.package("2")

    def begin(declared: Path) -> Models:
        device.make()
        folder.write(folder.path_of(device.models, "m"), declaration.to_bytes(Declaration(str(declared))))
        calls = Models(device.registry, device.deployments, Note(tmp_path, device.clock), device.clock)
        ready = threading.Event()
        calls.prepare(ready.set)
        calls.start()
        assert ready.wait(PATIENCE_SECONDS)
        return calls

    begin(Path("/nowhere")).load("m", url, Call())
    device.end()  # a crash
    calls = begin(Path("/nowhere"))
    assert device.predict() == 1 and calls.load("m", url, Call()).url == url
    device.end()
    device.clock.advance(CRASHES_SECONDS)
    begin(package)  # what is declared goes before what was called for
    assert device.predict() == 2 and noted(tmp_path) == {}
    device.end()

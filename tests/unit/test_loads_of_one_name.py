"""Two applications that load one model at boot: the second hears of it once the model serves (L-2)."""

import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import DeadlineError, MemoryLimitError, ModelExistsError
from edge.host import descriptors
from edge.serving.loads import MAX_WAITING, Load
from edge.serving.registry import Registry
from tests.fakes import packages
from tests.unit.test_loads import DATA, PATIENCE_SECONDS, Call, in_thread, registry_of


class Gate:
    """Holds the first load where its package would be opened, until it is told how that goes."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.fault: Exception | None = None

    def __call__(self, url: str, load: Load) -> None:
        if not self.entered.is_set():
            self.entered.set()
            assert self.opened.wait(PATIENCE_SECONDS)
            if self.fault is not None:
                raise self.fault

    def open(self, fault: Exception | None = None) -> None:
        """Let it go on, or fail."""
        self.fault = fault
        self.opened.set()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def package(tmp_path: Path) -> str:
    content = (DATA / "add_one.tflite").read_bytes()
    return str(packages.write_folder(tmp_path / "p", packages.files_of({"digits.tflite": content})))


@pytest.fixture
def registry(tmp_path: Path, gate: Gate) -> Registry:
    return registry_of(tmp_path, gate)


def load(registry: Registry, package: str, call: Call) -> Callable[[], None]:
    """The load, for a thread."""

    def work() -> None:
        registry.load("m", package, call)

    return work


def until_waiting(registry: Registry, count: int) -> None:
    with registry._loads.changed:
        while registry._loads._waiting < count:
            registry._loads.changed.wait(0.01)


def test_the_second_is_told_once_the_model_serves(registry: Registry, gate: Gate, package: str) -> None:  # [L-2]
    first, first_errors = in_thread(load(registry, package, Call()))
    assert gate.entered.wait(PATIENCE_SECONDS)
    second, second_errors = in_thread(load(registry, package, Call()))
    until_waiting(registry, 1)
    gate.open()
    for thread in (first, second):
        thread.join(PATIENCE_SECONDS)
    assert not first_errors
    (error,) = second_errors
    assert isinstance(error, ModelExistsError) and str(error) == "model 'm' is already loaded"
    registry.unload("m")


def test_the_second_loads_it_where_the_first_fails(registry: Registry, gate: Gate, package: str) -> None:  # [L-2]
    first, first_errors = in_thread(load(registry, package, Call()))
    assert gate.entered.wait(PATIENCE_SECONDS)
    second, second_errors = in_thread(load(registry, package, Call()))
    until_waiting(registry, 1)
    gate.open(DeadlineError("went away"))
    for thread in (first, second):
        thread.join(PATIENCE_SECONDS)
    assert [type(error) for error in first_errors] == [DeadlineError]
    assert not second_errors
    assert registry.get("m").name == "m"
    registry.unload("m")


@pytest.mark.parametrize("how", ["its deadline is near", "it goes away", "the agent stops"])
def test_it_waits_no_longer_than_it_may(registry: Registry, gate: Gate, package: str, how: str) -> None:  # [L-2] [L-12]
    first, _ = in_thread(load(registry, package, Call()))
    assert gate.entered.wait(PATIENCE_SECONDS)
    call = Call(1.01 if how == "its deadline is near" else None)
    second, errors = in_thread(load(registry, package, call))
    if how != "its deadline is near":
        until_waiting(registry, 1)
        call.leave() if how == "it goes away" else registry.stop_loads()
    second.join(PATIENCE_SECONDS)
    assert [str(error) for error in errors] == ["model 'm' is already being loaded"]
    gate.open()
    first.join(PATIENCE_SECONDS)
    for model in registry.models():
        registry.unload(model.name)


def test_no_more_wait_than_are_allowed(registry: Registry, gate: Gate, package: str) -> None:  # [L-2]
    threads = [in_thread(load(registry, package, Call()))]
    assert gate.entered.wait(PATIENCE_SECONDS)
    threads += [in_thread(load(registry, package, Call())) for _ in range(MAX_WAITING)]
    until_waiting(registry, MAX_WAITING)
    with pytest.raises(ModelExistsError, match="already being loaded"):
        registry.load("m", package, Call())
    gate.open()
    for thread, _ in threads:
        thread.join(PATIENCE_SECONDS)
    assert [len(errors) for _, errors in threads] == [0] + [1] * MAX_WAITING
    registry.unload("m")


def test_a_load_without_descriptors_says_so(registry: Registry, gate: Gate, package: str) -> None:  # [L-6] [L-9]
    gate.entered.set()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (packages.open_files() + 5, hard))
    try:
        with pytest.raises(MemoryLimitError, match=r"takes up to 32 descriptors and \d of \d+ are free.*LimitNOFILE"):
            registry.load("m", package, Call())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not registry.states()
    descriptors.make_sure_of(1)

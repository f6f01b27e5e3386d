"""Loads beside each other: their turns, their ends, and the memory that they are promised."""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.engine.engines import Engines
from edge.errors import DeadlineError, LoadQueueFullError, MemoryLimitError, ModelNotFoundError, StoppingError
from edge.host import memory
from edge.package.open import Package, open_package
from edge.serving import loading
from edge.serving import loads as loads_of
from edge.serving.loading import ModelDefaults
from edge.serving.loads import MAX_LOADS, MAX_VERIFYING, MIB, Load, Loads
from edge.serving.registry import Registry
from tests.fakes import packages
from tests.fakes.clock import FakeClock
from tests.fakes.signing_pki import NOW

DATA = Path(__file__).parents[1] / "data"
PATIENCE_SECONDS = 60
NEVER_SECONDS = 3600.0


class Call:
    """A client's call."""

    def __init__(self, remaining: float | None = None) -> None:
        self._remaining = remaining
        self._leave: Callable[[], None] | None = None
        self.gone = False

    def time_remaining(self) -> float | None:
        return self._remaining

    def step_aside(self) -> None:
        """Nobody else is here."""

    def after_answer(self, callback: Callable[[], None]) -> None:
        callback()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self._leave = callback
        return not self.gone

    def leave(self) -> None:
        assert self._leave is not None
        self._leave()


@pytest.fixture
def loads() -> Loads:
    return Loads(SystemClock(), 0, lambda: 0)


def in_thread(work: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


# --- turns ---------------------------------------------------------------------


def test_several_verify_at_once_and_one_is_tried_out(loads: Loads) -> None:  # [L-8]
    inside, done, most = threading.Barrier(MAX_VERIFYING + 1), threading.Event(), [0]
    trying = threading.Lock()

    def one() -> None:
        with loads.begin(Load(loads, Call())) as load:
            with loads.verifying(load):
                inside.wait(PATIENCE_SECONDS)
                assert done.wait(PATIENCE_SECONDS)
            with loads.opening(load):
                assert trying.acquire(blocking=False)
                most[0] += 1
                trying.release()

    threads = [in_thread(one) for _ in range(MAX_VERIFYING)]
    inside.wait(PATIENCE_SECONDS)
    done.set()
    for thread, errors in threads:
        thread.join(PATIENCE_SECONDS)
        assert not errors
    assert most == [MAX_VERIFYING]


def test_too_many(loads: Loads) -> None:
    with pytest.raises(LoadQueueFullError, match=f"{MAX_LOADS} models are being loaded already"):
        hold(loads, MAX_LOADS + 1)
    hold(loads, MAX_LOADS)


def hold(loads: Loads, count: int) -> None:
    if count:
        with loads.begin(Load(loads, Call())):
            hold(loads, count - 1)


# --- the end of a load ---------------------------------------------------------


def waiting(loads: Loads, call: Call, place: Callable[[Load], AbstractContextManager[None]]) -> list[BaseException]:
    """What a load is told that waits for a place, after its caller has left."""
    begun = threading.Event()

    def wait() -> None:
        with loads.begin(Load(loads, call)) as load:
            begun.set()
            with place(load):
                pass

    thread, errors = in_thread(wait)
    assert begun.wait(PATIENCE_SECONDS)
    call.leave()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    return errors


def test_a_caller_that_goes_away_while_its_load_waits(loads: Loads) -> None:  # [L-12]
    with loads.begin(Load(loads, Call())) as first, loads.opening(first):
        assert [type(error) for error in waiting(loads, Call(), loads.opening)] == [DeadlineError]


def test_a_caller_that_has_gone_already(loads: Loads) -> None:  # [L-12]
    call = Call()
    call.gone = True
    with loads.begin(Load(loads, call)) as load, pytest.raises(DeadlineError, match="its caller went away"):
        load.go_on()


def test_a_deadline_that_passes_while_its_load_waits(loads: Loads) -> None:  # [L-12]
    with (
        loads.begin(Load(loads, Call())) as first,
        loads.opening(first),
        loads.begin(Load(loads, Call(0.01))) as second,
    ):
        late = pytest.raises(DeadlineError, match="took longer than 0 s")
        with late, loads.opening(second):
            pass
    with loads.begin(Load(loads, Call())) as third, loads.opening(third):
        """The turn was given back."""


def test_the_longest_time() -> None:  # [L-12]
    clock = FakeClock(NOW.timestamp())
    loads = Loads(clock, 0, lambda: 0)
    with loads.begin(Load(loads, Call())) as load:
        clock.advance(599)
        load.go_on()
        clock.advance(2)
        with pytest.raises(DeadlineError, match="longer than 600 s"):
            load.go_on()


def test_the_agent_stops(loads: Loads) -> None:  # [X-4] [L-12]
    with loads.begin(Load(loads, Call())) as first, loads.opening(first):
        begun = threading.Event()

        def wait() -> None:
            with loads.begin(Load(loads, Call())) as load:
                begun.set()
                with loads.opening(load):
                    pass

        thread, errors = in_thread(wait)
        assert begun.wait(PATIENCE_SECONDS)
        loads.stop()
        thread.join(PATIENCE_SECONDS)
        assert [type(error) for error in errors] == [StoppingError]
        with pytest.raises(StoppingError):
            first.go_on()


# --- rests -----------------------------------------------------------------------


@pytest.fixture
def called() -> Loads:
    """Of a registry whose models are being called."""
    clock = SystemClock()
    return Loads(clock, 0, lambda: 0, clock.monotonic)


def test_a_swap_rests_between_its_steps_while_calls_come(
    called: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:  # [W-1]
    monkeypatch.setattr(loads_of, "REST_SECONDS", NEVER_SECONDS)
    with called.begin(Load(called, Call())) as load:
        thread, errors = in_thread(load.rest)
        thread.join(0.1)
        assert thread.is_alive()
        called.stop()  # and a rest ends at once where the agent does
        thread.join(PATIENCE_SECONDS)
    assert [type(error) for error in errors] == [StoppingError]


def test_it_does_not_rest_where_no_calls_come(loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:  # [W-1]
    monkeypatch.setattr(loads_of, "REST_SECONDS", NEVER_SECONDS)
    with loads.begin(Load(loads, Call())) as load:
        load.rest()


def test_rests_leave_its_caller_the_time_that_it_has(called: Loads, monkeypatch: pytest.MonkeyPatch) -> None:  # [W-1]
    monkeypatch.setattr(loads_of, "REST_SECONDS", NEVER_SECONDS)
    with called.begin(Load(called, Call(PATIENCE_SECONDS / 2))) as load:
        load.rest()


# --- memory ----------------------------------------------------------------------


def test_the_models_file_counts_against_the_budget(loads: Loads) -> None:  # [L-6]
    loads = Loads(SystemClock(), 10 * MIB, lambda: 2 * MIB)
    with loads.begin(Load(loads, Call())) as load, loads.begin(Load(loads, Call())) as other:
        load.claim_memory("the model's file", 5 * MIB)
        with pytest.raises(MemoryLimitError, match=r"the model needs 4\.0 MiB of memory and 3\.0 MiB are available"):
            load.claim_memory("the model", 4 * MIB)
        other.claim_memory("the model's file", 3 * MIB)
        load.memory_taken()  # by the budget it counts all the same
        with pytest.raises(MemoryLimitError, match=r"needs 0\.1 MiB of memory and 0\.0 MiB"):
            other.claim_memory("the model", 1)
    with loads.begin(Load(loads, Call())) as load:
        load.claim_memory("the model's file", 8 * MIB)


def test_what_one_load_was_promised_another_is_not(loads: Loads) -> None:  # [L-6]
    most = memory.available() * 2 // 3
    with loads.begin(Load(loads, Call())) as load, loads.begin(Load(loads, Call())) as other:
        load.claim_memory("the model's file", most)
        with pytest.raises(MemoryLimitError, match="are available"):
            other.claim_memory("the model's file", most)
        load.memory_taken()
        other.claim_memory("the model's file", most)


# --- all of it --------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Path:
    content = (DATA / "add_one.tflite").read_bytes()
    return packages.write_folder(tmp_path / "p", packages.files_of({"digits.tflite": content}))


def registry_of(tmp_path: Path, before: Callable[[str, Load], None], budget_bytes: int = 0) -> Registry:
    """A registry for which `before` is called when a package is to be opened."""

    def opened(url: str, load: Load) -> Package:
        before(url, load)
        return open_package(
            url,
            trust_dir=packages.trust(tmp_path),
            clock=FakeClock(NOW.timestamp()),
            build_date=packages.BUILD_DATE,
            claim=load.claim_memory,
            go_on=load.go_on,
        )

    return Registry(Engines(), opened, ModelDefaults(1, 1, 4, budget_bytes, ()), SystemClock())


def test_a_check_that_takes_long_holds_up_no_other_load(tmp_path: Path, package: Path) -> None:  # [L-8] [L-9] [L-12]
    entered, call = threading.Event(), Call()

    def before(url: str, load: Load) -> None:
        if url == "/slow":
            entered.set()
            while not load.gone:
                with load._loads.changed:
                    load._loads.changed.wait(PATIENCE_SECONDS)
            load.go_on()

    registry = registry_of(tmp_path, before)

    def slow() -> None:
        registry.load("slow", "/slow", call)

    thread, errors = in_thread(slow)
    assert entered.wait(PATIENCE_SECONDS)
    assert registry.load("quick", str(package), Call()).name == "quick"
    call.leave()
    thread.join(PATIENCE_SECONDS)
    assert [type(error) for error in errors] == [DeadlineError]
    assert [name for name, _, _ in registry.states()] == ["quick"]
    with pytest.raises(ModelNotFoundError):
        registry.get("slow")
    registry.unload("quick")


def test_a_model_that_is_larger_than_the_budget_is_not_copied(tmp_path: Path, package: Path) -> None:  # [L-6] [L-9]
    registry = registry_of(tmp_path, lambda url, load: None, budget_bytes=100)
    before = packages.open_files()
    with pytest.raises(MemoryLimitError, match="the model's file needs"):
        registry.load("large", str(package), Call())
    assert packages.open_files() == before
    assert not registry.states()


def test_a_load_that_fails_at_its_end_closes_the_model(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # [L-9]
    def no_more(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(loading, "InputBinder", no_more)
    registry = registry_of(tmp_path, lambda url, load: None)
    before = packages.open_files()
    with pytest.raises(OSError, match="Too many open files") as caught:
        registry.load("m", str(package), Call())
    assert packages.open_files() == before
    assert caught.tb  # whose frames keep what they hold: it was closed, not collected
    assert not registry.states()


def test_a_model_that_is_being_unloaded_still_counts(tmp_path: Path, package: Path) -> None:  # [L-6] [U-3]
    registry = registry_of(tmp_path, lambda url, load: None)
    model = registry.load("add", str(package), Call())
    with model.scheduler.session(Call()):
        thread, errors = in_thread(lambda: registry.unload("add"))
        while not model.scheduler.closing:
            thread.join(0.01)
        assert registry.reserved_bytes == model.memory_bytes > 0
    thread.join(PATIENCE_SECONDS)
    assert not errors
    assert registry.reserved_bytes == 0

"""A model that takes another's place: the old one serves until the new one does, and whatever goes wrong (W-1 to W-4, W-8)."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.clock import SystemClock
from edge.errors import (
    DeadlineError,
    MemoryLimitError,
    ModelExistsError,
    ModelNotFoundError,
    ModelRefusedError,
    PackageNotFoundError,
    TensorsChangedError,
)
from edge.rpc._generated import agent_pb2 as pb
from edge.rpc.servicer import Servicer
from edge.serving.aliases import ModelState
from edge.serving.loading import MAX_EARLIER
from edge.serving.loads import MIB, Load
from edge.serving.scheduler import End
from edge.shm.sysv import SegmentReader
from tests.data import make_models
from tests.fakes import packages
from tests.fakes.registry import ADD_ONE, Bench
from tests.unit.test_loads import PATIENCE_SECONDS, Call, in_thread


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_where_none_serves_it_is_a_load(bench: Bench) -> None:  # [W-1]
    bench.swap("m", bench.package("1.0"), Call())
    assert bench.versions() == ["1.0"] and bench.health == [("m", True)]


def test_the_new_one_serves_in_the_place_of_the_old(bench: Bench) -> None:  # [W-1] [W-2]
    for name, version in (("m", "1.0"), ("other", "2.0")):
        bench.load(name, bench.package(version), Call())
    gone: list[list[str]] = []
    bench.registry.on_gone(lambda: gone.append(bench.versions()))
    before = bench.registry.models()
    made = bench.swap("m", bench.package("1.1"), Call())
    assert bench.get("m") is made
    assert bench.versions() == ["1.1", "2.0"]
    assert bench.registry.models() is not before
    assert bench.health == [("m", True), ("other", True)]  # it never went
    assert gone == [["1.1", "2.0"]]
    bench.settle()
    assert [(name, model and model.manifest.model_version) for name, _, model in bench.registry.states()] == [
        ("m", "1.1"),
        ("other", "2.0"),
    ]


def test_calls_that_run_or_wait_finish_on_the_old_one(bench: Bench) -> None:  # [W-2] [L-6]
    old = bench.load("m", bench.package("1.0"), Call())
    sessions, waits = [], threading.Event()

    class Waiting(Call):
        def add_callback(self, callback: Callable[[], None]) -> bool:
            waits.set()
            return super().add_callback(callback)

    def wait() -> None:
        with old.scheduler.session(Waiting()) as session:
            sessions.append(session)

    with old.scheduler.session(Call()) as running:
        thread, errors = in_thread(wait)
        assert waits.wait(PATIENCE_SECONDS)
        new = bench.swap("m", bench.package("1.1"), Call())
        states = {(state, model and model.manifest.model_version) for _, state, model in bench.registry.states()}
        assert states == {(ModelState.READY, "1.1"), (ModelState.DRAINING, "1.0")}
        assert bench.registry.reserved_bytes == old.memory_bytes + new.memory_bytes
        running.run([np.ones((1, 4), np.float32).tobytes()], ((1, 4),))
        (seat,) = old.scheduler._seats
        cannot_end = bench.registry.end_stuck(-1)  # the one that is replaced is watched as well
        assert seat.end is End.STUCK or cannot_end == bench.clock.monotonic() - seat.since
    thread.join(PATIENCE_SECONDS)
    assert not errors and sessions == [running]
    bench.settle()
    assert bench.registry.reserved_bytes == new.memory_bytes


def test_a_call_on_its_way_to_the_old_one_gets_the_new(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:  # [W-2]
    """The switch comes after the request was understood and before the model was asked."""
    bench.load("m", bench.package("1.0"), Call())
    reader = SegmentReader(SystemClock())
    servicer: Any = Servicer(
        bench.registry, None, reader, models=None, max_message_bytes=1 << 20, describe=dict, regions=None
    )  # type: ignore[arg-type]
    metadata = pb.TensorMetadata(name="x", data_type=pb.FLOAT32, shape=(1, 4))
    raw = pb.PredictRequest(
        name="m", tensors=[pb.Tensor(tensor_metadata=metadata, byte_data=np.ones(4, np.float32).tobytes())]
    ).SerializeToString()
    plan, planned = servicer._books[0].plan, []

    def late(raw: bytes, caller: Any) -> Any:
        planned.append(plan(raw, caller))
        if len(planned) == 1:
            bench.swap("m", bench.package("1.1"), Call())
        return planned[-1]

    monkeypatch.setattr(servicer._books[0], "plan", late)
    (answer,) = pb.PredictResponse.FromString(servicer.predict(raw, Call())).tensors
    assert np.frombuffer(answer.byte_data, np.float32).tolist() == [2] * 4
    assert [one.model.manifest.model_version for one in planned] == ["1.0", "1.1"]
    monkeypatch.undo()
    bench.close()
    with pytest.raises(ModelNotFoundError):
        servicer.predict(raw, Call())
    assert not servicer._books[0]._plans
    reader.close()


def test_new_shapes_on_their_way_to_the_old_one_get_the_new(bench: Bench) -> None:  # [W-2] [P-13]
    old = bench.load("m", bench.package("1.0", make_models.add_one((-1, 4))), Call())
    bench.swap("m", bench.package("1.1", make_models.add_one((-1, 4))), Call())
    bench.settle()
    assert old.shape_trials is not None
    with pytest.raises(ModelNotFoundError):  # which the servicer takes for a word to ask again
        old.shape_trials.check(((3, 4),), 48)


# --- what goes wrong -------------------------------------------------------------


def test_a_package_that_cannot_be_loaded_changes_nothing(bench: Bench) -> None:  # [W-1] [L-9]
    old = bench.load("m", bench.package("1.0"), Call())
    bad, files = bench.package("1.1", ADD_ONE[:500]), packages.open_files()
    for url, error in ((bad, ModelRefusedError), ("/nowhere", PackageNotFoundError)):
        with pytest.raises(error):
            bench.swap("m", url, Call())
        assert bench.get("m") is old and not old.scheduler.closing
        assert [state for _, state, _ in bench.registry.states()] == [ModelState.READY]
    assert packages.open_files() == files
    assert bench.health == [("m", True)]
    bench.swap("m", bench.package("1.2"), Call())


def test_other_tensors_are_refused_unless_allowed(bench: Bench) -> None:  # [W-3] [L-9]
    old = bench.load("m", bench.package("1.0"), Call())
    other, files = bench.package("1.1", make_models.add_one((2, 3))), packages.open_files()
    with pytest.raises(TensorsChangedError) as refused:
        bench.swap("m", other, Call())
    assert str(refused.value).startswith(
        "input 0, 'x', of the new model is 'x' FLOAT32 [2, 3]; that of the one that serves is 'x' FLOAT32 [1, 4]"
    )
    assert bench.get("m") is old and packages.open_files() == files
    assert bench.swap("m", other, Call(), allow_changed_tensors=True).inputs[0].shape == (2, 3)


def test_a_caller_that_leaves_before_the_switch(bench: Bench) -> None:  # [L-12]
    old, call = bench.load("m", bench.package("1.0"), Call()), Call()
    bench.before = lambda url, load: call.leave()
    with pytest.raises(DeadlineError):
        bench.swap("m", bench.package("1.1"), call)
    assert bench.get("m") is old


# --- memory ----------------------------------------------------------------------

LARGE = make_models.big(30)


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Bench]:
    """Room for one large model."""
    made = Bench(tmp_path, 100 * MIB)
    yield made
    made.close()


def test_without_room_for_both_it_is_refused(narrow: Bench) -> None:  # [W-4]
    old = narrow.load("m", narrow.package("1.0", LARGE), Call())
    assert old.taken_bytes > 50 * MIB, "the test's budget must be between one and two of these"
    with pytest.raises(MemoryLimitError, match="MiB are available"):
        narrow.swap("m", narrow.package("1.1", LARGE), Call())
    assert narrow.get("m") is old
    assert narrow.registry.reserved_bytes == old.taken_bytes


def test_with_a_gap_allowed_the_old_one_goes_first(narrow: Bench) -> None:  # [W-4]
    narrow.load("m", narrow.package("1.0", LARGE), Call())
    made = narrow.swap("m", narrow.package("1.1", LARGE), Call(), allow_gap=True)
    assert narrow.get("m") is made and narrow.versions() == ["1.1"]
    assert narrow.registry.reserved_bytes == made.taken_bytes
    assert narrow.health == [("m", True), ("m", False), ("m", True)]
    assert [one.manifest.model_version for one in made.earlier] == ["1.0"]


def test_the_old_one_comes_back_where_the_new_one_fails_after_the_gap(narrow: Bench) -> None:  # [W-4]
    narrow.load("m", narrow.package("1.0", LARGE), Call())
    new, opened = narrow.package("1.1", LARGE), list[str]()

    def vanishes(url: str, load: Load) -> None:
        opened.append(url)
        if opened == [new, new]:
            raise PackageNotFoundError("it is gone")

    narrow.before = vanishes
    with pytest.raises(PackageNotFoundError, match="it is gone"):
        narrow.swap("m", new, Call(), allow_gap=True)
    assert narrow.versions() == ["1.0"]


def test_a_gap_is_made_only_where_it_helps(narrow: Bench) -> None:  # [W-4]
    narrow.load("m", narrow.package("1.0"), Call())
    narrow.swap("m", narrow.package("1.1"), Call(), allow_gap=True)
    with pytest.raises(PackageNotFoundError):
        narrow.swap("m", "/nowhere", Call(), allow_gap=True)
    assert narrow.versions() == ["1.1"] and narrow.health == [("m", True)]


# --- what else happens under the name ----------------------------------------------


class Gate:
    """Holds whoever opens a package until it is let go on."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, url: str, load: Load) -> None:
        self.entered.set()
        assert self.opened.wait(PATIENCE_SECONDS)


def held(bench: Bench, work: Callable[[], object]) -> tuple[Gate, Callable[[], list[BaseException]]]:
    """Start some work that opens a package; it is held there. The function lets it end, and gives its errors."""
    gate = bench.before = Gate()
    thread, errors = in_thread(lambda: [work(), None][1])
    assert gate.entered.wait(PATIENCE_SECONDS)

    def end() -> list[BaseException]:
        gate.opened.set()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
        return errors

    bench.before = lambda url, load: None
    return gate, end


def test_a_model_that_is_unloaded_meanwhile_stays_unloaded(bench: Bench) -> None:  # [W-2]
    bench.load("m", bench.package("1.0"), Call())
    url = bench.package("1.1")
    _, end = held(bench, lambda: bench.swap("m", url, Call()))
    bench.registry.unload("m")
    (error,) = end()
    assert isinstance(error, ModelNotFoundError) and "was unloaded while" in str(error)
    assert bench.registry.states() == []


def test_another_that_was_loaded_meanwhile_is_not_replaced(bench: Bench) -> None:  # [W-2]
    bench.load("m", bench.package("1.0"), Call())
    url = bench.package("1.1")
    _, end = held(bench, lambda: bench.swap("m", url, Call()))
    bench.registry.unload("m")
    bench.load("m", bench.package("1.2"), Call())
    (error,) = end()
    assert isinstance(error, ModelNotFoundError)
    assert bench.versions() == ["1.2"]


def test_a_load_meanwhile_finds_it_loaded(bench: Bench) -> None:  # [L-2]
    bench.load("m", bench.package("1.0"), Call())
    url = bench.package("1.1")
    _, end = held(bench, lambda: bench.swap("m", url, Call()))
    with pytest.raises(ModelExistsError, match="already loaded"):
        bench.load("m", url, Call())
    assert not end() and bench.versions() == ["1.1"]


@pytest.mark.parametrize("first", ["load", "swap"])
def test_a_swap_waits_for_what_is_under_way(bench: Bench, first: str) -> None:  # [W-1]
    """Until it may not wait any longer."""
    urls = [bench.package(version) for version in ("1.0", "1.1", "1.2")]
    if first == "swap":
        bench.load("m", urls[0], Call())
    work = bench.load if first == "load" else bench.swap
    _, end = held(bench, lambda: work("m", urls[1], Call()))
    with pytest.raises(ModelExistsError, match="already being loaded"):
        bench.swap("m", urls[2], Call(1.0))
    thread, errors = in_thread(lambda: [bench.swap("m", urls[2], Call()), None][1])
    with bench.registry._loads.changed:
        while not bench.registry._loads._waiting:
            bench.registry._loads.changed.wait(0.01)
    assert not end()
    thread.join(PATIENCE_SECONDS)
    assert not errors and bench.versions() == ["1.2"]


def test_a_swap_waits_for_the_end_of_the_one_replaced_before(bench: Bench) -> None:  # [W-2] [W-4]
    """No more than two models of a name are there at a time."""
    old = bench.load("m", bench.package("1.0"), Call())
    with old.scheduler.session(Call()):
        bench.swap("m", bench.package("1.1"), Call())
        with pytest.raises(ModelExistsError, match="already being unloaded"):
            bench.swap("m", bench.package("1.2"), Call(1.0))
    bench.swap("m", str(Path(bench._folder / "1.2")), Call())
    assert bench.versions() == ["1.2"]


def test_many_at_once_leave_one(bench: Bench) -> None:  # [W-2]
    """Loads, swaps and unloads of one name from several threads: each is told how it went, and nothing is left over."""
    urls = [bench.package(f"1.{n}") for n in range(4)]
    outcomes: list[str] = []

    def work(at: int) -> None:
        for turn in range(6):
            try:
                (bench.swap, bench.swap, bench.load)[(at + turn) % 3]("m", urls[at], Call())
                if (at + turn) % 3 == 0:
                    bench.registry.unload("m")
                outcomes.append("OK")
            except (ModelExistsError, ModelNotFoundError) as error:
                outcomes.append(type(error).__name__)

    threads = [in_thread(lambda at=at: work(at)) for at in range(4)]  # type: ignore[misc]
    for thread, errors in threads:
        thread.join(PATIENCE_SECONDS)
        assert not errors and not thread.is_alive()
    assert len(outcomes) == 24 and "OK" in outcomes
    bench.settle()
    assert len(bench.registry.states()) <= 1


# --- who served when ---------------------------------------------------------------


def version_at(bench: Bench, unix_seconds: float | None) -> str:
    return bench.registry.as_of(bench.get("m"), unix_seconds).manifest.model_version


def test_a_capture_of_an_earlier_inference_has_the_version_of_then(bench: Bench) -> None:  # [W-8]
    start = bench.clock.now()
    bench.load("m", bench.package("1.0"), Call())
    for version in ("1.1", "1.2"):
        bench.clock.advance(100)
        bench.swap("m", bench.package(version), Call())
    bench.clock.advance(100)
    found = [version_at(bench, start + seconds) for seconds in (0, 99, 100, 199, 200, 300)]
    assert found == ["1.0", "1.0", "1.1", "1.1", "1.2", "1.2"]
    assert version_at(bench, None) == "1.2"


def test_a_clock_that_is_set_back_makes_nothing_earlier(bench: Bench) -> None:  # [W-8]
    bench.load("m", bench.package("1.0"), Call())
    bench.clock.advance(100)
    bench.swap("m", bench.package("1.1"), Call())
    bench.clock.set(bench.clock.now() - 86400)
    bench.clock.advance(10)
    assert version_at(bench, bench.clock.now() - 5) == "1.1"
    assert version_at(bench, bench.clock.now() - 50) == "1.0"


def test_what_served_before_is_forgotten_in_the_end(bench: Bench) -> None:  # [W-8]
    url = bench.package("1.0")
    bench.load("m", url, Call())
    model = bench.get("m")
    for _ in range(MAX_EARLIER + 5):
        model = model.in_place_of(model, bench.clock)
    assert len(model.earlier) == MAX_EARLIER

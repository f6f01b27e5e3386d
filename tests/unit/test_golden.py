"""A package's self-test: what counts as the right answer, and that a model that gives another never serves (L-13, W-5)."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.engine import child
from edge.errors import DeadlineError, MemoryLimitError, SelfTestError
from edge.package.adapter import TensorAdapter
from edge.package.selftest import SELFTEST_DATA, SELFTEST_FILE, Case, GoldenTensor, SelfTest, format_selftest
from edge.serving import golden, selftest
from edge.tensors import DType
from tests.data import hard_models, make_models
from tests.fakes import packages
from tests.fakes.registry import Bench
from tests.unit.test_loads import Call

Array = np.ndarray[Any, Any]
NAN, INF = np.nan, np.inf


def tensor(name: str, array: Array, absolute: float = 0.0, relative: float = 0.0) -> GoldenTensor:
    return GoldenTensor(name, DType[array.dtype.name.upper()], array.shape, absolute, relative)


def files(
    *cases: tuple[Array, Array], absolute: float = 0.0, relative: float = 0.0, x: str = "x", y: str = "y"
) -> dict[str, bytes]:
    """A self-test of a model with one input and one output."""
    described = SelfTest(
        tuple(
            Case(f"case-{at}", (tensor(x, given),), (tensor(y, expected, absolute, relative),))
            for at, (given, expected) in enumerate(cases)
        )
    )
    return {
        SELFTEST_FILE: format_selftest(described),
        SELFTEST_DATA: b"".join(one.tobytes() for case in cases for one in case),
    }


# --- what is right ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "found", "expected", "absolute", "relative"),
    [
        ("f4", [1, 2], [1, 2], 0, 0),
        ("f4", [1.5, -2], [1, -2], 0.5, 0),
        ("f4", [1.5, -200], [1, -199], 0, 0.5),
        ("f4", [NAN, INF, -INF], [NAN, INF, -INF], 0, 0),
        ("i1", [3, -4], [2, -3], 1, 0),
        ("i8", [2**62 + 1], [2**62 + 1], 0, 0),
    ],
)
def test_within_the_tolerance(
    dtype: str, found: Any, expected: Any, absolute: float, relative: float
) -> None:  # [L-13]
    one, other = np.array(found, dtype), np.array(expected, dtype)
    assert not golden.difference(one, other, tensor("y", other, absolute, relative))


@pytest.mark.parametrize(
    ("dtype", "found", "expected", "absolute", "relative", "words"),
    [
        ("f4", [1, 2.5], [1, 2], 0.25, 0.1, r"is 2.5 at \[1\] and should be 2.0: off by 0.5, allowed are 0.25 and 0.1 of the value; 1 of 2"),
        ("f4", [9, 2.5], [1, 2], 0, 0, r"is 9.0 at \[0\] .* 2 of 2 elements are off"),
        ("f4", [NAN], [1], 1e30, 0, "is nan at"),
        ("f4", [1], [NAN], 1e30, 1, "should be nan"),
        ("f4", [1], [INF], 1e30, 1, "should be inf"),
        ("f4", [-INF], [INF], 0, 1, "should be inf"),
        ("i1", [3], [1], 1, 0, "off by 2, allowed are 1 and 0"),
        ("i8", [2**62 + 1], [2**62], 0, 0, "should be 4611686018427387904"),
        ("?", [True], [False], 0, 0, "is True"),
    ],
)  # fmt: skip
def test_beyond_the_tolerance(
    dtype: str, found: Any, expected: Any, absolute: float, relative: float, words: str
) -> None:  # [L-13]
    one, other = np.array(found, dtype), np.array(expected, dtype)
    tolerance = GoldenTensor("y", DType.FLOAT32, other.shape, absolute, relative)
    assert re.search(words, golden.difference(one, other, tolerance))


# --- with the engine --------------------------------------------------------------

ONES, TWOS = np.full((1, 4), 1, np.float32), np.full((1, 4), 2, np.float32)
GOOD = files((ONES, TWOS), (TWOS, TWOS + 1))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_a_model_that_answers_right_serves(bench: Bench) -> None:  # [L-13] [W-5]
    bench.load("m", bench.package("1.0", selftest=GOOD), Call())
    bench.swap("m", bench.package("1.1", selftest=GOOD), Call())
    assert bench.versions() == ["1.1"]


WRONG: dict[str, tuple[dict[str, bytes], str]] = {
    "a value": (files((ONES, TWOS), (ONES, TWOS + 0.5)), r"case 'case-1': output 'y' is 2.0 at \[0, 0\] and should be 2.5"),
    "an output's name": (files((ONES, TWOS), y="z"), "case 'case-0': the model has no output 'z'; its outputs are 'y'"),
    "an output's shape": (files((ONES, TWOS[0])), r"output 'y' is FLOAT32 \[1, 4\], and should be FLOAT32 \[4\]"),
    "an output's dtype": (files((ONES, TWOS.astype(np.int32))), r"and should be INT32 \[1, 4\]"),
    "an input's name": (files((ONES, TWOS), x="z"), "case 'case-0': the model has no input named 'z'"),
    "an input's shape": (files((ONES[:, :3], TWOS)), r"got shape \[1, 3\], expected \[1, 4\]"),
    "an input's dtype": (files((ONES.astype(np.int32), TWOS)), "got data type INT32, expected FLOAT32"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_one_that_does_not_never_serves(bench: Bench, what: str) -> None:  # [L-13] [W-5] [L-9]
    old = bench.load("m", bench.package("1.0"), Call())
    given, words = WRONG[what]
    bad, before = bench.package("1.1", selftest=given), packages.open_files()
    for name, call in (("other", bench.load), ("m", bench.swap)):
        with pytest.raises(SelfTestError, match=words):
            call(name, bad, Call())
    assert bench.registry.models() == (old,) and len(bench.registry.states()) == 1
    assert packages.open_files() == before


def test_a_tolerance_is_the_makers(bench: Bench) -> None:  # [L-13]
    bench.load("m", bench.package("1.0", selftest=files((ONES, TWOS + 0.5), absolute=0.5)), Call())


def test_the_cases_are_those_of_applications(bench: Bench) -> None:  # [S-9] [L-13]
    """With an adapter they have its tensors."""
    adapter = {"outputs": (TensorAdapter("y", DType.INT32),)}
    whole = files((ONES, TWOS.astype(np.int32)))
    bench.load("m", bench.package("1.0", selftest=whole, **adapter), Call())
    with pytest.raises(SelfTestError, match="is INT32"):
        bench.load("other", bench.package("1.1", selftest=GOOD, **adapter), Call())


def test_shapes_of_a_case_may_be_the_callers(bench: Bench) -> None:  # [L-13] [P-8]
    model = make_models.add_one((-1, 4))
    given = [np.full((rows, 4), rows, np.float32) for rows in (3, 1, 5)]
    bench.load("m", bench.package("1.0", model, selftest=files(*((one, one + 1) for one in given))), Call())


def test_a_case_that_does_not_end(bench: Bench) -> None:  # [L-13]
    bench.load("m", bench.package("1.0"), Call())
    zero = np.zeros(1, np.int32)
    given = files((zero, zero), x="step", y="done")
    bad = bench.package("1.1", hard_models.endless_on_zeros(), selftest=given, trial_seconds=1)
    with pytest.raises(SelfTestError, match=r"case 'case-0' did not end within 1 s; say runtime\.trial_seconds"):
        bench.swap("m", bad, Call(), allow_changed_tensors=True)
    assert bench.versions() == ["1.0"]


def test_a_caller_that_leaves_between_two_cases(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:  # [L-12]
    call, asked = Call(), list[object]()
    ask = child.Child.ask

    def leaving(self: child.Child, question: dict[str, Any]) -> None:
        asked.append(question)
        call.leave()
        ask(self, question)

    monkeypatch.setattr(child.Child, "ask", leaving)
    with pytest.raises(DeadlineError):
        bench.load("m", bench.package("1.0", selftest=GOOD), call)
    assert len(asked) == 1
    assert not bench.registry.states()


def ending(by: str) -> Callable[..., child.Child]:
    """A child that ends itself as a crashing kernel would, at its first case."""

    class Ending(child.Child):
        def ask(self, question: dict[str, Any]) -> None:
            self._process.send_signal(getattr(signal, by))

    return Ending


@pytest.mark.parametrize(
    ("by", "error", "words"),
    [
        ("SIGSEGV", SelfTestError, "crashes, SIGSEGV, on self-test case 'case-0'"),
        ("SIGKILL", MemoryLimitError, "most likely for lack of memory"),
    ],
)
def test_an_engine_that_dies_of_a_case(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, by: str, error: type[Exception], words: str
) -> None:  # [L-13] [L-9]
    monkeypatch.setattr(selftest, "Child", ending(by))
    url = bench.package("1.0", selftest=GOOD)
    with pytest.raises(error, match=words):
        bench.load("m", url, Call())
    assert not bench.registry.states()


def test_a_package_without_one_starts_no_further_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:  # [L-13]
    monkeypatch.setattr(selftest, "Child", None)
    bench.load("m", bench.package("1.0"), Call())

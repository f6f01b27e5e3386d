"""Inputs that once failed, and the search that found them (tests/fuzz)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import inference
from tests.fuzz.explore import CORPUS, explore, fault, save
from tests.fuzz.mutate import smaller
from tests.fuzz.targets import TARGETS, Target, answering

KEPT = sorted(path for path in CORPUS.glob("*/*"))


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """What the answers come from, and the models."""
    made = answering()
    inference.handlers()
    yield
    made.close()
    answering.cache_clear()
    inference.handlers.cache_clear()


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs(name: str) -> None:
    for seed in TARGETS[name].seeds:
        assert not fault(TARGETS[name], seed)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_inputs_that_were_kept(path: Path) -> None:
    assert not fault(TARGETS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_others(name: str) -> None:
    result = explore(TARGETS[name], 0, seconds=60, most=20)
    assert (result.tried, result.trace) == (20, "")


def planted(data: bytes) -> None:
    if b"b" in data and b"a" not in data:
        raise KeyError("planted")


def test_a_fault_is_found_made_small_and_kept(tmp_path: Path) -> None:
    target = Target((b"a long good input",), (b"b",), planted)
    first, second = (explore(target, 7, seconds=60) for _ in range(2))
    assert first.failing == second.failing == b"b", "the same seed takes the same way"
    assert "KeyError: 'planted'" in first.trace
    path = save("planted", b"b", tmp_path)
    assert path.parent == tmp_path / "planted"
    assert path.read_bytes() == b"b"


def test_a_search_for_a_small_part_ends() -> None:
    assert smaller(bytes(10_000), lambda data: len(data) >= 9000, most=10) != b""
    assert smaller(b"0123456789", lambda data: b"4" in data and b"7" in data) == b"47"

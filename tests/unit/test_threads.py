"""How many threads an interpreter gets when nobody says."""

import os

import pytest

from edge.serving.opening import default_threads


@pytest.mark.parametrize(
    ("cores", "instances", "threads"),
    [(1, 1, 1), (2, 1, 1), (2, 2, 1), (4, 1, 3), (4, 2, 1), (4, 3, 1), (4, 8, 1), (8, 1, 4), (8, 2, 3)],
)
def test_all_cores_but_one_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, cores: int, instances: int, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert default_threads(instances) == threads

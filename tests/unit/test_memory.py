"""How much memory there is for models (L-6), from files laid out as the kernel does."""

from pathlib import Path

import pytest

from edge.host import cgroups, memory

MIB = 1 << 20


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "meminfo").write_text("MemTotal: 4096 kB\nMemFree: 10 kB\nMemAvailable:    2048 kB\n")
    return folder


def test_mem_available(proc: Path) -> None:
    assert memory.system_available(proc) == 2 * MIB


def test_headroom_is_kept_back() -> None:
    lower = min(memory.system_available(), cgroups.available())
    assert memory.available() <= max(0, lower)
    memory.give_back()


def test_memory_is_returned_once_after_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:  # [U-3]
    returned: list[int] = []
    trim = memory.Trim(1 << 40)
    monkeypatch.setattr(memory, "give_back", lambda: returned.append(1))
    for calls, times in ((0, 0), (5, 0), (9, 0), (9, 1), (9, 1), (10, 1), (10, 2)):
        trim.look(calls)
        assert len(returned) == times


def test_memory_beyond_the_bound_is_returned_while_calls_come(monkeypatch: pytest.MonkeyPatch) -> None:  # [U-3]
    returned: list[int] = []
    free = [100]
    trim = memory.Trim(50)
    monkeypatch.setattr(memory, "give_back", lambda: returned.append(1))
    monkeypatch.setattr(memory, "heap_free", lambda: free[0])
    for calls, kept, times in ((1, 100, 0), (2, 101, 1), (3, 101, 2), (3, 101, 2), (4, 100, 2)):
        free[0] = kept
        trim.look(calls)
        assert len(returned) == times


def test_the_unit_bounds_memory() -> None:
    """The agent goes before what keeps the board reachable."""
    lines = (Path(__file__).parents[2] / "packaging/systemd/sagemaker-edge-agent.service").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert settings["MemoryMax"].endswith("%") and int(settings["OOMScoreAdjust"]) > 0

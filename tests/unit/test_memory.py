"""How much memory there is for models (L-6), from files laid out as the kernel does."""

from pathlib import Path

import pytest

from edge.device import memory

MIB = 1 << 20


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text("MemTotal: 4096 kB\nMemFree: 10 kB\nMemAvailable:    2048 kB\n")
    (folder / "self" / "cgroup").write_text("0::/system.slice/agent.service\n")
    return folder


def group(path: Path, limit: str, used: int = 0, inactive_file: int = 0) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.current").write_text(f"{used}\n")
    (path / "memory.stat").write_text(f"anon 1\ninactive_file {inactive_file}\n")


def test_mem_available(proc: Path) -> None:
    assert memory.system_available(proc) == 2 * MIB


def test_no_limit_in_any_group(proc: Path, tmp_path: Path) -> None:
    group(tmp_path / "cgroup/system.slice/agent.service", "max")
    assert memory.cgroup_available(proc, tmp_path / "cgroup") > 1 << 50


def test_the_tightest_group_counts(proc: Path, tmp_path: Path) -> None:  # [L-6]
    group(tmp_path / "cgroup/system.slice/agent.service", str(100 * MIB), used=20 * MIB)
    group(tmp_path / "cgroup/system.slice", str(60 * MIB), used=30 * MIB, inactive_file=5 * MIB)
    assert memory.cgroup_available(proc, tmp_path / "cgroup") == 35 * MIB


@pytest.mark.parametrize("content", ["", "12:memory:/x\n", "0::/gone\n", "0::/\n"])
def test_no_control_group_of_version_2(proc: Path, tmp_path: Path, content: str) -> None:
    (proc / "self" / "cgroup").write_text(content)
    assert memory.cgroup_available(proc, tmp_path / "cgroup") > 1 << 50


def test_headroom_is_kept_back() -> None:
    lower = min(memory.system_available(), memory.cgroup_available())
    assert memory.available() <= max(0, lower)
    memory.give_back()


def test_memory_is_returned_once_after_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:  # [U-3]
    returned: list[int] = []
    trim = memory.IdleTrim()
    monkeypatch.setattr(memory, "give_back", lambda: returned.append(1))
    for calls, times in ((0, 0), (5, 0), (9, 0), (9, 1), (9, 1), (10, 1), (10, 2)):
        trim.look(calls)
        assert len(returned) == times

"""How much memory the control groups allow (L-6), from trees as kernels, containers and distributions lay them out."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from edge.host import cgroups
from edge.host.kernel_files import lines_of

MIB = 1 << 20
V1_NONE = str((1 << 63) - 4096)  # version 1's word for no limit
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:13 - cgroup cgroup rw,memory\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:14 - cgroup cgroup rw,cpu,cpuacct\n"
)
HYBRID = V1 + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw\n"


class Machine:
    """A machine's control groups below a folder."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        (folder / "proc/self").mkdir(parents=True)

    def process(self, cgroup: str, mountinfo: str) -> None:
        """Where the process is, and what is mounted."""
        (self._root / "proc/self/cgroup").write_text(cgroup)
        (self._root / "proc/self/mountinfo").write_text(mountinfo)

    def group(self, path: str, files: Mapping[str, object], stat: str = "") -> None:
        """A group's files by what follows `memory.`; a number is one of MiB."""
        folder = self._root / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.stat").write_text(f"anon 1\n{stat}\n")
        for name, value in files.items():
            (folder / f"memory.{name}").write_text(f"{value * MIB if isinstance(value, int) else value}\n")

    def available(self) -> float:
        """In MiB."""
        return cgroups.available(self._root / "proc", self._root) / MIB


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


NO_LIMIT = cgroups.NO_LIMIT / MIB


def test_version_2_the_tightest_group_counts(machine: Machine) -> None:  # [L-6]
    machine.process("0::/system.slice/agent.service\n", V2)
    machine.group("system.slice/agent.service", {"max": 100, "high": "max", "current": 20})
    machine.group("system.slice", {"max": 60, "high": "max", "current": 30}, f"inactive_file {5 * MIB}")
    assert machine.available() == 35


def test_version_2_high_is_a_limit(machine: Machine) -> None:  # [L-6]
    machine.process("0::/a\n", V2)
    machine.group("a", {"max": 100, "high": 50, "current": 20, "swap.max": "max"})
    assert machine.available() == 30


def test_version_2_without_a_limit(machine: Machine) -> None:
    machine.process("0::/a\n", V2)
    machine.group("a", {"max": "max", "high": "max", "current": 20})
    assert machine.available() >= NO_LIMIT


def test_version_1(machine: Machine) -> None:  # [L-6] JetPack 5, Ubuntu 20.04
    machine.process("9:memory:/system.slice/agent.service\n3:cpu,cpuacct:/\n0::/system.slice/agent.service\n", V1)
    machine.group(
        "memory/system.slice/agent.service",
        {"limit_in_bytes": 100, "usage_in_bytes": 80},
        f"inactive_file {MIB}\ntotal_inactive_file {7 * MIB}",
    )
    machine.group("memory/system.slice", {"limit_in_bytes": V1_NONE, "usage_in_bytes": 90})
    machine.group("memory", {"limit_in_bytes": V1_NONE, "usage_in_bytes": 900})
    assert machine.available() == 27


def test_version_1_memory_and_swap_together(machine: Machine) -> None:  # [L-6]
    machine.process("9:memory:/a\n", V1)
    limits = {"limit_in_bytes": 100, "usage_in_bytes": 20, "memsw.limit_in_bytes": 100, "memsw.usage_in_bytes": 90}
    machine.group("memory/a", limits)
    assert machine.available() == 10


def test_both_versions_beside_each_other(machine: Machine) -> None:  # [L-6]
    machine.process("4:memory:/outer/inner\n0::/elsewhere\n", HYBRID)
    machine.group("memory/outer/inner", {"limit_in_bytes": 500, "usage_in_bytes": 1})
    machine.group("memory/outer", {"limit_in_bytes": 64, "usage_in_bytes": 60})
    machine.group("unified/elsewhere", {})
    assert machine.available() == 4


@pytest.mark.parametrize(
    ("line", "mount"),
    [
        # Docker with version 1: the host's path, and a mount that shows the container's own group alone.
        ("4:memory:/docker/0123\n", "9 8 0:32 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
        # A namespace of its own.
        ("4:memory:/\n", "9 8 0:32 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
        # A process that was moved out of the namespace's root.
        ("4:memory:/../other\n", "9 8 0:32 / /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
        ("4:memory:/not/shown\n", "9 8 0:32 /docker/0123 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
    ],
)
def test_containers(machine: Machine, line: str, mount: str) -> None:  # [L-6]
    machine.process(line, mount)
    machine.group("memory", {"limit_in_bytes": 64, "usage_in_bytes": 24})
    assert machine.available() == 40


@pytest.mark.parametrize(
    ("cgroup", "mountinfo"),
    [("", V2), ("12:pids:/x\n", V1), ("0::/gone\n", V2), ("0::/\n", ""), ("no line\n", V2), ("0::/\n", "no line\n")],
)
def test_nothing_to_be_found_is_no_limit(machine: Machine, cgroup: str, mountinfo: str) -> None:
    machine.process(cgroup, mountinfo)
    assert machine.available() >= NO_LIMIT


@pytest.mark.parametrize("name", [b"a\x0cb", b"a\rb", b"\xff", "a\x85b".encode()])
def test_mounts_of_others_may_have_any_name(machine: Machine, tmp_path: Path, name: bytes) -> None:  # [L-6]
    machine.process("0::/a\n", "")
    hostile = b"36 30 0:40 / /home/user/" + name + b" rw - fuse " + name + b" rw\n"
    (tmp_path / "proc/self/mountinfo").write_bytes(hostile + V2.encode())
    machine.group("a", {"max": 100, "high": "max", "current": 20})
    assert machine.available() == 80


def test_files_that_cannot_be_read_are_no_limit(machine: Machine, tmp_path: Path) -> None:
    assert cgroups.available(tmp_path / "none", tmp_path) == cgroups.NO_LIMIT
    machine.process("0::/a\n", V2)
    machine.group("a", {"max": "nonsense", "high": "max", "current": 20})
    assert machine.available() >= NO_LIMIT


@pytest.fixture
def own_group() -> Iterator[Path]:
    """A group of our own in the hierarchy that limits memory on this machine."""
    for _, _, place in cgroups._mounts(lines_of(Path("/proc/self/mountinfo"))):
        folder = Path(place) / f"edge-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        if list(folder.glob("memory.*")):
            yield folder
            folder.rmdir()
            return
        folder.rmdir()
    pytest.skip("no control group with the memory controller can be made here")


def test_a_group_of_this_kernel(own_group: Path) -> None:  # [L-6]
    limit = next(own_group / name for name in ("memory.max", "memory.limit_in_bytes") if (own_group / name).exists())
    limit.write_text(str(256 * MIB))
    enter = f"import os; open({str(own_group / 'cgroup.procs')!r}, 'w').write(str(os.getpid())); "
    code = enter + "from edge.host import cgroups; print(cgroups.available())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 200 * MIB < int(child.stdout) <= 256 * MIB

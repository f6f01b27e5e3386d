"""The one-file binary: unpacking, and what is inside it. Needs AGENT_COMMAND to name a binary (`make test-binary`)."""

import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
EMULATED = "AGENT_EMULATED" in os.environ
# What the system, and an emulated program, need to start one at all.
KEPT = {name: os.environ[name] for name in ("PATH", "QEMU_LD_PREFIX") if name in os.environ}
CANNOT_UNPACK = 71
TRAILER_BYTES = 128


def _binary() -> Path | None:
    words = shlex.split(os.environ.get("AGENT_COMMAND", ""))
    if len(words) != 1:
        return None
    path = Path(words[0])
    with path.open("rb") as file:
        file.seek(-TRAILER_BYTES, os.SEEK_END)
        return path if file.read().startswith(b"sagemaker-edge-payload-1 ") else None


BINARY = _binary()
pytestmark = pytest.mark.skipif(BINARY is None, reason="AGENT_COMMAND names no one-file binary")


def run(*words: str, binary: Path | None = None, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the binary with only these variables in its environment."""
    assert BINARY
    return subprocess.run(
        [binary or BINARY, *words],
        capture_output=True,
        text=True,
        env={**KEPT, **variables},
        check=False,
    )


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def unpacked(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.unpacked"))


def test_unpacks_once_and_for_this_user_alone(cache: Path) -> None:
    first = run("--version", SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
    assert first.returncode == 0, first.stderr
    (program,) = unpacked(cache)
    assert stat.S_IMODE(program.stat().st_mode) == 0o700
    inode = (program / "sagemaker_edge_agent").stat().st_ino
    again = run("--version", SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
    assert again.stdout == first.stdout
    assert (unpacked(cache)[0] / "sagemaker_edge_agent").stat().st_ino == inode
    assert not list(cache.glob("*.part"))


def test_version_is_that_of_the_release() -> None:
    assert BINARY
    version = BINARY.with_name("VERSION").read_text().strip()
    assert version in run("--version", SAGEMAKER_EDGE_UNPACK_DIR=os.environ["SAGEMAKER_EDGE_UNPACK_DIR"]).stdout


@pytest.mark.skipif(EMULATED, reason="an emulator reads the file itself")
def test_a_file_that_its_user_cannot_read_says_so() -> None:
    assert BINARY
    user = 65534 if os.geteuid() == 0 else None  # root may read everything
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        copy = Path(shutil.copy(BINARY, folder))
        if user is not None:
            os.chown(copy, user, -1)
        copy.chmod(0o330)
        refused = subprocess.run([copy, "--version"], capture_output=True, text=True, env=KEPT, user=user, check=False)
    assert refused.returncode == CANNOT_UNPACK
    assert f"this file cannot be read by its user: chmod 0550 {copy}" in refused.stderr


def test_a_place_that_others_can_write_to_is_refused(cache: Path) -> None:
    cache.chmod(0o777)
    done = run("--version", SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
    assert done.returncode == CANNOT_UNPACK
    assert str(cache) in done.stderr
    assert not unpacked(cache)


def test_a_place_below_a_folder_that_others_can_write_to_is_refused(cache: Path) -> None:
    inner = cache / "inner"
    inner.mkdir(mode=0o700)
    cache.chmod(0o777)
    done = run("--version", SAGEMAKER_EDGE_UNPACK_DIR=str(inner))
    assert done.returncode == CANNOT_UNPACK
    assert "others could change" in done.stderr


def test_a_shared_temporary_directory_is_never_used() -> None:
    done = run("--version", TMPDIR="/tmp", HOME="/nonexistent")
    assert "/tmp" not in done.stderr
    if os.geteuid():
        assert done.returncode == CANNOT_UNPACK


def test_a_planted_program_is_not_run(cache: Path) -> None:
    run("--version", SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
    (program,) = unpacked(cache)
    program.chmod(0o777)  # as if somebody else had made it
    (program / "sagemaker_edge_agent").write_text("#!/bin/sh\necho planted\n")
    done = run("--version", SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
    assert "planted" not in done.stdout
    assert done.returncode == 0, done.stderr


def test_state_and_cache_directories_of_the_service_come_first(cache: Path) -> None:
    done = run("--version", CACHE_DIRECTORY=f"{cache}:/other", HOME="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert unpacked(cache)


@pytest.mark.skipif(os.geteuid() != 0 or EMULATED, reason="mounting needs root, and the machine's own kind")
@pytest.mark.parametrize(
    ("options", "reason"), [("noexec,size=200m", "noexec"), ("size=20m", "are needed"), ("ro,size=200m", "Read-only")]
)
def test_noexec_full_and_read_only_places_are_passed_over(cache: Path, options: str, reason: str) -> None:
    bad, good = cache / "bad", cache / "good"
    bad.mkdir(mode=0o700), good.mkdir(mode=0o700)
    script = f'mount -t tmpfs -o mode=0700,{options} tmpfs "$1" && exec "$2" --version'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(bad), str(BINARY)]
    env = {"PATH": os.environ["PATH"]}
    only = subprocess.run(
        command, env={**env, "SAGEMAKER_EDGE_UNPACK_DIR": str(bad)}, capture_output=True, text=True, check=False
    )
    assert only.returncode == CANNOT_UNPACK
    assert reason in only.stderr
    both = subprocess.run(
        command,
        env={**env, "CACHE_DIRECTORY": str(bad), "STATE_DIRECTORY": str(good)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert both.returncode == 0, both.stderr
    assert unpacked(good / "program")


def test_starts_at_the_same_time_unpack_once(cache: Path) -> None:
    results: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(run("--version", SAGEMAKER_EDGE_UNPACK_DIR=str(cache)).returncode)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 4
    assert len(unpacked(cache)) == 1
    assert not list(cache.glob("*.part"))


def other_version(folder: Path) -> Path:
    """The same program as another build of it."""
    assert BINARY
    data = bytearray(BINARY.read_bytes())
    trailer = data[-TRAILER_BYTES:].decode().split()
    trailer[4] = "0" * 32
    data[-TRAILER_BYTES:] = " ".join(trailer).ljust(TRAILER_BYTES - 1).encode() + b"\n"
    path = folder / "other"
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def test_an_old_version_goes_when_nobody_runs_it(cache: Path, tmp_path: Path) -> None:
    other = other_version(tmp_path)
    run("--version", SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
    run("--version", binary=other, SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
    assert [path.name for path in unpacked(cache)] == ["0" * 32 + ".unpacked"]


def test_a_version_that_runs_stays(cache: Path, tmp_path: Path) -> None:
    assert BINARY
    other = other_version(tmp_path)
    run("--version", binary=other, SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
    (running,) = unpacked(cache)
    holder = os.open(running, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(holder, fcntl.LOCK_SH)
        run("--version", SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
        assert len(unpacked(cache)) == 2
    finally:
        os.close(holder)


def test_a_damaged_file_says_so(cache: Path, tmp_path: Path) -> None:
    assert BINARY
    data = bytearray(BINARY.read_bytes())
    middle = len(data) // 2
    data[middle] ^= 1
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)
    damaged.chmod(0o755)
    done = run("--version", binary=damaged, SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
    assert done.returncode == CANNOT_UNPACK
    assert "damaged" in done.stderr
    damaged.write_bytes(data[:middle])
    assert "damaged" in run("--version", binary=damaged, SAGEMAKER_EDGE_UNPACK_DIR=str(cache)).stderr
    assert not unpacked(cache)


def test_a_packager_unpacks_it(tmp_path: Path) -> None:
    target = tmp_path / "tree"
    assert run("--unpack", str(target)).returncode == 0
    program = target / "sagemaker_edge_agent"
    assert os.access(program, os.X_OK)
    # The installed form: the program itself under the original names.
    client = tmp_path / "sagemaker_edge_agent_client_example"
    client.symlink_to(program)
    assert "usage" in subprocess.run([client, "--help"], capture_output=True, text=True, check=True).stdout.lower()


def test_it_is_one_process_that_gets_the_signals(tmp_path: Path) -> None:
    """The process that was started is the one that serves: READY comes from it, and it ends with 0 on SIGHUP."""
    assert BINARY
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    notify.settimeout(300)
    roots = tmp_path / "roots"
    roots.mkdir()
    config = tmp_path / "config.json"
    config.write_text(
        '{"sagemaker_edge_core_device_name": "d", "sagemaker_edge_core_device_fleet_name": "f",'
        f' "sagemaker_edge_core_root_certs_path": "{roots}", "sagemaker_edge_core_capture_data_disk_path": "{tmp_path}/captures"}}'
    )
    agent = subprocess.Popen(
        [BINARY, "-a", str(tmp_path / "agent.sock"), "-c", str(config)],
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            data, ancillary, _, _ = notify.recvmsg(4096, 256)
            sender = int.from_bytes(ancillary[0][2][:4], "little")
            assert sender == agent.pid
            if b"READY=1" in data:
                break
        agent.send_signal(signal.SIGHUP)
        assert agent.wait(60) == 0
    finally:
        agent.kill()
        agent.wait()
        notify.close()

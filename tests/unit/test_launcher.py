"""The one-file program's launcher, compiled here: what it says of its own file. The rest is in tests/package/test_binary.py."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "packaging" / "nuitka" / "launcher.c"
FLAGS = shlex.split(os.environ.get("CFLAGS", ""))
NOBODY = 65534


def _has_zstd() -> bool:
    if shutil.which("gcc") is None:
        return False
    words = ["gcc", *FLAGS, "-E", "-include", "zstd.h", "-x", "c", "/dev/null"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _has_zstd(), reason="needs gcc and zstd.h (libzstd-dev)")


@pytest.fixture
def launcher() -> Iterator[Path]:
    """The launcher with nothing packed behind it, where the user that runs it can reach it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        program = Path(folder) / "sagemaker_edge_agent_binary"
        words = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", *FLAGS, "-o", str(program), str(SOURCE), "-lzstd"]
        subprocess.run(words, check=True)
        yield program


def run(program: Path) -> "subprocess.CompletedProcess[str]":
    """Run it as a user whom modes hold for."""
    user = NOBODY if os.geteuid() == 0 else None
    return subprocess.run([program], capture_output=True, text=True, check=False, user=user)


def test_a_file_that_its_user_cannot_read(launcher: Path) -> None:
    if os.geteuid() == 0:
        os.chown(launcher, NOBODY, -1)
    launcher.chmod(0o330)
    refused = run(launcher)
    assert refused.returncode == 71
    assert refused.stderr == f"sagemaker_edge_agent: this file cannot be read by its user: chmod 0550 {launcher}\n"
    launcher.chmod(0o550)
    assert "damaged or was shortened" in run(launcher).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a file of another user")
def test_a_file_of_another_user_that_cannot_be_read(launcher: Path) -> None:
    launcher.chmod(0o711)
    assert f"cannot be read by its user: chmod a+r {launcher}" in run(launcher).stderr

"""The one-file program's launcher, compiled here: what it makes of its own file, sound or damaged, and of what is packed in it.

`make test-launcher` runs this under the address and undefined-behaviour sanitizers. The rest is in tests/package/test_binary.py.
"""

import io
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "packaging" / "nuitka" / "launcher.c"
FLAGS = shlex.split(os.environ.get("CFLAGS", ""))
# As the release's: packaging/nuitka/binary.sh.
(HARDENED,) = re.findall(r"^launcher_flags=\((.*)\)$", SOURCE.with_name("binary.sh").read_text(), re.MULTILINE)
HARDENED = shlex.split(HARDENED)
NOBODY = 65534
TRAILER_BYTES = 128
CANNOT_UNPACK = 71
SANITIZER = "Sanitizer"  # in every report of theirs


def _has_zstd() -> bool:
    if shutil.which("gcc") is None or shutil.which("zstd") is None:
        return False
    words = ["gcc", *FLAGS, "-E", "-include", "zstd.h", "-x", "c", "/dev/null"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _has_zstd(), reason="needs gcc, zstd and zstd.h (libzstd-dev)")


@pytest.fixture
def launcher() -> Iterator[Path]:
    """The launcher with nothing packed behind it, where the user that runs it can reach it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        program = Path(folder) / "sagemaker_edge_agent_binary"
        words = ["gcc", *HARDENED, *FLAGS, "-o", str(program), str(SOURCE), "-lzstd"]
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


def packed(launcher: Path, program: Path) -> Path:
    """The launcher with a tree behind it, whose program says where it is and what it was given."""
    tree = program.with_name("tree")
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "data.txt").write_bytes(bytes(100_000))
    (tree / "sub" / "empty").touch()
    (tree / "sagemaker_edge_agent").write_text('#!/bin/sh\necho "$0 $*"\nexit 7\n')
    (tree / "sagemaker_edge_agent").chmod(0o755)
    subprocess.run([sys.executable, SOURCE.with_name("pack.py"), launcher, tree, program], check=True)
    return program


def behind(launcher: Path, program: Path, tar: bytes, cut: int = 0) -> Path:
    """The launcher with an archive of any making behind it, its last `cut` bytes missing."""
    payload = subprocess.run(["zstd", "-q", "--check", "-c"], input=tar, stdout=subprocess.PIPE, check=True).stdout
    payload = payload[: len(payload) - cut]
    start = launcher.read_bytes()
    trailer = f"sagemaker-edge-payload-1 {len(start)} {len(payload)} {len(tar)} {'a' * 32}"
    program.write_bytes(start + payload + trailer.ljust(TRAILER_BYTES - 1).encode() + b"\n")
    program.chmod(0o755)
    return program


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", size: int | None = None) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data) if size is None else size, "/etc/passwd"
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def start(program: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False, env=kept)
    assert SANITIZER not in done.stderr, done.stderr
    return done


def test_it_unpacks_once_and_becomes_the_program(launcher: Path, tmp_path: Path) -> None:
    program, cache = packed(launcher, tmp_path / "one"), tmp_path / "cache"
    for words in (["--version"], ["a", "b c"]):
        done = start(program, *words, SAGEMAKER_EDGE_UNPACK_DIR=str(cache))
        (unpacked,) = cache.glob("*.unpacked")
        assert (done.returncode, done.stdout) == (7, f"{unpacked}/sagemaker_edge_agent {' '.join(words)}\n"), (
            done.stderr
        )
    assert stat.S_IMODE(unpacked.stat().st_mode) == 0o700
    assert (unpacked / "sub/data.txt").read_bytes() == bytes(100_000) and (unpacked / "sub/empty").read_bytes() == b""


def test_a_new_version_takes_the_place_of_the_old_one(launcher: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "old.unpacked/deep/deeper").mkdir(parents=True)
    (cache / "old.unpacked/deep/file").touch()
    cache.chmod(0o700)
    assert start(packed(launcher, tmp_path / "one"), SAGEMAKER_EDGE_UNPACK_DIR=str(cache)).returncode == 7
    assert not (cache / "old.unpacked").exists()


@pytest.mark.parametrize("places", ["long", "many"])
def test_every_place_that_was_tried_is_named(launcher: Path, tmp_path: Path, places: str) -> None:
    """Reasons beyond their room are cut."""
    file = tmp_path / "file"
    file.touch()
    below = f"{file}/{'x/' * 1900}" if places == "long" else f"{file}/x"
    names = ("CACHE_DIRECTORY", "STATE_DIRECTORY", "XDG_CACHE_HOME", "HOME", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")
    program = packed(launcher, tmp_path / "one")
    if os.geteuid() == 0:
        names = ("SAGEMAKER_EDGE_UNPACK_DIR",)  # root has places of its own
    done = start(program, **dict.fromkeys(names, below))
    assert done.returncode == CANNOT_UNPACK and str(file) in done.stderr


def test_it_unpacks_for_a_package(launcher: Path, tmp_path: Path) -> None:
    assert start(packed(launcher, tmp_path / "one"), "--unpack", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out/sub/data.txt").stat().st_size == 100_000


@pytest.mark.parametrize(
    ("archive", "told"),
    [
        (member("../outside"), "Invalid argument"),
        (member("a/../../outside"), "Invalid argument"),
        (member("/outside"), "Invalid argument"),
        (member("link", tarfile.SYMTYPE), "Invalid argument"),
        (member("x", tarfile.FIFOTYPE), "Invalid argument"),
        (member("n" * 100), "ends too early"),
        (member("twice") + member("twice"), "File exists"),
        (member("none/file", data=b"x"), "No such file"),
        (member("large", size=(8 << 30) - 1), "ends too early"),
        (member("short", data=b"x", size=600), "ends too early"),
        (b"x", "ends too early"),
        (b"", "ends too early"),
        (b"\xff" * 512, "Invalid argument"),
    ],
)
def test_an_archive_of_another_making(launcher: Path, tmp_path: Path, archive: bytes, told: str) -> None:
    done = start(behind(launcher, tmp_path / "one", archive), "--unpack", str(tmp_path / "out"))
    assert done.returncode == CANNOT_UNPACK and told in done.stderr
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("cut", [1, 4, 100, 1000])
def test_a_payload_that_was_cut(launcher: Path, tmp_path: Path, cut: int) -> None:
    data = os.urandom(200_000)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("sagemaker_edge_agent")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    done = start(behind(launcher, tmp_path / "one", buffer.getvalue(), cut), "--unpack", str(tmp_path / "out"))
    assert done.returncode == CANNOT_UNPACK and "the packed program is damaged" in done.stderr


@pytest.mark.parametrize(
    "trailer",
    [
        "",
        "sagemaker-edge-payload-1",
        "sagemaker-edge-payload-1 0 0 0 zz",
        "sagemaker-edge-payload-1 9 9 9 " + "a" * 80,
        f"sagemaker-edge-payload-1 {2**64 - 64} {2**63} 9 aa",
        f"sagemaker-edge-payload-1 -1 {'9' * 60} 9 aa",
    ],
)
def test_a_trailer_that_is_damaged(launcher: Path, tmp_path: Path, trailer: str) -> None:
    program = tmp_path / "one"
    program.write_bytes(launcher.read_bytes() + bytes(1000) + trailer.ljust(TRAILER_BYTES).encode()[:TRAILER_BYTES])
    program.chmod(0o755)
    done = start(program, "--unpack", str(tmp_path / "out"))
    assert done.returncode == CANNOT_UNPACK and "damaged or was shortened" in done.stderr


def test_a_trailer_whose_numbers_wrap(launcher: Path, tmp_path: Path) -> None:
    """Offset and size that give the file's length in 64 bits, and lie outside it."""
    program = tmp_path / "one"
    body = launcher.read_bytes()
    size = len(body) + TRAILER_BYTES
    offset = size + 4096
    trailer = f"sagemaker-edge-payload-1 {offset} {2**64 + len(body) - offset} 9 aa"
    program.write_bytes(body + trailer.ljust(TRAILER_BYTES).encode())
    program.chmod(0o755)
    done = start(program, "--unpack", str(tmp_path / "out"))
    assert done.returncode == CANNOT_UNPACK and "damaged or was shortened" in done.stderr

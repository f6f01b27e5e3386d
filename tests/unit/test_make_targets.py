"""What `make` says where what a target works on, or a tool that it needs, is not there."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READY = ["-o", ".venv/.ready", "-o", ".venv/.tests"]  # no target of this test sets up an environment


def make(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", "-s", *([] if "-W" in words else READY), *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["deb-of-release", "RELEASE=none.tgz", "ARCH=arm64"], "run 'make tarball ARCH=arm64' first"),
        (["deb-check", "DEB=none.deb", "ARCH=amd64"], "run 'make deb ARCH=amd64' first"),
        (["test-package", "DEB=none.deb", "ARCH=amd64"], "run 'make deb ARCH=amd64' first"),
        (["device-run", "DEB=none.deb", "ARCH=arm64"], "run 'make deb ARCH=arm64' first"),
        (["apt-repo", "DEBS="], "run 'make deb ARCH=arm64' (or amd64) first"),
        (["test-binary"], "run 'make binary ARCH=amd64' first"),
        (["test-arm64"], "run 'make binary ARCH=arm64' first"),
        (["yocto-check", "OECORE=", "BITBAKE="], "Name checkouts: make yocto-check OECORE="),
    ],
)
def test_what_to_build_first(words: list[str], told: str) -> None:
    mirrors = dict.fromkeys(("EDGE_DEBIAN_MIRROR", "EDGE_DEBIAN_SECURITY_MIRROR"), "file:///none")  # not looked up
    done = make(*words, BINARY="/none", **mirrors)
    assert done.returncode != 0
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_tools_of_the_cpp_parts(tmp_path: Path) -> None:
    for target in ("example", "bench-build"):
        done = make(target, PATH=programs(tmp_path))
        assert done.returncode != 0
        assert "There is no g++: run 'apt-get install g++ cmake" in done.stderr


def test_targets_that_documents_name_are_there() -> None:
    listed = set(re.findall(r"^[a-z0-9-]+", make("help").stdout, re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", "docs/operate.md", "docs/release.md", "docs/yocto.md"):
        told = re.findall(r"^make ([a-z0-9-]+)|`make ([a-z0-9-]+)", (ROOT / name).read_text(), re.MULTILINE)
        assert {first or second for first, second in told} <= listed, name


def test_the_first_line_of_contributing_brings_the_test_tools() -> None:
    (first,) = re.findall(r"```sh\nmake ([a-z]+) ", (ROOT / "CONTRIBUTING.md").read_text())
    assert "-r requirements-test.txt" in make("-n", "-W", "requirements-test.txt", first).stdout.replace("'", "")


def test_clean_keeps_what_the_readme_makes() -> None:
    made = set(re.findall(r"build/[\w.-]+", (ROOT / "README.md").read_text()))
    assert {"build/ca", "build/digits-1.0", "build/config.json", "build/captures"} <= made
    removed = make("-n", "clean").stdout.split()
    assert "build/nuitka" in removed
    assert not made & set(removed)
    assert "build" not in removed


def programs(folder: Path) -> str:
    """A folder of the programs that make itself needs, without those of C++."""
    bin_folder = folder / "bin"
    if not bin_folder.exists():
        bin_folder.mkdir()
        for place in ("/bin", "/usr/bin", "/usr/local/bin"):
            for name in ("make", "bash", "sh", "git", "python3", "cmp", "mkdir", "nproc", "dpkg", "grep"):
                if (found := Path(place, name)).exists() and not (bin_folder / name).exists():
                    (bin_folder / name).symlink_to(found)
    return str(bin_folder)

"""Write the locks of the binary's parts: every version with the sha256 of the one file used on each architecture.

LiteRT's library has a lock of its own: it is that of requirements.txt, and the interpreter beside it is of another release.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PINS = HERE.parents[1] / "requirements.txt"
# The C libraries whose wheels may be taken: none newer than the floor that `make binary` promises.
# tflite-runtime's for aarch64 names 2.34 and needs 2.27; the build fails where a file needs more than the floor.
FLOORS = ("2014", "_2_17", "_2_26", "_2_27", "_2_28", "_2_31", "_2_34")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
LITERT = "ai-edge-litert"
HEADER = "# Written by `make binary-lock` from requirements.in. Do not edit.\n"


def pinned() -> dict[str, str]:
    """The versions in requirements.txt, the first where there are several."""
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", PINS.read_text(), re.MULTILINE)[::-1])


def wanted() -> list[str]:
    """The requirements, each with its exact version.

    Raises:
        SystemExit: a requirement has no version here or in requirements.txt.
    """
    pins = pinned()
    result = []
    for line in HERE.joinpath("requirements.in").read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if not requirement:
            continue
        if "==" not in requirement:
            if requirement not in pins:
                sys.exit(f"{requirement} has no version in {PINS}")
            requirement += f"=={pins[requirement]}"
        result.append(requirement)
    return result


def fetch(requirement: str, machine: str, directory: Path) -> Path:
    """The file that pip would take: a wheel for `machine`, else the source archive of a pure Python project."""
    before = set(directory.iterdir())
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(directory), requirement]
    platforms = [f"--platform=manylinux{floor}_{machine}" for floor in FLOORS]
    tags = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3", "--abi=none"]
    wheel = subprocess.run([*command, "--only-binary=:all:", *platforms, *tags], check=False, capture_output=True)
    if wheel.returncode:
        subprocess.run(command, check=True)
    (new,) = set(directory.iterdir()) - before
    return new


def lock(requirements: list[str], machine: str) -> str:
    """The text of a lock."""
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        for requirement in requirements:
            digest = hashlib.sha256(fetch(requirement, machine, Path(directory)).read_bytes()).hexdigest()
            lines.append(f"{requirement} --hash=sha256:{digest}\n")
    return HEADER + "".join(lines)


def main() -> None:
    litert = f"{LITERT}=={pinned()[LITERT]}"
    for arch, machine in MACHINES.items():
        HERE.joinpath(f"requirements-{arch}.lock").write_text(lock(wanted(), machine))
        HERE.joinpath(f"litert-{arch}.lock").write_text(lock([litert], machine))


if __name__ == "__main__":
    main()

"""The C++ example: it is current, builds with the distribution's gRPC, and does with the agent what its README says."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.system.harness import ROOT, AgentProcess, Client

EXAMPLE = ROOT / "examples" / "ipc_example"
BUILD = ROOT / "build" / "ipc_example"
PICTURE = EXAMPLE / "street_small.bmp"
RELEASED = {
    "CMakeLists.txt", "sagemaker_edge_client.cc", "sagemaker_edge_client.hh", "sagemaker_edge_client_example.cc",
    "sagemaker_edge.proto", "shm.cc", "shm.hh", "README.md", "street_small.bmp",
}  # fmt: skip
BUILD_SECONDS = 600

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def capable() -> str | None:
    """What this machine lacks to build the example, or None."""
    missing = [tool for tool in ("cmake", "g++", "pkg-config", "protoc", "grpc_cpp_plugin") if not shutil.which(tool)]
    if not missing and subprocess.run(["pkg-config", "--exists", "grpc++"], check=False).returncode:
        missing = ["libgrpc++-dev"]
    return ", ".join(missing) or None


def test_the_example_is_the_released_files() -> None:
    assert {path.name for path in EXAMPLE.iterdir()} == RELEASED


def test_the_api_is_the_agents() -> None:
    assert (EXAMPLE / "sagemaker_edge.proto").read_bytes() == (ROOT / "proto" / "agent.proto").read_bytes()


def test_the_picture_is_what_its_script_draws(tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.bmp"
    subprocess.run([sys.executable, str(ROOT / "examples" / "draw_street.py"), str(drawn)], check=True)
    assert drawn.read_bytes() == PICTURE.read_bytes()


@pytest.fixture(scope="module")
def program() -> Path:
    """The example, built (a build that is there is brought up to date)."""
    if missing := capable():
        pytest.skip(f"building the C++ example needs {missing}")
    for command in (["cmake", "-S", str(EXAMPLE), "-B", str(BUILD)], ["cmake", "--build", str(BUILD), "-j2"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stderr, done.stderr
    return BUILD / "sagemaker_edge_client_example"


@pytest.fixture
def run(program: Path, agent: AgentProcess, client: Client) -> Run:
    """The example on the agent's socket; `client` unloads what it leaves."""

    def call(*words: str, expect: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [str(program), "-a", agent.socket, *words], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == expect, (words, done)
        return done

    return call


def numbers(text: str) -> list[float]:
    """The values that the example printed of the one output."""
    return [float(word) for word in text.splitlines()[1].split()]


def test_an_application_from_load_to_unload(run: Run, digits: Path, client: Client) -> None:
    assert run("ListModels").stdout == "no model is loaded\n"
    assert "input  image FLOAT32 [1, 8, 8, 1]" in run("LoadModel", str(digits), "demo").stdout
    assert run("ListModels").stdout == run("DescribeModel", "demo").stdout
    words = ("demo", str(PICTURE), "image", "8", "8", "1")
    inline, shared = run("Predict", *words).stdout, run("PredictSHM", *words).stdout
    assert inline == shared
    assert len(numbers(inline)) == 10 and abs(sum(numbers(inline)) - 1) < 1e-4
    captured = run("PredictSHMAndCapture", *words).stdout
    assert captured.startswith(inline) and captured.endswith("status SUCCESS\n")
    capture_id = re.search(r"^capture (\S+)$", captured, re.M)
    assert capture_id and run("GetCaptureDataStatus", capture_id[1]).stdout == "status SUCCESS\n"
    assert run("PredictAndCapture", *words).stdout.endswith("status SUCCESS\n")
    assert run("UnloadModel", "demo").stdout == "unloaded demo\n"
    assert client.models() == []


def test_no_segment_is_left_behind(run: Run, digits: Path) -> None:  # [P-11]
    def segments() -> set[str]:
        """Those that nobody uses and whose maker has ended; other tests may have some of their own."""
        rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
        mine = [row for row in rows if row[7] == str(os.getuid()) and row[6] == "0"]
        return {row[1] for row in mine if not psutil.pid_exists(int(row[4]))}

    before = segments()
    run("LoadModel", str(digits), "demo")
    run("PredictSHM", "demo", str(PICTURE), "image", "8", "8", "1")
    run("PredictSHM", "demo", str(PICTURE), "image", "9", "8", "1", expect=1)
    assert segments() <= before


def test_refusals_are_said_in_the_agents_words(run: Run, digits: Path) -> None:
    assert "is not loaded" in run("DescribeModel", "none", expect=1).stderr
    run("LoadModel", str(digits), "demo")
    assert "already loaded" in run("LoadModel", str(digits), "demo", expect=1).stderr
    wrong = run("Predict", "demo", str(PICTURE), "image", "9", "8", "1", expect=1).stderr
    assert "got 288 bytes, expected 256" in wrong
    assert "no input named" in run("Predict", "demo", str(PICTURE), "other", "8", "8", "1", expect=1).stderr
    assert "not a BMP" in run("Predict", "demo", __file__, "image", "8", "8", "1", expect=1).stderr


def test_wrong_usage(run: Run, program: Path) -> None:
    for words in (
        (),
        ("Nothing",),
        ("LoadModel", "x"),
        ("Predict", "m", "f", "i", "0", "8", "1"),
        ("-g", "no such group", "ListModels"),
    ):
        assert "usage:" in run(*words, expect=2).stderr
    assert "usage:" in subprocess.run([str(program), "-h"], capture_output=True, text=True, check=True).stdout


def test_no_agent(program: Path, tmp_path: Path) -> None:
    socket = str(tmp_path / "nobody.sock")
    done = subprocess.run(
        [str(program), "ListModels"], capture_output=True, text=True, check=False,
        env={**os.environ, "SAGEMAKER_EDGE_SOCKET": socket}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 3
    assert "no agent answers" in done.stderr and socket in done.stderr

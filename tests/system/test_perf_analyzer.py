"""NVIDIA's load generator on the agent, where it is installed (`perf-analyzer` on PyPI; its binary needs glibc 2.38) [O-13] [O-20]."""

import re
import shutil
import subprocess

import pytest

from edge import address
from tests.system.conftest import MODELS, Signer
from tests.system.harness import AgentProcess, Client

PROGRAM = shutil.which("perf_analyzer")
RUN_SECONDS = 300
# A fixed number of requests, whatever the time that they take.
BOUNDED = ("--request-count", "200", "--measurement-interval", "60000")


@pytest.mark.skipif(PROGRAM is None, reason="perf_analyzer is not installed")
@pytest.mark.parametrize(
    "options",
    [(), ("-a",), ("--shared-memory", "system", "--output-shared-memory-size", "4096")],
    ids=["raw", "asynchronous", "shared memory"],
)
def test_it_loads_a_model(agent: AgentProcess, client: Client, signer: Signer, options: tuple[str, ...]) -> None:
    # It takes versions for whole numbers, and finds no statistics of others.
    client.load(signer.package(MODELS / "add_one.tflite", "counted", "--version", "3"), "m")
    done = subprocess.run(
        [str(PROGRAM), "-m", "m", "-i", "grpc", "-u", address.target(agent.socket), *BOUNDED, *options],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Unable" not in said and "failed" not in said.lower(), said
    [sent] = re.findall(r"Client:\s+Request count: (\d+)", said)
    [counted] = re.findall(r"Server:\s+Inference count: (\d+)", said)
    assert int(sent) == int(counted) == 200, said

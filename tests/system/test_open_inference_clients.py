"""The Open Inference Protocol with clients of other languages: grpc-js, and C++ stubs that are generated from the definition [O-6]."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.system.harness import ROOT, AgentProcess, Client, array_of, tensor_of
from tests.system.test_cpp_example import capable

HERE = Path(__file__).parent
PROTO = ROOT / "proto" / "open_inference.proto"
NODE_MODULES = ("@grpc/grpc-js@1.14.7", "@grpc/proto-loader@0.8.1")
BUILD_SECONDS = 600


def run(
    *words: str, env: dict[str, str] | None = None, cwd: Path | None = None, seconds: float = BUILD_SECONDS
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )


@pytest.fixture
def expected(client: Client, package_of: Callable[[str], Path]) -> list[float]:
    """What the model "m" answers to ones."""
    (metadata,) = client.load(package_of("dynamic_batch"), "m").input_tensor_metadatas
    ones = np.ones((1, *tuple(metadata.shape)[1:]), np.float32)
    answer: list[float] = array_of(client.predict("m", [tensor_of(ones, metadata.name)])[0]).ravel().tolist()
    return answer


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """A folder with grpc-js; npm brings it once."""
    if missing := [tool for tool in ("node", "npm") if not shutil.which(tool)]:
        pytest.skip(f"{', '.join(missing)} is not installed")
    folder = ROOT / "build" / "inference_client"
    folder.mkdir(parents=True, exist_ok=True)
    there = folder / "node_modules" / "@grpc"
    if not (there / "grpc-js").is_dir() or not (there / "proto-loader").is_dir():
        options = ("--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--fetch-retries=0")
        try:
            done = run("npm", "install", "--prefix", str(folder), *options, *NODE_MODULES, seconds=60)
        except subprocess.TimeoutExpired:
            pytest.skip("npm reaches no registry")
        if done.returncode:
            pytest.skip(f"npm cannot install {' '.join(NODE_MODULES)}: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules"


def test_grpc_js(agent: AgentProcess, expected: list[float], node_modules: Path) -> None:
    script = str(HERE / "inference_client.js")
    done = run("node", script, str(PROTO), agent.socket, "m", env={"NODE_PATH": str(node_modules)})
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert np.allclose(said.pop("output"), expected)
    assert said.pop("shape")[0] == "1"
    assert said == {"server": "sagemaker-edge-agent", "id": "from-node", "refused": "NOT_FOUND"}


@pytest.fixture(scope="module")
def cpp_client() -> Path:
    """The client in C++, built from the definition; a build that is there and no older than its sources is taken."""
    if missing := capable():
        pytest.skip(f"building a C++ client needs {missing}")
    folder, source = ROOT / "build" / "inference_client_cpp", HERE / "inference_client.cc"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "client"
    if program.exists() and program.stat().st_mtime > max(source.stat().st_mtime, PROTO.stat().st_mtime):
        return program
    plugin = shutil.which("grpc_cpp_plugin")
    make = ["protoc", f"-I{PROTO.parent}", f"--cpp_out={folder}", f"--grpc_out={folder}"]
    run(*make, f"--plugin=protoc-gen-grpc={plugin}", str(PROTO)).check_returncode()
    flags = run("pkg-config", "--cflags", "grpc++", "protobuf").stdout.split()
    sources = [source, folder / "open_inference.pb.cc", folder / "open_inference.grpc.pb.cc"]
    objects = [str(folder / f"{one.name}.o") for one in sources]
    compilers = [
        subprocess.Popen(["g++", "-std=c++17", "-O0", "-c", f"-I{folder}", *flags, "-o", made, str(one)])
        for one, made in zip(sources, objects, strict=True)
    ]
    assert [one.wait(BUILD_SECONDS) for one in compilers] == [0, 0, 0]
    libraries = run("pkg-config", "--libs", "grpc++", "protobuf").stdout.split()
    linked = run("g++", "-o", str(program), *objects, *libraries)
    assert linked.returncode == 0, linked.stderr
    return program


def test_generated_cpp(agent: AgentProcess, expected: list[float], cpp_client: Path) -> None:
    done = run(str(cpp_client), agent.socket, "m")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert np.allclose(said.pop("output"), expected)
    assert said == {"server": "sagemaker-edge-agent", "id": "from-c++", "refused": 5}

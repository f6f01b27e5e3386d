"""Fixtures of the system tests: a demo CA, signed packages, agents."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge.package.identity import load_identity
from edge.package.making import make_package
from edge.package.manifest import Manifest
from edge.settings import full_key
from tests.system.harness import CALL_SECONDS, ROOT, AgentProcess, Client, client_command

MODELS = ROOT / "tests" / "data"
DIGITS = ROOT / "demo" / "data" / "digits.tflite"
DIGITS_INT8 = ROOT / "demo" / "data" / "digits_int8.tflite"


@dataclass(frozen=True)
class Signer:
    """A throw-away CA with a signing certificate, made by the packaging tool, and what it signed."""

    folder: Path
    roots: Path
    key: Path
    certificate: Path

    def package(self, model: Path | bytes, name: str = "model", *words: str, out: Path | None = None) -> Path:
        """A signed package of a model, made by the packaging tool; returns its folder, or the `.tar.gz` that `out` names."""
        target = out or Path(self.folder / f"{name}-{sum(1 for _ in self.folder.iterdir())}")
        source = model
        if isinstance(model, bytes):
            source = target.with_name(target.name + ".tflite")
            source.write_bytes(model)
        run_tool(
            "package", "--model", str(source), "--name", name, "--version", "1.0", "--key", str(self.key),
            "--cert", str(self.certificate), "--out", str(target), *words,
        )  # fmt: skip
        return target

    def sign_anything(self, content: bytes, **more: Any) -> Path:
        """A signed package named "broken" of what need not be a model, or not fit it, which the packaging tool refuses to sign.

        `more` is what its manifest says besides.
        """
        target = Path(self.folder / f"broken-{sum(1 for _ in self.folder.iterdir())}")
        model = target.with_name(target.name + ".tflite")
        model.write_bytes(content)
        make_package(
            Manifest("broken", "1.0", model.name, **more),
            model,
            [],
            load_identity(self.key, self.certificate, None),
            target,
        )
        return target


def run_tool(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a command of the program under test; with `check` its failure fails the test, with what it said."""
    done = subprocess.run([*client_command(), *words], capture_output=True, text=True, timeout=300, check=False)
    if check:
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """The CA of this run."""
    folder = tmp_path_factory.mktemp("signer")
    ca = folder / "ca"
    run_tool("demo-ca", str(ca))
    packages = folder / "packages"
    packages.mkdir()
    return Signer(packages, ca / "roots", ca / "signing.key", ca / "signing.pem")


@pytest.fixture(scope="session")
def package_of(signer: Signer) -> Callable[[str], Path]:
    """A signed package of a model in tests/data by its name, made once."""
    made: dict[str, Path] = {}

    def package(model: str) -> Path:
        if model not in made:
            # One thread: on a busy machine the threads of an interpreter wait for each other far longer than they work.
            words = ("--threads", "1") if model == "slow" else ()
            made[model] = signer.package(MODELS / f"{model}.tflite", model.replace("_", "-"), *words)
        return made[model]

    return package


@pytest.fixture(scope="session")
def digits(signer: Signer) -> Path:
    """A signed package of the digits model, float32."""
    return signer.package(DIGITS, "digits")


AgentFactory = Callable[..., AgentProcess]


@pytest.fixture
def agents(tmp_path: Path, signer: Signer) -> Iterator[AgentFactory]:
    """Makes agents, not yet started, with a good configuration and changes to it; ends them after the test."""
    made: list[AgentProcess] = []
    short: list[Path] = []

    def factory(*arguments: str, roots: Path = signer.roots, **changes: Any) -> AgentProcess:
        folder = tmp_path / f"agent-{len(made)}"
        folder.mkdir()
        agent = AgentProcess(folder, good_config(folder, roots, changes), arguments)
        made.append(agent)
        if "edge_admins" in changes:  # their socket lies deeper, and the path of a socket has 107 bytes at most
            short.append(Path(tempfile.mkdtemp(prefix="edge-")))
            short[-1].chmod(0o755)
            agent.socket = str(short[-1] / "agent.sock")
        return agent

    yield factory
    for agent in made:
        with contextlib.suppress(ProcessLookupError):
            agent.stop()
    for folder in short:
        shutil.rmtree(folder)


def good_config(folder: Path, roots: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that works, in a folder of its own; `changes` by key without the prefix, None to leave one out."""
    values: dict[str, Any] = {
        "core_device_name": "device-1",
        "core_device_fleet_name": "fleet-1",
        "core_root_certs_path": str(roots),
        "core_capture_data_disk_path": str(folder / "captures"),
        "core_capture_data_push_period_seconds": 1,
        **changes,
    }
    return {full_key(key): value for key, value in values.items() if value is not None}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Iterator[AgentProcess]:
    """One agent for a whole module, for tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("agent")
    made = AgentProcess(folder, good_config(folder, signer.roots, {})).start()
    yield made
    assert made.stop() == 0, made.log


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[Client]:
    """A client of the module's agent; whatever models it loaded are unloaded after the test."""
    before = {model.name for model in agent.client.models()}
    yield agent.client
    for model in agent.client.models():
        if model.name not in before:
            agent.client.unload(model.name)


@pytest.fixture
def refused() -> Callable[..., contextlib.AbstractContextManager[Any]]:
    """A context that expects a call to be refused with a status, by its name, and words in its text."""
    import grpc

    @contextlib.contextmanager
    def expect(status: str, *words: str) -> Iterator[None]:
        with pytest.raises(grpc.RpcError) as raised:
            yield
        error: Any = raised.value
        assert error.code().name == status, (error.code(), error.details())
        for word in words:
            assert word in error.details(), error.details()
        assert "Traceback" not in error.details()

    return expect


@pytest.fixture(scope="session")
def triton() -> Iterator[Callable[..., Any]]:
    """Runs a function of tests/system/triton.py in a process that has tritonclient's stubs."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        executor.submit(int).result(CALL_SECONDS)  # it is there before tests look for what they leave behind
        yield lambda call, *words, **named: executor.submit(call, *words, **named).result(CALL_SECONDS)

"""What a benchmark starts: the agent as users start it, signed packages, the do-nothing servers, the load generator."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from edge.settings import full_key
from tests.system.harness import ROOT, AgentProcess, client_command

BUILD = ROOT / "build" / "bench"
LOADGEN = BUILD / "loadgen"
CPP_ECHO = BUILD / "echo_server"
MODELS = {
    "tiny": ROOT / "demo" / "data" / "digits.tflite",
    "float32": BUILD / "models" / "mobilenet_float32.tflite",
    "int8": BUILD / "models" / "mobilenet_int8.tflite",
    "large": BUILD / "models" / "large_input.tflite",
    "slow": ROOT / "tests" / "data" / "slow.tflite",
}
READY_SECONDS = 30

Found = dict[str, Any]  # what a measurement prints
CPUS = sorted(os.sched_getaffinity(0))
# Where a case has one client, what serves has one core and the client another: cores of a virtual machine may differ by
# half, and a thread that changes between them would measure that.
SERVING, ASKING = {CPUS[0]}, set(CPUS[1:]) or {CPUS[0]}
# What edge.rpc sets for the agent must not reach the servers and clients that it is compared with.
PLAIN = {key: value for key, value in os.environ.items() if key != "GRPC_EXPERIMENTS"}


def run_tool(*words: str, command: Sequence[str] = ()) -> None:
    """A command of the packaging tool, of the program under test unless `command` starts another."""
    done = subprocess.run([*(command or client_command()), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)}: {done.stdout}{done.stderr}")


class Rig(AbstractContextManager["Rig"]):
    """The servers of one benchmark, in a temporary folder; all on Unix sockets."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> "Rig":
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-bench-")))
        run_tool("demo-ca", str(self.folder / "ca"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def agent(self, *, command: Sequence[str] = (), **settings: Any) -> AgentProcess:
        """An agent with the demo CA's root; `settings` without the common prefix, `command` where it is another agent."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "captures").mkdir()
        config = {
            "core_device_name": "bench",
            "core_device_fleet_name": "bench",
            "core_root_certs_path": str(self.folder / "ca" / "roots"),
            "core_capture_data_disk_path": str(folder / "captures"),
            **settings,
        }
        agent = AgentProcess(folder, {full_key(key): value for key, value in config.items()}, (), command)
        self._stack.callback(agent.stop)
        return agent.start()

    def package(
        self,
        model: str,
        *,
        instances: int = 1,
        threads: int = 1,
        version: str = "1.0",
        command: Sequence[str] = (),
    ) -> Path:
        """A signed package of one of MODELS."""
        target = self.folder / f"{model}-{version}-{instances}-{threads}"
        if not target.exists():
            run_tool(
                "package", "--model", str(MODELS[model]), "--name", model, "--version", version,
                "--key", str(self.folder / "ca" / "signing.key"), "--cert", str(self.folder / "ca" / "signing.pem"),
                "--instances", str(instances), "--threads", str(threads), "--out", str(target),
                command=command,
            )  # fmt: skip
        return target

    def server(self, name: str, command: list[str], cpus: Iterable[int] = SERVING) -> str:
        """Start a server that takes its socket as last argument; returns the socket once it is there."""
        socket = self.folder / f"{name}.sock"
        process = subprocess.Popen(on(cpus, [*command, str(socket)]), env=PLAIN)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        poll(socket.exists, f"{name} listens")
        return str(socket)

    def cpp_echo(self, cpus: Iterable[int] = SERVING) -> str:
        """The do-nothing server in C++; it has two threads."""
        return self.server("cpp" if cpus is SERVING else "cpp-on-all", [str(CPP_ECHO)], cpus)

    def python_echo(self) -> str:
        """The do-nothing grpcio server."""
        return self.server("python", [sys.executable, str(ROOT / "bench" / "echo_server.py")])


def poll(condition: Callable[[], bool], what: str) -> None:
    """Wait until it holds."""
    from tests.system.harness import eventually

    eventually(condition, READY_SECONDS, what)


def words_of(options: dict[str, Any]) -> list[str]:
    """`--like this` for each option."""
    words: list[str] = []
    for key, value in options.items():
        words += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def pin(pid: int, cpus: Iterable[int]) -> None:
    """Keep a process, with all its threads and those to come, on some cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cpus)


def on(cpus: Iterable[int] | None, command: list[str]) -> list[str]:
    """The command, kept on some cores; None: on any."""
    return command if cpus is None else ["taskset", "-c", ",".join(map(str, cpus)), *command]


class Measurement:
    """A process that makes a measurement each time it is asked to, with a method to call where it is a load generator."""

    def __init__(self, command: list[str], cpus: Iterable[int] | None, stderr: int | None) -> None:
        self._command = on(cpus, command)
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
            cwd=ROOT, env=PLAIN,
        )  # fmt: skip
        assert self._process.stdin and self._process.stdout
        self._asked, self._answers = self._process.stdin, self._process.stdout

    def begin(self, method: str = "") -> None:
        """Let it measure; `found` has what it found."""
        with suppress(BrokenPipeError):  # it has ended, which `found` says
            self._asked.write(method + "\n")
            self._asked.flush()

    def found(self) -> Found:
        """What it found.

        Raises:
            SystemExit: a call failed, or an answer was not like the others.
        """
        line = self._answers.readline()
        found: Found = json.loads(line or "{}")
        if not line or found["failed"] or found.get("different"):
            raise SystemExit(f"{shlex.join(self._command)}: {line or 'it ended'}")
        return found

    def __call__(self, method: str = "") -> Found:
        self.begin(method)
        return self.found()

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self._asked.close()
        self._process.wait()
        self._answers.close()


class Together:
    """Measurements made at the same time."""

    def __init__(self, each: Sequence[Measurement]) -> None:
        self._each = each

    def per_second(self, method: str = "") -> float:
        """The calls a second of all."""
        for one in self._each:
            one.begin(method)
        return sum(float(one.found()["per_second"]) for one in self._each)


class Measurements(ExitStack):
    """Starts measurements, which end with the `with` block."""

    def load(self, target: str, *, cpus: Iterable[int] | None = None, **options: Any) -> Measurement:
        """A load generator."""
        return self._start([str(LOADGEN), *words_of({"target": target, **options})], cpus, None)

    def engine(self, model: str, *, cpus: Iterable[int] | None = None, **options: Any) -> Measurement:
        """The bare engine."""
        command = [sys.executable, "-m", "bench.engine", str(MODELS[model]), *words_of(options)]
        return self._start(command, cpus, subprocess.DEVNULL)  # it says which delegate it has

    def _start(self, command: list[str], cpus: Iterable[int] | None, stderr: int | None) -> Measurement:
        return self.enter_context(closing(Measurement(command, cpus, stderr)))


def load(target: str, **options: Any) -> Found:
    """One measurement by the load generator."""
    with Measurements() as start:
        return start.load(target, **options)()


def opening(model: str) -> float:
    """Seconds that the bare engine takes to open one of MODELS and to run it once, in a process of its own."""
    command = [sys.executable, "-m", "bench.opening", str(MODELS[model])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, cwd=ROOT, env=PLAIN)
    return float(done.stdout)

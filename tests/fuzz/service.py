"""Hostile requests at every call of the Open Inference Protocol, over a real agent's socket [O-8].

`python -m tests.fuzz.service [--requests N] [--clients N] [--server core|grpc] [--seed N]`. Half of them are arbitrary messages
of a call's own kind, made by hypothesis; the others are what clients send, with bytes or values changed. Each is answered or refused in words
with one of REFUSALS, and the agent lives, serves right numbers between them, and has no more files open in the end. A request
that fails is saved in tests/fuzz/corpus, where the unit tests send it to every handler again, and the exit code is 1.

The same seed makes the same requests of each client; which client's comes first is chance.
"""

import argparse
import multiprocessing
import secrets
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edge.package.identity import load_identity
from edge.package.making import make_package
from edge.package.manifest import Manifest
from tests.fuzz.explore import save
from tests.fuzz.service_client import Client, Found, Target
from tests.system.conftest import MODELS, good_config, run_tool
from tests.system.harness import AgentProcess, eventually
from tests.system.segments import ShmFile

SERVED = ("add_one", "dynamic_batch", "mixed_types", "scalar", "identity_bool")
REGION_BYTES = 256
FILES_OPEN_MORE = 16  # that an agent may have open in the end, for what it keeps of its own


def main() -> int:
    """Parse the words and run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.service", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--requests", type=int, default=100_000, help="of all clients together (100000)")
    parser.add_argument("--clients", type=int, default=2, help="that ask at the same time (2)")
    parser.add_argument("--server", choices=("core", "grpc"), default="core", help="edge_rpc_server of the agent")
    parser.add_argument("--seed", type=int, help="of a run that is to be repeated")
    options = parser.parse_args()
    number = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    print(f"seed {number}: {options.requests} requests by {options.clients} clients", flush=True)
    with _agent(options.server) as (agent, target):
        open_before = _open_files(agent)
        found = _ask(target, options.requests, options.clients, number)
        faults = [*found.faults, *_faults_of(agent)]
        if not faults:
            eventually(lambda: _open_files(agent) <= open_before + FILES_OPEN_MORE, 60, "files are closed again")
            print(f"files open: {open_before} before, {_open_files(agent)} after")
    for method in sorted({method for method, _ in found.counts}):
        of_method = {status: count for (name, status), count in sorted(found.counts.items()) if name == method}
        told = ", ".join(f"{status} {count}" for status, count in of_method.items())
        print(f"{method}: {sum(of_method.values())} ({told})")
    for raw in found.failing:
        print(f"saved as {save('inference', raw)}")
    for fault in faults:
        print(f"failed: {fault}")
    print(f"{sum(found.counts.values())} requests, {len(faults) or 'none'} failed")
    return 1 if faults else 0


def _ask(target: Target, requests: int, clients: int, number: int) -> Found:
    """Have the clients ask, each its part, in a process of its own."""
    found = Found()
    with ProcessPoolExecutor(clients, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = [requests // clients + (which < requests % clients) for which in range(clients)]
        jobs = [pool.submit(hostile_client, target, part, f"{number}-{which}") for which, part in enumerate(parts)]
        for job in jobs:
            found.add(job.result())
    return found


def hostile_client(target: Target, requests: int, seed: str) -> Found:
    """One client's part, for another process."""
    with Client(target, seed) as client:
        return client.run(requests)


@contextmanager
def _agent(server: str) -> Iterator[tuple[AgentProcess, Target]]:
    """An agent with models and files in shared memory to aim at."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-fuzz-")))
        ca, packages, home = folder / "ca", folder / "packages", folder / "agent"
        run_tool("demo-ca", str(ca))
        packages.mkdir()
        home.mkdir()
        identity = load_identity(ca / "signing.key", ca / "signing.pem", None)
        agent = AgentProcess(home, good_config(home, ca / "roots", {"edge_rpc_server": server}))
        agent.start()
        stack.callback(agent.stop)
        for name in SERVED:
            model, file = name.replace("_", "-"), f"{name}.tflite"
            make_package(Manifest(model, "1.0", file), MODELS / file, [], identity, packages / model)
            agent.client.load(packages / model, model)
        files = [stack.enter_context(ShmFile(REGION_BYTES)) for _ in range(2)]
        served = frozenset(name.replace("_", "-") for name in SERVED)
        yield agent, Target(agent.socket, served, str(packages / "add-one"), tuple(file.key for file in files))


def _faults_of(agent: AgentProcess) -> list[str]:
    """What the agent itself shows of a fault."""
    assert agent.process is not None
    code = agent.process.poll()
    ended = [] if code is None else [f"the agent ended with {code}"]
    return ended + [line for line in agent.log.splitlines() if "Traceback" in line or "INTERNAL" in line][:10]


def _open_files(agent: AgentProcess) -> int:
    """How many files it has open."""
    return len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))


if __name__ == "__main__":
    sys.exit(main())

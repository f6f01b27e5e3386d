"""`python -m bench.peers [--rounds N]`: other servers of the Open Inference Protocol beside the agent, by turns.

Each gets an environment of its own under build/peers, the same models, the same interpreter package with one thread, and the same
client, tritonclient, over loopback TCP, which is what they have; the agent over its Unix socket, and over TCP. The floor is a
server in C++ that looks at nothing and answers with ready bytes, by both ways: no server is faster.

Two tables of bench/REPORT.md are printed. Overhead is what a call takes beyond the bare engine's inference of the same turn: the
server's, the client's and gRPC's. What the server adds is the overhead without that of the floor, by the same way. Of each turn the
quickest tenth counts, which is what calls cost while nothing else wants the cores. Fails where an answer differs, or where MLServer at
its best does not add 5 times as much as the agent.
"""

import argparse
import json
import math
import socket
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from importlib.metadata import version
from pathlib import Path

import grpc
import numpy as np

from bench.engine import pattern
from bench.rig import CPP_ECHO, MODELS, PLAIN, Measurement, Measurements, Rig, poll
from edge import address
from edge.rpc._generated import open_inference_pb2 as pb
from tests.system.harness import ROOT

AIM = 5.0
LITERT = "ai-edge-litert==2.3.0"
# A worker of MLServer 1.7 does not start with a later uvloop.
PACKAGES = {"MLServer": ("mlserver==1.7.1", LITERT, "uvloop==0.21.0"), "KServe": ("kserve==0.21.0", LITERT)}
CALLS = {"tiny": 200, "float32": 15, "large": 4}  # of a turn
CASES = {"tiny": "tiny, 256 B", "float32": "MobileNetV2 float32, 602 kB", "large": "large input, 12.6 MB"}
INPUTS: dict[str, tuple[str, tuple[int, ...]]] = {}  # of each model: the name and the shape, as the agent describes it
MESSAGE_BYTES = 64 << 20
AGENT_UNIX, AGENT_TCP = "agent, Unix socket", "agent, TCP"
FLOOR_UNIX, FLOOR_TCP = "floor: C++, Unix socket", "floor: C++, TCP"
FLOORS = (FLOOR_UNIX, FLOOR_TCP)  # without an inference
INFER = "/inference.GRPCInferenceService/ModelInfer"


def environment(name: str) -> Path:
    """The Python of a peer's environment, made at first use."""
    folder = ROOT / "build" / "peers" / name.lower()
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.exists() or ready.read_text() != "\n".join(PACKAGES[name]):
        print(f"Installing {PACKAGES[name][0]} in {folder.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True)
        words = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES[name]]
        subprocess.run(words, check=True)
        ready.write_text("\n".join(PACKAGES[name]))
    return python


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody has now."""
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


class Peer:
    """A server in a process of its own, until the `with` block ends; its log is in `folder`."""

    def __init__(self, folder: Path, command: list[str | Path], port: int) -> None:
        self.url = f"127.0.0.1:{port}"
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            command, cwd=folder, stdout=self._log, stderr=self._log, env={**PLAIN, "PYTHONPATH": str(ROOT)}
        )

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def mlserver(folder: Path, *, workers: int, bare: bool) -> Peer:
    """MLServer with the runtime of bench.peer_mlserver; `bare`: without its metrics and its log of each call."""
    http, rpc, metrics = free_ports(3)
    settings = {
        "host": "127.0.0.1", "http_port": http, "grpc_port": rpc, "metrics_port": metrics, "parallel_workers": workers,
        "grpc_max_message_length": MESSAGE_BYTES, **({"debug": False, "metrics_endpoint": None} if bare else {}),
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    for model in CALLS:
        own = {
            "name": model,
            "implementation": "bench.peer_mlserver.Runtime",
            "parameters": {"uri": str(MODELS[model])},
        }
        (folder / model).mkdir()
        (folder / model / "model-settings.json").write_text(json.dumps(own))
    return Peer(folder, [environment("MLServer").with_name("mlserver"), "start", str(folder)], rpc)


def kserve(folder: Path, *, bare: bool) -> Peer:
    """KServe's SDK with the model of bench.peer_kserve; `bare`: without its log of each call."""
    http, rpc = free_ports(2)
    models = ",".join(f"{model}={MODELS[model]}" for model in CALLS)
    words = [
        "--models", models, "--http_port", str(http), "--grpc_port", str(rpc),
        "--grpc_max_send_message_length", str(MESSAGE_BYTES), "--grpc_max_receive_message_length", str(MESSAGE_BYTES),
        *(["--quiet"] if bare else []),
    ]  # fmt: skip
    return Peer(folder, [environment("KServe"), "-m", "bench.peer_kserve", *words], rpc)


PEERS: dict[str, Callable[[Path], Peer]] = {
    "MLServer, as it comes but for 1 worker": lambda folder: mlserver(folder, workers=1, bare=False),
    "MLServer, parallel_workers 0": lambda folder: mlserver(folder, workers=0, bare=False),
    "MLServer, parallel_workers 0, no metrics, no debug": lambda folder: mlserver(folder, workers=0, bare=True),
    "KServe SDK, as it comes": lambda folder: kserve(folder, bare=False),
    "KServe SDK, no log of calls": lambda folder: kserve(folder, bare=True),
}


def serves(url: str) -> bool:
    """Whether all models are there."""
    try:
        with grpc.insecure_channel(url) as channel:
            ready = channel.unary_unary("/inference.GRPCInferenceService/ModelReady")
            answers = [ready(pb.ModelReadyRequest(name=model).SerializeToString(), timeout=5) for model in CALLS]
    except grpc.RpcError:
        return False
    return all(pb.ModelReadyResponse.FromString(answer).ready for answer in answers)


def request(model: str) -> bytes:
    """What the client sends to a model."""
    name, shape = INPUTS[model]
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=shape)
    contents = [pattern(shape, np.float32, 0).tobytes()]
    raw: bytes = pb.ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=contents
    ).SerializeToString()
    return raw


def asked(url: str, raw: bytes) -> bytes:
    """The answer of a server, as it is on the wire."""
    with grpc.insecure_channel(url, options=[("grpc.max_send_message_length", MESSAGE_BYTES)]) as channel:
        answer: bytes = channel.unary_unary(INFER)(raw, timeout=30)
    return answer


def floors(folder: Path, agent: str, model: str, stack: ExitStack) -> dict[str, str]:
    """Servers that have the agent's answer to the client's request ready, by both ways."""
    answer, raw = folder / f"{model}.answer", request(model)
    answer.write_bytes(asked(agent, raw))
    (port,) = free_ports(1)
    unix = str(folder / f"{model}.floor")
    urls = {FLOOR_UNIX: address.target(unix), FLOOR_TCP: f"127.0.0.1:{port}"}
    for where, url in zip((unix, urls[FLOOR_TCP]), urls.values(), strict=True):
        stack.enter_context(closing(Peer(folder, [CPP_ECHO, where, answer], port)))
        poll(partial(answers, url, raw), f"{url} answers")
    return urls


def answers(url: str, raw: bytes) -> bool:
    """Whether a server does."""
    try:
        return bool(asked(url, raw))
    except grpc.RpcError:
        return False


def client(url: str, model: str) -> Measurement:
    """What measures a server with a model."""
    name, shape = INPUTS[model]
    words = [url, model, name, ",".join(map(str, shape)), str(CALLS[model])]
    return Measurement([sys.executable, "-m", "bench.peer_client", *words], None, None)


def measured(servers: dict[str, dict[str, str]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Overheads in microseconds, by model and server, of each round; with the engine's own time as "engine".

    `servers`: the addresses of each model.

    Raises:
        SystemExit: an answer is not that of the others.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for model, calls in CALLS.items():
        urls = servers[model]
        of_model = found[model] = {name: [] for name in ("engine", *urls)}
        answers: dict[str, list[float]] = {}
        with Measurements() as start:
            engine = start.engine(model, calls=calls, threads=1)
            asking = {name: start.enter_context(closing(client(url, model))) for name, url in urls.items()}
            for turn in range(rounds):
                alone = float(engine()["p10_us"])
                of_model["engine"].append(alone)
                for name in list(asking)[turn % len(asking) :] + list(asking)[: turn % len(asking)]:
                    result = asking[name]()
                    of_model[name].append(result["p10_us"] - (0.0 if name in FLOORS else alone))
                    answers[name] = result["answer"]
        wanted = answers[AGENT_UNIX]
        for name, answer in answers.items():
            if not np.allclose(answer, wanted, rtol=1e-3, atol=1e-4):
                raise SystemExit(f"{name} answers {answer} for {model}, the agent {wanted}")
    return found


def added(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, list[float]]]:
    """What each server adds to the floor of its way."""
    return {
        model: {
            name: [
                one - floor
                for one, floor in zip(rounds, of_model[FLOOR_UNIX if name == AGENT_UNIX else FLOOR_TCP], strict=True)
            ]
            for name, rounds in of_model.items()
            if name not in ("engine", *FLOORS)
        }
        for model, of_model in found.items()
    }


def table(what: str, found: dict[str, dict[str, list[float]]]) -> str:
    """Medians, each with how many times the agent's over its Unix socket it is; ratios are taken within a round."""
    lines = [f"| {what}, us | " + " | ".join(CASES.values()) + " |", "|---" * (len(CASES) + 1) + "|"]
    for name in found["tiny"]:
        cells = []
        for of_model in found.values():
            middle = f"{statistics.median(of_model[name]):.0f}"
            cells.append(middle if name in ("engine", AGENT_UNIX) else f"{middle} ({ratio(of_model, name):.1f})")
        lines.append(f"| {'bare engine, in process' if name == 'engine' else name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio(of_model: dict[str, list[float]], name: str, by: str = AGENT_UNIX) -> float:
    """A server's by the agent's over its Unix socket, or another's: the median over the rounds; infinite where that had nothing."""
    return statistics.median(
        one / own if own > 0 else math.inf for one, own in zip(of_model[name], of_model[by], strict=True)
    )


def least(peer: str, found: dict[str, dict[str, list[float]]], by: str = AGENT_UNIX) -> list[float]:
    """By how many times that of the agent, or another, is smaller than that of a peer at its best, for each model."""
    return [min(ratio(one, name, by) for name in PEERS if name.startswith(peer)) for one in found.values()]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    for name in PACKAGES:
        environment(name)
    with Rig() as rig, ExitStack() as stack:
        (port,) = free_ports(1)
        agent = rig.agent(edge_listen=f"127.0.0.1:{port}", edge_engine="litert")
        for model in CALLS:
            agent.client.load(rig.package(model), model)
            metadata = agent.client.describe(model).input_tensor_metadatas[0]
            INPUTS[model] = (metadata.name, tuple(metadata.shape))
        urls = {AGENT_UNIX: address.target(agent.socket), AGENT_TCP: f"127.0.0.1:{port}"}
        for number, (name, start) in enumerate(PEERS.items()):
            folder = rig.folder / f"peer-{number}"
            folder.mkdir()
            peer = stack.enter_context(closing(start(folder)))
            try:
                poll(partial(serves, peer.url), f"{name} serves")
            except AssertionError:
                print((folder / "log").read_text(errors="replace")[-4000:], file=sys.stderr)
                raise
            urls[name] = peer.url
        servers = {model: {**floors(rig.folder, urls[AGENT_UNIX], model, stack), **urls} for model in CALLS}
        found = measured(servers, rounds)
    versions = ", ".join(packages[0].replace("==", " ") for packages in PACKAGES.values())
    print(f"{versions}; {LITERT.replace('==', ' ')}, tritonclient {version('tritonclient')}; {rounds} rounds\n")
    beyond = added(found)
    print(table("overhead", found), table("what the server adds", beyond), sep="\n\n")
    for peer in PACKAGES:
        for what, of, by in (
            ("agent's overhead", found, AGENT_UNIX),
            ("agent's addition", beyond, AGENT_UNIX),
            ("floor's overhead", found, FLOOR_UNIX),
        ):
            told = ", ".join(
                f"{one:.1f} ({case})" for one, case in zip(least(peer, of, by), CASES.values(), strict=True)
            )
            print(f"\nThe {what} is smaller than that of {peer} at its best by {told}")
    return int(min(least("MLServer", beyond)) < AIM)


if __name__ == "__main__":
    sys.exit(main())

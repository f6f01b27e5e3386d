"""A declared model that is replaced while clients call it: none of them notices, and what is bad never serves (W-1 to W-5, W-8)."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from edge.package.identity import load_identity
from edge.package.making import make_package
from edge.package.manifest import Manifest
from edge.package.selftest import SELFTEST_DATA, SELFTEST_FILE, Case, GoldenTensor, SelfTest, format_selftest
from edge.rpc._generated import agent_pb2 as pb
from edge.tensors import DType
from tests.data import make_models
from tests.fakes import captures
from tests.fakes.compiler import shared_library
from tests.system.conftest import Signer
from tests.system.harness import EMULATED, ROOT, AgentProcess, array_of, eventually, from_source
from tests.system.managed import Site, adder
from tests.system.test_delegates import SOURCE
from tests.system.test_models import ALLOWED, SPARE_THREADS, footprint
from tests.system.test_predict import x_float

SWAPS = int(os.environ.get("SWAPS", "3" if EMULATED else "30"))
SETTLED = max(SWAPS // 5, 2)  # swaps, after which memory and descriptors are looked at
CLIENTS = 8
SLACK_BYTES = 4 << 20  # of memory, for what calls under way hold at the moment
X = np.array([[1, 2, 3, 4]], np.float32)


@pytest.fixture
def site(agents: Any, tmp_path: Path) -> Site:
    """An agent, not yet started, with an empty folder of declarations."""
    return Site(agents(edge_models_path=str(tmp_path / "models.d"), edge_package_store_path=str(tmp_path / "store")))


class Clients:
    """Clients that call one model without a pause, each over a connection of its own."""

    def __init__(self, agent: AgentProcess, answers: set[float]) -> None:
        self._agent = agent
        self._answers = answers
        self._stop = threading.Event()
        self.errors: list[str] = []
        self.calls = 0
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        request = pb.PredictRequest(name="add", tensors=[x_float([1, 2, 3, 4])])
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"unix:{self._agent.socket}", options) as channel:
            predict = channel.unary_unary(
                "/AWS.SageMaker.Edge.Agent/Predict",
                request_serializer=pb.PredictRequest.SerializeToString,
                response_deserializer=pb.PredictResponse.FromString,
            )
            while not self._stop.is_set():
                try:
                    (y,) = predict(request, timeout=60).tensors
                except grpc.RpcError as error:
                    self.errors.append(f"{error.code().name}: {error.details()}")  # type: ignore[attr-defined]
                    continue
                added = {float(number) for number in (array_of(y) - X).ravel()}
                if len(added) != 1 or not added <= self._answers:
                    self.errors.append(f"added {added}")
                self.calls += 1


def test_swaps_under_load(site: Site, signer: Signer, tmp_path: Path) -> None:  # [W-1] [W-2] [L-9] [U-3]
    """None is NOT_FOUND, none fails, each answer is that of one version, and nothing is left over."""
    urls = [adder(signer, f"1.{amount}", amount, tmp_path) for amount in (1, 2, 3)]
    site.declare("add", urls[0])
    agent = site.agent.start()
    before = (0, 0, 0)
    with Clients(agent, {1, 2, 3}) as clients:
        for swap in range(1, SWAPS + 1):
            site.declare("add", urls[swap % 3])
            assert not site.apply()["add"].refused
            assert site.added("add") == swap % 3 + 1
            if swap == SETTLED:
                before = footprint(agent)
        calls = clients.calls
    assert not clients.errors, clients.errors[:5]
    assert calls > SWAPS
    eventually(
        lambda: [one.state for one in agent.client.status().models] == ["READY"], what="what was replaced is gone"
    )
    allowed = before[0] * ALLOWED + SLACK_BYTES
    eventually(lambda: footprint(agent)[0] <= allowed, 10, f"memory is what it was, {before[0]} bytes")
    eventually(lambda: footprint(agent)[1] <= before[1], 10, "files are closed")
    assert footprint(agent)[2] <= before[2] + SPARE_THREADS
    assert not psutil.Process(agent.pid).children()


# --- what never serves -----------------------------------------------------------


def package(signer: Signer, folder: Path, model: bytes, made: dict[str, bytes] | None = None, **more: Any) -> Path:
    """A signed package of any model, named "adder"."""
    target, file = folder / f"bad-{sum(1 for _ in folder.iterdir())}", folder / "bad.tflite"
    file.write_bytes(model)
    identity = load_identity(signer.key, signer.certificate, None)
    make_package(Manifest("adder", "2.0", "adder.tflite", **more), file, [], identity, target, made=made)
    return target


def fails_its_selftest(signer: Signer, folder: Path) -> Path:
    tensors = (GoldenTensor("x", DType.FLOAT32, (1, 4)),), (GoldenTensor("y", DType.FLOAT32, (1, 4)),)
    made = {SELFTEST_FILE: format_selftest(SelfTest((Case("four", *tensors),))), SELFTEST_DATA: (X.tobytes() * 2)}
    return package(signer, folder, make_models.add_one(), made)


def has_other_tensors(signer: Signer, folder: Path) -> Path:
    return package(signer, folder, make_models.add_one((2, 3)))


def is_damaged(signer: Signer, folder: Path) -> Path:
    return package(signer, folder, make_models.add_one()[:300])


BAD: dict[str, Callable[[Signer, Path], Path]] = {
    r"self-test case 'four': output 'y' is 2.0 at [0, 0] and should be 1.0": fails_its_selftest,
    "input 0, 'x', of the new model is 'x' FLOAT32 [2, 3]; that of the one that serves is 'x' FLOAT32 [1, 4]": has_other_tensors,
    "the runtime refuses the model file": is_damaged,
}


@pytest.fixture
def serving(site: Site, signer: Signer, tmp_path: Path) -> Iterator[Site]:
    """An agent that serves a good version to clients, whatever else it is told to."""
    site.declare("add", adder(signer, "1.0", 1, tmp_path))
    site.agent.start()
    yield from still_serving(site)


def still_serving(site: Site) -> Iterator[Site]:
    with Clients(site.agent, {1}) as clients:
        yield site
        assert site.added("add") == 1
    assert not clients.errors, clients.errors[:5]
    assert [one.state for one in site.agent.client.status().models] == ["READY"]
    assert not psutil.Process(site.agent.pid).children()


@pytest.mark.parametrize("words", BAD)
def test_what_is_bad_never_serves(
    serving: Site, signer: Signer, tmp_path: Path, words: str
) -> None:  # [W-1] [W-3] [W-5] [L-13]
    serving.declare("add", BAD[words](signer, tmp_path))
    done = serving.apply()["add"]
    assert words in done.refused and done.version == "adder 1.0"


DELEGATES = {"PREPARE_CRASHES": "crashes, SIGSEGV", "PREPARE_SLEEPS": "opening the model took longer than 2 s"}


@pytest.mark.skipif(not from_source(), reason="a binary's constants cannot be changed")
@pytest.mark.parametrize("fault", DELEGATES)
def test_a_delegate_that_crashes_or_sleeps_never_serves(
    agents: Any, signer: Signer, tmp_path: Path, fault: str
) -> None:  # [W-1] [L-7]
    library = str(shared_library(SOURCE, tmp_path / "libtest_delegate.so", "-O1", f"-D{fault}"))
    folders = {"edge_models_path": str(tmp_path / "models.d"), "edge_package_store_path": str(tmp_path / "store")}
    site = Site(agents(edge_delegate_paths=[library], **folders))
    site.declare("add", adder(signer, "1.0", 1, tmp_path))
    (tmp_path / "sitecustomize.py").write_text("from edge.engine import probe\nprobe.OPENING_SECONDS = 2\n")
    site.agent.start(env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    for serving in still_serving(site):
        serving.declare("add", package(signer, tmp_path, make_models.add_one(), delegate=library))
        assert DELEGATES[fault] in serving.apply()["add"].refused


# --- who served when -------------------------------------------------------------


def test_a_capture_has_the_version_that_inferred(site: Site, signer: Signer, tmp_path: Path) -> None:  # [W-8]
    site.declare("add", adder(signer, "1.0", 1, tmp_path))
    client = site.agent.start().client
    then = time.time()
    site.declare("add", adder(signer, "1.1", 2, tmp_path))
    site.apply()
    times = {"before": then, "after": time.time(), "now": 0.0}
    for capture_id, seconds in times.items():
        at = pb.Timestamp(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
        tensors = {"input_tensors": [x_float([1, 2, 3, 4])], "output_tensors": [x_float([2, 3, 4, 5], "y")]}
        client.capture(model_name="add", capture_id=capture_id, inference_timestamp=at, **tensors)
    for capture_id in times:
        client.wait_captured(capture_id)
    events = [event["eventMetadata"] for _, event in captures.records(site.agent.captures)]
    assert {one["eventId"]: one["modelVersion"] for one in events} == {"before": "1.0", "after": "1.1", "now": "1.1"}

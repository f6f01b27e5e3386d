"""Files of clients that are cut short while inferences read them where they are mapped ([O-20])."""

import contextlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.rpc._generated import open_inference_pb2 as pb
from tests.adversary.conftest import Stand, start_stand
from tests.data.make_models import mean_of
from tests.system.harness import AgentProcess
from tests.system.segments import ShmFile

SHAPE = (1, 512, 512, 2)  # 2 MiB
ONES = np.ones(SHAPE, np.float32).tobytes()
# Cuts its file and makes it longer again, as often as it can, until its standard input ends.
CUTTER = """
import os, select, sys
fd = os.open(sys.argv[1], os.O_RDWR)
whole = os.pread(fd, os.fstat(fd).st_size, 0)
print("cutting", flush=True)
left = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(20):
        os.ftruncate(fd, left)
        os.ftruncate(fd, len(whole))  # zeros
    os.pwrite(fd, whole, 0)
    left = (left + 4096 * 37) % len(whole)
"""


@pytest.fixture(scope="module", params=["tflite", "litert"])
def stand(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, signer: Any, package_of: Any
) -> Iterator[Stand]:
    """A stand for each engine, with a model that reads all of a large input."""
    folder = tmp_path_factory.mktemp("stand")
    made = start_stand(folder, signer.roots, package_of("add_one"), edge_engine=request.param)
    model = folder / "mean.tflite"
    model.write_bytes(mean_of(SHAPE))
    made.agent.client.load(signer.package(model, "mean"), "mean")
    yield made
    made.close()
    assert made.agent.stop() == 0, made.agent.log


def call(agent: AgentProcess, method: str, request: Any) -> bytes:
    answer: bytes = agent.channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(request.SerializeToString())
    return answer


def mean(agent: AgentProcess, region: str) -> str:
    """The model's answer to what is in a region, or what it is refused with."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=SHAPE)
    tensor.parameters["shared_memory_region"].string_param = region
    tensor.parameters["shared_memory_byte_size"].int64_param = len(ONES)
    try:
        raw = call(agent, "ModelInfer", pb.ModelInferRequest(model_name="mean", inputs=[tensor]))
    except grpc.RpcError as error:
        refused: Any = error
        return f"{refused.code().name}: {refused.details()}"
    return str(np.frombuffer(pb.ModelInferResponse.FromString(raw).raw_output_contents[0], np.float32)[0])


@contextlib.contextmanager
def cutter(file: ShmFile) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", CUTTER, str(file.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline()
        yield
        process.communicate()
        assert process.returncode == 0


def held(agent: AgentProcess) -> list[str]:
    """The files of clients that it has open or mapped."""
    proc = Path(f"/proc/{agent.pid}")
    opened = []
    for fd in (proc / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            opened.append(str(fd.readlink()))
    return [line for line in (*opened, *(proc / "maps").read_text().splitlines()) if "/edge-test-" in line]


def test_files_that_are_cut_again_and_again(stand: Stand) -> None:  # [O-20]
    agent, found = stand.agent, Counter[str]()
    with contextlib.ExitStack() as files, contextlib.ExitStack() as cutters:
        for name in ("whole", "cut-0", "cut-1"):
            file = files.enter_context(ShmFile(len(ONES))).write(ONES)
            asked = pb.SystemSharedMemoryRegisterRequest(name=name, key=file.key, byte_size=len(ONES))
            call(agent, "SystemSharedMemoryRegister", asked)
            assert mean(agent, name) == "1.0"
            if name != "whole":
                cutters.enter_context(cutter(file))
        in_place = agent.client.status().engine.startswith("LiteRT")
        assert len(held(agent)) >= (6 if in_place else 3), (
            "they are open, and mapped where the engine reads them in place"
        )
        with stand.attack(seconds=3) as going_on:
            while going_on() or not found["cut short"]:
                for name in ("cut-0", "cut-1"):
                    answer = mean(agent, name)
                    if "was cut short" in answer:
                        assert answer.startswith("INVALID_ARGUMENT")
                        found["cut short"] += 1
                    else:  # with zeros where it was made longer again
                        assert 0 <= float(answer) <= 1
                assert mean(agent, "whole") == "1.0"
        call(agent, "SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest())
        assert not held(agent)

"""Some of the hostile requests of `make fuzz-service`, on both of the agent's servers [O-8]."""

import subprocess
import sys
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from tests.fuzz.service_client import Client, Target
from tests.system.harness import ROOT, from_source

REQUESTS = 300 if from_source() else 60


@pytest.mark.parametrize("server", ["core", "grpc"])
def test_none_fails(server: str) -> None:
    words = ["--requests", str(REQUESTS), "--clients", "1", "--seed", "1", "--server", server]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.service", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{REQUESTS} requests, none failed" in done.stdout


def test_a_fault_is_told(tmp_path: Path) -> None:
    def internal(raw: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.INTERNAL, "planted")

    class Faulty(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(internal)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Faulty()])
    socket = str(tmp_path / "s")
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        with Client(Target(socket, frozenset({"add-one"}), "/none", ()), "0") as client:
            client.send("ServerLive", b"")
            assert client.found.counts == {("ServerLive", "INTERNAL"): 1}
            assert client.found.faults == ["ServerLive : INTERNAL planted"]
            assert client.found.failing == [b""]
    finally:
        server.stop(None).wait()

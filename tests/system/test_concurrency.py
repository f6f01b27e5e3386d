"""Many calls at once: queues, fairness, cancellation, and a service that answers meanwhile ([P-4], [P-5], [P-10]).

No test looks at how long anything takes: what must happen while something else runs is awaited while it runs.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edge.rpc._generated import agent_pb2 as pb
from tests.data.make_models import heavy
from tests.fakes.engines import plain_engine
from tests.system.harness import ENGINE_SLOWDOWN, EVENT_PATIENCE, AgentProcess, array_of, eventually, tensor_of

LONG = 120_000 // ENGINE_SLOWDOWN  # rounds of the slow model: seconds, whatever the machine
CALL_SECONDS = 120 * EVENT_PATIENCE
QUICK = 0
QUEUE = 4
CALLERS = 8
BURST = 40
SPARE_THREADS = 8  # the few that a server keeps, and what gRPC itself starts under load


@pytest.fixture
def loaded(agents: Any, package_of: Any) -> Iterator[AgentProcess]:
    """An agent with a short queue, a slow model and a fast one."""
    agent: AgentProcess = agents(edge_queue_calls=QUEUE).start()
    agent.client.load(package_of("slow"), "slow")
    agent.client.load(package_of("add_one"), "add")
    yield agent
    agent.close_channel()


def slow_call(agent: AgentProcess, rounds: int, timeout: float | None = CALL_SECONDS) -> Any:
    """A Predict on the slow model, under way."""
    request = pb.PredictRequest(name="slow", tensors=[tensor_of(np.array([rounds], np.int32), "rounds")])
    call = agent.channel.unary_unary(
        "/AWS.SageMaker.Edge.Agent/Predict",
        request_serializer=pb.PredictRequest.SerializeToString,
        response_deserializer=pb.PredictResponse.FromString,
    )
    return call.future(request, timeout=timeout)


def counts(agent: AgentProcess, name: str = "slow") -> tuple[int, int, int]:
    """How many calls on a model run, wait and were answered."""
    model = next(model for model in agent.client.status().models if model.name == name)
    return model.running, model.waiting, model.predicted


def thread_count(agent: AgentProcess) -> int:
    return psutil.Process(agent.pid).num_threads()


def add(agent: AgentProcess, value: float) -> list[float]:
    """A Predict on the fast model."""
    answer = agent.client.predict("add", [tensor_of(np.full((1, 4), value, np.float32), "x")])
    values: list[float] = array_of(answer[0])[0].tolist()
    return values


def test_everything_else_answers_while_a_model_is_full(loaded: AgentProcess) -> None:  # [P-4] [LM] [N]
    running = slow_call(loaded, LONG)
    eventually(lambda: counts(loaded)[0] == 1, 60, "the first call runs")
    waiting = [slow_call(loaded, QUICK) for _ in range(QUEUE)]
    eventually(lambda: counts(loaded)[1] == QUEUE, 60, "the queue is full")
    with pytest.raises(grpc.RpcError) as refused:
        slow_call(loaded, QUICK).result()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert len(loaded.client.models()) == 2
    assert loaded.client.describe("add").name == "add"
    assert add(loaded, 1.0) == [2.0] * 4
    health = health_pb2_grpc.HealthStub(loaded.channel).Check(health_pb2.HealthCheckRequest(service="slow"))
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    # All of that was answered before the call was through.
    assert counts(loaded)[:2] == (1, QUEUE)
    for call, rounds in [(running, LONG), *((call, QUICK) for call in waiting)]:
        assert array_of(call.result().tensors[0]).tolist() == [rounds]


def test_a_call_that_is_cancelled_while_it_waits_is_never_run(loaded: AgentProcess) -> None:  # [P-5]
    running = slow_call(loaded, LONG)
    eventually(lambda: counts(loaded)[0] == 1, 60, "the first call runs")
    before = counts(loaded)[2]
    cancelled = slow_call(loaded, LONG)
    eventually(lambda: counts(loaded)[1] == 1, 60, "the second call waits")
    cancelled.cancel()
    eventually(lambda: counts(loaded)[1] == 0, 60, "its place is free")
    last = slow_call(loaded, QUICK)
    assert array_of(running.result().tensors[0]).tolist() == [LONG]
    assert array_of(last.result().tensors[0]).tolist() == [QUICK]
    eventually(lambda: counts(loaded)[2] == before + 2, 60, "two calls were run")


def test_a_deadline_that_passes_while_waiting_frees_the_place(loaded: AgentProcess) -> None:  # [P-5]
    running = slow_call(loaded, LONG)
    eventually(lambda: counts(loaded)[0] == 1, 60, "the first call runs")
    late = slow_call(loaded, QUICK, timeout=0.05)
    with pytest.raises(grpc.RpcError) as passed:
        late.result()
    assert passed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    eventually(lambda: counts(loaded)[1] == 0, 60, "its place is free")
    running.result()


def test_waiting_calls_run_in_their_order(loaded: AgentProcess) -> None:  # [P-4]
    order: list[int] = []
    first = slow_call(loaded, LONG)
    eventually(lambda: counts(loaded)[0] == 1, 60, "the first call runs")
    calls = []
    done = threading.Semaphore(0)
    for number in range(QUEUE):
        call = slow_call(loaded, LONG // 20)
        eventually(lambda number=number: counts(loaded)[1] == number + 1, 60, "it waits")  # type: ignore[misc]

        def note(_: Any, number: int = number) -> None:
            order.append(number)
            done.release()

        call.add_done_callback(note)
        calls.append(call)
    first.result()
    for _ in calls:
        assert done.acquire(timeout=CALL_SECONDS)
    assert order == list(range(QUEUE))


def test_many_clients_get_their_own_answers(loaded: AgentProcess) -> None:  # [P-10]
    def client(number: int) -> None:
        with grpc.insecure_channel(f"unix:{loaded.socket}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            predict = channel.unary_unary("/AWS.SageMaker.Edge.Agent/Predict")
            for turn in range(100):
                value = float(number * 1000 + turn)
                request = pb.PredictRequest(name="add", tensors=[tensor_of(np.full((1, 4), value, np.float32), "x")])
                while True:
                    try:
                        raw = predict(request.SerializeToString(), timeout=CALL_SECONDS)
                        break
                    except grpc.RpcError as error:
                        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
                answer = pb.PredictResponse.FromString(raw)
                assert array_of(answer.tensors[0])[0].tolist() == [value + 1] * 4

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(client, range(CALLERS)))


def test_instances_share_the_model_file(agents: Any, signer: Any) -> None:
    """Four instances map the one verified copy of the model, and in LiteRT one file of what it packs of it."""
    package = signer.package(heavy(16), "heavy", "--instances", "4")
    agent = agents().start()
    agent.client.load(package, "heavy")
    answer = agent.client.predict("heavy", [tensor_of(np.ones((1, 1024), np.float32), "x")])
    assert float(array_of(answer[0])[0, 0]) == 512.0
    files = {
        tuple(row.split()[3:6])  # device, inode and name
        for row in Path(f"/proc/{agent.pid}/maps").read_text().splitlines()
        if "/memfd:" in row
    }
    expected = ["/memfd:model", "/memfd:weights"] if plain_engine() == "litert" else ["/memfd:model"]
    assert sorted(name for _, _, name in files) == expected


def test_threads_of_a_burst_end_with_it(agents: Any, package_of: Any) -> None:  # [P-4]
    """A call that waits holds a thread; all but a few go when the calls are through (those of grpc.server stay)."""
    agent = agents(edge_queue_calls=BURST, edge_rpc_server="core").start()
    agent.client.load(package_of("slow"), "slow")
    before = thread_count(agent)
    calls = [slow_call(agent, LONG), *(slow_call(agent, QUICK) for _ in range(BURST))]
    eventually(lambda: counts(agent)[:2] == (1, BURST), 60, "one call runs and all others wait")
    assert thread_count(agent) > before + BURST // 2
    for call in calls:
        call.result()
    eventually(lambda: thread_count(agent) <= before + SPARE_THREADS, 60, "the threads of the burst end")
    agent.close_channel()


def test_a_load_ends_with_its_caller(client: Any, package_of: Any) -> None:  # [L-12] [L-9]
    request = pb.LoadModelRequest(url=str(package_of("add_one")), name="short")
    with pytest.raises(grpc.RpcError):
        client.call("LoadModel", request, pb.LoadModelResponse, timeout=0.05)

    def free() -> bool:
        try:
            client.call("LoadModel", request, pb.LoadModelResponse)
        except grpc.RpcError as error:
            assert error.code().name == "ALREADY_EXISTS", error  # type: ignore[attr-defined]
            return False
        return True

    eventually(free, 60, "the name is free again")
    client.unload("short")

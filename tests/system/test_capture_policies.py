"""Captures by policy over the socket (docs/spec/capture-policies.md)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.rpc._generated import agent_pb2 as pb
from edge.rpc._generated import open_inference_pb2 as oip
from tests.fakes import captures
from tests.system.conftest import good_config, run_tool
from tests.system.harness import CALL_SECONDS, AgentProcess, eventually, tensor_of
from tests.system.managed import Site
from tests.system.policies import SURE, UNSURE, captured, ids, picture, predict, reasons
from tests.system.segments import Segment, ShmFile
from tests.system.test_open_inference_shared import place, register, service

SAMPLES = 40
POLICIES: dict[str, dict[str, Any]] = {
    "unsure": {"max_probability_below": 0.5},
    "sure": {"max_probability_above": 0.9},
    "close": {"margin_below": 0.1, "output": "probabilities"},
    "eights": {"class_seen": [8]},
    "broken": {"nan_or_inf": True},
    "odd": {"unlike_mean_sigmas": 6},
    "faults": {"errors": True},
    "asked": {"on_request": "x-keep"},
    "third": {"every_nth": 3},
    "sampled": {"sample_percent": 30, "seed": 5},
    "sampled-again": {"sample_percent": 30, "seed": 5},
    "minute": {"rate_per_minute": 1},
    "two": {"every_nth": 1, "records_per_day": 2},
    "all": {"sample_percent": 100},
}


@pytest.fixture(scope="module", params=["core", "grpc"])
def agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, signer: Any, digits: Path
) -> Iterator[AgentProcess]:
    """An agent on each of the two servers, with the digits model under every policy."""
    folder = tmp_path_factory.mktemp("agent")
    changes = {
        "edge_capture_policies": POLICIES,
        "edge_rpc_server": request.param,
        "core_capture_data_batch_size": 1,  # so that no test waits for others' captures
    }
    made = AgentProcess(folder, good_config(folder, signer.roots, changes)).start()
    for alias in (*POLICIES, "off"):
        if alias != "faults":
            made.client.load(digits, alias)
    yield made
    assert made.stop() == 0


@pytest.mark.parametrize(
    ("alias", "kept", "other", "reason"),
    [
        ("unsure", UNSURE, SURE, "max_probability_below"),
        ("sure", SURE, UNSURE, "max_probability_above"),
        ("close", UNSURE, SURE, "margin_below"),
        ("eights", SURE, UNSURE, "class_seen"),
        ("broken", np.nan, SURE, "nan_or_inf"),
        ("broken", np.inf, SURE, "nan_or_inf"),
    ],
)
def test_what_the_outputs_say(
    agent: AgentProcess, alias: str, kept: float, other: float, reason: str
) -> None:  # [K-1] [K-2] [K-3] [K-5]
    assert predict(agent, alias, [picture(other)])[1] == []
    answer, [capture_id], _ = predict(agent, alias, [picture(kept)])
    record = captured(agent, capture_id)
    about = record["eventMetadata"]
    assert (about["captureReason"], about["captureAlias"]) == ([reason], alias)
    assert (about["modelName"], about["modelVersion"]) == ("digits", "1.0")
    assert about["inferenceMilliseconds"] > 0
    [entry], [given] = record["deviceFleetInputs"], record["deviceFleetOutputs"]
    assert captures.parse_content_type(entry["observedContentType"]) == ("FLOAT32", (1, 8, 8, 1))
    assert captures.entry_bytes(entry, agent.captures) == picture(kept).byte_data
    assert (entry["name"], given["name"]) == ("image", "probabilities")
    [output] = pb.PredictResponse.FromString(answer or b"").tensors
    assert captures.entry_bytes(given, agent.captures) == output.byte_data


def test_an_output_unlike_those_before(agent: AgentProcess) -> None:  # [K-3]
    for number in range(101):
        assert predict(agent, "odd", [picture(SURE - 0.01 * (number % 3))])[1] == []
    _, [capture_id], _ = predict(agent, "odd", [picture(UNSURE)])
    assert reasons(agent, capture_id) == ["unlike_mean_sigmas"]


def test_calls_that_the_model_fails_on(agent: AgentProcess, package_of: Callable[[str], Path]) -> None:  # [K-3]
    agent.client.load(package_of("look_up"), "faults")
    model = agent.client.describe("faults")
    names = [one.name for one in model.input_tensor_metadatas]
    good = [tensor_of(np.zeros(tuple(one.shape), "<i4"), one.name) for one in model.input_tensor_metadatas]
    assert predict(agent, "faults", good)[1:] == ([], "OK")
    bad = [tensor_of(np.full(tuple(one.shape), 10**6, "<i4"), one.name) for one in model.input_tensor_metadatas]
    answer, [capture_id], status = predict(agent, "faults", bad)
    record = captured(agent, capture_id)
    assert (answer, record["eventMetadata"]["status"]) == (None, status)
    assert [one["name"] for one in record["deviceFleetInputs"]] == names
    assert record["deviceFleetOutputs"] == []
    assert predict(agent, "faults", [])[1:] == ([], "INVALID_ARGUMENT")  # it did not reach the model


def test_a_call_that_asks_for_it(agent: AgentProcess) -> None:  # [K-3]
    assert predict(agent, "asked", [picture(SURE)], [("x-other", "1")])[1] == []
    _, [capture_id], _ = predict(agent, "asked", [picture(SURE)], [("x-keep", "")])
    assert reasons(agent, capture_id) == ["on_request"]


def test_every_nth(agent: AgentProcess) -> None:  # [K-3]
    kept = [bool(predict(agent, "third", [picture(SURE)])[1]) for _ in range(9)]
    assert kept == [False, False, True] * 3


def test_a_sample_is_that_of_its_seed(agent: AgentProcess) -> None:  # [K-3]
    first, again = (
        [bool(predict(agent, alias, [picture(SURE)])[1]) for _ in range(SAMPLES)]
        for alias in ("sampled", "sampled-again")
    )
    assert first == again
    assert 0 < sum(first) < SAMPLES


def test_a_rate(agent: AgentProcess) -> None:  # [K-3]
    kept = [bool(predict(agent, "minute", [picture(SURE)])[1]) for _ in range(3)]
    assert kept == [True, False, False]


def test_the_budget_of_records(agent: AgentProcess) -> None:  # [K-4]
    kept = [bool(predict(agent, "two", [picture(SURE)])[1]) for _ in range(4)]
    assert kept == [True, True, False, False]
    eventually(lambda: "capture policy two: its budget of the day is spent, with 2 records" in agent.log)
    assert "by policy" in run_tool("status", "-a", agent.socket).stdout


def test_a_model_without_a_policy(agent: AgentProcess) -> None:  # [K-1]
    assert predict(agent, "off", [picture(UNSURE)], [("x-keep", "1")])[1:] == ([], "OK")


def test_the_other_protocol(agent: AgentProcess) -> None:  # [K-2]
    call = agent.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=[1, 8, 8, 1])
    data = picture(SURE).byte_data
    request = oip.ModelInferRequest(model_name="all", id="7", inputs=[tensor], raw_input_contents=[data])
    answer, rpc = call.with_call(request.SerializeToString(), timeout=CALL_SECONDS)
    [capture_id] = ids(rpc)
    record = captured(agent, capture_id)
    [entry], [given] = record["deviceFleetInputs"], record["deviceFleetOutputs"]
    assert captures.entry_bytes(entry, agent.captures) == data
    [raw] = oip.ModelInferResponse.FromString(answer).raw_output_contents
    assert captures.entry_bytes(given, agent.captures) == raw


def test_shared_memory_is_copied_before_the_answer(agent: AgentProcess) -> None:  # [K-6]
    data = picture(SURE).byte_data
    metadata = pb.TensorMetadata(name="image", data_type=pb.FLOAT32, shape=[1, 8, 8, 1])
    with Segment(len(data)) as segment:
        handle = pb.SharedMemoryHandle(segment_id=segment.write(data).set_mode(0o400).id)
        tensor = pb.Tensor(tensor_metadata=metadata, shared_memory_handle=handle)
        _, [capture_id], _ = predict(agent, "all", [tensor])
        segment.set_mode(0o600).write(bytes(len(data)))
    [entry] = captured(agent, capture_id)["deviceFleetInputs"]
    assert captures.entry_bytes(entry, agent.captures) == data


def test_tensors_in_regions(agent: AgentProcess) -> None:  # [K-2] [K-6]
    data, size = picture(SURE).byte_data, 4 * 10
    with ShmFile(1024, 0o600) as file:
        register(agent, "r", file.key, 1024)
        file.write(data, 0)
        tensor = oip.ModelInferRequest.InferInputTensor(name="image", datatype="FP32", shape=[1, 8, 8, 1])
        wanted = oip.ModelInferRequest.InferRequestedOutputTensor(name="probabilities")
        asked = oip.ModelInferRequest(
            model_name="all", inputs=[place(tensor, "r", len(data))], outputs=[place(wanted, "r", size, 512)]
        )
        call = agent.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        _, rpc = call.with_call(asked.SerializeToString(), timeout=CALL_SECONDS)
        answered = file.read()[512 : 512 + size]
        file.write(bytes(1024), 0)
        service(agent, "SystemSharedMemoryUnregister", oip.SystemSharedMemoryUnregisterRequest())
    record = captured(agent, ids(rpc)[0])
    [entry], [given] = record["deviceFleetInputs"], record["deviceFleetOutputs"]
    assert captures.entry_bytes(entry, agent.captures) == data
    assert captures.entry_bytes(given, agent.captures) == answered != bytes(size)


def test_a_budget_outlives_a_restart(agents: Callable[..., AgentProcess], digits: Path) -> None:  # [K-4]
    agent = agents(edge_capture_policies={"*": {"every_nth": 1, "records_per_day": 3}}).start()
    for alias in ("a", "b"):  # they share one budget
        agent.client.load(digits, alias)
        assert len(predict(agent, alias, [picture(SURE)])[1]) == 1
    assert agent.stop() == 0
    noted = json.loads((agent.captures / ".spool" / "policies.json").read_text())
    assert noted["used"]["*"][0] == 2
    agent.start()
    agent.client.load(digits, "a")
    kept = [len(predict(agent, "a", [picture(SURE)])[1]) for _ in range(3)]
    assert kept == [1, 0, 0]


def test_a_stop_stores_what_was_chosen(agents: Callable[..., AgentProcess], digits: Path) -> None:  # [K-6]
    agent = agents(edge_capture_policies={"*": {"every_nth": 1}}, core_capture_data_push_period_seconds=60).start()
    agent.client.load(digits, "m")
    told = [predict(agent, "m", [picture(SURE)])[1][0] for _ in range(20)]
    assert agent.stop() == 0
    kept = {one["eventMetadata"]["eventId"] for _, one in captures.records(agent.captures)}
    assert kept == set(told)


def test_a_bad_policy_is_told(agents: Callable[..., AgentProcess]) -> None:  # [K-1]
    agent = agents(edge_capture_policies={"m": {"sample_percent": 101}, "n": {"sample": 1}})
    agent.begin()
    assert agent.wait() == 1
    assert "edge_capture_policies 'm': sample_percent is 101; expected a number above 0, at most 100" in agent.log
    assert "'n': has the unknown key 'sample'; known: sample_percent" in agent.log


def test_the_policy_of_a_declaration(
    agents: Callable[..., AgentProcess], digits: Path, tmp_path: Path
) -> None:  # [K-1]
    site = Site.made(agents, tmp_path, edge_capture_policies={"*": {"on_request": "x-keep"}})
    site.declare("m", digits, capture={"every_nth": 1})
    agent = site.agent.start()

    def kept() -> int:
        return len(predict(agent, "m", [picture(SURE)])[1])

    assert kept() == 1
    before = agent.client.status().models[0].predicted
    site.declare("m", digits, capture={"every_nth": 1, "nothing": 2})  # faulty: the policy before stays
    [one] = site.apply().values()
    assert "has a capture that has the unknown key 'nothing'" in one.refused
    assert kept() == 1
    run_tool("models", "set", "m", str(digits), "-a", agent.socket)
    assert kept() == 0  # a declaration with a fault has no policy to keep
    site.declare("m", digits, capture={"every_nth": 2})
    site.apply()
    assert [kept() for _ in range(4)] == [0, 1, 0, 1]
    run_tool("models", "set", "m", str(digits), "-a", agent.socket)
    assert json.loads((site.declarations / "m.json").read_text())["capture"] == {"every_nth": 2}
    site.declare("m", digits, capture={})
    site.apply()
    assert predict(agent, "m", [picture(SURE)], [("x-keep", "1")])[1] == []
    site.declare("m", digits)
    site.apply()
    assert len(predict(agent, "m", [picture(SURE)], [("x-keep", "1")])[1]) == 1
    assert agent.client.status().models[0].predicted > before  # the same model all along

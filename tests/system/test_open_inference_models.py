"""The Open Inference Protocol's extensions: configuration, statistics, repository (docs/spec/open-inference.md)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import address
from edge.rpc._generated import open_inference_pb2 as pb
from tests.fakes.engines import plain_engine
from tests.system import triton as calls
from tests.system.harness import AgentProcess, Client, eventually, tensor_of

Triton = Callable[..., Any]
PackageOf = Callable[[str], Path]


@pytest.fixture
def ask(triton: Triton, agent: AgentProcess) -> Triton:
    """Any call of the client on the module's agent."""
    return lambda *words, **named: triton(calls.call, address.target(agent.socket), *words, **named)


def config(package: Path) -> str:
    return json.dumps({"parameters": {"url": {"string_value": str(package)}}})


def test_model_config(ask: Triton, client: Client, package_of: PackageOf) -> None:  # [O-12]
    client.load(package_of("dynamic_batch"), "m")
    found = ask("get_model_config", "m")["config"]
    assert (found["name"], found["backend"], found["platform"]) == ("m", *[plain_engine()] * 2)
    assert found["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["-1", "4"]}]
    assert [one["data_type"] for one in found["output"]] == ["TYPE_FP32"]
    assert found["instance_group"] == [{"name": "m", "count": 1, "kind": "KIND_CPU"}]
    with pytest.raises(calls.Refused) as refused:
        ask("get_model_config", "m", "2")
    assert refused.value.args[0] == "NOT_FOUND"


def test_model_statistics(
    ask: Triton, triton: Triton, agent: AgentProcess, client: Client, package_of: PackageOf, refused: Any
) -> None:  # [O-13]
    client.load(package_of("dynamic_batch"), "m")
    client.load(package_of("add_one"), "other")
    (before,) = ask("get_inference_statistics", "m")["model_stats"]
    assert "inference_count" not in before
    assert "last_inference" not in before
    one = np.ones((1, 4), np.float32)
    client.predict("m", [tensor_of(one, "x")])
    triton(calls.infer, address.target(agent.socket), "m", {"x": one})

    def found_now() -> dict[str, Any]:
        return dict(ask("get_inference_statistics", "m")["model_stats"][0])

    eventually(lambda: found_now().get("inference_count") == "2")  # a call is counted when its answer is away
    found = found_now()
    assert (found["name"], found["version"]) == ("m", "1.0")
    assert int(found["last_inference"]) > 1_000_000_000_000
    stats = found["inference_stats"]
    assert stats["success"]["count"] == stats["compute_infer"]["count"] == stats["queue"]["count"] == "2"
    assert int(stats["compute_infer"]["ns"]) > 0
    assert [one["name"] for one in ask("get_inference_statistics")["model_stats"]] == ["m", "other"]


def test_repository(ask: Triton, client: Client, package_of: PackageOf) -> None:  # [O-14] [O-15] [O-16]
    def states(*words: Any, **named: Any) -> dict[str, str]:
        found = ask("get_model_repository_index", *words, **named)
        return {model["name"]: model["state"] for model in found.get("models", ())}

    assert states() == {}
    ask("load_model", "m", config=config(package_of("add_one")))
    assert states() == {"m": "READY"}
    assert client.describe("m").url == str(package_of("add_one"))
    ask("load_model", "m")  # again
    ask("unload_model", "m")
    assert states() == {"m": "UNAVAILABLE"}
    assert client.models() == []
    ask("load_model", "m")
    assert states() == {"m": "READY"}
    client.unload("m")
    assert states() == {}, "what was unloaded by the agent's own API is not remembered"


def test_loads_that_are_refused(
    ask: Triton, agent: AgentProcess, client: Client, package_of: PackageOf, refused: Any
) -> None:  # [O-15]
    client.load(package_of("add_one"), "m")
    for words, named, status, text in (
        (("new",), {}, "NOT_FOUND", "no package is known for model 'new'; give its path in the parameter 'url'"),
        (("new",), {"config": "{}"}, "INVALID_ARGUMENT", 'expected {"parameters": {"url"'),
        (("new",), {"config": "[" * 3000}, "INVALID_ARGUMENT", 'expected {"parameters": {"url"'),
        (("new",), {"config": "{}", "files": {"file:1/m": b""}}, "INVALID_ARGUMENT", "comes in a signed package"),
        (("new",), {"config": config(Path("/nowhere"))}, "NOT_FOUND", "/nowhere"),
        (("new",), {"config": config(Path("/\udcff"))}, "NOT_FOUND", "is not UTF-8"),
        (("a b",), {"config": config(package_of("add_one"))}, "INVALID_ARGUMENT", "model name 'a b'"),
        (("m",), {"config": config(package_of("two_by_two"))}, "FAILED_PRECONDITION", ""),  # other tensors (W-3)
    ):  # fmt: skip
        with pytest.raises(calls.Refused) as told:
            ask("load_model", *words, **named)
        assert told.value.args[0] == status, told.value
        assert text in told.value.args[1]
    request = pb.RepositoryModelLoadRequest(model_name="m")
    request.parameters["url"].int64_param = 5
    with refused("INVALID_ARGUMENT", "path of a package as string_param"):
        agent.channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")(request.SerializeToString())
    with pytest.raises(calls.Refused) as told:
        ask("unload_model", "new")
    assert told.value.args[0] == "NOT_FOUND"
    assert client.describe("m").url == str(package_of("add_one"))

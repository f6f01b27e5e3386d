"""Models in LiteRT, and in the interpreter where LiteRT does not take them, side by side in one agent."""

from typing import Any

import numpy as np
import pytest

from edge.rpc._generated import open_inference_pb2 as pb
from tests.data import hard_models, make_models
from tests.fakes.engines import interpreter, litert_serves
from tests.system.conftest import run_tool
from tests.system.harness import CALL_SECONDS, array_of, tensor_of

pytestmark = pytest.mark.skipif(not litert_serves(), reason="no LiteRT library is installed for this platform")
ONE = np.ones((1, 1), np.float32)


def test_each_model_has_its_engine(agents: Any, signer: Any) -> None:  # [L-7] [O-12]
    agent = agents(edge_engine="auto").start()
    client = agent.client
    client.load(signer.package(make_models.add_one((1, 1)), "plain"), "plain")
    client.load(signer.package(hard_models.counter(), "counter", "--state", "keep"), "counter")
    for number in (1, 2, 3):
        assert array_of(client.predict("plain", [tensor_of(ONE, "x")])[0]).item() == 2
        assert array_of(client.predict("counter", [tensor_of(ONE, "x")])[0]).item() == 2 * number
    status = client.status()
    assert [model.engine.split(" ")[0] for model in status.models] == ["LiteRT", interpreter()]
    assert status.engine.startswith("LiteRT ")
    for name, engine in (("plain", "litert"), ("counter", "tflite")):
        asked = pb.ModelConfigRequest(name=name).SerializeToString()
        raw = agent.channel.unary_unary("/inference.GRPCInferenceService/ModelConfig")(asked, timeout=CALL_SECONDS)
        config = pb.ModelConfigResponse.FromString(raw).config
        assert (config.platform, config.backend) == (engine, engine)
    said = run_tool("status", "--socket", agent.socket).stdout
    assert "engine LiteRT 2.3" in said and f"counter runs on {interpreter()} " in said and "plain runs on" not in said
    assert "model counter is served by the interpreter: LiteRT refuses the model file: unsupported" in agent.log
    assert "XNNPACK delegate" not in said
    assert agent.stop() == 0

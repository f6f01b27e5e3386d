"""Summaries over the socket: what a model did in a period (docs/spec/capture-policies.md)."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes import captures
from tests.fakes.s3_stub import S3Stub
from tests.system.conftest import DIGITS_INT8, Signer
from tests.system.harness import AgentProcess, eventually, tensor_of
from tests.system.managed import Site, adder
from tests.system.policies import SURE, UNSURE, picture, predict
from tests.system.test_cloud_agent import ENVIRONMENT, cloud
from tests.system.test_predict import x_float

Agents = Callable[..., AgentProcess]
LONG = 3600


def summaries(agent: AgentProcess) -> list[tuple[Path, dict[str, Any]]]:
    """All that are in their places: the file of each, and its line."""
    files = sorted(agent.captures.rglob("summary-*.jsonl"))
    return [(file, json.loads(line)) for file in files if ".spool" not in file.parts for line in file.open()]


def test_a_summary_at_the_stop(agents: Agents, digits: Path, signer: Signer) -> None:  # [K-7]
    agent = agents(edge_capture_summary_seconds=LONG).start()
    agent.client.load(digits, "m")
    agent.client.load(signer.package(DIGITS_INT8, "quantised"), "q")
    agent.client.load(digits, "never")
    for grey in (SURE, SURE, UNSURE):
        assert predict(agent, "m", [picture(grey)])[1:] == ([], "OK")
    assert predict(agent, "m", [])[2] == "INVALID_ARGUMENT"
    assert predict(agent, "q", [tensor_of(np.full((1, 8, 8, 1), -128, "i1"), "image")])[2] == "OK"
    assert agent.stop() == 0
    found = {line["summary"]["alias"]: (file, line) for file, line in summaries(agent)}
    assert set(found) == {"m", "q"}
    file, line = found["m"]
    assert file.parts[-6:-5] == ("digits",)
    about, told = line["eventMetadata"], line["summary"]
    assert (about["modelName"], about["modelVersion"], about["deviceId"]) == ("digits", "1.0", "device-1")
    assert line["deviceFleetInputs"] == line["deviceFleetOutputs"] == []
    assert told["summaryVersion"] == 1 and told["from"] <= told["to"] and told["complete"] is False
    assert told["calls"] == {"OK": 3, "INVALID_ARGUMENT": 1}
    latency = told["latencyMilliseconds"]
    assert latency["count"] == 3 and 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
    [given], [answered] = told["inputs"], told["outputs"]
    assert 1 <= told["sampled"] <= 3
    assert (given["name"], given["count"], given["nonFinite"]) == ("image", 64 * told["sampled"], 0)
    assert answered["name"] == "probabilities" and answered["mean"] == pytest.approx(0.1, abs=1e-3)
    assert answered["classes"]["8"] >= 1 and sum(answered["classes"].values()) == told["sampled"]
    _, quantised = found["q"]
    [answered] = quantised["summary"]["outputs"]
    assert answered["mean"] == pytest.approx(0.1, abs=0.01)  # of what the elements stand for
    assert not captures.stray_files(agent.captures)


def test_summaries_come_by_and_by(agents: Agents, digits: Path) -> None:  # [K-7]
    agent = agents(edge_capture_summary_seconds=1, core_capture_data_batch_size=1).start()
    agent.client.load(digits, "m")

    def asked_and_told(number: int) -> bool:
        assert predict(agent, "m", [picture(SURE)])[2] == "OK"
        return len(summaries(agent)) >= number

    eventually(lambda: asked_and_told(2))
    first, second = (line["summary"] for _, line in summaries(agent)[:2])
    assert first["complete"] and first["to"] <= second["from"]
    agent.client.unload("m")  # what is gone is told a last time
    eventually(lambda: predict(agent, "m", [picture(SURE)])[2] == "NOT_FOUND")
    before = sum(line["summary"]["calls"]["OK"] for _, line in summaries(agent))
    assert agent.stop() == 0
    assert sum(line["summary"]["calls"]["OK"] for _, line in summaries(agent)) >= before


def test_each_version_is_told_by_itself(agents: Agents, signer: Signer, tmp_path: Path) -> None:  # [K-5] [K-7] [W-8]
    changes = {"edge_capture_policies": {"*": {"every_nth": 2}}, "edge_capture_summary_seconds": LONG}
    site = Site.made(agents, tmp_path, **changes)
    told = {}
    for version in ("1.0", "1.1"):
        site.declare("m", adder(signer, version, 1.0, tmp_path))
        if version == "1.0":
            site.agent.start()
        else:
            assert not site.apply()["m"].refused
        kept = [predict(site.agent, "m", [x_float([1, 2, 3, 4])])[1] for _ in range(4)]
        told.update(dict.fromkeys([capture_id for ids in kept for capture_id in ids], version))
    assert len(told) == 4  # the count begins anew with each version
    assert site.agent.stop() == 0
    records = [one["eventMetadata"] for _, one in captures.records(site.agent.captures) if "summary" not in one]
    assert {one["eventId"]: one["modelVersion"] for one in records} == told
    lines = [line for _, line in summaries(site.agent)]
    assert {one["eventMetadata"]["modelVersion"]: one["summary"]["calls"]["OK"] for one in lines} == {
        "1.0": 4,
        "1.1": 4,
    }


@pytest.fixture
def stub() -> Iterator[S3Stub]:
    made = S3Stub()
    made.start()
    yield made
    made.close()


def test_a_summary_is_uploaded(stub: S3Stub, agents: Agents, digits: Path, tmp_path: Path) -> None:  # [K-7]
    changes = cloud(stub.url, tmp_path, edge_capture_summary_seconds=1)
    agent = agents(**changes).start(env=ENVIRONMENT)
    agent.client.load(digits, "m")

    def arrived() -> list[str]:
        assert predict(agent, "m", [picture(SURE)])[2] == "OK"
        return [key for key in stub.objects if "/summary-" in key]

    eventually(arrived)
    key = arrived()[0]
    assert key.startswith("plant a/of two/fleet-1/digits/") and key.endswith(".jsonl")
    assert json.loads(stub.objects[key].body.splitlines()[0])["summary"]["alias"] == "m"

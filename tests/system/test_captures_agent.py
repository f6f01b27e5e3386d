"""What an agent captured by policy and summed up, read again by the commands of the program under test."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.system.conftest import run_tool
from tests.system.harness import ROOT, AgentProcess, tensor_of
from tests.system.policies import predict


@pytest.mark.parametrize("compress", ["none", "gzip"])
def test_captures_by_policy_and_summaries(
    agents: Callable[..., AgentProcess], digits: Path, tmp_path: Path, compress: str
) -> None:
    """[V-5] [V-6] [V-8] [R-18]"""
    policies = {"*": {"every_nth": 2, "max_probability_below": 0.99}}
    agent = agents(
        edge_capture_policies=policies, edge_capture_summary_seconds=3600, edge_capture_compress=compress
    ).start()
    agent.client.load(digits, "m")
    pictures = np.load(ROOT / "demo" / "data" / "held_out.npz")["grey"][:60].astype("<f4") / 255
    for picture in pictures.reshape(60, 1, 8, 8, 1):
        assert predict(agent, "m", [tensor_of(picture, "image")])[2] == "OK"
    assert predict(agent, "m", [])[2] == "INVALID_ARGUMENT"
    assert agent.stop() == 0
    folder = str(agent.captures)
    files = [path for path in agent.captures.rglob("*.jsonl*") if ".spool" not in path.parts]
    assert {path.suffix for path in files} == {".gz" if compress == "gzip" else ".jsonl"}
    assert any(path.name.startswith("summary-") for path in files)
    shown = json.loads(run_tool("captures", "show", folder, "--json").stdout)
    assert shown["model"] == "digits" and shown["tensors"]
    (model,) = json.loads(run_tool("captures", "stats", folder, "--json").stdout)["models"]
    captured, summed = model["captures"], model["summaries"]
    assert captured["count"] >= 30 and captured["reasons"]["every_nth"] == 30
    assert captured["milliseconds"]["p50"] > 0
    assert summed["calls"] == {"OK": 60, "INVALID_ARGUMENT": 1}
    listed = json.loads(run_tool("captures", "ls", folder, "--reason", "max_probability_below", "--json").stdout)[
        "captures"
    ]
    assert listed and all(one["confidence"] < 0.99 for one in listed)
    run_tool("captures", "report", folder, "--html", str(tmp_path / "r.html"))
    page = (tmp_path / "r.html").read_text("utf-8")
    assert page.count("data:image/png") >= 30
    assert "kept for every_nth" in page and "Period by period" in page and "latency, median" in page
    run_tool("captures", "export", folder, str(tmp_path / "x.npz"), "--reason", "every_nth")
    arrays = np.load(tmp_path / "x.npz")
    assert arrays["input.image"].shape == (30, 8, 8, 1)
    run_tool("captures", "export", folder, str(tmp_path / "pictures"), "--reason", "every_nth")
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 30

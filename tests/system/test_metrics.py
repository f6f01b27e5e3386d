"""Metrics of a real agent, in both formats, from a file, and in a real Prometheus."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edge.metrics import table
from edge.metrics.table import METRICS, Kind, Metric
from edge.rpc._generated import agent_pb2 as pb
from tests.system.conftest import run_tool
from tests.system.harness import AgentProcess, eventually, tensor_of
from tests.system.scrape import OPEN_METRICS, Samples, samples, scrape, value
from tests.system.test_listen import free_address

PackageOf = Callable[[str], Path]
PREDICTS = 5
ELSEWHERE = (table.UPLOADS, *table.FLEETS)  # of agents that upload, or are in a fleet
INPUT = tensor_of(np.zeros((1, 4), np.float32))
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt-get install prometheus)")


def use(agent: AgentProcess, package: Path) -> None:
    """Calls of some kinds: answered, refused, captured."""
    agent.client.load(package, "m")
    shape = agent.client.describe("m").input_tensor_metadatas[0].shape
    for _ in range(PREDICTS):
        agent.client.predict("m", [tensor_of(np.zeros(tuple(shape), np.float32))])
    for name in ("m", "other"):
        with pytest.raises(grpc.RpcError):
            agent.client.predict(name, [pb.Tensor(byte_data=b"123")])
    agent.client.capture(model_name="m", capture_id="one")
    agent.client.wait_captured("one")


def told(agent: AgentProcess, where: str) -> Samples:
    """The samples once all calls have been counted: one is, when its answer is away."""
    found: Samples = {}

    def complete() -> bool:
        nonlocal found
        found = samples(scrape(where))
        return value(found, "edge_agent_model_calls_total", code="OK") == PREDICTS

    eventually(complete)
    return found


def families(text: str) -> dict[str, str]:
    """The types by the families' names."""
    return dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))  # type: ignore[misc]


def test_what_is_told(agents: Any, package_of: PackageOf, tmp_path: Path) -> None:
    where = str(tmp_path / "m.sock")
    agent = agents(edge_metrics_listen=where).start()
    use(agent, package_of("add_one"))
    found = told(agent, where)
    told_of = {metric.name for metric in METRICS if metric not in ELSEWHERE}
    text = scrape(where, **OPEN_METRICS)
    assert families(text).keys() == told_of and text.endswith("# EOF\n")
    assert all(families(text)[metric.name] == metric.kind.value for metric in METRICS if metric.name in told_of)
    assert {name.removesuffix("_total").removesuffix("_info") for name in families(scrape(where))} == told_of
    agent_service = {"service": "AWS.SageMaker.Edge.Agent", "method": "Predict"}
    assert value(found, "edge_agent_calls_total", **agent_service, code="OK") == PREDICTS
    assert value(found, "edge_agent_calls_total", **agent_service, code="NOT_FOUND") == 1
    labels = {"model": "m", "version": "1.0"}
    assert value(found, "edge_agent_model_calls_total", **labels, code="INVALID_ARGUMENT") == 1
    assert value(found, "edge_agent_model_inference_seconds_count", **labels) == PREDICTS
    assert value(found, "edge_agent_model_inference_seconds_bucket", **labels, le="+Inf") == PREDICTS
    assert value(found, "edge_agent_trials_total", result="passed") == 1
    assert value(found, "edge_agent_captures_total", result="accepted") == 1
    status = agent.client.status()
    assert status.models[0].predicted == PREDICTS and status.captures.succeeded == 1
    assert value(found, "edge_agent_model_memory_bytes", **labels) == status.models[0].memory_bytes
    assert value(found, "edge_agent_build_info", version=status.version) == 1
    assert agent.stop() == 0 and not Path(where).exists()


def test_what_is_gone_is_not_told(agents: Any, package_of: PackageOf, signer: Any, tmp_path: Path) -> None:
    where = str(tmp_path / "m.sock")
    agent = agents(edge_metrics_listen=where).start()
    use(agent, package_of("add_one"))
    agent.client.unload("m")
    assert value(samples(scrape(where)), "edge_agent_model_calls_total") == 0
    broken = signer.sign_anything(b"no model")
    with pytest.raises(grpc.RpcError):
        agent.client.load(broken, "broken")
    eventually(lambda: value(samples(scrape(where)), "edge_agent_calls_total", method="LoadModel") == 2)


def test_calls_that_no_method_saw(agents: Any, tmp_path: Path) -> None:
    where = str(tmp_path / "m.sock")
    agent = agents(edge_metrics_listen=where, edge_rpc_server="core").start()
    with pytest.raises(grpc.RpcError):
        agent.channel.unary_unary("/AWS.SageMaker.Edge.Agent/NoSuchMethod")(b"", timeout=60)
    found = samples(scrape(where))
    assert value(found, "edge_agent_calls_refused_total", code="UNIMPLEMENTED") == 1
    assert value(found, "edge_agent_calls_refused_total", code="RESOURCE_EXHAUSTED") == 0


def test_off_unless_configured(agents: Any) -> None:
    agent = agents().start()
    listening = [line for line in Path("/proc/net/unix").read_text().splitlines() if str(agent.folder) in line]
    assert {line.split()[-1] for line in listening} <= {agent.socket}


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(agents: Any, tmp_path: Path) -> None:
    where = str(tmp_path / "m.sock")
    first = agents(edge_metrics_listen=where).start()
    second = agents(edge_metrics_listen=where)
    second.begin()
    assert second.wait(60) == 1 and "answers on it" in second.log
    first.kill()
    third = agents(edge_metrics_listen=where).start()
    assert scrape(where)
    taken = agents(edge_metrics_listen=str(tmp_path / "no" / "m.sock"))
    taken.begin()
    assert taken.wait(60) == 1 and "its directory does not exist" in taken.log
    assert third.stop() == 0


def test_over_tcp_an_address_in_use_ends_the_start(agents: Any) -> None:
    where = free_address("127.0.0.1")
    first = agents(edge_metrics_listen=where).start()
    assert scrape(where)
    second = agents(edge_metrics_listen=where)
    second.begin()
    assert second.wait(60) == 1
    assert f"edge_metrics_listen {where}: it cannot be listened on: Address already in use" in second.log
    assert first.stop() == 0


def test_the_file(agents: Any, package_of: PackageOf, tmp_path: Path) -> None:
    path = tmp_path / "agent.prom"
    agent = agents(edge_metrics_textfile=str(path)).start()
    eventually(path.exists)
    found = samples(path.read_text())
    assert value(found, "edge_agent_build_info") == 1
    assert agent.stop() == 0 and not list(tmp_path.glob("*.prom"))


def test_a_wrong_place_is_a_fault(agents: Any) -> None:
    agent = agents(edge_metrics_listen="0.0.0.0:9464", edge_metrics_textfile="metrics.txt")
    done = run_tool("-c", str(agent.config_path), "--check-config", check=False)
    assert done.returncode == 1
    assert "edge_metrics_listen" in done.stderr and "127.0.0.1:PORT" in done.stderr
    assert "an absolute path that ends in .prom" in done.stderr


# --- with Prometheus ------------------------------------------------------------


@promtool
def test_promtool_finds_no_fault(agents: Any, package_of: PackageOf, tmp_path: Path) -> None:
    where = str(tmp_path / "m.sock")
    agent = agents(edge_metrics_listen=where).start()
    use(agent, package_of("add_one"))
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(where), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class Prometheus:
    """A Prometheus that scrapes one place each second; a query is asked of its HTTP API."""

    def __init__(self, folder: Path, target: str) -> None:
        self.address = free_address("127.0.0.1")
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [{"job_name": "agent", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        self._log = (folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address={self.address}"],
            stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def query(self, expression: str) -> list[Any]:
        """The vector that an expression gives now; nothing where it does not answer yet."""
        url = f"http://{self.address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return list(json.load(answer)["data"]["result"])
        except OSError:
            return []

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    made = Prometheus(folder, target)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (apt-get install prometheus)")
def test_prometheus_scrapes_it(agents: Any, package_of: PackageOf, tmp_path: Path) -> None:
    where = free_address("127.0.0.1")
    agent = agents(edge_metrics_listen=where).start()
    use(agent, package_of("add_one"))
    with prometheus(tmp_path, where) as server:
        wanted = 'edge_agent_model_calls_total{model="m",version="1.0",code="OK"}'
        eventually(lambda: [one["value"][1] for one in server.query(wanted)] == [str(PREDICTS)], 60)
        names = {one["metric"]["__name__"] for one in server.query('{__name__=~"edge_agent_.+"}')}
        assert names == {name for metric in METRICS if metric not in ELSEWHERE for name in series_of(metric)}
        (up,) = server.query("up")
        assert up["value"][1] == "1"
    assert agent.stop() == 0


def series_of(metric: Metric) -> list[str]:
    """The names that a query may use."""
    ends = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
    return [metric.series + end for end in ends]

"""The program: flags, socket, signals, log (X-1 to X-5)."""

import json
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import good_config, run_tool
from tests.system.harness import agent_command, array_of
from tests.system.test_predict import Slow

PackageOf = Callable[[str], Path]


def run(agent: Any, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [*agent_command(), "-a", agent.socket, "-c", str(agent.config_path), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_an_existing_socket_needs_the_flag(agents: Any) -> None:
    agent = agents()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(agent.socket)
    stale.close()
    refused = run(agent)
    assert refused.returncode == 1
    assert agent.socket in refused.stderr and "-f" in refused.stderr
    agent.start(force=True)
    assert agent.client.models() == []


def test_a_live_socket_is_an_error_with_the_flag_too(agents: Any) -> None:
    first, second = agents().start(), agents()
    second.socket = first.socket
    for words in ([], ["-f"]):
        refused = run(second, *words)
        assert refused.returncode == 1
        assert "another agent answers on it" in refused.stderr
    assert first.client.models() == []


def test_what_is_no_socket_is_never_removed(agents: Any) -> None:
    agent = agents()
    Path(agent.socket).write_text("precious")
    refused = run(agent, "-f")
    assert refused.returncode == 1
    assert "not a socket" in refused.stderr
    assert Path(agent.socket).read_text() == "precious"


def test_socket_paths_that_cannot_be(agents: Any) -> None:
    agent = agents()
    for path, word in (("/nowhere/agent.sock", "does not exist"), ("/tmp/" + "x" * 120, "107 bytes")):
        agent.socket = path
        refused = run(agent)
        assert refused.returncode == 1
        assert word in refused.stderr
        assert "Traceback" not in refused.stderr


def test_the_group_may_connect_and_others_may_not(agents: Any) -> None:
    agent = agents().start()
    assert stat.S_IMODE(Path(agent.socket).stat().st_mode) == 0o660


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_stop_cleanly(agents: Any, package_of: PackageOf, number: int) -> None:
    agent = agents().start()
    agent.client.load(package_of("slow"), "slow")
    slow = Slow(agent)
    size = slow.lasting(0.75)  # the stop waits for it, but not for seconds
    slow.start(size=size)
    slow.until(1, 0)
    agent.client.capture(model_name="slow", capture_id="last")
    agent.signal(number)
    assert array_of(slow.calls[0].result().tensors[0]).tolist() == [size]
    assert agent.wait() == 0
    assert not Path(agent.socket).exists()
    lines = [line for path in agent.captures.glob("fleet-1/**/*.jsonl") for line in path.read_text().splitlines()]
    assert [json.loads(line)["eventMetadata"]["eventId"] for line in lines] == ["last"]


def test_a_second_signal_exits_at_once(agents: Any, package_of: PackageOf) -> None:
    agent = agents().start()
    agent.client.load(package_of("slow"), "slow")
    slow = Slow(agent)
    slow.start(size=2_000_000)
    slow.until(1, 0)
    agent.signal(signal.SIGTERM)
    from tests.system.harness import eventually

    eventually(lambda: "stopping" in agent.log, 30, "it is stopping")
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 128 + signal.SIGTERM
    agent.close_channel()


def test_a_stuck_call_does_not_hold_up_the_stop(agents: Any, package_of: PackageOf) -> None:
    agent = agents().start()
    agent.client.load(package_of("slow"), "slow")
    slow = Slow(agent)
    slow.start(size=2_000_000)
    slow.until(1, 0)
    agent.signal(signal.SIGTERM)
    with pytest.raises(Exception, match="UNAVAILABLE"):  # its client is told
        slow.calls[0].result()
    assert agent.wait(60) == 0
    agent.close_channel()


def test_version() -> None:
    text = run_tool("--version").stdout.strip()
    assert re.fullmatch(r"\d+\.\d{8}\.[0-9a-f]{7}", text), text


def test_check_config(agents: Any, tmp_path: Path) -> None:
    agent = agents(core_capture_data_buffer_size="50")
    good = run_tool("--check-config", "-c", str(agent.config_path))
    assert re.search(r"core_capture_data_buffer_size +50 +\(file\)", good.stdout)
    assert re.search(r"core_capture_data_batch_size +10 +\(default\)", good.stdout)
    bad = agents(core_device_name="-", core_capture_data_batch_size=0)
    refused = run_tool("--check-config", "-c", str(bad.config_path), check=False)
    assert refused.returncode == 1
    assert "core_device_name" in refused.stderr and "batch_size" in refused.stderr


def test_check_config_without_a_file_reads_the_installed_one() -> None:
    done = run_tool("--check-config", check=False)
    assert "usage:" not in done.stderr
    assert done.returncode == 0 or "/etc/sagemaker-edge-agent/config.json: No such file" in done.stderr


def test_the_hint_at_a_misspelt_key_stands_beside_the_fault(agents: Any) -> None:
    agent = agents(core_device_name=None, core_device_nam="device-1")
    refused = run_tool("--check-config", "-c", str(agent.config_path), check=False)
    assert refused.returncode == 1
    assert "sagemaker_edge_core_device_name: missing" in refused.stderr
    assert "warning: sagemaker_edge_core_device_nam is not a known key" in refused.stderr
    assert "did you mean sagemaker_edge_core_device_name?" in refused.stderr


def test_a_bad_configuration_stops_the_start(agents: Any) -> None:
    agent = agents(core_device_name="-", log_verbose="perhaps")
    refused = run(agent)
    assert refused.returncode == 1
    assert "core_device_name" in refused.stderr and "log_verbose" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not Path(agent.socket).exists()


@pytest.mark.parametrize(
    "words", [[], ["-a", "/tmp/x.sock"], ["--nonsense"], ["-a", "x", "-c", "y", "--max-message-bytes", "1"]]
)
def test_wrong_usage(words: list[str]) -> None:
    refused = run_tool(*words, check=False)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("sagemaker-edge-agent: ") and line.endswith("; try sagemaker-edge-agent --help")


def test_the_log_outside_journald(agents: Any) -> None:
    agent = agents().start()
    agent.stop()
    assert re.search(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 INFO edge", agent.log, re.MULTILINE)


def test_a_folder_of_roots_that_is_not_well_warns_at_the_start(agents: Any, tmp_path: Path) -> None:  # [S-3]
    agent = agents(roots=tmp_path / "none").start()
    agent.stop()
    assert re.search(
        rf"WARNING edge.app: the folder of trusted roots {tmp_path}/none cannot be read: No such", agent.log
    )


def test_the_log_counts_as_people_do(agents: Any, package_of: PackageOf) -> None:
    agent = agents().start()
    agent.client.load(package_of("add_one"), "adder")
    agent.stop()
    assert re.search(
        r"model adder loaded: package add-one 1\.0, 1 instance, \d+\.\d MiB, on \w+ [\d.]+$", agent.log, re.MULTILINE
    )


def test_verbose_means_debug(agents: Any) -> None:
    agent = agents(log_verbose="true").start()
    with pytest.raises(Exception, match="NOT_FOUND"):
        agent.client.predict("ghost", [])
    agent.stop()  # the log is written whole by then
    assert "DEBUG" in agent.log


def test_a_client_cannot_forge_log_lines(agents: Any) -> None:
    agent = agents(log_verbose=True).start()
    with pytest.raises(Exception, match="NOT_FOUND"):
        agent.client.predict("x\n2026-01-01 CRITICAL forged", [])
    agent.stop()
    assert not any(line.startswith("2026-01-01 CRITICAL") for line in agent.log.splitlines())


def test_an_unused_key_only_warns(agents: Any, signer: Any, tmp_path: Path) -> None:
    agent = agents(telemetry_libsystemd_path="/lib/x.so").start()
    agent.stop()
    assert "telemetry_libsystemd_path is not used" in agent.log
    assert good_config(tmp_path, signer.roots, {"core_region": None}).get("sagemaker_edge_core_region") is None

"""What operators' scripts and readers of captures in the field do: relative paths, folders, the log, record files."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.capture import layout
from tests.system.conftest import run_tool
from tests.system.harness import AgentProcess, agent_command

OLD_NAME = "sagemaker_edge_agent_binary"
Agents = Callable[..., AgentProcess]


def capture(agent: AgentProcess, package: Path, ids: list[str]) -> None:
    agent.client.load(package, "m")
    for capture_id in ids:
        agent.client.capture(model_name="m", capture_id=capture_id)
    for capture_id in ids:
        agent.client.wait_captured(capture_id)


def test_a_record_a_file_for_readers_of_one(agents: Agents, digits: Path) -> None:
    agent = agents(edge_capture_records_per_file=1).start()
    capture(agent, digits, ["a", "b", "c"])
    records = [json.loads(path.read_bytes()) for path in agent.captures.rglob("*.jsonl")]
    assert sorted(record["eventMetadata"]["eventId"] for record in records) == ["a", "b", "c"]


def test_only_records_end_in_jsonl(agents: Agents, digits: Path) -> None:
    agent = agents(core_capture_data_batch_size=2).start()
    capture(agent, digits, ["a", "b"])
    agent.stop()
    found = list(agent.captures.rglob("*.jsonl"))
    assert found and all(layout.is_record_name(path.name, "device-1") for path in found)
    assert (agent.captures / ".spool" / "statuses.log").exists()


def test_relative_paths_and_a_prefix_with_spaces(
    agents: Agents, digits: Path, signer: Any, tmp_path: Path
) -> None:
    (tmp_path / "work" / "certificates").mkdir(parents=True)
    (tmp_path / "work" / "certificates" / "root").symlink_to(signer.roots)
    agent = agents(
        core_root_certs_path="./certificates/root",
        core_capture_data_disk_path="../kept",
        core_folder_prefix="my captures",
    )
    agent.cwd = tmp_path / "work"
    agent.start()
    capture(agent, digits, ["a"])
    assert len(list((tmp_path / "kept" / "my captures" / "fleet-1" / "digits").rglob("*.jsonl"))) == 1
    assert f"captures wait in {tmp_path}/kept/.spool" in agent.log


@pytest.mark.parametrize(
    ("name", "stream", "env", "where"),
    [
        (OLD_NAME, "", "JOURNAL_STREAM=8:1", "stdout"),
        (OLD_NAME, "", "SYSTEMD_EXEC_PID=$$", "stderr"),
        (OLD_NAME, "stderr", "", "stderr"),
        ("sagemaker-edge-agent", "", "", "stderr"),
        ("sagemaker-edge-agent", "stdout", "SYSTEMD_EXEC_PID=$$", "stdout"),
    ],
)
def test_where_the_log_goes(
    agents: Agents, tmp_path: Path, name: str, stream: str, env: str, where: str
) -> None:
    *before, program = agent_command()
    (tmp_path / name).symlink_to(program)
    agent = agents(edge_log_stream=stream)
    words = ["env", "-uNOTIFY_SOCKET", "-uPYTHONUNBUFFERED", "sh", "-c", env + ' exec "$@"', "sh"]
    files = {"stdout": tmp_path / "stdout", "stderr": tmp_path / "stderr"}
    with files["stdout"].open("wb") as out, files["stderr"].open("wb") as err:
        agent.process = subprocess.Popen(
            [*words, *before, str(tmp_path / name), "-a", agent.socket, "-c", str(agent.config_path)],
            stdout=out,
            stderr=err,
        )
    agent.wait_serving()
    agent.stop()
    said = {stream for stream, path in files.items() if "serves on" in path.read_text()}
    assert said == {where}


def test_check_config_and_doctor_name_a_spool_that_cannot_be(agents: Agents, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = f"{tmp_path}/file/spool"
    agent = agents(edge_spool_path=spool)
    refused = run_tool("--check-config", "-c", str(agent.config_path), check=False)
    assert refused.returncode == 1
    assert f"edge_spool_path: {spool} cannot be used: {tmp_path}/file is not a folder" in refused.stderr
    assert spool in refused.stdout
    refused = run_tool("doctor", "-a", agent.socket, "-c", str(agent.config_path), check=False)
    assert refused.returncode == 1
    assert f"FAIL  spool: {tmp_path}/file is not a folder" in refused.stdout

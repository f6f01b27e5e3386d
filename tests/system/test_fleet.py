"""A fleet from its operator to a real agent: rollouts that go well, that fail, that are taken back; sticks; doors that stay shut."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.data import make_models
from tests.fakes.fleet import FleetServer
from tests.system.conftest import Signer, run_tool
from tests.system.fleet import FLEET, PROVES, WAIT_SECONDS, Member, Operator, archive


@pytest.fixture
def operator(signer: Signer, tmp_path: Path) -> Operator:
    """A repository with two good packages, and one whose model takes other tensors."""
    made = Operator(tmp_path)
    packages = [
        archive(signer, "1.0", 0, tmp_path),
        archive(signer, "1.1", 1, tmp_path),
        archive(signer, "2.0", 2, tmp_path, make_models.two_by_two()),
    ]
    made("publish", *map(str, packages))
    return made


def status_text(member: Member) -> str:
    return run_tool("status", "-a", member.agent.socket).stdout


def test_two_crashes_take_a_deployment_back(agents: Any, operator: Operator, tmp_path: Path) -> None:  # [F-5] [F-10]
    member = Member.of(agents, tmp_path, operator.root, str(operator.folder))
    operator("deploy", FLEET, "add=adder/1.0", "--name", "n-1")
    member.agent.start()
    member.until("n-1", "trying")
    member.prove()
    member.until("n-1", "committed")
    operator("deploy", FLEET, "add=adder/1.1", "--name", "n-2")
    member.until("n-2", "trying")
    for _ in range(2):
        member.agent.kill()
        member.agent.start(force=True)
    refused = member.until("n-1", "refused")
    assert "before it had proved itself" in refused.models[0].refused
    assert member.added("add") == 0


def test_a_stick(agents: Any, operator: Operator, tmp_path: Path) -> None:  # [F-15] [F-11]
    member = Member.of(agents, tmp_path, operator.root, "")
    member.agent.start()
    operator("deploy", FLEET, "add=adder/1.0", "--name", "n-1")
    words = ("-a", member.agent.socket, "--json")
    done = run_tool("fleet", "apply", "--from", str(operator.folder), *words)
    assert json.loads(done.stdout)["deployment"] == "n-1"
    assert member.added("add") == 0
    shutil.copytree(operator.folder, tmp_path / "old")
    operator("deploy", FLEET, "add=adder/1.1", "--name", "n-2")
    run_tool("fleet", "apply", "--from", str(operator.folder), *words)
    old = run_tool("fleet", "apply", "--from", str(tmp_path / "old"), *words, check=False)
    assert old.returncode == 1
    assert "BadVersionNumber" in json.loads(old.stdout)["error"]
    assert run_tool("fleet", "check", *words, check=False).returncode == 1
    assert run_tool("fleet", "apply", "--from", str(tmp_path), *words, check=False).returncode == 2
    assert member.added("add") == 1
    member.agent.stop()
    member.declare("add", tmp_path / "adder-1.0.tar.gz")
    member.agent.start()
    assert member.added("add") == 0, "models.d goes before the fleet"
    operator("deploy", FLEET, "add=adder/1.1", "--name", "n-3")
    done = run_tool("fleet", "apply", "--from", str(operator.folder), *words)
    assert [(one["name"], one["pinned"]) for one in json.loads(done.stdout)["models"]] == [("add", True)]
    assert member.added("add") == 0


def test_a_start_needs_no_network(agents: Any, operator: Operator, tmp_path: Path) -> None:  # [F-9] [M-5]
    server = FleetServer(operator.folder)
    server.start()
    try:
        member = Member.of(agents, tmp_path, operator.root, server.url)
        operator("deploy", FLEET, "add=adder/1.0", "--name", "n-1")
        member.agent.start()
        member.until("n-1", "trying")
    finally:
        server.close()
    member.agent.stop()
    member.agent.start()
    assert member.added("add") == 0
    assert run_tool("fleet", "check", "-a", member.agent.socket, check=False).returncode == 1
    assert "last error: 127.0.0.1" in status_text(member)


def test_a_stop_ends_a_round(agents: Any, operator: Operator, tmp_path: Path) -> None:
    """The repository's server keeps the agent waiting; the agent ends cleanly all the same."""
    server = FleetServer(operator.folder)
    asked = threading.Event()

    def silent(handler: Any, name: str) -> None:
        asked.set()
        server.closing.wait(WAIT_SECONDS)

    server.bent = {"timestamp": silent}
    server.start()
    try:
        member = Member.of(agents, tmp_path, operator.root, server.url)
        member.agent.start()
        assert asked.wait(WAIT_SECONDS)
        assert member.agent.stop() == 0
    finally:
        server.close()


def test_an_agent_in_no_fleet(agents: Any) -> None:
    agent = agents().start()
    done = run_tool("fleet", "check", "-a", agent.socket, check=False)
    assert done.returncode == 1
    assert "edge_fleet_root" in done.stderr
    assert not agent.client.status().HasField("fleet")


@pytest.mark.parametrize("models_d", [True, False])
def test_leaving_the_fleet(agents: Any, operator: Operator, tmp_path: Path, models_d: bool) -> None:  # [F-9]
    member = Member.of(agents, tmp_path, operator.root, "")
    if not models_d:
        member.declarations.rmdir()
    member.agent.start()
    operator("deploy", FLEET, "add=adder/1.0", "--name", "n-1")
    run_tool("fleet", "apply", "--from", str(operator.folder), "-a", member.agent.socket)
    assert member.added("add") == 0
    member.agent.stop()
    config = json.loads(member.agent.config_path.read_text())
    del config["edge_fleet_root"]
    member.agent.config_path.write_text(json.dumps(config))
    member.agent.start()
    assert [one.name for one in member.agent.client.models()] == []
    if models_d:  # without a folder of declarations the store is not looked into
        assert member.packages() == set()


def test_two_models_switch_together(agents: Any, operator: Operator, tmp_path: Path) -> None:  # [F-10] [W-9]
    """Where one of them is refused, the other does not switch either; where both are good, both do, and go back together."""
    member = Member.of(agents, tmp_path, operator.root, "")
    member.agent.start()

    def arrive(name: str, add: str, other: str) -> Any:
        operator("deploy", FLEET, f"add=adder/{add}", f"other=adder/{other}", "--name", name)
        words = ("fleet", "apply", "--from", str(operator.folder), "-a", member.agent.socket, "--json")
        return json.loads(run_tool(*words, check=False).stdout)

    def serves() -> tuple[float, float]:
        return member.added("add"), member.added("other")

    assert arrive("n-1", "1.0", "1.0")["state"] == "trying"
    assert serves() == (0, 0)
    for name in ("add", "other"):
        for _ in range(PROVES):
            member.added(name)
    member.until("n-1", "committed")
    bad = arrive("n-2", "1.1", "2.0")
    assert {one["name"]: "switches together" in one["refused"] for one in bad["models"]} == {
        "add": True,
        "other": False,
    }
    assert serves() == (0, 0)
    assert arrive("n-3", "1.1", "1.1")["state"] == "trying", "what was refused for another's fault is tried again"
    assert serves() == (1, 1)
    assert member.rollback("add").refused
    member.until("n-1", "refused")
    assert serves() == (0, 0)

"""Applications of the original among models that stay, and what a crash restores (M-7 to M-11)."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import eventually
from tests.system.managed import Site, adder

Refused = Callable[..., Any]


@pytest.fixture
def site(agents: Any, tmp_path: Path) -> Site:
    """An agent, not yet started, with an empty folder of declarations."""
    return Site.made(agents, tmp_path)


def application(site: Site, package: Path, refused: Refused) -> None:
    """An application of the original: any refusal of its LoadModel is fatal to it, and so is a model that is not there."""
    client = site.agent.client
    client.models()
    assert client.load(package, "add").name == "add"
    assert [model.name for model in client.models()] == ["add"]
    with refused("ALREADY_EXISTS", "'add' is already loaded"):  # as its second instance asks, and takes for good
        client.load(package, "add")
    site.added("add")
    client.unload("add")


def test_an_application_of_the_original_on_a_declared_model(
    site: Site, signer: Any, tmp_path: Path, refused: Refused
) -> None:  # [M-8] [M-9] [M-10] [M-11]
    one, two = adder(signer, "1.0", 1, tmp_path), adder(signer, "1.1", 2, tmp_path)
    site.declare("add", one)
    site.agent.start()
    for package in (one, two, one):  # what it asks for makes no difference
        application(site, package, refused)
        assert site.managed("add").released
        assert site.added("add") == 1
    assert "adopts what serves" in site.agent.log
    assert site.agent.client.load("/nowhere", "add").url == site.agent.client.describe("add").url
    assert not site.managed("add").released
    for end in (site.agent.stop, site.agent.kill):
        end()
        site.agent.start(force=True)
        application(site, two, refused)
    site.declare("add", two)
    assert site.apply()["add"].version == "adder 1.1"
    application(site, one, refused)  # it was unloaded before
    assert site.added("add") == 2


def answers(path: str) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def test_an_application_that_waits_for_the_socket_alone(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-4] [M-8]
    site.declare("add", adder(signer, "1.0", 1, tmp_path))
    two = adder(signer, "1.1", 2, tmp_path)
    site.agent.begin()
    eventually(lambda: answers(site.agent.socket))
    site.agent.client.load(two, "add")
    assert (site.added("add"), site.managed("add").refused) == (1, "")


def test_strict_adopts_nothing(agents: Any, signer: Any, tmp_path: Path, refused: Refused) -> None:  # [M-9]
    site = Site.made(agents, tmp_path, edge_models_strict=True)
    one = adder(signer, "1.0", 1, tmp_path)
    site.declare("add", one)
    site.agent.start()
    with refused("ALREADY_EXISTS", "'add' is already loaded"):
        site.agent.client.load(one, "add")


def test_a_declared_model_that_fails_leaves_its_name_to_applications(
    site: Site, signer: Any, tmp_path: Path, refused: Refused
) -> None:  # [M-1] [M-3]
    site.declare("add", tmp_path / "adder-1.1")
    site.agent.start()
    one = adder(signer, "1.0", 1, tmp_path)
    site.agent.client.load(one, "add")
    assert site.added("add") == 1
    adder(signer, "1.1", 2, tmp_path)
    assert site.apply()["add"].version == "adder 1.1"  # what is declared goes before what was called for
    assert site.added("add") == 2


def test_what_applications_loaded_is_restored_after_a_crash(
    site: Site, signer: Any, tmp_path: Path, refused: Refused
) -> None:  # [M-7] [M-8]
    run = tmp_path / "run"
    run.mkdir()
    env = {"RUNTIME_DIRECTORY": str(run)}
    one, two, three = (adder(signer, f"1.{n}", n + 1, tmp_path) for n in range(3))
    agent = site.agent.start(env=env)
    assert list(run.iterdir()) == []
    agent.client.load(one, "add")
    agent.client.load(two, "other")
    agent.client.load(one, "gone")
    agent.client.unload("gone")
    agent.kill()
    agent.start(force=True, env=env)
    assert {model.name for model in agent.client.models()} == {"add", "other"}
    assert [site.managed(name).why for name in ("add", "other")] == ["restored"] * 2
    assert agent.client.load(one, "add").url == str(one)
    with refused("ALREADY_EXISTS"):
        agent.client.load(one, "add")
    assert agent.client.load(three, "other").url == str(three)  # another package: it is what the application gets
    assert (site.added("other"), site.managed("other").why) == (3, "called")
    agent.kill()
    agent.start(force=True, env=env)  # a second crash, soon after
    assert agent.client.models() == []
    assert "crashed twice" in agent.log
    agent.client.load(one, "add")
    assert agent.stop() == 0
    assert list(run.iterdir()) == []
    agent.start(env=env)
    assert agent.client.models() == []


def test_what_cannot_be_restored_is_forgotten(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-7]
    run = tmp_path / "run"
    run.mkdir()
    env = {"RUNTIME_DIRECTORY": str(run)}
    package = adder(signer, "1.0", 1, tmp_path)
    agent = site.agent.start(env=env)
    agent.client.load(package, "add")
    agent.kill()
    shutil.rmtree(package)
    agent.start(force=True, env=env)
    assert agent.client.models() == []
    assert json.loads((run / "models.json").read_text())["models"] == {}
    for text in ("", "{}", '{"boot": "", "crashed": 0, "models": 3}'):
        agent.kill()
        (run / "models.json").write_text(text)
        agent.start(force=True, env=env)
        assert agent.client.models() == []


def test_without_a_runtime_directory_nothing_is_noted(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-7]
    agent = site.agent.start(env={"RUNTIME_DIRECTORY": str(tmp_path / "absent")})
    agent.client.load(adder(signer, "1.0", 1, tmp_path), "add")
    assert site.added("add") == 1
    agent.kill()
    agent.start(force=True, env={"RUNTIME_DIRECTORY": ""})
    assert agent.client.models() == []

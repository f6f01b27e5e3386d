"""Models that are declared: they serve after every start, and declarations are brought about when asked (M-1 to M-6)."""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edge.package.identity import load_identity
from edge.package.making import make_package
from edge.package.manifest import Manifest
from tests.system.conftest import DIGITS, run_tool
from tests.system.harness import START_SECONDS, client_command
from tests.system.managed import Site, adder

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
Refused = Callable[..., Any]


@pytest.fixture
def site(agents: Any, tmp_path: Path) -> Site:
    """An agent, not yet started, with an empty folder of declarations."""
    return Site.made(agents, tmp_path)


def test_a_declared_model_serves_after_every_start(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-1] [M-4]
    package = adder(signer, "1.0", 1, tmp_path)
    site.declare("add", package)
    site.agent.start()
    assert site.added("add") == 1
    shutil.rmtree(package)
    for end in (site.agent.stop, site.agent.kill):
        end()
        site.agent.start(force=True)
        assert site.added("add") == 1
    assert len(site.packages()) == 1


def test_no_network_is_needed(agents: Any, signer: Any, tmp_path: Path) -> None:  # [M-5]
    cloud = {
        "core_capture_data_destination": "Cloud",
        "core_region": "us-west-2",
        "core_endpoint_override": "https://127.0.0.1:1",
        "provider_s3_bucket_name": "sagemaker-nowhere",
        "edge_spool_path": str(tmp_path / "spool"),
    }
    site = Site.made(agents, tmp_path, **cloud)
    site.declare("add", adder(signer, "1.0", 1, tmp_path))
    site.agent.start()
    assert site.added("add") == 1


def test_nothing_declared_leaves_no_trace(site: Site) -> None:  # [M-1]
    site.agent.start()
    assert site.apply() == {}
    assert site.agent.stop() == 0
    assert not site.store.exists()


def test_declarations_are_read_when_asked_and_never_watched(
    site: Site, signer: Any, tmp_path: Path, refused: Refused
) -> None:  # [M-2]
    site.agent.start()
    site.declare("add", adder(signer, "1.0", 1, tmp_path))
    with refused("NOT_FOUND", "'add' is not loaded"):
        site.added("add")
    with refused("NOT_FOUND", "'other' is not declared", "other.json"):
        site.apply("other")
    done = site.apply()["add"]
    assert (done.version, done.why, done.committed, done.refused) == ("adder 1.0", "declared", False, "")
    assert site.added("add") == 1
    site.declare("add", adder(signer, "1.1", 2, tmp_path))
    assert site.added("add") == 1
    assert site.apply("add")["add"].version == "adder 1.1"
    assert site.added("add") == 2
    (site.declarations / "add.json").unlink()
    assert site.apply()["add"].why == ""
    with refused("NOT_FOUND", "'add' is not loaded"):
        site.added("add")
    assert site.packages() == set()


FAULTS = [
    ("", "is not JSON"),
    ('{"package": "/p", "pakage": 1}', "unknown key 'pakage'"),
    ("{}", "lacks package"),
    ('{"package": 1}', "package must be text, not a number"),
    ('{"package": "p"}', "names the package 'p'; expected an absolute path"),
    ('{"package": "/p", "allow_gap": 1}', "allow_gap must be true or false, not a number"),
    ('{"package": "/p", "package": "/p"}', "twice"),
    ('{"package": "/nowhere"}', "there is no package at /nowhere"),
    ('{"package": "/etc"}', "not signed"),
    ('{"package": "' + "x" * 20_000 + '"}', "larger than 16384 bytes"),
]


def test_a_faulty_declaration_stops_no_other(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-3]
    for number, (text, _) in enumerate(FAULTS):
        site.write(f"bad-{number}", text)
    site.write("no_alias", '{"package": "/p"}')
    (site.declarations / "pipe.json").symlink_to("/dev/zero")
    for name in (b"\xff.json", b"a\nb.json"):
        (site.declarations / os.fsdecode(name)).write_text('{"package": "/p"}')
    site.declare("zzz", adder(signer, "1.0", 1, tmp_path))
    site.agent.start()
    assert site.added("zzz") == 1
    managed = {one.name: one for one in site.agent.client.status().managed}
    for number, (_, words) in enumerate(FAULTS):
        assert words in managed[f"bad-{number}"].refused
        assert managed[f"bad-{number}"].version == ""
    for name in ("no_alias", "\\udcff", "a\\nb"):
        assert "has a name that is not allowed" in managed[name].refused == site.apply()[name].refused
    assert "\\udcff" in run_tool("models", "list", "-a", site.agent.socket).stdout
    assert "cannot be read" in managed["pipe"].refused
    assert "bad-1: what is declared does not serve" in site.agent.log or "model bad-1" in site.agent.log


def test_a_faulty_change_leaves_what_serves(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-3]
    site.declare("add", adder(signer, "1.0", 1, tmp_path))
    site.agent.start()
    site.write("add", "no JSON")
    assert "is not JSON" in site.apply()["add"].refused
    assert site.added("add") == 1
    site.agent.stop()
    site.agent.start()
    assert site.added("add") == 1
    assert "is not JSON" in site.managed("add").refused


def set_model(site: Site, package: Path | str, *words: str) -> "subprocess.CompletedProcess[str]":
    return run_tool("models", "set", "-a", site.agent.socket, "add", str(package), *words, check=False)


def test_the_commands(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-1] [M-2]
    site.agent.start()
    one, two = adder(signer, "1.0", 1, tmp_path), adder(signer, "1.1", 2, tmp_path)
    done = set_model(site, one)
    assert (done.returncode, done.stdout) == (0, "add: adder 1.0 serves, and will after every start\n")
    assert json.loads((site.declarations / "add.json").read_text()) == {"package": str(one)}
    done = set_model(site, two, "--json")
    said = json.loads(done.stdout)
    assert (said["ok"], said["version"], said["previous_version"]) == (True, "adder 1.1", "adder 1.0")
    assert site.added("add") == 2

    done = run_tool("models", "list", "-a", site.agent.socket)
    assert "adder 1.1 (on trial)" in done.stdout and "declared" in done.stdout
    assert "adder 1.1 (on trial)" in run_tool("status", "-a", site.agent.socket).stdout
    assert "adder 1.1" in run_tool("models", "apply", "-a", site.agent.socket).stdout

    done = run_tool("models", "rollback", "add", "-a", site.agent.socket)
    assert done.stdout == "add: adder 1.0 serves again; adder 1.1 was taken back: it was rolled back by hand\n"
    assert site.added("add") == 1
    done = run_tool("models", "rollback", "add", "-a", site.agent.socket, check=False)
    assert (done.returncode, "no version to go back to" in done.stderr) == (1, True)
    done = run_tool("models", "apply", "-a", site.agent.socket, check=False)
    assert (done.returncode, "was taken back: it was rolled back by hand" in done.stdout) == (1, True)
    assert site.added("add") == 1
    site.agent.stop()
    site.agent.start()
    assert site.added("add") == 1
    assert set_model(site, two).returncode == 0
    assert site.added("add") == 2

    assert "no longer declared" in run_tool("models", "forget", "add", "-a", site.agent.socket).stdout
    assert list(site.declarations.iterdir()) == []
    assert site.agent.client.models() == []
    assert site.packages() == set()
    done = run_tool("models", "forget", "add", "-a", site.agent.socket, check=False)
    assert (done.returncode, "add is not declared" in done.stderr) == (1, True)


def test_what_is_refused_leaves_the_declaration_as_it_was(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-3]
    site.agent.start()
    done = set_model(site, "/nowhere")
    assert (done.returncode, "there is no package at /nowhere; add is not declared" in done.stderr) == (1, True)
    assert list(site.declarations.iterdir()) == []
    one = adder(signer, "1.0", 1, tmp_path)
    assert set_model(site, one).returncode == 0
    done = set_model(site, "/nowhere", "--json")
    assert json.loads(done.stdout)["ok"] is False
    assert json.loads((site.declarations / "add.json").read_text()) == {"package": str(one)}
    assert (site.managed("add").refused, site.added("add")) == ("", 1)
    other = tmp_path / "other"
    make_package(Manifest("digits", "1.0", "m"), DIGITS, [], load_identity(signer.key, signer.certificate, None), other)
    assert "add is declared as before" in set_model(site, other).stderr  # [W-3]
    assert set_model(site, other, "--allow-changed-tensors").returncode == 0


def test_a_copy_for_an_agent_that_cannot_read_the_package(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-2]
    site.agent.start()
    archive = signer.package(adder(signer, "1.0", 1, tmp_path) / "adder.tflite", "adder", out=tmp_path / "a.tar.gz")
    for package in (archive, adder(signer, "1.1", 2, tmp_path)):
        assert set_model(site, package, "--copy").returncode == 0
        assert [path.name for path in site.declarations.iterdir()] == ["add.json"]
        site.agent.stop()
        site.agent.start()
        assert site.managed("add").refused == ""
    assert site.added("add") == 2


def test_wait_for_an_agent_that_starts(site: Site, signer: Any, tmp_path: Path) -> None:
    one = adder(signer, "1.0", 1, tmp_path)
    assert set_model(site, one).returncode == 3
    assert list(site.declarations.iterdir()) == []
    waiting = subprocess.Popen(
        [*client_command(), "models", "set", "-a", site.agent.socket, "add", str(one), "--wait", "60"]
    )
    site.agent.start()
    assert waiting.wait(60) == 0
    assert site.added("add") == 1


def test_ready_says_that_declared_models_serve(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-4]
    site.declare("add", adder(signer, "1.0", 1, tmp_path))
    site.declare("bad", "/nowhere")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(START_SECONDS)
        manager.bind(str(tmp_path / "notify"))
        site.agent.begin(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        while manager.recv(4096) != b"READY=1":
            pass
        assert site.added("add") == 1
        health = health_pb2_grpc.HealthStub(site.agent.channel)
        states = [health.Check(health_pb2.HealthCheckRequest(service=name)).status for name in ("", "add", "bad")]
        assert states == [SERVING, SERVING, NOT_SERVING]  # [M-3]
        site.agent.stop()


def test_one_command_at_a_time_changes_a_declaration(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-2]
    site.agent.start()
    one = adder(signer, "1.0", 1, tmp_path)
    reader = os.open(site.declarations, os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_EX)  # as every user can have it, which holds up nobody
    other = os.open(site.declarations / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(other, fcntl.LOCK_EX)  # as another `models set` has it until its model serves, or does not
    done = set_model(site, one, "--wait", "1")
    assert (done.returncode, "another command still changes" in done.stderr) == (1, True)
    assert [path.name for path in site.declarations.iterdir()] == [".lock"]
    os.close(other)
    assert set_model(site, one).returncode == 0
    assert [path.name for path in site.declarations.iterdir()] == ["add.json"]
    os.close(reader)


def test_what_set_writes_the_agent_can_read_whatever_the_umask(
    site: Site, signer: Any, tmp_path: Path
) -> None:  # [M-2]
    site.agent.start()
    site.declarations.rmdir()
    words = ["models", "set", "-a", site.agent.socket, "add", str(adder(signer, "1.0", 1, tmp_path))]
    subprocess.check_call([*client_command(), *words], umask=0o077, timeout=60)
    modes = [path.stat().st_mode & 0o777 for path in (site.declarations, site.declarations / "add.json")]
    assert modes == [0o755, 0o644]


def test_a_copy_does_not_replace_its_source(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-2]
    site.agent.start()
    made = adder(signer, "1.0", 1, tmp_path)
    id = hashlib.sha256((made / "model.sig").read_bytes()).hexdigest()
    source = made.rename(site.declarations / f"add-{id[:12]}.package")
    before = sorted(source.iterdir())
    done = set_model(site, source, "--copy")
    assert (done.returncode, "is where its copy would be" in done.stderr) == (2, True)
    assert sorted(source.iterdir()) == before and before
    assert set_model(site, source).returncode == 0


def test_an_alias_is_as_long_as_the_name_of_its_file_allows(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-1]
    site.agent.start()
    one = adder(signer, "1.0", 1, tmp_path)
    words = "models", "set", "-a", site.agent.socket
    done = run_tool(*words, "a" * 247, str(one), check=False)
    assert (done.returncode, "expected at most 246 letters" in done.stderr) == (2, True)
    run_tool(*words, "a" * 246, str(one), "--copy")
    assert site.added("a" * 246) == 1


def test_forget_says_what_it_could_not_do(site: Site, signer: Any, tmp_path: Path) -> None:  # [M-2]
    site.agent.start()
    forget = "models", "forget", "add", "-a", site.agent.socket
    (site.declarations / "add.json").symlink_to("/nowhere")
    assert "cannot be read" in site.apply()["add"].refused
    run_tool(*forget)
    assert list(site.declarations.iterdir()) == []
    assert set_model(site, adder(signer, "1.0", 1, tmp_path)).returncode == 0
    (site.store / "state.json.tmp").mkdir()  # the store's state cannot be written
    done = run_tool(*forget, check=False)
    assert (done.returncode, "the declaration of add is removed" in done.stderr) == (1, True)

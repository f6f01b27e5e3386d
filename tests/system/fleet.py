"""A fleet of real agents: the operator's commands, a server of the repository, agents that poll it."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.package.identity import load_identity
from edge.package.making import make_package
from edge.package.manifest import Manifest
from edge.rpc._generated import operations_pb2 as ops
from tests.data import make_models
from tests.system.conftest import Signer, run_tool
from tests.system.harness import EVENT_PATIENCE
from tests.system.managed import Site

FLEET = "fleet-1"
WAIT_SECONDS = 30.0 * EVENT_PATIENCE
PROVES = 100  # Predicts that a version has proved itself by (W-6)
NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


def archive(signer: Signer, version: str, amount: float, folder: Path, model: bytes | None = None) -> Path:
    """A package that adds `amount` to each of four numbers, or of another model."""
    target, source = folder / f"adder-{version}.tar.gz", folder / f"adder-{version}.tflite"
    source.write_bytes(model or make_models.add_one(amount=amount))
    identity = load_identity(signer.key, signer.certificate, None)
    make_package(Manifest("adder", version, "adder.tflite"), source, [], identity, target)
    return target


def arrives(path: Path) -> None:
    """Wait for a file."""
    end = time.monotonic() + WAIT_SECONDS
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.05)


class Operator:
    """The operator's commands, on a repository in a folder, or at `where`, a bucket's url."""

    def __init__(self, folder: Path, where: str = "") -> None:
        self.folder, self.keys = folder / "repo", folder / "keys"
        self.where = where or str(self.folder)
        self("init", "--no-passphrase")
        self("add-fleet", FLEET, "--no-passphrase")

    @property
    def root(self) -> str:
        """What boards get."""
        return str(self.keys / "1.root.json" if self.where.startswith("s3:") else self.folder / "metadata/1.root.json")

    def __call__(self, word: str, *words: str, check: bool = True) -> Any:
        """A command that signs."""
        done = run_tool("fleet", word, self.where, *words, "--keys", str(self.keys), "--json", check=check)
        return json.loads(done.stdout)

    def look(self, word: str, *words: str) -> Any:
        """A command that only looks."""
        return json.loads(run_tool("fleet", word, self.where, *words, "--json").stdout)


class Member(Site):
    """An agent of the fleet."""

    @classmethod
    def of(cls, agents: Any, folder: Path, root: str, repository: str, **more: Any) -> "Member":
        """One that polls every second, not yet started."""
        settings = {
            "edge_fleet_root": root,
            "edge_fleet_path": str(folder / "fleet"),
            "edge_fleet_repository": repository or None,
            "edge_fleet_poll_seconds": 1,
            **more,
        }
        made = cls.made(agents, folder, **settings)
        assert isinstance(made, cls)
        return made

    def fleet(self) -> ops.FleetStatus:
        """What GetStatus says of the fleet."""
        status: ops.FleetStatus = self.agent.client.status().fleet
        return status

    def until(self, deployment: str, state: str) -> ops.FleetStatus:
        """Wait until a deployment is declared, or the last one ended, so."""
        end = time.monotonic() + WAIT_SECONDS
        while True:
            now = self.fleet()
            if (now.deployment, now.state) == (deployment, state):
                return now
            assert time.monotonic() < end, f"{now}\n{self.agent.log[-5000:]}"
            time.sleep(0.05)

    def until_any(self, deployment: str) -> ops.FleetStatus:
        """Wait until a deployment is declared, and brought about."""
        end = time.monotonic() + WAIT_SECONDS
        while True:
            now = self.fleet()
            if now.deployment == deployment and now.state != "switching":
                return now
            assert time.monotonic() < end, f"{now}\n{self.agent.log[-5000:]}"
            time.sleep(0.05)

    def prove(self) -> None:
        """Predict as often as a version proves itself by."""
        for _ in range(PROVES):
            self.added("add")


@contextmanager
def nginx(root: Path, folder: Path) -> Iterator[str]:
    """nginx on a folder; its address."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker could not read the test's folder
    config.write_text(NGINX.format(user=user, folder=folder, port=port, root=root))
    process = subprocess.Popen(
        [program, "-c", str(config), "-p", str(folder)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + WAIT_SECONDS
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "error.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()

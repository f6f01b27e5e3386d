"""A fleet on one machine: `make demo-fleet`, or `python -m demo.fleet [--out DIR]`.

Three agents take their models from one folder: a good version reaches one, then all of them, a bad one goes back by itself, and
its operator is told why, in a table and on a page. What it leaves is under build/demo-fleet.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from demo.run import AGENT, DATA, ROOT, DemoError, Places, agent_process, places, say, show, stop, tool
from edge.client import inputs
from edge.client.connection import OPERATIONS, Agent
from edge.client.outcome import CommandError
from edge.rpc._generated import operations_pb2 as ops

FLEET, ALIAS = "demo-fleet", "digits"
DEVICES = ("press-1", "press-2", "press-3")
VERSIONS = {"1.0": "digits.tflite", "1.1": "digits.tflite", "2.0": "digits_int8.tflite"}  # the last takes other tensors
PROVES = 100  # calls by which a version has proved itself
WAIT_SECONDS = 60.0
LOOK_SECONDS = 0.2


class Board:
    """One of the agents, as a client sees it."""

    def __init__(self, name: str, socket: Path) -> None:
        self.name, self._socket = name, socket

    def fleet(self) -> ops.FleetStatus:
        """How it stands."""
        with Agent(str(self._socket), timeout=30) as agent:
            return agent.call(OPERATIONS + "GetStatus", ops.GetStatusRequest(), ops.GetStatusResponse).fleet

    def work(self) -> None:
        """Read pictures until what serves has proved itself."""
        with Agent(str(self._socket), timeout=30) as agent:
            wanted = agent.describe(ALIAS).input_tensor_metadatas[0]
            picture = np.load(DATA / "held_out.npz")["grey"][0].astype(np.float32).reshape(1, 8, 8, 1) / 255
            for _ in range(PROVES):
                agent.predict(ALIAS, [inputs.tensor(wanted.name, picture)])


def until(boards: Sequence[Board], what: str, is_so: Callable[[ops.FleetStatus], bool]) -> None:
    """Wait for all of them.

    Raises:
        DemoError: one takes too long.
    """
    end = time.monotonic() + WAIT_SECONDS
    for board in boards:
        while True:
            with contextlib.suppress(CommandError):
                if is_so(board.fleet()):
                    break
            if time.monotonic() > end:
                raise DemoError(f"{board.name}: {what} took longer than {WAIT_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)


def deploys(boards: Sequence[Board], name: str) -> None:
    """Wait until a deployment serves, and have it prove itself."""
    until(boards, name, lambda one: one.deployment == name and one.state in ("trying", "committed"))
    for board in boards:
        board.work()
    until(boards, name, lambda one: one.deployment == name and one.state == "committed")


def prepare(out: Path) -> None:
    """A CA, three packages, a repository."""
    ca, repo, keys = out / "ca", str(out / "repo"), ["--keys", str(out / "keys")]
    tool("demo-ca", str(ca))
    for version, model in VERSIONS.items():
        tool(
            "package", "--model", str(DATA / model), "--name", "digits", "--version", version, "--key", str(ca / "signing.key"),
            "--cert", str(ca / "signing.pem"), "--out", str(out / f"digits-{version}.tar.gz"),
        )  # fmt: skip
    say("three versions of a model, signed", ", ".join(VERSIONS))
    tool("fleet", "init", repo, "--no-passphrase", *keys)
    tool("fleet", "add-fleet", repo, FLEET, "--no-passphrase", *keys)
    tool("fleet", "publish", repo, *(str(out / f"digits-{version}.tar.gz") for version in VERSIONS), *keys)
    tool("fleet", "deploy", repo, FLEET, f"{ALIAS}=digits/1.0", "--name", "first", *keys)
    say("a repository, a folder for any server", show(out / "repo"))


def config(out: Path, device: str) -> Path:
    """The configuration of one board."""
    home = out / device
    home.mkdir()
    path = home / "config.json"
    settings = {
        "sagemaker_edge_core_device_name": device,
        "sagemaker_edge_core_device_fleet_name": FLEET,
        "sagemaker_edge_core_root_certs_path": str(out / "ca" / "roots"),
        "sagemaker_edge_core_capture_data_disk_path": str(home / "captures"),
        "edge_package_store_path": str(home / "store"),
        "edge_fleet_root": str(out / "repo" / "metadata" / "1.root.json"),
        "edge_fleet_repository": str(out / "repo"),
        "edge_fleet_path": str(home / "fleet"),
        "edge_fleet_reports": str(out / "told"),
        "edge_fleet_poll_seconds": 1,
    }
    path.write_text(json.dumps(settings, indent=2) + "\n")
    return path


def demonstrate(where: Places) -> None:
    """All steps, in order."""
    out, repo, keys = where.out, str(where.out / "repo"), ["--keys", str(where.out / "keys")]
    prepare(out)
    with contextlib.ExitStack() as stack:
        boards, processes = [], []
        for device in DEVICES:
            socket = where.socket.with_name(f"{device}.sock")
            mine = Places(out / device, socket)
            made = config(out, device)
            processes.append((stack.enter_context(agent_process(mine, made)), socket))
            boards.append(Board(device, socket))
        say("three agents that look there each second", ", ".join(DEVICES))
        deploys(boards, "first")
        say("`fleet deploy digits=digits/1.0`", "serves on all, and has proved itself in 100 calls")
        tool("fleet", "deploy", repo, FLEET, f"{ALIAS}=digits/1.1", "--device", "press-1", "--name", "one", *keys)
        deploys(boards, "one")
        say("`... digits=digits/1.1 --device press-1`", "serves on press-1 alone")
        tool("fleet", "deploy", repo, FLEET, f"{ALIAS}=digits/1.1", "--name", "all", *keys)
        deploys(boards, "all")
        say("`... digits=digits/1.1`", "serves on all")
        tool("fleet", "deploy", repo, FLEET, f"{ALIAS}=digits/2.0", "--name", "bad", *keys)
        until(boards, "bad", lambda one: one.state == "refused")
        say("`... digits=digits/2.0`, which is bad", "tried and refused; 1.1 serves on without a gap")
        until_told(out, len(DEVICES))
        page = out / "fleet.html"
        words = ["fleet", "status", repo, "--reports", str(out / "told"), "--html", str(page)]
        done = subprocess.run([*AGENT, *words], capture_output=True, text=True, timeout=60, check=True)
        print("\n`fleet status`, for its operator:\n\n" + "".join(f"  {line}\n" for line in done.stdout.splitlines()))
        tool("fleet", "take-back", repo, FLEET, "--name", "back", *keys)
        until(boards, "back", lambda one: one.deployment == "back" and one.state in ("trying", "committed"))
        say("`fleet take-back`", "1.1 is what is asked for again")
        for process, socket in processes:
            stop(process, socket)
    print(f"\nThe same as a page, to open in a browser:\n  {show(page)}")


def until_told(out: Path, count: int) -> None:
    """Wait until the boards have told of the bad deployment."""
    end = time.monotonic() + WAIT_SECONDS
    while len(list((out / "told/reports" / FLEET / "bad/failed").glob("*.json"))) < count:
        if time.monotonic() > end:
            raise DemoError("the boards have not reported")
        time.sleep(LOOK_SECONDS)


def main(argv: Sequence[str] = ()) -> int:
    """Runs the demo; 1 with a sentence on stderr when it fails."""
    parser = argparse.ArgumentParser(prog="python -m demo.fleet", description="A fleet on one machine.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo-fleet", help="for what it leaves")
    options = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    print("A fleet: three agents, one folder, a good version and a bad one\n", flush=True)
    with places(options.out) as where:
        try:
            demonstrate(where)
        except (DemoError, CommandError) as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

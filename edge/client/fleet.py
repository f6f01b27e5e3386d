"""`fleet check` and `fleet apply`: an agent looks for news of its fleet, in its repository or in a folder."""

import time
from argparse import Namespace
from pathlib import Path

from edge.client import show
from edge.client.commands import agent_of
from edge.client.connection import OPERATIONS
from edge.client.outcome import Exit, InputError
from edge.client.status import as_json
from edge.rpc._generated import operations_pb2 as ops


def check(options: Namespace) -> Exit:
    """Has the agent poll its repository now."""
    return _check(options, "")


def apply(options: Namespace) -> Exit:
    """Has the agent take over what a folder offers."""
    folder = Path(options.source).absolute()
    if not (folder / "metadata").is_dir():
        raise InputError(f"{folder} is not a repository: it has no folder named metadata")
    return _check(options, str(folder))


def _check(options: Namespace, folder: str) -> Exit:
    with agent_of(options) as agent:
        reply = agent.call(OPERATIONS + "CheckFleet", ops.CheckFleetRequest(**{"from": folder}), ops.FleetStatus)
    fault = reply.last_error or ("a model is refused" if reply.state == "refused" else "")
    if options.json:
        show.as_json(as_json(reply), fault)
    else:
        print(show.fleet(reply, time.time()))
    return Exit.REFUSED if fault else Exit.OK

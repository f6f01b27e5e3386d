"""`status`: how the agent stands, and how much waits since when and why."""

import sys
import time
from argparse import Namespace
from typing import Any

from google.protobuf.message import Message

from edge.client import show, top
from edge.client.commands import agent_of
from edge.client.outcome import Exit
from edge.client.screen import is_live
from edge.rpc._generated import operations_pb2 as ops
from edge.text import printable


def status(options: Namespace) -> Exit:
    """Prints the agent's own account of itself; again and again where that is asked for and a terminal is there."""
    if options.watch and is_live(sys.stdout) and not options.json:
        return top.watch(
            options, max(top.LEAST_SECONDS, options.watch), lambda _, reply, __: as_text(reply, time.time())
        )
    with agent_of(options) as agent:
        reply = top.ask(agent)
    if options.json:
        show.as_json(as_json(reply))
    else:
        print(as_text(reply, time.time()))
    return Exit.OK


def as_json(reply: Message) -> dict[str, Any]:
    """Every field by its name in proto/operations.proto, numbers as numbers."""

    def fields(message: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field in message.DESCRIPTOR.fields:
            value = getattr(message, field.name)
            if field.message_type is None:
                found[field.name] = list(value) if field.is_repeated else value
            elif field.is_repeated:
                found[field.name] = [fields(one) for one in value]
            else:
                found[field.name] = fields(value)
        return found

    return fields(reply)


def as_text(reply: ops.GetStatusResponse, now: float) -> str:
    """The same for people; `now` in seconds since the epoch."""
    lines = [show.agent(reply, now)]
    budget, reserved = reply.memory_budget_bytes, reply.memory_reserved_bytes
    lines.append(f"memory for models: {show.size(reserved)}" + (f" of {show.size(budget)}" if budget else ""))
    lines += ["", _models(reply)]
    managed = [one for one in reply.managed if one.why in ("declared", "restored")]
    lines += ["", show.managed(managed, now)] if managed else []
    lines += ["", show.fleet(reply.fleet, now)] if reply.HasField("fleet") else []
    lines += ["", show.captures(reply.captures, now)]
    return "\n".join(lines)


def _models(reply: ops.GetStatusResponse) -> str:
    if not reply.models:
        return "no models are loaded"
    rows = [
        [
            model.name,
            f"{model.package_name} {model.package_version}".strip(),
            model.state,
            str(model.instances),
            str(model.running),
            str(model.waiting),
            str(model.predicted),
            show.size(model.memory_bytes),
            model.url,
        ]
        for model in reply.models
    ]
    head = ["MODEL", "PACKAGE", "STATE", "INSTANCES", "RUNNING", "WAITING", "PREDICTED", "MEMORY", "FROM"]
    remarks = [
        f"{printable(model.name)}: {model.mislabelled} calls declared a tensor that does not match its bytes; see the log"
        for model in reply.models
        if model.mislabelled
    ]
    remarks += [
        f"{printable(model.name)} has not run yet: {printable(model.warning, show.PATH_CHARACTERS)}"
        for model in reply.models
        if model.warning
    ]
    remarks += [
        f"{printable(model.name)} runs on {printable(model.engine)}"
        for model in reply.models
        if model.engine not in ("", reply.engine)
    ]
    return "\n".join([show.table(rows, head), *remarks])

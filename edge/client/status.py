"""`status`: how the agent stands, and how much waits since when and why."""

import time
from argparse import Namespace
from typing import Any

from google.protobuf.message import Message

from edge.client import show
from edge.client.commands import agent_of
from edge.client.connection import OPERATIONS
from edge.client.outcome import Exit
from edge.rpc._generated import operations_pb2 as ops
from edge.text import printable


def status(options: Namespace) -> Exit:
    """Prints the agent's own account of itself."""
    with agent_of(options) as agent:
        reply = agent.call(OPERATIONS + "GetStatus", ops.GetStatusRequest(), ops.GetStatusResponse)
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
    lines = [f"sagemaker-edge-agent {printable(reply.version)}, up {show.duration(now - reply.started_unix_seconds)}"]
    lines[0] += f", engine {printable(reply.engine)}" if reply.engine else ""
    budget, reserved = reply.memory_budget_bytes, reply.memory_reserved_bytes
    lines.append(f"memory for models: {show.size(reserved)}" + (f" of {show.size(budget)}" if budget else ""))
    lines += ["", _models(reply)]
    managed = [one for one in reply.managed if one.why in ("declared", "restored")]
    lines += ["", show.managed(managed, now)] if managed else []
    lines += ["", _captures(reply.captures, now)]
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


def _captures(captures: ops.CaptureStatus, now: float) -> str:
    where = f"captures to {printable(captures.destination)}" if captures.destination else "captures"
    text = f"{where}: "
    if captures.pending:
        text += f"{captures.pending} waiting ({show.size(captures.pending_bytes)})"
        if captures.oldest_pending_unix_seconds:
            text += f", the oldest for {show.duration(now - captures.oldest_pending_unix_seconds)}"
    else:
        text += "none waiting"
    text += f"; since the start {captures.succeeded} done, {captures.failed} failed"
    text += f", {captures.dropped} dropped" if captures.dropped else ""
    text += f", {captures.refused} refused" if captures.refused else ""
    if captures.refusing_since_unix_seconds:
        text += f" (for {show.duration(now - captures.refusing_since_unix_seconds)} until now)"
    if captures.last_error:
        ago = show.duration(now - captures.last_error_unix_seconds)
        text += f"\n  last error, {ago} ago: {printable(captures.last_error, show.PATH_CHARACTERS)}"
    return text

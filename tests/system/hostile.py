"""Requests that nobody should send, and what may become of them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from hypothesis import HealthCheck, settings

from tests.system.harness import AgentProcess, from_source

ALLOWED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.OUT_OF_RANGE,
}
EXAMPLES = 150 if from_source() else 15
hostile = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextmanager
def with_models(agent: AgentProcess, package_of: Any, *names: str) -> Iterator[AgentProcess]:
    """The agent with models to aim at; `_` in a package's name is `-` in its model's."""
    for name in names:
        agent.client.load(package_of(name), name.replace("_", "-"))
    yield agent
    for name in names:
        agent.client.unload(name.replace("_", "-"))


def send(agent: AgentProcess, path: str, raw: bytes, allowed: Collection[grpc.StatusCode] = frozenset(ALLOWED)) -> None:
    """Call with these bytes: it is answered, or refused in words with an allowed status, and the agent lives."""
    try:
        agent.channel.unary_unary(path)(raw, timeout=60)
    except grpc.RpcError as error:
        assert error.code() in allowed, (path, raw, error.code(), error.details())
        assert error.details()
    assert agent.process is not None and agent.process.poll() is None

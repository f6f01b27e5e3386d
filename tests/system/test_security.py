"""Sentences of SECURITY.md that no other test shows: the network, and what the log tells."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge.rpc._generated import agent_pb2 as pb
from tests.system.conftest import AgentFactory
from tests.system.harness import tensor_of

PackageOf = Callable[[str], Path]
NETWORK = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet")
MARK = b"a-face-at-the-door"


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]  # noqa: PTH115 (text, not a path)
    return {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}


def test_no_port_is_open(agents: AgentFactory, package_of: PackageOf) -> None:
    agent = agents()
    agent.start()
    agent.client.load(package_of("add_one"), "m")
    ours, tables = sockets_of(agent.pid), [Path(f"/proc/{agent.pid}/net/{name}") for name in NETWORK]
    assert ours, "it has sockets, all of them Unix sockets"
    for table in tables:
        if table.exists():
            assert not ours & {word for line in table.read_text().splitlines()[1:] for word in line.split()}, table


def test_the_log_tells_nothing_of_what_is_in_tensors(agents: AgentFactory, package_of: PackageOf, refused: Any) -> None:
    agent = agents(log_verbose=True, core_capture_data_destination="Disk")
    agent.start()
    client = agent.client
    client.load(package_of("add_one"), "m")
    marked = tensor_of(np.frombuffer(MARK[:16], np.float32).reshape(1, 4), "x")
    client.predict("m", [marked])
    for raw in (
        pb.PredictRequest(name="m", tensors=[pb.Tensor(byte_data=MARK)]).SerializeToString(),
        pb.PredictRequest(name="m", tensors=[marked, marked]).SerializeToString(),
        pb.PredictRequest(name="m", tensors=[marked]).SerializeToString()[:-1],
    ):
        with refused("INVALID_ARGUMENT"):
            client.call("Predict", raw, pb.PredictResponse)
    entry = pb.AuxiliaryData(name="a", encoding=pb.NONE, byte_data=MARK)
    client.capture(model_name="m", capture_id="one", input_tensors=[marked], inputs=[entry])
    with refused("ALREADY_EXISTS"):
        client.capture(model_name="m", capture_id="one", input_tensors=[marked], inputs=[entry])
    with refused("INVALID_ARGUMENT"):
        client.capture(model_name="m", capture_id="two", input_tensors=[marked], inputs=[entry, entry])
    assert agent.stop() == 0
    assert "DEBUG" in agent.log, "the log is verbose"
    assert MARK.decode()[:8] not in agent.log

"""Answers that nobody reads, and streams that nobody ends: what they hold is bounded ([B-7] [B-8])."""

import contextlib
from typing import Any

from edge.rpc._generated import agent_pb2 as pb
from edge.rpc.core import MAX_CONCURRENT_CALLS, MAX_STREAMS
from tests.adversary.conftest import Stand
from tests.adversary.http2 import LIST_MODELS, PREDICT, WATCH, Connection
from tests.system.segments import Segment

ANSWER_BYTES = 20 << 20
CALLS_OF_A_CONNECTION = 100
HONEST_CALLS = 8


def test_large_answers_that_nobody_reads(stand: Stand, package_of: Any) -> None:  # [B-7]
    stand.agent.client.load(package_of("dynamic_batch"), "large")
    with Segment(ANSWER_BYTES) as segment:
        segment.write(bytes(ANSWER_BYTES)).set_mode(0o400)
        tensor = pb.Tensor(shared_memory_handle=pb.SharedMemoryHandle(segment_id=segment.id, size=ANSWER_BYTES))
        tensor.tensor_metadata.CopyFrom(
            pb.TensorMetadata(name="x", data_type=pb.FLOAT32, shape=[ANSWER_BYTES // 16, 4])
        )
        request = pb.PredictRequest(name="large", tensors=[tensor])
        stand.agent.client.predict("large", [tensor])  # the shape is tried, and what a call takes is taken once
        raw = request.SerializeToString()
        with stand.attack(seconds=4) as going_on, contextlib.ExitStack() as opened:
            connection = opened.enter_context(Connection(stand.agent.socket, reads=False))
            while going_on():
                if connection.open_calls < 30:
                    connection.request(PREDICT, raw)
                connection.read(0.02)
    stand.agent.client.unload("large")


def test_small_answers_that_nobody_reads(stand: Stand) -> None:  # [B-8]
    with stand.attack(seconds=4) as going_on, contextlib.ExitStack() as opened:
        connections = [opened.enter_context(Connection(stand.agent.socket, reads=False)) for _ in range(6)]
        while going_on():
            for connection in connections:
                while connection.open_calls < CALLS_OF_A_CONNECTION:
                    connection.request(LIST_MODELS, b"")
                connection.read(0.02)
        # The honest client has places too, and takes them from those who wait longest.
        assert sum(connection.open_calls for connection in connections) >= MAX_CONCURRENT_CALLS - HONEST_CALLS


def test_streams_that_nobody_ends(stand: Stand) -> None:  # [B-8]
    with stand.attack(seconds=3) as going_on, contextlib.ExitStack() as opened:
        connections = [opened.enter_context(Connection(stand.agent.socket)) for _ in range(6)]
        for connection in connections:
            for _ in range(CALLS_OF_A_CONNECTION):
                connection.request(WATCH, b"")
        while going_on():
            for connection in connections:
                connection.read(0.02)
        assert sum(connection.open_calls for connection in connections) <= MAX_STREAMS

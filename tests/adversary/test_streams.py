"""Calls begun and left: what a connection may hold is bounded ([B-2] to [B-4])."""

import contextlib

from grpc_health.v1 import health_pb2

from edge.rpc.receiving import MAX_INCOMPLETE_CALLS
from edge.rpc.server import LOOKAHEAD_BYTES
from tests.adversary.conftest import Stand, pause
from tests.adversary.http2 import CANCEL, LIST_MODELS, RST_STREAM, WATCH, Connection, frame, message

MIB = 1 << 20
CHUNK = bytes(16384)
BURST_CALLS = 200
CALLS_OF_A_CONNECTION = 100


def test_calls_that_are_cancelled_at_once(stand: Stand) -> None:  # [B-2]
    with stand.attack(seconds=2) as going_on, Connection(stand.agent.socket) as connection:
        while going_on() and not connection.closed:
            burst = []
            for _ in range(BURST_CALLS):
                number, headers = connection.call()
                burst.append(headers + frame(RST_STREAM, 0, number, CANCEL.to_bytes(4)))
            connection.write(b"".join(burst))


def test_messages_that_are_half_sent(stand: Stand) -> None:  # [B-4]
    size = 60 * MIB
    with stand.attack(seconds=2) as going_on, contextlib.ExitStack() as connections:
        while going_on():
            connection = connections.enter_context(Connection(stand.agent.socket))
            calls = [connection.open() for _ in range(7)]
            left = dict.fromkeys(calls, size)
            for number in calls:
                left[number] -= connection.send_data(number, message(size, bytes(1000)))
            while going_on() and not connection.closed and (sending := left.keys() - connection.ended):
                sent = {number: connection.send_data(number, CHUNK[: left[number]]) for number in sending}
                left |= {number: left[number] - some for number, some in sent.items()}
                if not any(sent.values()):
                    connection.read(0.01)


def test_messages_that_do_not_come(stand: Stand) -> None:  # [B-3]
    with stand.attack(seconds=2) as going_on, contextlib.ExitStack() as opened:
        connections = [opened.enter_context(Connection(stand.agent.socket)) for _ in range(6)]
        for connection in connections:
            for _ in range(CALLS_OF_A_CONNECTION):
                connection.open()
        while going_on():
            for connection in connections:
                connection.read(0.02)
        assert sum(connection.open_calls for connection in connections) <= MAX_INCOMPLETE_CALLS


def test_calls_without_messages_in_a_flood(stand: Stand) -> None:  # [B-2] [B-3]
    with stand.attack(seconds=2) as going_on, contextlib.ExitStack() as opened:
        connections = [opened.enter_context(Connection(stand.agent.socket)) for _ in range(6)]
        while going_on():
            for connection in connections:
                for _ in range(CALLS_OF_A_CONNECTION - connection.open_calls):
                    connection.open()
                connection.read(0.001)


def test_what_is_sent_to_those_who_listen_no_more(stand: Stand) -> None:  # [B-4]
    """A Watch call takes one message and goes on for ever: what is sent after it is not kept."""
    watch = health_pb2.HealthCheckRequest().SerializeToString()
    with stand.attack(seconds=2) as going_on, contextlib.ExitStack() as opened:
        connections = [opened.enter_context(Connection(stand.agent.socket)) for _ in range(2)]
        calls = [(connection, connection.open(WATCH)) for connection in connections for _ in range(100)]
        for connection, number in calls:
            connection.send_data(number, message(len(watch), watch))
            connection.send_data(number, message(60 * MIB))
        while going_on():
            for connection, number in calls:
                connection.send_data(number, CHUNK)


def test_what_is_sent_after_the_message(stand: Stand) -> None:  # [B-4]
    """To calls whose answers are not read, as many as there may be: nobody has asked for it, and it is bounded for each."""
    with stand.attack(seconds=4) as going_on, contextlib.ExitStack() as opened:
        connections = [opened.enter_context(Connection(stand.agent.socket, reads=False)) for _ in range(6)]
        calls = []
        for connection in connections * 80:
            calls.append((connection, connection.open(LIST_MODELS)))
            connection.send_data(calls[-1][1], message(0))
        sent = 0
        while going_on():
            some = sum(connection.send_data(number, CHUNK) for connection, number in calls)
            sent += some
            if not some:
                pause(0.05)
        assert sent >= len(calls) * LOOKAHEAD_BYTES // 2


def test_headers_that_cannot_be_read(stand: Stand) -> None:
    """What gRPC thinks of them is not for the log, once a call."""
    before = len(stand.agent.log)
    with stand.attack(seconds=2) as going_on, Connection(stand.agent.socket) as connection:
        while going_on() and not connection.closed:
            number = connection.open(extra=[("grpc-encoding", "bogus\x1b[31m"), ("grpc-timeout", "never")])
            connection.write(frame(RST_STREAM, 0, number, CANCEL.to_bytes(4)))
            connection.read()
    assert len(stand.agent.log) - before < 1000

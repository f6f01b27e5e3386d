"""Calls begun and left: what a connection may hold is bounded ([B-2])."""

from tests.adversary.conftest import Stand
from tests.adversary.http2 import CANCEL, RST_STREAM, Connection, frame

BURST_CALLS = 200


def test_calls_that_are_cancelled_at_once(stand: Stand) -> None:
    with stand.attack(seconds=3) as going_on, Connection(stand.agent.socket) as connection:
        while going_on() and not connection.closed:
            burst = []
            for _ in range(BURST_CALLS):
                number, headers = connection.call()
                burst.append(headers + frame(RST_STREAM, 0, number, CANCEL.to_bytes(4)))
            connection.write(b"".join(burst))

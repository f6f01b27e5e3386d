"""Several objects on their way at a time: how many, over which connections, and what they share when something fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.capture.statuses import CaptureState
from edge.clock import SystemClock
from edge.cloud.aws.answer import Patience
from edge.cloud.aws.credentials import IotCredentials, IotSettings
from tests.fakes import captures, s3_stub
from tests.fakes.cloud import Pipeline, assert_all_stored, pipeline, s3_store, submit_some
from tests.fakes.iot_endpoint import THING, IotEndpoint
from tests.fakes.s3_stub import S3Stub, refusing

FOR_EVER = 1_000_000
CONNECTIONS = 4


@pytest.fixture
def stub() -> Iterator[S3Stub]:
    made = S3Stub()
    made.start()
    yield made
    made.close()


def submit_many(made: Pipeline, start: int) -> list[str]:
    """Captures of many models, so of many batches."""
    ids = [f"c-{i}" for i in range(start, start + 40)]
    for i, capture_id in enumerate(ids):
        make = captures.large if i % 3 else captures.small
        made.service.submit(make(capture_id, model=f"model-{i % 10}"))
    return ids


def until_all_are_busy(made: Pipeline, stub: S3Stub) -> list[str]:
    """Capture until the store has taken something and holds as many requests as there are connections."""
    first = submit_some(made, 1)
    made.wait_states(first)
    stub.delay.clear()
    more = submit_many(made, 1)
    made.wait(lambda: stub.inside == CONNECTIONS, "all connections are busy")
    return first + more


def test_as_many_as_are_set(stub: S3Stub, tmp_path: Path) -> None:
    """[R-16] [R-5] Four requests at a time over four connections, which are kept; no record before its tensors."""
    with pipeline(tmp_path, s3_store(stub.url), batch_captures=2) as made:
        ids = until_all_are_busy(made, stub)
        stub.delay.set()
        ids += submit_many(made, 100)
        made.wait_states(ids)
    assert_all_stored(stub, ids)
    assert stub.most_inside == CONNECTIONS
    assert len(stub.clients) == CONNECTIONS
    assert set(stub.puts.values()) == {1}


def test_one_is_one(stub: S3Stub, tmp_path: Path) -> None:
    """[R-16]"""
    with pipeline(tmp_path, s3_store(stub.url), batch_captures=2, connections=1) as made:
        ids = submit_many(made, 0)
        made.wait_states(ids)
    assert_all_stored(stub, ids)
    assert (stub.most_inside, len(stub.clients)) == (1, 1)


def test_a_store_that_fails_is_asked_by_one(stub: S3Stub, tmp_path: Path) -> None:
    """[R-16] All four see it fail; from then on one asks, until it has answered."""
    with pipeline(tmp_path, s3_store(stub.url), batch_captures=2) as made:
        ids = until_all_are_busy(made, stub)
        stub.inject(refusing(500, "InternalError"), FOR_EVER)
        stub.delay.set()
        made.wait(lambda: stub.injected > 2 * CONNECTIONS, "all of them have failed")
        stub.most_inside = 0
        made.wait(lambda: stub.injected > 40, "it was tried for long")
        assert stub.most_inside == 1
        stub.heal()
        made.wait_states(ids)
    assert_all_stored(stub, ids)


def test_a_store_that_is_gone_costs_no_state(stub: S3Stub, tmp_path: Path) -> None:
    """Connections break in the middle of four requests, and nobody listens for a while."""
    with pipeline(tmp_path, s3_store(stub.url), batch_captures=2) as made:
        ids = until_all_are_busy(made, stub)
        stub.delay.set()
        stub.close()
        made.wait(lambda: "cannot be reached" in made.error(), "the error is told")
        stub.start()
        made.wait_states(ids)
        made.wait(lambda: not made.waiting_files(), "the spool is empty")
    assert_all_stored(stub, ids)


def test_keys_are_renewed_once(stub: S3Stub, tmp_path: Path) -> None:
    """[R-16] Four requests are refused for keys that have ended; one asks for new ones, for all."""
    iot = IotEndpoint(tmp_path, stub)
    iot.start()
    settings = IotSettings(
        iot.credentials_url,
        str(iot.server_ca.file),
        str(iot.device.certificate_file),
        str(iot.device.key_file),
        THING,
        Patience(2.0, 5.0, 5.0),
    )
    try:
        store = s3_store(stub.url, credentials=IotCredentials(settings, SystemClock()))
        with pipeline(tmp_path / "a", store, batch_captures=2) as made:
            ids = until_all_are_busy(made, stub)
            for key in stub.keys.values():
                key.expired = True
            stub.delay.set()
            made.wait_states(ids)
        assert iot.given == 2
        assert 1 <= stub.refused["ExpiredToken"] <= CONNECTIONS
    finally:
        iot.close()
    assert_all_stored(stub, ids)


def test_a_stop_ends_all_of_them(stub: S3Stub, tmp_path: Path) -> None:
    """[R-16] Though no request is answered; what was on its way is still there."""
    with pipeline(tmp_path, s3_store(stub.url, stall_seconds=60.0, answer_seconds=60.0), batch_captures=2) as made:
        first = submit_some(made, 1)
        made.wait_states(first)
        stub.inject(s3_stub.stall, FOR_EVER)
        more = submit_many(made, 1)
        made.wait(lambda: stub.inside == CONNECTIONS, "all connections are busy")
        made.service.stop(10)  # the check for leaks sees the threads
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in more)
        assert made.waiting_files()

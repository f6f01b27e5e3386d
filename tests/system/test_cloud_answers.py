"""Answers that are not what they seem: nothing counts as stored without evidence, and no server holds uploads up (R-7)."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.capture.statuses import CaptureState
from edge.clock import SystemClock
from edge.cloud.aws.answer import Patience
from edge.cloud.aws.credentials import EnvironmentCredentials, IotCredentials, IotSettings
from tests.fakes import captures, s3_stub
from tests.fakes.cloud import ENVIRONMENT, SOON_SECONDS, assert_all_stored, pipeline, s3_store, submit_some
from tests.fakes.iot_endpoint import THING, IotEndpoint
from tests.fakes.s3_stub import S3Stub, answering, refusing


@pytest.fixture
def stub() -> Iterator[S3Stub]:
    made = S3Stub()
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answering(200), "neither an ETag nor any x-amz- header"),
        (answering(200, b"ok", {"ETag": '"1"'}), "2 bytes of content"),
        (answering(200, b'{"login": "/portal"}', {"Content-Type": "application/json"}), "(application/json)"),
        (answering(200, b"\xef\xbb\xbf<!DOCTYPE html>", {"Content-Type": "text/html"}), "(text/html)"),
        (answering(202, headers={"ETag": '"1"'}), "status 202, expected 200"),
        (answering(204, headers={"ETag": '"1"'}), "status 204, expected 200"),
    ],
    ids=["empty", "ok", "JSON", "HTML behind a BOM", "202", "204"],
)
def test_what_no_store_answers_is_no_success(stub: S3Stub, tmp_path: Path, answer: Any, words: str) -> None:
    """It is kept, told, and stored once the store is there again."""
    stub.inject(answer, 1_000_000)
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        ids = submit_some(made)
        made.wait(lambda: words in made.error(), "it is told")
        assert "not that of an object store" in made.error()
        made.wait(lambda: stub.injected > 3, "it is tried again")
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)
        stub.heal()
        made.wait_states(ids)
        made.wait(lambda: made.error() == "", "the error is over")
    assert_all_stored(stub, ids)


@pytest.mark.parametrize("headers", [{"ETag": ""}, {"x-amz-request-id": "4442587FB7D0A2F9"}])
def test_an_empty_etag_is_no_refusal(stub: S3Stub, tmp_path: Path, headers: dict[str, str]) -> None:
    stub.inject(answering(200, headers=headers), 1_000_000)
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        made.wait_states(submit_some(made))


# --- asked again ---------------------------------------------------------------------


def test_each_object_is_asked_for(stub: S3Stub, tmp_path: Path) -> None:
    with pipeline(tmp_path, s3_store(stub.url, verify=True)) as made:
        ids = submit_some(made)
        made.wait_states(ids)
    assert_all_stored(stub, ids)
    assert sorted(stub.heads) == sorted(stub.objects)
    assert set(stub.puts.values()) == {1}


def test_an_object_that_is_not_there(stub: S3Stub, tmp_path: Path) -> None:
    """Acknowledged as a store does, and not kept: it is sent again until it is there."""
    stub.inject(s3_stub.acknowledge_only, 3)
    with pipeline(tmp_path, s3_store(stub.url, verify=True)) as made:
        made.service.submit(captures.small("one"))
        made.wait(lambda: "404" in made.error() and "s3:GetObject" in made.error(), "it is told")
        made.wait_states(["one"])
    assert_all_stored(stub, ["one"])


def test_another_object_is_there(stub: S3Stub, tmp_path: Path) -> None:
    def cut(handler: s3_stub.StubHandler, body: bytes) -> bool:
        handler.stored(body)
        [stored] = stub.objects.values()
        stored.body = body[:-1]
        return s3_stub.acknowledge_only(handler, body)

    stub.inject(cut)
    with pipeline(tmp_path, s3_store(stub.url, verify=True)) as made:
        made.service.submit(captures.small("one"))
        made.wait(lambda: "does not have it as it was sent" in made.error(), "it is told")
        assert made.service.status("one") is CaptureState.IN_PROGRESS


def test_a_policy_that_does_not_let_it_ask(stub: S3Stub, tmp_path: Path) -> None:
    stub.may_read = False
    with pipeline(tmp_path, s3_store(stub.url, verify=True)) as made:
        made.service.submit(captures.small("one"))
        made.wait(lambda: "needs s3:GetObject" in made.error(), "it is told")
        assert made.service.status("one") is CaptureState.IN_PROGRESS
        stub.may_read = True
        made.wait_states(["one"])


# --- hostile answers -----------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403])
def test_a_date_that_no_clock_has(stub: S3Stub, tmp_path: Path, status: int) -> None:
    """One such answer must not stop uploads for good."""
    stub.inject(refusing(status, "RequestTimeTooSkewed", headers={"Date": "Fri, 31 Dec 9999 23:59:59 GMT"}), 2)
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        ids = submit_some(made)
        made.wait_states(ids)
        made.wait(lambda: made.error() == "", "the error is over")
    assert_all_stored(stub, ids)


def test_a_date_that_is_a_lie(stub: S3Stub, tmp_path: Path) -> None:
    """Plausible and wrong: what it taught is forgotten once the store says otherwise."""
    stub.inject(refusing(403, "RequestTimeTooSkewed", headers={"Date": "Thu, 31 Dec 2099 23:59:59 GMT"}), 2)
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        ids = submit_some(made)
        made.wait_states(ids)
    assert_all_stored(stub, ids)


def test_a_region_that_is_not_there(stub: S3Stub, tmp_path: Path) -> None:
    """As above: the region's host cannot be reached, or its signature is refused without a word."""
    stub.inject(refusing(301, "PermanentRedirect", headers={"x-amz-bucket-region": "no-such-region"}))
    stub.inject(answering(403), 1)
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        ids = submit_some(made)
        made.wait_states(ids)
    assert_all_stored(stub, ids)
    assert not stub.refused  # the configured region again, without being told


def test_a_proxy_that_takes_nothing_so_large(stub: S3Stub, tmp_path: Path) -> None:  # [R-7] [G-4]
    """Its bare 413 never counts against an object; the others go on."""
    stub.inject(answering(413, b"<html>413 Request Entity Too Large</html>"), 1_000_000, match="raw-data")
    with pipeline(tmp_path, s3_store(stub.url), batch_captures=1) as made:
        made.service.submit(captures.large("big"))
        made.wait(lambda: "accepts nothing of this size" in made.error(), "it is told")
        small = [f"s-{i}" for i in range(10)]
        for capture_id in small:
            made.service.submit(captures.small(capture_id))
        made.wait_states(small)
        made.wait(lambda: stub.injected > 5, "it is offered again")
        assert made.service.status("big") is CaptureState.IN_PROGRESS
        stub.heal()
        made.wait_states(["big"])
    assert_all_stored(stub, [*small, "big"])


@pytest.mark.parametrize("fault", [s3_stub.continue_for_ever, s3_stub.Drip(0.05)], ids=["100 Continue", "drip"])
def test_an_answer_without_an_end(stub: S3Stub, tmp_path: Path, fault: Callable[..., bool]) -> None:
    """It has a time limit in all, is told at once, and holds nothing up for good."""
    stub.inject(fault, 2)
    with pipeline(tmp_path, s3_store(stub.url, answer_seconds=2 * SOON_SECONDS)) as made:
        ids = submit_some(made)
        made.wait(lambda: "does not end" in made.error(), "it is told")
        made.wait_states(ids)
        made.wait(lambda: made.error() == "", "the error is over")
    assert_all_stored(stub, ids)


def test_a_credentials_endpoint_without_an_end(stub: S3Stub, tmp_path: Path) -> None:
    iot = IotEndpoint(tmp_path, stub)
    iot.answers += [lambda handler: bool(s3_stub.Drip(0.05)(handler, b""))] * 200
    iot.start()
    settings = IotSettings(
        iot.credentials_url,
        str(iot.server_ca.file),
        str(iot.device.certificate_file),
        str(iot.device.key_file),
        THING,
        Patience(connect_seconds=2.0, stall_seconds=5.0, answer_seconds=SOON_SECONDS),
    )
    try:
        source = IotCredentials(settings, SystemClock())
        with pipeline(tmp_path / "a", s3_store(stub.url, credentials=source)) as made:
            ids = submit_some(made)
            made.wait(lambda: "credentials endpoint: its answer does not end" in made.error(), "it is told")
            with iot.lock:
                iot.answers.clear()
            made.wait_states(ids)
        assert_all_stored(stub, ids)
    finally:
        iot.close()


def test_an_access_key_that_the_store_repeats(stub: S3Stub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    access = "AKIAREPEATED0123"
    keys = EnvironmentCredentials({**ENVIRONMENT, "AWS_ACCESS_KEY_ID": access})
    stub.inject(refusing(403, "InvalidAccessKeyId", f"<Message>{access} does not exist</Message>"), 1_000_000)
    with pipeline(tmp_path, s3_store(stub.url, credentials=keys)) as made:
        made.service.submit(captures.small("one"))
        made.wait(lambda: "*** does not exist" in made.error(), "it is told")
    assert access not in caplog.text

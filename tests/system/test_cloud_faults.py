"""Each fault of the network and the store ends in all objects stored once."""

import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.capture.statuses import CaptureState
from edge.cloud.aws.credentials import EnvironmentCredentials
from edge.cloud.aws.trusted import TRUST_SECONDS
from edge.errors import SpoolFullError
from tests.fakes import captures, s3_stub
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import (
    ENVIRONMENT,
    SOON_SECONDS,
    SkewedClock,
    assert_all_stored,
    pipeline,
    s3_store,
    submit_some,
)
from tests.fakes.disk import FailingDisk
from tests.fakes.pki import DAY, Ca
from tests.fakes.s3_stub import S3Stub, refusing
from tests.fakes.web import server_context

HOURS = 3600.0


@pytest.fixture
def stub() -> Iterator[S3Stub]:
    made = S3Stub()
    made.start()
    yield made
    made.close()


def everything_arrives(stub: S3Stub, folder: Path, store: Any, **settings: Any) -> list[float]:
    """Capture, and wait until all is stored and the spool is empty; returns the waits of the uploader in seconds."""
    with pipeline(folder, store, **settings) as made:
        ids = submit_some(made)
        made.wait_states(ids)
        made.wait(lambda: not made.waiting_files(), "the spool is empty")
        made.wait(lambda: made.error() == "", "the error is over")
        made.wait(lambda: made.service.snapshot().pending == 0, "nothing is pending")
        snapshot = made.service.snapshot()
        assert (snapshot.pending_bytes, snapshot.failed) == (0, 0)
    assert_all_stored(stub, ids)
    return made.clock.waits


def test_no_fault(stub: S3Stub, tmp_path: Path) -> None:
    """[R-1] [R-5] Every object once, tensors before the record that names them."""
    everything_arrives(stub, tmp_path, s3_store(stub.url))
    assert set(stub.puts.values()) == {1}
    kinds = {key.rsplit(".", 1)[1]: stored.content_type for key, stored in stub.objects.items()}
    assert kinds == {"bin": "application/octet-stream", "jsonl": "application/jsonlines"}
    assert all(key.startswith("p/q/fleet-1/digits/") for key in stub.objects)


def test_plain_http_needs_no_proxy(stub: S3Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[R-14]"""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    everything_arrives(stub, tmp_path, s3_store(stub.url))


@pytest.mark.parametrize("times", [1, 7])
@pytest.mark.parametrize(
    "fault",
    [
        refusing(500, "InternalError"),
        refusing(503, "SlowDown", headers={"Retry-After": "7"}),
        refusing(429, "TooManyRequests"),
        refusing(400, "RequestTimeout"),
        s3_stub.reset,
        s3_stub.truncated_head,
        s3_stub.truncated_body,
        s3_stub.not_http,
        s3_stub.error_with_200,
        s3_stub.portal,
        s3_stub.refuse_mid_body,
        refusing(403, ""),
        refusing(404, "NoSuchBucket"),
        refusing(403, "SignatureDoesNotMatch"),
        refusing(403, "AccessDenied"),
    ],
    ids=[
        "500", "503", "429", "400 timeout", "reset", "truncated head", "truncated body", "not HTTP", "200 with an error",
        "portal", "refused mid-body", "403 without a code", "no bucket", "bad signature", "denied",
    ],
)  # fmt: skip
def test_fault_of_the_store(stub: S3Stub, tmp_path: Path, fault: Callable[..., bool], times: int) -> None:
    stub.inject(fault, times)
    everything_arrives(stub, tmp_path, s3_store(stub.url))
    assert stub.injected == times


def test_stall(stub: S3Stub, tmp_path: Path) -> None:
    stub.inject(s3_stub.stall, 2)
    everything_arrives(stub, tmp_path, s3_store(stub.url, stall_seconds=SOON_SECONDS))


def test_retry_after_is_waited_for(stub: S3Stub, tmp_path: Path) -> None:
    stub.inject(refusing(503, "SlowDown", headers={"Retry-After": "7"}))
    assert 7.0 in everything_arrives(stub, tmp_path, s3_store(stub.url))


def test_a_long_retry_after_is_waited_for_as_well(stub: S3Stub, tmp_path: Path) -> None:
    stub.inject(refusing(503, "SlowDown", headers={"Retry-After": "600"}))
    assert 600.0 in everything_arrives(stub, tmp_path, s3_store(stub.url))
    assert max(stub.puts.values()) == 2


@pytest.mark.parametrize("hours", [-3, 3])
def test_clock_off(stub: S3Stub, tmp_path: Path, hours: int) -> None:
    store = s3_store(stub.url, clock=SkewedClock(hours * HOURS))
    everything_arrives(stub, tmp_path, store)
    assert stub.refused["RequestTimeTooSkewed"] == 1  # learned once


def test_clock_that_is_set_later(stub: S3Stub, tmp_path: Path) -> None:
    clock = SkewedClock(-3 * HOURS)
    with pipeline(tmp_path, s3_store(stub.url, clock=clock)) as made:
        first = submit_some(made)
        made.wait_states(first)
        clock.offset = 0.0
        second = submit_some(made, start=100)
        made.wait_states(second)
    assert_all_stored(stub, first + second)
    assert stub.refused["RequestTimeTooSkewed"] == 1


def test_wrong_region_400(stub: S3Stub, tmp_path: Path) -> None:
    everything_arrives(stub, tmp_path, s3_store(stub.url, region="us-west-2"))
    assert stub.refused["AuthorizationHeaderMalformed"] == 1


@pytest.mark.parametrize(("status", "times"), [(301, 1), (301, 7), (307, 1), (307, 7)])
def test_redirects_are_not_followed(stub: S3Stub, tmp_path: Path, status: int, times: int) -> None:
    trap = S3Stub()
    trap.start()
    try:
        stub.inject(s3_stub.Redirect(status, trap), times)
        everything_arrives(stub, tmp_path, s3_store(stub.url))
        assert not trap.puts
    finally:
        trap.close()


def test_wrong_region_301(stub: S3Stub, tmp_path: Path) -> None:
    trap = S3Stub()
    stub.inject(s3_stub.Redirect(301, trap, {"x-amz-bucket-region": stub.region}))
    everything_arrives(stub, tmp_path, s3_store(stub.url, region="us-west-2"))
    assert stub.refused == {}  # the region was learned from the redirect
    assert max(stub.puts.values()) == 2


def test_refusal_in_the_middle_of_a_large_body(stub: S3Stub, tmp_path: Path) -> None:
    """The words of the refusal are seen, not the broken pipe."""
    stub.inject(s3_stub.refuse_mid_body, 5, match="raw-data")
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        made.service.submit(captures.large("big", size=8_000_000))
        made.wait_states(["big"])
    assert_all_stored(stub, ["big"])


def test_an_interim_answer_that_nobody_asked_for(stub: S3Stub, tmp_path: Path) -> None:
    stub.inject(s3_stub.continue_first, 2)
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        made.service.submit(captures.large("big", size=8_000_000))
        made.wait_states(["big"])
    assert_all_stored(stub, ["big"])
    assert max(stub.puts.values()) == 1


def test_nobody_listens_for_a_while(tmp_path: Path) -> None:
    stub = S3Stub()
    stub.start()
    stub.close()
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        ids = submit_some(made)
        made.wait(lambda: "cannot be reached" in made.error(), "the error is told")
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)
        assert made.service.snapshot().oldest_pending_unix_seconds > 0
        stub.start()
        try:
            made.wait_states(ids)
            made.wait(lambda: made.error() == "", "the error is over")
        finally:
            made.service.stop(5)
            stub.close()
    assert_all_stored(stub, ids)


def test_names_cannot_be_resolved(stub: S3Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failing = socket.getaddrinfo, [True]

    def getaddrinfo(host: str, *rest: Any, **options: Any) -> Any:
        if failing[0]:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    store = s3_store(stub.url)
    with pipeline(tmp_path, store) as made:
        ids = submit_some(made)
        made.wait(lambda: "Temporary failure in name resolution" in made.error(), "the error is told")
        failing[0] = False
        made.wait_states(ids)
    assert_all_stored(stub, ids)


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    with pipeline(tmp_path, s3_store("http://no-such-host.invalid:9000")) as made:
        ids = submit_some(made)
        made.wait(lambda: "name cannot be resolved" in made.error(), "the error is told")
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)


# --- TLS ---------------------------------------------------------------------


def tls_stub(folder: Path, **server: Any) -> tuple[S3Stub, Ca]:
    ca = Ca(folder, "s3-ca")
    identity = ca.issue("s3-server", **{"host": "localhost", **server})
    return S3Stub(tls=server_context(identity.certificate_file, identity.key_file)), ca


@pytest.mark.parametrize(
    "fault",
    [None, s3_stub.reset, s3_stub.stall, s3_stub.truncated_head, s3_stub.truncated_body, s3_stub.refuse_mid_body],
)
def test_tls(tmp_path: Path, fault: Callable[..., bool] | None) -> None:
    stub, ca = tls_stub(tmp_path)
    stub.start()
    if fault is not None:
        stub.inject(fault, 2)
    try:
        everything_arrives(stub, tmp_path / "a", s3_store(stub.url, ca_file=ca.file, stall_seconds=SOON_SECONDS))
    finally:
        stub.close()


def test_certificate_not_yet_valid(tmp_path: Path) -> None:
    """As a board sees it whose clock is behind: it waits for the clock, and loses nothing."""
    stub, ca = tls_stub(tmp_path, starts_in=DAY)
    stub.start()
    try:
        with pipeline(tmp_path / "a", s3_store(stub.url, ca_file=ca.file)) as made:
            ids = submit_some(made)
            made.wait(lambda: "not valid yet" in made.error(), "the error is told")
            assert not stub.puts
            stub.close()
            again = ca.issue("s3-server", host="localhost", file="again")
            stub._tls = server_context(again.certificate_file, again.key_file)
            stub.start()
            made.wait_states(ids)
        assert_all_stored(stub, ids)
    finally:
        stub.close()


@pytest.mark.parametrize(
    ("server", "trusted", "words"),
    [
        ({}, False, "does not lead to a trusted CA"),
        ({"host": "elsewhere.example"}, True, "for another host name"),
        ({"host": "10.0.0.1"}, True, "for another host name"),
        ({"starts_in": -60 * DAY}, True, "has expired"),
    ],
    ids=["wrong CA", "another name", "an address", "expired"],
)
def test_servers_that_are_not_trusted(tmp_path: Path, server: dict[str, Any], trusted: bool, words: str) -> None:
    """Refused with a clear reason; the captures wait."""
    stub, ca = tls_stub(tmp_path, **server)
    stub.start()
    try:
        with pipeline(tmp_path / "a", s3_store(stub.url, ca_file=ca.file if trusted else "")) as made:
            ids = submit_some(made)
            made.wait(lambda: words in made.error(), "the error is told")
            assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)
            assert made.service.snapshot().pending == len(ids)
        assert not stub.puts
    finally:
        stub.close()


def test_a_ca_that_is_added_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL_CERT_FILE gets the new root of the site: trusted at the next try, a few minutes later at most."""
    stub, ca = tls_stub(tmp_path)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(Ca(tmp_path, "old-root").file.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    stub.start()
    try:
        with pipeline(tmp_path / "a", s3_store(stub.url)) as made:
            ids = submit_some(made)
            made.wait(lambda: "does not lead to a trusted CA" in made.error(), "the error is told")
            bundle.write_bytes(bundle.read_bytes() + ca.file.read_bytes())
            made.wait_states(ids)
            assert max(made.clock.waits) <= 300
        assert_all_stored(stub, ids)
    finally:
        stub.close()


def test_a_ca_that_is_taken_away_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not trusted for longer than some minutes, though nothing fails meanwhile and the connection is kept."""
    stub, ca = tls_stub(tmp_path)
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(ca.file.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    clock = FakeClock()
    stub.start()
    try:
        with pipeline(tmp_path / "a", s3_store(stub.url, clock=clock)) as made:
            made.wait_states(submit_some(made))
            bundle.write_bytes(Ca(tmp_path, "new-root").file.read_bytes())
            made.wait_states(submit_some(made, start=10))
            clock.advance(TRUST_SECONDS + 1)
            ids = submit_some(made, start=20)
            made.wait(lambda: "does not lead to a trusted CA" in made.error(), "the error is told")
            assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)
    finally:
        stub.close()


# --- keys --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (
            {**ENVIRONMENT, "AWS_SECRET_ACCESS_KEY": "wrong-secret-0123456789"},
            "the secret key does not match the access key",
        ),
        ({**ENVIRONMENT, "AWS_ACCESS_KEY_ID": "AKIAUNKNOWN"}, "the access key is not known"),
        ({**ENVIRONMENT, "AWS_SESSION_TOKEN": "stale-token-0123456789"}, "the session token is not accepted"),
        ({"AWS_ACCESS_KEY_ID": "AKIA"}, "set sagemaker_edge_provider_aws_*, or AWS_SECRET_ACCESS_KEY"),
    ],
    ids=["wrong secret", "unknown key", "wrong token", "no secret"],
)
def test_keys_that_are_not_accepted(
    stub: S3Stub, tmp_path: Path, environment: dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused with a clear reason; the captures wait, however often it is tried; and no secret is told."""
    caplog.set_level("DEBUG")
    with pipeline(tmp_path, s3_store(stub.url, credentials=EnvironmentCredentials(environment))) as made:
        ids = submit_some(made)
        made.wait(lambda: words in made.error(), "the error is told")
        made.wait(lambda: len(made.clock.waits) > 30, "it was tried many times")
        assert all(made.service.status(i) is CaptureState.IN_PROGRESS for i in ids)
        told = made.error()
    assert not stub.objects
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        if name in environment:
            assert environment[name] not in caplog.text + told


# --- the disk ----------------------------------------------------------------


def test_disk_full_while_batches_leave(stub: S3Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that is stored and cannot leave the spool yet leaves it later, and is not sent twice for it."""
    disk = FailingDisk(monkeypatch)
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        stub.delay.clear()
        ids = submit_some(made)
        made.wait(stub.arrived.is_set, "an object is on its way")
        disk.fail("rename", errno.ENOSPC, word="sealed", times=3)
        stub.delay.set()
        made.wait_states(ids)
        made.wait(lambda: not made.waiting_files(), "the spool is empty")
    assert disk.failures
    assert_all_stored(stub, ids)


def test_disk_full_while_captures_come(stub: S3Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was accepted before arrives, what comes afterwards is refused until there is room."""
    disk = FailingDisk(monkeypatch)
    with pipeline(tmp_path, s3_store(stub.url)) as made:
        ids = submit_some(made)
        disk.fail("write", errno.ENOSPC, word="open")
        with pytest.raises(SpoolFullError):
            submit_some(made, 1, start=50)
        made.wait_states(ids)
        disk.heal()
        ids += submit_some(made, 3, start=60)
        made.wait_states(ids)
    assert_all_stored(stub, ids)
